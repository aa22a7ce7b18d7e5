"""Control variates: quantities on the same paths whose mean is known, chosen by the payoff."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qsde.errors import NumericsError
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.payoffs import Asian, AverageStrike, Barrier, DoubleBarrier, European, Payoff, Terminal
from qsde.pricing.exact import price_exact
from qsde.pricing.fourier import Fourier, FourierPrice, price_rows
from qsde.pricing.geometric import Averaging, price_geometric_asian_rows

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
    likes = [_like(model, market, payoff) for payoff in book]
    vanillas = list(dict.fromkeys(like for like in likes if isinstance(like, European)))
    priced = dict(zip(vanillas, _priced(model, market, vanillas), strict=True))
    return [
        priced[like] if isinstance(like, European) else None if like is None else _priced(model, market, [like])[0]
        for like in likes
    ]


@torch.no_grad()
def companion_rows(model: Model, markets: Sequence[Market], book: Sequence[Payoff]) -> list[Companion]:
    """The companions of payoffs, each under parameters and in a market of its own, to the digits that each has alone.

    Those that are alike are integrated together.

    Args:
        model: parameters [R], one set for each payoff.
        markets: of each payoff.
        book: the payoffs.
    """
    likes = [_like(model, market, payoff) for market, payoff in zip(markets, book, strict=True)]
    found: list[Companion] = [None] * len(book)
    for key in dict.fromkeys(_alike(like) for like in likes if like is not None):
        rows = [i for i, like in enumerate(likes) if like is not None and _alike(like) == key]
        some: list[Any] = [likes[i] for i in rows]
        prices = _TOGETHER.get(type(some[0]), _none)(_of(model, rows), [markets[i] for i in rows], some)
        for i, like, price in zip(rows, some, prices, strict=True):
            found[i] = _priced(_of(model, i), markets[i], [like])[0] if price is None else (like, price)
    return found


def _of(model: Model, rows: int | list[int]) -> Model:
    return model.map(lambda p: p[rows])


def _like(model: Model, market: Market, payoff: Payoff) -> Terminal | None:
    return _LIKES[type(payoff)](payoff, market) if type(payoff) in _LIKES and model.has_cf else None


def _alike(like: Any) -> tuple[Any, ...]:
    """Equal for those that may be integrated together."""
    return (Asian, like.times, like.maturity, len(like.past)) if isinstance(like, Asian) else (type(like),)


def _european_rows(model: Model, markets: Sequence[Market], likes: Sequence[European]) -> list[Tensor | None]:
    strike, t = torch.tensor([(like.strike, like.expiry) for like in likes], dtype=torch.float64).unbind(-1)
    forward = torch.stack([market.forward(like.expiry) for market, like in zip(markets, likes, strict=True)])
    discount = torch.stack([market.discount(like.expiry) for market, like in zip(markets, likes, strict=True)])
    return _final(*price_rows(model, strike, t, forward, discount, _calls(likes), Fourier()))


def _asian_rows(model: Model, markets: Sequence[Market], likes: Sequence[Asian]) -> list[Tensor | None]:
    strike, paid = torch.tensor([like.strike for like in likes], dtype=torch.float64), likes[0].maturity
    averages = [Averaging(like.fixings, like.past) for like in likes]
    return _final(*price_geometric_asian_rows(model, markets, strike, averages, paid, _calls(likes), Fourier()))


def _calls(likes: Sequence[European] | Sequence[Asian]) -> Tensor:
    return torch.tensor([like.kind == "call" for like in likes])


def _final(found: FourierPrice, final: Tensor) -> list[Tensor | None]:
    pairs = zip(found.value.unbind(), (final & torch.isfinite(found.value)).tolist(), strict=True)
    return [value if good else None for value, good in pairs]


def _none(model: Model, markets: Sequence[Market], likes: Sequence[Terminal]) -> list[Tensor | None]:
    return [None] * len(likes)


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

#: What integrates companions of one kind together; None for those that have to be integrated alone.
_TOGETHER: dict[type[Terminal], Callable[[Model, Sequence[Market], Any], list[Tensor | None]]] = {
    European: _european_rows,
    Asian: _asian_rows,
}
