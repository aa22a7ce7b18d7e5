"""`qsde implied-vol`: a price as a volatility, a volatility as a price."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qsde.cli import options as o
from qsde.cli.contracts import EXPIRY_HELP, Contracts, ForwardPrice, Now, Put, Rate, SpotPrice, market_line
from qsde.cli.show import number, table
from qsde.errors import InputError

if TYPE_CHECKING:
    from qsde.spec import Contract

#: A larger --vol is taken for percent.
_HIGHEST_VOL = 10.0


def implied_vol(
    strike: Annotated[float, typer.Option("--strike", "-k", help="Strike.")],
    expiry: Annotated[str, typer.Option(help=EXPIRY_HELP)],
    price: Annotated[float | None, typer.Option(help="Price, discounted: prints the volatility.")] = None,
    vol: Annotated[float | None, typer.Option(help="Volatility, decimal (0.2): prints the price.")] = None,
    spot: SpotPrice = None,
    forward: ForwardPrice = None,
    rate: Rate = None,
    dividend_yield: o.DividendYield = None,
    put: Put = False,
    now: Now = None,
) -> None:
    """Turn a price into an implied volatility (Black-Scholes), or a volatility into a price.

    [bold]Example:[/bold] qsde implied-vol --price 10.45 --strike 100 --expiry 1 --spot 100 --rate 0.05
    """
    if (price is None) == (vol is None):
        raise InputError("give either --price, for the volatility, or --vol, for the price")
    contract = Contracts(
        strike=[strike], expiry=expiry, spot=spot, rate=rate, dividend_yield=dividend_yield, put=put, now=now
    ).contract(forward=forward)
    answer = _vol_of(price, contract) if price is not None else _price_of(vol, contract)
    market_line("Black-Scholes", contract)
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
