"""European options of several requests integrated together, to the digits that the library gives each alone.

A plain request (one European option, flat rates) is a row of numbers: parameters, spot, rates, strike, expiry. Rows of
one family of models are priced by `qsde.pricing.fourier.price_rows` in one go. They do not share nodes, so
nothing that a row is made of comes from its neighbours. What remains is how torch adds and multiplies arrays of
different shapes: for up to `TOGETHER` rows it does so alike, no difference in tens of thousands of options
(`tests/service/test_shared_integrals`); beyond, the complex functions of `qsde.numerics` go another way. Options that
need more than a few passes on the first contour are left to the library, one by one. `checked` looks again on the
machine at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from qsde.errors import QsdeError
from qsde.market.underlying import Market
from qsde.models import Model
from qsde.payoffs import European
from qsde.pricing.fourier import Fourier, price_rows
from qsde.spec import MODEL_TEMPLATES, AutoSpec, EngineSpec, FourierSpec, PriceRequest, PriceResult, UnderlyingSpec
from qsde.spec.base import LONGEST
from qsde.spec.request import Library

#: Most options that are integrated together, and most nodes that each may have then.
TOGETHER, NODES = 16, 96
#: Beyond these rates a request is looked at by the library, which refuses it.
_LOWEST_RATE, _HIGHEST_RATE = -0.5, 1.0
#: Families as requests call them, by the names of models.
_NAMES = {typical().name: name for name, typical in MODEL_TEMPLATES.items()}


@dataclass(frozen=True)
class Option:
    """A European option as numbers.

    Attributes:
        family: name of the model and settings of the engine: equal for options that may be integrated together.
        numbers: spot, rate, dividend yield, strike, expiry, then the parameters in the order of the model.
        is_call: call or put.
        given: forward and discount factor where rates are not flat; the numbers of the market are then of no use.
    """

    family: tuple[str, Fourier]
    numbers: tuple[float, ...]
    is_call: bool
    given: tuple[float, float] | None = None


def option_of(request: PriceRequest) -> Option | None:
    """The option of a plain request; None for any other, and for one that the library is to judge."""
    engine, market, model = _engine(request.engine), request.market, request.model
    if engine is None or engine.nodes > NODES or len(request.payoffs) > 1:
        return None
    payoff: Any = request.payoffs[0]
    if payoff.type != "european" or model is None or model.model not in MODEL_TEMPLATES:
        return None
    if not isinstance(market, UnderlyingSpec) or market.dividends or market.spot is None:
        return None
    rate, dividend_yield = market.rate or 0.0, market.dividend_yield or 0.0
    usual = _is_usual(rate) and _is_usual(dividend_yield) and payoff.strike > 0 and 0 < payoff.expiry <= LONGEST
    if not usual:
        return None
    parameters = (getattr(model, name) for name in _family(model.model)[1])
    numbers = (market.spot, rate, dividend_yield, payoff.strike, payoff.expiry, *parameters)
    return Option((model.model, engine), numbers, payoff.kind == "call")


def option_of_fit(request: PriceRequest, library: Library) -> Option | None:
    """The option of a request that names a fit; None as in `option_of`.

    Raises:
        QsdeError: it cannot be priced.
    """
    engine = _engine(request.engine)
    if request.fit is None or engine is None or engine.nodes > NODES or len(request.payoffs) > 1:
        return None
    job = request.build(library)
    (option,), market, name = job.payoffs, job.market, _NAMES.get(job.model.name)
    if not isinstance(option, European) or not isinstance(market, Market) or name is None:
        return None
    t = torch.tensor([option.expiry], dtype=torch.float64)
    forward, discount = float(market.forward(t)), float(market.discount(t))
    strike, expiry = float(option.strike), float(option.expiry)
    numbers = (0.0, 0.0, 0.0, strike, expiry, *(float(p) for p in job.model.params.values()))
    return Option((name, engine), numbers, option.kind == "call", (forward, discount))


def _is_usual(rate: Any) -> bool:
    return isinstance(rate, float) and _LOWEST_RATE <= rate <= _HIGHEST_RATE


@cache
def _family(name: str) -> tuple[Model, tuple[str, ...]]:
    """A model of this name, and its parameters."""
    model = MODEL_TEMPLATES[name]()
    return model, tuple(model.params)


def _engine(spec: EngineSpec) -> Fourier | None:
    """What integrates a European option; None for a simulation."""
    if isinstance(spec, FourierSpec):
        return Fourier(spec.tolerance, spec.nodes, spec.max_nodes)
    return Fourier() if isinstance(spec, AutoSpec) else None


def results(options: Sequence[Option]) -> list[tuple[float, float] | None]:
    """Value and estimated error of each option; None for those that the library must price or refuse."""
    families: dict[tuple[str, Fourier], list[int]] = {}
    for i, option in enumerate(options):
        families.setdefault(option.family, []).append(i)
    found: list[tuple[float, float] | None] = [None] * len(options)
    for rows in families.values():
        for first in range(0, len(rows), TOGETHER):
            some = rows[first : first + TOGETHER]
            for i, result in zip(some, _integrated([options[i] for i in some]), strict=True):
                found[i] = result
    return found


@torch.no_grad()
def _integrated(options: Sequence[Option]) -> list[tuple[float, float] | None]:
    """Prices of options of one family."""
    name, engine = options[0].family
    lead, names = _family(name)
    columns = torch.tensor([option.numbers for option in options], dtype=torch.float64).T.contiguous()
    spot, rate, dividend_yield, strike, t, *parameters = columns.unbind()
    within = _within(lead, dict(zip(names, parameters, strict=True)))
    safe = {n: torch.where(within, p, lead.params[n]) for n, p in zip(names, parameters, strict=True)}
    discount = torch.exp(-rate * t)
    forward = spot * torch.exp(-dividend_yield * t) / discount
    for i, option in enumerate(options):
        if option.given is not None:
            forward[i], discount[i] = option.given
    calls = torch.tensor([option.is_call for option in options])
    found, final = price_rows(lead.with_params(safe), strike, t, forward, discount, calls, engine)
    fine = (final & within & torch.isfinite(found.value)).tolist()
    priced = zip(found.value.tolist(), found.error.tolist(), fine, strict=True)
    return [(value, error) if good else None for value, error, good in priced]


def _within(model: Model, params: dict[str, Tensor]) -> Tensor:
    """Which rows [R] have all parameters where the model is defined."""
    return torch.stack([model.table[name].domain.check(value) for name, value in params.items()]).all(0)


def checked(count: int = 64) -> bool:
    """Whether options have the same digits here and in the library on this machine, on some of Heston."""
    generator = torch.Generator().manual_seed(1)
    low = torch.tensor([80.0, 0.1, 0.02, 0.5, 0.02, 0.2, -0.9], dtype=torch.float64)
    high = torch.tensor([120.0, 2.0, 0.09, 4.0, 0.09, 1.0, 0.0], dtype=torch.float64)
    drawn = (low + (high - low) * torch.rand(count, len(low), generator=generator, dtype=torch.float64)).tolist()
    requests = [_heston(*row) for row in drawn]
    options = [option for request in requests if (option := option_of(request))]
    pairs = zip(requests, results(options), strict=True)
    return all(result is None or result == _alone(request) for request, result in pairs)


def _heston(strike: float, expiry: float, *parameters: float) -> PriceRequest:
    model = dict(zip(_family("heston")[1], parameters, strict=True))
    return PriceRequest.model_validate(
        {
            "model": {"model": "heston"} | model,
            "market": {"spot": 100.0, "rate": 0.03},
            "payoffs": [{"type": "european", "strike": strike, "expiry": expiry}],
            "engine": {"type": "fourier"},
        }
    )


def _alone(request: PriceRequest) -> tuple[float, float] | None:
    """What the library says; None if it says nothing."""
    try:
        (found,) = PriceResult.of(request, request.build()).payoffs
    except QsdeError:
        return None
    return None if found.numerical_error is None else (found.value, found.numerical_error)
