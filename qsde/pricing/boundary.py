"""American options under Black-Scholes by the boundary at which they are exercised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsde.errors import NumericsError
from qsde.market.american import american_error, american_price, two_boundaries
from qsde.market.curves import Curve, FlatCurve, ShiftedCurve
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models import BlackScholes
from qsde.models.base import Model
from qsde.payoffs import American

#: A bound on the error beyond which a price is none, in units of the strike.
_WORST = 1e-4


def why_no_boundary(model: Model, option: American, market: Market | Markets) -> str | None:
    """What stands in the way of a price by the boundary, in words; None if nothing does.

    Example:
        >>> why_no_boundary(BlackScholes(0.2), American(100.0, 1.0), Market(100.0, rate=0.03))
        >>> why_no_boundary(BlackScholes(0.2), American(100.0, 1.0), Market(100.0, rate=-0.01, dividend_yield=-0.02))
        'American has no exact price if it is exercised between two boundaries: rate and dividend_yield are negative'
    """
    if not isinstance(model, BlackScholes) or isinstance(market, Markets):
        return f"{option.name} has no exact price under {model.name}, only under BlackScholes"
    if market.dividends:
        return f"{option.name} has no exact price with discrete dividends"
    if not _flat(market.rate) or not _flat(market.dividend_yield):
        return f"{option.name} has no exact price under curves, only at a constant rate and dividend_yield"
    if not bool((model.vol > 0).all()):
        return f"{option.name} has no exact price without volatility"
    if bool(two_boundaries(*_rates(market, torch.tensor(option.expiry)), option.kind == "call").any()):
        return (
            f"{option.name} has no exact price if it is exercised between two boundaries: rate and dividend_yield are "
            "negative"
        )
    return None


def price_americans(model: Model, book: Sequence[American], market: Market) -> Tensor:
    """Prices `[*batch, payoffs]` of options that `why_no_boundary` has nothing against.

    They are differentiable twice in everything.
    """
    return american_price(*_terms(model, book, market))


def errors_of_americans(model: Model, book: Sequence[American], market: Market) -> Tensor:
    """Bounds on the errors of `price_americans`.

    Raises:
        NumericsError: one is above 1e-4 of the strike, which takes a total volatility of several hundred percent, or
            rates times years of ten and more.
    """
    _, strike, t, vol, *_ = terms = _terms(model, book, market)
    error = american_error(*terms)
    if not bool((error <= _WORST * strike).all()):
        raise NumericsError(
            f"American: exercise pays where is known to {float((error / strike).max()):.2g} of the strike only, with "
            f"volatilities up to {float(vol.max()):.3g} and {float(t.max()):.3g} years; use MonteCarlo()"
        )
    return error


def _terms(
    model: Model, book: Sequence[American], market: Market
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `american_price` takes them."""
    strikes = torch.broadcast_tensors(*(torch.as_tensor(option.strike, dtype=torch.float64) for option in book))
    dates = torch.tensor([option.expiry for option in book], dtype=torch.float64)
    is_call = torch.tensor([option.kind == "call" for option in book])
    spot, vol = torch.as_tensor(market.spot), model.params["vol"]
    vol = vol.unsqueeze(-1) if vol.dim() else vol
    return spot, torch.stack(strikes, -1), market.years(dates), vol, *_rates(market, dates), is_call


def _rates(market: Market, dates: Tensor) -> tuple[Tensor, Tensor]:
    return market.rate.zero_rate(dates), market.dividend_yield.zero_rate(dates)  # type: ignore[union-attr]


def _flat(curve: float | Tensor | Curve) -> bool:
    return isinstance(curve, FlatCurve) or (isinstance(curve, ShiftedCurve) and _flat(curve.curve))
