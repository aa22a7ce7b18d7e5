"""`qsde price` and `qsde implied-vol`: a quick number, or a whole request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsde.cli import options as o
from qsde.cli.request import price_request
from qsde.cli.show import number, progress, table
from qsde.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from qsde.calibration.fit import Fit
    from qsde.models import Model
    from qsde.spec import Contract

#: A larger --vol is taken for percent.
_HIGHEST_VOL = 10.0

RequestFile = Annotated[
    Path | None,
    typer.Argument(metavar="REQUEST", help="JSON file with model, market, payoffs and engine, instead of options."),
]
Strikes = Annotated[list[float] | None, typer.Option("--strike", "-k", help="Strike. Repeatable.")]
Expiry = Annotated[str, typer.Option(help="Years (0.5), or a date (2026-12-18), taken as 16:00 in New York.")]
SpotPrice = Annotated[float | None, typer.Option("--spot", help="Price of the underlying.")]
ForwardPrice = Annotated[float | None, typer.Option("--forward", help="Forward price, instead of the spot.")]
MaybeExpiry = Annotated[
    str | None, typer.Option("--expiry", help="Years (0.5), or a date (2026-12-18), taken as 16:00 in New York.")
]
ModelName = Annotated[str | None, typer.Option("--model", "-m", help="Model name; with --fit, which of its fits.")]
Parameters = Annotated[
    list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="Parameter. Repeatable.")
]
FitFile = Annotated[
    Path | None, typer.Option("--fit", help="Take model, forwards and rates from `qsde calibrate --out`.")
]
Put = Annotated[bool, typer.Option("--put/--call", help="Puts or calls.")]
Now = Annotated[str | None, typer.Option("--now", help="Present where the expiry is a date, ISO with zone.")]


def price(
    request: RequestFile = None,
    strike: Strikes = None,
    expiry: MaybeExpiry = None,
    model: ModelName = None,
    param: Parameters = None,
    fit: FitFile = None,
    spot: SpotPrice = None,
    forward: ForwardPrice = None,
    rate: o.Rate = None,
    dividend_yield: o.DividendYield = None,
    put: Put = False,
    now: Now = None,
    out: Annotated[Path | None, typer.Option(help="Write the answer to REQUEST to this JSON file.")] = None,
) -> None:
    """Price European options with a model given by its parameters or by a fit, or any payoffs by a REQUEST file.

    [bold]Example:[/bold] qsde price data/requests/exotics.json --out result.json

    qsde price --model heston -p v0=0.04 -p kappa=1.5 -p theta=0.05 -p sigma=0.4 -p rho=-0.7
    --strike 100 --strike 110 --expiry 0.5 --spot 100 --rate 0.03
    """
    if request is not None:
        options = {"--strike": strike, "--expiry": expiry, "--model": model, "--param": param, "--fit": fit,
                   "--spot": spot, "--forward": forward, "--rate": rate, "--dividend-yield": dividend_yield,
                   "--put": put or None, "--now": now}  # fmt: skip
        refuse_options(request, options)
        price_request(request, out)
        return
    if out is not None:
        raise InputError("--out goes with a request file: qsde price request.json --out result.json")
    if not strike or expiry is None:
        raise InputError("give --strike and --expiry, or a request file: qsde price request.json")
    fitted, priced = model_of(model, param, fit)
    contract = contract_of(strike, expiry, put, now, spot, forward, rate, dividend_yield, fitted)
    value, error, vols = _exact(priced, contract) if priced.has_cf else _simulated(priced, contract)
    rows = [
        [number(k, ",.10g"), number(v, ".10g"), number(100 * vol, ".6f") if vol > 0 else "-", number(e, ".1g")]
        for k, v, vol, e in zip(*(x.tolist() for x in (contract.strike, value, vols, error)), strict=True)
    ]
    _market_line(priced.name, contract)
    kind = "numerical error of the price" if priced.has_cf else "std. error of the price"
    table("", ["strike", "price", "implied vol, %", kind], rows, text_columns=0)


def _exact(model: Model, c: Contract) -> tuple[Tensor, Tensor, Tensor]:
    """Prices, their errors, and implied vols."""
    from qsde.pricing.fourier import model_vols, price_european

    result = price_european(model, c.strike, c.t, c.forward, c.discount_factor, c.is_call)
    return result.value, result.error, model_vols(model, c.t, c.strike, c.forward)


def _simulated(model: Model, c: Contract) -> tuple[Tensor, Tensor, Tensor]:
    """The same for a model without Fourier prices; errors are standard errors."""
    import torch

    from qsde.market.implied_vol import implied_vol as invert
    from qsde.market.underlying import Market
    from qsde.payoffs import European
    from qsde.pricing.montecarlo import MonteCarlo
    from qsde.pricing.montecarlo import price as simulate

    kind = "call" if c.is_call else "put"
    book = [European(k, c.t, kind) for k in c.strike.tolist()]  # type: ignore[arg-type]
    with torch.no_grad(), progress("simulating") as tell:
        found = simulate(model, book, Market(c.forward), MonteCarlo(n_paths=1 << 17, max_dt=1 / 128), tell)
    vols = invert(found.value, c.forward, c.strike, c.t, is_call=c.is_call).vol
    return found.value * c.discount_factor, found.std_error * c.discount_factor, vols


def implied_vol(
    strike: Annotated[float, typer.Option("--strike", "-k", help="Strike.")],
    expiry: Expiry,
    price: Annotated[float | None, typer.Option(help="Price, discounted: prints the volatility.")] = None,
    vol: Annotated[float | None, typer.Option(help="Volatility, decimal (0.2): prints the price.")] = None,
    spot: SpotPrice = None,
    forward: ForwardPrice = None,
    rate: o.Rate = None,
    dividend_yield: o.DividendYield = None,
    put: Put = False,
    now: Now = None,
) -> None:
    """Turn a price into an implied volatility (Black-Scholes), or a volatility into a price.

    [bold]Example:[/bold] qsde implied-vol --price 10.45 --strike 100 --expiry 1 --spot 100 --rate 0.05
    """
    if (price is None) == (vol is None):
        raise InputError("give either --price, for the volatility, or --vol, for the price")
    contract = contract_of([strike], expiry, put, now, spot, forward, rate, dividend_yield, None)
    answer = _vol_of(price, contract) if price is not None else _price_of(vol, contract)
    _market_line("Black-Scholes", contract)
    table("", ["strike", "price", "implied vol, %"], [[number(strike, ",.10g"), *answer]], text_columns=0)


def _vol_of(price: float, c: Contract) -> list[str]:
    from qsde.errors import VolStatus
    from qsde.market.implied_vol import implied_vol

    found = implied_vol(price, c.forward, c.strike, c.t, c.discount_factor, c.is_call)
    status = VolStatus(int(found.status))
    if status is not VolStatus.OK:
        raise InputError(f"no implied volatility for price {price:g}: {status.message}")
    return [number(price, ".10g"), number(100 * float(found.vol), ".8f")]


def _price_of(vol: float | None, c: Contract) -> list[str]:
    from qsde.market.black import black_price

    if vol is None or not 0 < vol <= _HIGHEST_VOL:
        raise InputError(f"--vol is {vol}: volatilities are positive annualised decimals: 0.2, not 20")
    value = black_price(c.forward, c.strike, c.t, vol, c.discount_factor, c.is_call)
    return [number(float(value), ".10g"), number(100 * vol, ".8f")]


def refuse_options(request: Path, options: dict[str, Any]) -> None:
    """Raises InputError if an option is given beside a request file."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise InputError(f"{request} says what to price, so leave out {', '.join(given)}")


def model_of(name: str | None, param: list[str] | None, path: Path | None) -> tuple[Fit | None, Model]:
    """The model of the options, and its fit where it comes from one.

    Raises:
        InputError: both or neither are given, or the parameters make no model.
    """
    from qsde.spec import model_from

    if path is not None:
        if param:
            raise InputError("give --fit or --param, not both")
        fitted = _chosen_fit(path, name)
        return fitted, fitted.model
    if name is None:
        raise InputError("give a model: --model heston --param v0=0.04 ..., or --fit fit.json")
    return None, model_from(name, o.numbers(param, "--param"))


def _chosen_fit(path: Path, name: str | None) -> Fit:
    from qsde.io.fits import read_fits
    from qsde.spec import choose_fit

    return choose_fit(read_fits(path), name, str(path), "--model")


def contract_of(
    strikes: list[float], expiry: str, put: bool, now: str | None, spot: float | None, forward: float | None,
    rate: str | None, dividend_yield: str | None, fitted: Fit | None,
) -> Contract:  # fmt: skip
    """The European options of the options.

    Raises:
        InputError: they make no contract.
    """
    from qsde.spec import ContractSpec, checked

    values: dict[str, Any] = {
        "strikes": strikes, "expiry": _years_or_date(expiry), "put": put, "valuation_time": now, "spot": spot,
        "forward": forward, "rate": o.rate(rate, "--rate"),
        "dividend_yield": o.rate(dividend_yield, "--dividend-yield"),
    }  # fmt: skip
    spec: ContractSpec = checked(ContractSpec, values)
    return spec.build(fitted.surface if fitted is not None else None)


def _years_or_date(text: str) -> float | str:
    from datetime import date

    try:
        return float(text)
    except ValueError:
        pass
    try:
        return date.fromisoformat(text)  # type: ignore[return-value]
    except ValueError:
        raise InputError(f"--expiry {text!r}: give years (0.5) or a date (2026-12-18)") from None


def _market_line(name: str, c: Contract) -> None:
    from qsde.cli.show import line

    side = "call" if c.is_call else "put"
    line(f"{name} European {side}, {c.t:.6g} years, forward {c.forward:.8g}, discount factor {c.discount_factor:.8g}")
