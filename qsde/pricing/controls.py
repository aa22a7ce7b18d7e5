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
    """The companion of each payoff; vanillas are priced together, those that are equal once."""
    likes = [_LIKES[type(p)](p, market) if type(p) in _LIKES and model.has_cf else None for p in book]
    vanillas = list(dict.fromkeys(like for like in likes if isinstance(like, European)))
    priced = dict(zip(vanillas, _priced(model, market, vanillas), strict=True))
    return [
        priced[like] if isinstance(like, European) else None if like is None else _priced(model, market, [like])[0]
        for like in likes
    ]


def _priced(model: Model, market: Market, likes: Sequence[Terminal]) -> list[Companion]:
    try:
        prices = price_exact(model, likes, market, Fourier())
    except NumericsError:  # a corner of the parameters where the integral fails: one control less
        return [None] if len(likes) == 1 else [_priced(model, market, [like])[0] for like in likes]
    return [(like, price.value) for like, price in zip(likes, prices, strict=True)]


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
