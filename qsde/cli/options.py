"""Options that several commands share, in groups, and the parsers of `NAME=VALUE` texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsde.errors import InputError

if TYPE_CHECKING:
    from qsde.spec import CalibrationSpec, MarketSpec, ReadingSpec

READING, MARKET, SELECTING, FITTING = "Reading the file", "Market", "Selecting quotes", "Fitting"

ChainFile = Annotated[Path, typer.Argument(metavar="FILE", help="Option chain: CSV, Parquet or JSON.")]
RATE_HELP = "Continuous rate, decimal: 0.045, or zero rates by years: 0.5=0.047,2=0.044. Default: "
Rate = Annotated[
    str | None,
    typer.Option("--rate", metavar="R", rich_help_panel=MARKET, help=f"{RATE_HELP}implied by put-call parity."),
]
DividendYield = Annotated[
    str | None,
    typer.Option("--dividend-yield", metavar="Q", rich_help_panel=MARKET, help="As --rate, for the dividend yield."),
]
Weights = Annotated[str, typer.Option(help="spread or equal.", rich_help_panel=FITTING)]
MaxIterations = Annotated[int | None, typer.Option(help="Iteration limit.", rich_help_panel=FITTING)]


@dataclass(frozen=True)
class Reading:
    """How to read the file."""

    column_map: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="OURS=THEIRS", help="Column of the file to take, e.g. strike=K. Repeatable.",
                     rich_help_panel=READING),
    ] = None  # fmt: skip
    timezone: Annotated[
        str | None, typer.Option(help="Zone of times without one, e.g. America/New_York.", rich_help_panel=READING)
    ] = None
    quote_time: Annotated[
        str | None, typer.Option(help="Time of the quotes if the file has none, ISO.", rich_help_panel=READING)
    ] = None
    underlying: Annotated[str | None, typer.Option(help="Name if the file has none.", rich_help_panel=READING)] = None
    spot: Annotated[float | None, typer.Option(help="Spot price if the file has none.", rich_help_panel=READING)] = None
    vendor: Annotated[
        str | None, typer.Option(help="Format, if not recognised by its columns.", rich_help_panel=READING)
    ] = None
    max_bytes: Annotated[int | None, typer.Option(help="Largest file to read, bytes.", rich_help_panel=READING)] = None

    def spec(self) -> ReadingSpec:
        """The spec of these options."""
        from qsde.spec import ReadingSpec, checked

        spec: ReadingSpec = checked(
            ReadingSpec, {**vars(self), "column_map": assignments(self.column_map, "--map") or None}
        )
        return spec


@dataclass(frozen=True)
class Selection:
    """The market, and which quotes to use."""

    rate: Rate = None
    dividend_yield: DividendYield = None
    treasury: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="CSV of US Treasury par yields, instead of --rate.", rich_help_panel=MARKET),
    ] = None
    min_days: Annotated[
        float, typer.Option(help="Leave out expiries nearer than this, days.", rich_help_panel=SELECTING)
    ] = 0.0
    max_days: Annotated[
        float | None, typer.Option(help="Leave out expiries farther than this, days.", rich_help_panel=SELECTING)
    ] = None
    max_deviations: Annotated[
        float | None,
        typer.Option(metavar="N", rich_help_panel=SELECTING,
                     help="Leave out strikes over N at-the-money standard deviations from the forward, e.g. 6."),
    ] = None  # fmt: skip
    early_exercise: Annotated[
        bool,
        typer.Option("--early-exercise/--as-european", rich_help_panel=SELECTING,
                     help="American quotes: remove the premium of early exercise, or take them as European."),
    ] = True  # fmt: skip
    fold: Annotated[
        bool, typer.Option("--fold", help="Narrow quotes by the other option of a strike.", rich_help_panel=SELECTING)
    ] = False

    def spec(self) -> MarketSpec:
        """The spec of these options."""
        from qsde.spec import MarketSpec, checked

        rates = {"rate": rate(self.rate, "--rate"), "dividend_yield": rate(self.dividend_yield, "--dividend-yield")}
        spec: MarketSpec = checked(MarketSpec, {**vars(self), **rates})
        return spec


@dataclass(frozen=True)
class Fitting:
    """How to fit."""

    weights: Weights = "spread"
    objective: Annotated[str, typer.Option(help="implied_vol or price (over vega).", rich_help_panel=FITTING)] = (
        "implied_vol"
    )
    starts: Annotated[int | None, typer.Option(help="Number of starting points.", rich_help_panel=FITTING)] = None
    fix: Annotated[
        list[str] | None,
        typer.Option("--fix", metavar="NAME=VALUE", help="Hold a parameter. Repeatable.", rich_help_panel=FITTING),
    ] = None
    bound: Annotated[
        list[str] | None,
        typer.Option("--bound", metavar="NAME=LOW,HIGH", help="Bounds of a parameter. Repeatable.",
                     rich_help_panel=FITTING),
    ] = None  # fmt: skip
    prior: Annotated[
        list[str] | None,
        typer.Option("--prior", metavar="NAME=MEAN,STD", help="Belief about a parameter. Repeatable.",
                     rich_help_panel=FITTING),
    ] = None  # fmt: skip
    feller: Annotated[
        bool, typer.Option("--feller", help="Penalise 2 kappa theta < sigma^2.", rich_help_panel=FITTING)
    ] = False
    seed: Annotated[int, typer.Option(help="Seed of the random starts.", rich_help_panel=FITTING)] = 0
    max_iterations: MaxIterations = None

    def spec(self, model: str, **simulated: Any) -> CalibrationSpec:
        """The spec of these options for a model."""
        from qsde.spec import FELLER_STRENGTH, CalibrationSpec, checked

        same = {name: getattr(self, name) for name in ("weights", "objective", "starts", "seed", "max_iterations")}
        beliefs = {k: {"mean": mean, "std": std} for k, (mean, std) in pairs(self.prior, "--prior").items()}
        values = {"model": model, "fixed": numbers(self.fix, "--fix"), "bounds": pairs(self.bound, "--bound"),
                  "prior": beliefs, "feller": FELLER_STRENGTH if self.feller else None}  # fmt: skip
        spec: CalibrationSpec = checked(CalibrationSpec, {**values, **same, **simulated})
        return spec


@dataclass(frozen=True)
class Simulating:
    """How models are fitted that only a simulation can fit."""

    backbone: Annotated[
        str | None,
        typer.Option(help="Variance of lsv and neural_lsv: heston or bates.", rich_help_panel=FITTING),
    ] = None
    paths: Annotated[
        int | None, typer.Option(help="Paths that lsv and networks are fitted on.", rich_help_panel=FITTING)
    ] = None
    max_dt: Annotated[float | None, typer.Option(help="Their longest step, years.", rich_help_panel=FITTING)] = None

    def by_model(self, models: list[str]) -> dict[str, dict[str, Any]]:
        """By model, the options that it takes.

        Raises:
            InputError: an option that none of the models takes.
        """
        from qsde.spec import LEVERAGED, SIMULATED
        from qsde.spec.models import canonical_name

        given = {name: value for name, value in vars(self).items() if value is not None}
        names = {model: canonical_name(model, LEVERAGED) for model in models}
        for name in given:
            if not set(SIMULATED[name]).intersection(names.values()):
                option = name.replace("_", "-")
                raise InputError(f"--{option} is for {', '.join(SIMULATED[name])}, not for {', '.join(models)}")
        return {
            model: {name: value for name, value in given.items() if own in SIMULATED[name]}
            for model, own in names.items()
        }


def assignments(texts: list[str] | None, option: str) -> dict[str, str]:
    """`["kappa=2", ...]` as a mapping.

    Raises:
        InputError: a text has no `=`, an empty side, or a name occurs twice.

    Example:
        >>> assignments(["kappa=2"], "--fix")
        {'kappa': '2'}
    """
    found: dict[str, str] = {}
    for text in texts or []:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise InputError(f"{option} {text!r}: write NAME=VALUE, such as {_EXAMPLES.get(option, 'kappa=2')}")
        if name in found:
            raise InputError(f"{option}: {name} is given twice")
        found[name] = value
    return found


_EXAMPLES = {"--map": "strike=K", "--bound": "kappa=0.1,10", "--prior": "kappa=2,0.5", "--param": "v0=0.04"}


def numbers(texts: list[str] | None, option: str) -> dict[str, float]:
    """`["kappa=2", ...]` as a mapping to floats."""
    return {name: _float(value, f"{option} {name}") for name, value in assignments(texts, option).items()}


def pairs(texts: list[str] | None, option: str) -> dict[str, tuple[float, float]]:
    """`["kappa=0.1,10", ...]` as a mapping to two floats."""
    found = {}
    for name, value in assignments(texts, option).items():
        parts = value.split(",")
        if len(parts) != 2:
            raise InputError(f"{option} {name}={value}: write two numbers, such as {_EXAMPLES[option]}")
        found[name] = (_float(parts[0], f"{option} {name}"), _float(parts[1], f"{option} {name}"))
    return found


def rate(text: str | None, option: str) -> float | dict[float, float] | None:
    """`0.045` as a number, `0.5=0.047,2=0.044` as pillars.

    Example:
        >>> rate("0.5=0.047,2=0.044", "--rate")
        {0.5: 0.047, 2.0: 0.044}
    """
    if text is None:
        return None
    if "=" not in text:
        return _float(text, option)
    return {_float(k, option): v for k, v in numbers(text.split(","), option).items()}


def _float(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        percent = text.strip().endswith("%")
        hint = "; write a decimal: 0.05, not 5%" if percent else ""
        raise InputError(f"{option}: {text.strip()!r} is not a number{hint}") from None
