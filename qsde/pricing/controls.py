"""Control variates: quantities on the same paths whose mean is known, chosen by the payoff."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from qsde.errors import NumericsError
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.payoffs import Asian, AverageStrike, Barrier, DoubleBarrier, European, Payoff, Terminal
from qsde.pricing.exact import price_exact
from qsde.pricing.fourier import Fourier

#: A payoff on the same dates and its exact present value [*batch], or None.
Companion = tuple[Terminal, Tensor] | None


def companion(model: Model, market: Market, payoff: Payoff) -> Companion:
    """A payoff like this one with an exact price: what its simulated value misses tells what this one misses.

    Arithmetic averages: the geometric average (Kemna and Vorst 1990). Barriers: the vanilla. None where the table has
    nothing, the model no characteristic function, or cash dividends stand between average and closed form.

    Args:
        model: the model.
        market: the market.
        payoff: the payoff.

    Example:
        >>> from qsde.models import BlackScholes
        >>> found = companion(BlackScholes(0.2), Market(100.0), Asian(100.0, fixings=(0.5, 1.0)))
        >>> found[0].average, round(float(found[1]), 4)
        ('geometric', 6.1693)
    """
    return companions(model, market, [payoff])[0]


def companions(model: Model, market: Market, book: Sequence[Payoff]) -> list[Companion]:
    """The companion of each payoff; those with the same vanilla share its price."""
    vanillas: dict[European, Companion] = {}
    found: list[Companion] = []
    for payoff in book:
        like = _LIKES[type(payoff)](payoff, market) if type(payoff) in _LIKES and model.has_cf else None
        if not isinstance(like, European):
            found.append(_priced(model, market, like))
            continue
        if like not in vanillas:
            vanillas[like] = _priced(model, market, like)
        found.append(vanillas[like])
    return found


def _priced(model: Model, market: Market, like: Terminal | None) -> Companion:
    if like is None:
        return None
    try:
        return like, price_exact(model, [like], market, Fourier())[0].value
    except NumericsError:  # a corner of the parameters where the integral fails: one control less
        return None


def _geometric(payoff: Any, market: Market) -> Terminal | None:
    known: Terminal = replace(payoff, average="geometric")
    return None if payoff.average == "geometric" or market.has_cash else known


def _vanilla(payoff: Any, market: Market) -> Terminal:
    return European(payoff.strike, payoff.maturity, payoff.kind)


#: What resembles a payoff and has a formula.
_LIKES: dict[type[Payoff], Callable[[Any, Market], Terminal | None]] = {
    Asian: _geometric,
    AverageStrike: _geometric,
    Barrier: _vanilla,
    DoubleBarrier: _vanilla,
}
