"""European options and their model by options: what `qsde price`, `greeks` and `implied-vol` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsde.cli import options as o
from qsde.cli.guard import warn
from qsde.cli.show import line
from qsde.errors import InputError

if TYPE_CHECKING:
    from datetime import date

    from qsde.calibration.fit import Fit
    from qsde.models import Model
    from qsde.spec import Contract

RequestFile = Annotated[
    Path | None,
    typer.Argument(metavar="REQUEST", help="JSON file with model, market, payoffs and engine, instead of options."),
]
EXPIRY_HELP = "Years (0.5), or a date (2026-12-18), taken as 16:00 in New York."
Rate = Annotated[
    str | None,
    typer.Option("--rate", metavar="R", rich_help_panel=o.MARKET, help=f"{o.RATE_HELP}that of a fit, else 0."),
]
SpotPrice = Annotated[float | None, typer.Option("--spot", help="Price of the underlying.")]
ForwardPrice = Annotated[float | None, typer.Option("--forward", help="Forward price, instead of the spot.")]
Put = Annotated[bool, typer.Option("--put/--call", help="Puts or calls.")]
Now = Annotated[str | None, typer.Option("--now", help="Present where the expiry is a date, ISO with zone.")]


@dataclass(frozen=True)
class Contracts:
    """Calls or puts of one expiry under a model given by its parameters or by a fit."""

    strike: Annotated[list[float] | None, typer.Option("--strike", "-k", help="Strike. Repeatable.")] = None
    expiry: Annotated[str | None, typer.Option("--expiry", help=EXPIRY_HELP)] = None
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model name; with --fit, which of its fits.")] = (
        None
    )
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="Parameter. Repeatable.")
    ] = None
    fit: Annotated[
        Path | None, typer.Option("--fit", help="Take model, forwards and rates from `qsde calibrate --out`.")
    ] = None
    spot: SpotPrice = None
    rate: Rate = None
    dividend_yield: o.DividendYield = None
    put: Put = False
    now: Now = None

    def refuse(self, request: Path, **others: object) -> None:
        """Raises InputError if an option is given beside a request file."""
        options = {**vars(self), "put": self.put or None, **others}
        given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
        if given:
            raise InputError(f"{request} says what to price, so leave out {', '.join(given)}")

    def require(self, command: str) -> None:
        """Raises InputError unless there are strikes and an expiry."""
        if not self.strike or self.expiry is None:
            raise InputError(f"give --strike and --expiry, or a request file: qsde {command} request.json")

    def priced(self) -> tuple[Fit | None, Model]:
        """The model, and its fit where it comes from one.

        Raises:
            InputError: both or neither are given, or the parameters make no model.
        """
        from qsde.spec import model_from

        if self.fit is not None:
            if self.param:
                raise InputError("give --fit or --param, not both")
            fitted = _chosen_fit(self.fit, self.model)
            return fitted, fitted.model
        if self.model is None:
            raise InputError("give a model: --model heston --param v0=0.04 ..., or --fit fit.json")
        return None, model_from(self.model, o.numbers(self.param, "--param"))

    def contract(self, fitted: Fit | None = None, forward: float | None = None) -> Contract:
        """The options; what is left open comes from the quotes of the fit.

        Raises:
            InputError: they make no contract.
        """
        from qsde.spec import ContractSpec, checked

        assert self.expiry is not None, "require comes first"
        values: dict[str, Any] = {
            "strikes": self.strike, "expiry": _years_or_date(self.expiry), "put": self.put, "valuation_time": self.now,
            "spot": self.spot, "forward": forward, "rate": o.rate(self.rate, "--rate"),
            "dividend_yield": o.rate(self.dividend_yield, "--dividend-yield"),
        }  # fmt: skip
        spec: ContractSpec = checked(ContractSpec, values)
        if fitted is None:
            return spec.build()
        made, last = spec.build(fitted.surface), float(fitted.surface.slices["t"].max())
        if made.t > last:
            warn(
                f"{made.t:.4g} years lie beyond the last expiry of the fit's quotes, {last:.4g} years: forward, rate "
                "and model are carried on"
            )
        return made


def market_line(name: str, c: Contract) -> None:
    """One line on the options and their forward."""
    side = "call" if c.is_call else "put"
    line(f"{name} European {side}, {c.t:.6g} years, forward {c.forward:.8g}, discount factor {c.discount_factor:.8g}")


def _chosen_fit(path: Path, name: str | None) -> Fit:
    from qsde.io.fits import read_fits
    from qsde.spec import choose_fit

    return choose_fit(read_fits(path), name, str(path), "--model")


def _years_or_date(text: str) -> float | date:
    from datetime import date

    try:
        return float(text)
    except ValueError:
        pass
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"--expiry {text!r}: give years (0.5) or a date (2026-12-18)") from None
