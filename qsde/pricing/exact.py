"""Which contracts have exact prices under which models, and those prices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models.affine import is_affine
from qsde.models.base import Model
from qsde.payoffs import (
    American,
    Asian,
    AssetDigital,
    AtExpiry,
    AverageStrike,
    Claim,
    Digital,
    European,
    ForwardStart,
    Gap,
    VarianceSwap,
)
from qsde.pricing.boundary import errors_of_americans, price_americans, why_no_boundary
from qsde.pricing.digital import price_digital
from qsde.pricing.fourier import Fourier, FourierPrice, price_european
from qsde.pricing.geometric import price_forward_start, price_geometric_asian, price_geometric_average_strike
from qsde.pricing.variance import price_variance_swap

#: Fourier integrals, closed forms among them; the exercise boundary of American options.
ExactMethod = Literal["fourier", "boundary"]


def exact_method(payoff: Claim) -> ExactMethod:
    """How a payoff with an exact price is priced."""
    return "boundary" if isinstance(payoff, American) else "fourier"


def why_not_exact(model: Model, payoff: Claim, market: Market | Markets) -> str | None:
    """What stands in the way of an exact price, in words; None if nothing does.

    Example:
        >>> from qsde.models import BlackScholes
        >>> why_not_exact(BlackScholes(0.2), Asian(100.0, (0.5, 1.0)), Market(100.0))
        'an arithmetic average has no exact price'
    """
    if type(payoff) not in _PRICERS:
        return f"{payoff.name} has no exact price"
    if isinstance(payoff, American):
        return why_no_boundary(model, payoff, market)
    if isinstance(payoff, (Asian, AverageStrike)) and payoff.average != "geometric":
        return "an arithmetic average has no exact price"
    if isinstance(market, Markets) or not model.has_cf:
        return f"{model.name} has no characteristic function"
    if isinstance(payoff, AtExpiry):
        return None
    if not is_affine(model):
        return f"{model.name} has no joint transform of the price at several dates"
    if market.has_cash and bool((market.affine(payoff.times, horizon=payoff.times[-1])[1] != 0).any()):
        return f"{payoff.name} has no exact price with cash dividends between its dates"
    return None


def check_exact(model: Model, payoff: Claim, market: Market | Markets) -> None:
    """Raises InputError, naming the engine to use, unless `price_exact` prices the payoff."""
    reason = why_not_exact(model, payoff, market)
    if reason is not None:
        raise InputError(f"{reason}; use MonteCarlo()")


def price_exact(model: Model, payoffs: Sequence[Claim], market: Market, engine: Fourier) -> list[FourierPrice]:
    """Exact prices `[*batch]` of payoffs that pass `check_exact`; those of one kind are integrated together."""
    kinds = dict.fromkeys(_PRICERS[type(payoff)] for payoff in payoffs)
    found: dict[int, FourierPrice] = {}
    for pricer in kinds:
        rows = [i for i, payoff in enumerate(payoffs) if _PRICERS[type(payoff)] is pricer]
        found |= zip(rows, pricer(model, [payoffs[i] for i in rows], market, engine), strict=True)
    return [found[i] for i in range(len(payoffs))]


def _europeans(model: Model, book: list[European], market: Market, engine: Fourier) -> list[FourierPrice]:
    t, is_call = _terms(book)
    strike = _stacked([option.strike for option in book])
    years, forward, discount = market.years(t), market.forward(t), market.discount(t)
    found = price_european(model, strike.unsqueeze(-1), years, forward, discount, is_call.unsqueeze(-1), engine)
    return _split(found.value.squeeze(-1), found.error.squeeze(-1))


def _digitals(model: Model, book: list[AtExpiry], market: Market, engine: Fourier) -> list[FourierPrice]:
    """Each is so many assets and so much cash beyond a trigger."""
    (t, is_call), wide = _terms(book), model.map(lambda p: p.unsqueeze(-1) if p.dim() else p)
    assets, cash, trigger = (_stacked(list(column)) for column in zip(*(p.legs for p in book), strict=True))
    years, forward, discount = market.years(t), market.forward(t), market.discount(t)
    value = error = torch.zeros((), dtype=torch.float64)
    for amount, pays in ((assets, "asset"), (cash, "cash")):
        if bool((amount != 0).any()):
            leg = price_digital(wide, trigger, years, forward, discount, is_call, pays, engine)  # type: ignore[arg-type]
            value, error = value + amount * leg.value, error + amount.detach().abs() * leg.error
    return _split(value, error)


def _americans(model: Model, book: list[American], market: Market, engine: Fourier) -> list[FourierPrice]:
    return _split(price_americans(model, book, market), errors_of_americans(model, book, market))


def _asian(model: Model, p: Asian, market: Market, engine: Fourier) -> FourierPrice:
    return price_geometric_asian(
        model, market, p.strike, p.fixings, p.kind, expiry=p.expiry, past=p.past, engine=engine
    )


def _average_strike(model: Model, p: AverageStrike, market: Market, engine: Fourier) -> FourierPrice:
    return price_geometric_average_strike(model, market, p.fixings, p.kind, expiry=p.expiry, past=p.past, engine=engine)


def _forward_start(model: Model, p: ForwardStart, market: Market, engine: Fourier) -> FourierPrice:
    return price_forward_start(model, market, p.start, p.expiry, p.moneyness, p.kind, pays=p.pays, engine=engine)


def _variance_swap(model: Model, p: VarianceSwap, market: Market, engine: Fourier) -> FourierPrice:
    return price_variance_swap(model, p, market)


def _one_by_one(price: Callable[[Model, Any, Market, Fourier], FourierPrice]) -> Callable[..., list[FourierPrice]]:
    return lambda model, book, market, engine: [price(model, payoff, market, engine) for payoff in book]


#: What prices a list of payoffs of one kind.
_PRICERS: dict[type[Claim], Callable[..., list[FourierPrice]]] = {
    European: _europeans,
    **dict.fromkeys((Digital, AssetDigital, Gap), _digitals),
    American: _americans,
    Asian: _one_by_one(_asian),
    AverageStrike: _one_by_one(_average_strike),
    ForwardStart: _one_by_one(_forward_start),
    VarianceSwap: _one_by_one(_variance_swap),
}


def _terms(book: Sequence[AtExpiry]) -> tuple[Tensor, Tensor]:
    """Expiries and whether each is a call, [payoff]."""
    t = torch.tensor([payoff.expiry for payoff in book], dtype=torch.float64)
    return t, torch.tensor([payoff.kind == "call" for payoff in book])


def _stacked(numbers: Sequence[float | Tensor]) -> Tensor:
    """Constants of payoffs, [*batch, payoff]."""
    tensors = [torch.as_tensor(x, dtype=torch.float64) for x in numbers]
    return torch.stack(torch.broadcast_tensors(*tensors), -1)


def _split(value: Tensor, error: Tensor) -> list[FourierPrice]:
    return [FourierPrice(v, e) for v, e in zip(value.unbind(-1), error.unbind(-1), strict=True)]
