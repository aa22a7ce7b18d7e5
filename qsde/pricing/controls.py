"""Control variates: quantities on the same paths whose mean is known, chosen by the payoff."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from qsde.errors import NumericsError
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.payoffs import Asian, AverageStrike, Barrier, DoubleBarrier, European, Payoff, Terminal
from qsde.pricing.fourier import price_european
from qsde.pricing.geometric import price_geometric_asian, price_geometric_average_strike

#: Makes a payoff on the same dates and its exact present value [*batch], or None where it would not help.
Companion = Callable[[Model, Market, Payoff], tuple[Terminal, Tensor] | None]


def companion(model: Model, market: Market, payoff: Payoff) -> tuple[Terminal, Tensor] | None:
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
    make = _COMPANIONS.get(type(payoff))
    if make is None or not model.has_cf:
        return None
    try:
        return make(model, market, payoff)
    except NumericsError:  # a corner of the parameters where the integral fails: one control less
        return None


def _of_asian(model: Model, market: Market, payoff: Payoff) -> tuple[Terminal, Tensor] | None:
    assert isinstance(payoff, Asian)
    if payoff.average == "geometric" or market.has_cash:
        return None
    geometric = replace(payoff, average="geometric")
    worth = price_geometric_asian(
        model, market, payoff.strike, payoff.fixings, payoff.kind, expiry=payoff.expiry, past=payoff.past
    )
    return geometric, worth.value


def _of_average_strike(model: Model, market: Market, payoff: Payoff) -> tuple[Terminal, Tensor] | None:
    assert isinstance(payoff, AverageStrike)
    if payoff.average == "geometric" or market.has_cash:
        return None
    geometric = replace(payoff, average="geometric")
    worth = price_geometric_average_strike(
        model, market, payoff.fixings, payoff.kind, expiry=payoff.expiry, past=payoff.past
    )
    return geometric, worth.value


def _of_barrier(model: Model, market: Market, payoff: Payoff) -> tuple[Terminal, Tensor] | None:
    assert isinstance(payoff, Barrier | DoubleBarrier)
    t = torch.tensor(payoff.maturity, dtype=torch.float64)
    strike = torch.as_tensor(payoff.strike, dtype=torch.float64)
    worth = price_european(model, strike, t, market.forward(t), market.discount(t), payoff.kind == "call")
    return European(payoff.strike, payoff.maturity, payoff.kind), worth.value


_COMPANIONS: dict[type[Payoff], Companion] = {
    Asian: _of_asian,
    AverageStrike: _of_average_strike,
    Barrier: _of_barrier,
    DoubleBarrier: _of_barrier,
}
