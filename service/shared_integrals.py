"""European options of several requests integrated together, to the digits that each has alone.

One row for each option, with parameters, expiry and strike of its own: rows do not share nodes, so nothing that a row
is made of comes from its neighbours. What remains is how torch adds and multiplies arrays of different shapes. On the
first contour, up to 16 rows, it does so alike: no difference in tens of thousands of options
(`tests/service/test_shared_integrals`); beyond, some last digits differ. Options that need more nodes than the first
contour has are left out, since the shape of what is done again depends on how many there are (1 in 1,000 of them had
another last digit). `checked` looks again on the machine at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qsde.market.underlying import Market
from qsde.models import Heston, Model
from qsde.models.base import fourier_model
from qsde.payoffs import European
from qsde.pricing.contours import (
    ABSOLUTE,
    GAP_POWER,
    Lewis,
    lewis_range,
    nodes_for_ripples,
    nodes_needed,
    sinh_nodes,
)
from qsde.pricing.exact import price_exact
from qsde.pricing.fourier import Fourier, price_european
from qsde.spec import FourierSpec, PriceRequest, PricingJob

#: Most options that are integrated together.
TOGETHER = 8


@dataclass(frozen=True)
class Option:
    """A European option under a model: strike, years, forward and discount factor as tensors [1]."""

    model: Model
    engine: Fourier
    terms: tuple[Tensor, Tensor, Tensor, Tensor]
    is_call: bool

    @property
    def family(self) -> tuple[Any, ...]:
        """Equal for options that may be integrated together."""
        parts = getattr(self.model, "diffusion", self.model), getattr(self.model, "jumps", None)
        return (type(self.model), *map(type, parts), self.engine)


def may_share(request: PriceRequest) -> bool:
    """Whether a request is one European option with an exact price."""
    return isinstance(request.engine, FourierSpec) and [spec.name for spec in request.payoffs] == ["european"]


def prepared(job: PricingJob) -> Option | None:
    """The option of a request that may share; None if its model has no exact prices."""
    (payoff,), market, engine = job.payoffs, job.market, job.engine
    if not (job.model.has_cf and isinstance(market, Market) and isinstance(engine, Fourier)):
        return None
    assert isinstance(payoff, European)
    t = torch.tensor([payoff.expiry], dtype=torch.float64)
    strike = torch.as_tensor(payoff.strike, dtype=torch.float64).reshape(1)
    return Option(job.model, engine, (strike, t, market.forward(t), market.discount(t)), payoff.kind == "call")


def groups(options: Sequence[Option]) -> list[list[int]]:
    """Indices of options that are integrated together; those that are not easy stand alone."""
    families: dict[tuple[Any, ...], list[int]] = {}
    for i, option in enumerate(options):
        families.setdefault(option.family, []).append(i)
    found: list[list[int]] = []
    for rows in families.values():
        easy: list[int] = []
        for some in _cut(rows):
            easy += [i for i, fine in zip(some, _easy([options[i] for i in some]), strict=True) if fine]
        found += [*_cut(easy), *([i] for i in sorted(set(rows) - set(easy)))]
    return found


def _cut(rows: list[int]) -> list[list[int]]:
    return [rows[i : i + TOGETHER] for i in range(0, len(rows), TOGETHER)]


@torch.no_grad()
def _easy(options: Sequence[Option]) -> list[bool]:
    """Whether the first contour of `qsde.pricing.fourier` is all that each option needs."""
    engine, (model, (strike, t, forward, _)) = options[0].engine, _stacked(options)
    model, k = fourier_model(model.map(lambda p: p.unsqueeze(-1))), torch.log(strike / forward)
    variance, distance = model.total_variance(t).reshape(t.shape), k.abs()
    if not bool(torch.isfinite(k + t + variance).all()):
        return [False] * len(options)
    scale, reach = lewis_range(variance, variance, distance)
    ripples = nodes_for_ripples(model, t, distance, reach)
    needed = nodes_needed(variance, distance)
    needed = needed if ripples is None else torch.maximum(needed, ripples)
    first = Lewis()(*sinh_nodes(scale, reach, engine.nodes), model, t, k)
    unfinished = first.unfinished(1.0, (1e-2 * engine.tolerance) ** (1 / GAP_POWER))[0].flatten()
    cheap = (first.value < ABSOLUTE / engine.tolerance).flatten()
    verdict: list[bool] = (~(unfinished | (needed > engine.nodes).flatten() | cheap)).tolist()
    return verdict


def _stacked(options: Sequence[Option]) -> tuple[Model, list[Tensor]]:
    """The models as one with parameters [R], and their terms [R, 1]."""
    lead = options[0].model
    model = lead.with_params({name: torch.stack([o.model.params[name] for o in options]) for name in lead.params})
    return model, [torch.stack(column) for column in zip(*(o.terms for o in options), strict=True)]


@torch.no_grad()
def results(options: Sequence[Option]) -> list[tuple[float, float]]:
    """Value and estimated error of each option of a group.

    Raises:
        QsdeError: one of them cannot be priced; price them one by one to see which.
    """
    model, (strike, t, forward, discount) = _stacked(options)
    calls = torch.tensor([option.is_call for option in options]).reshape(-1, 1, 1)
    found = price_european(model, strike.unsqueeze(-1), t, forward, discount, calls, options[0].engine)
    return list(zip(found.value.flatten().tolist(), found.error.flatten().tolist(), strict=True))


def checked(count: int = 64) -> bool:
    """Whether options have the same digits together and alone on this machine, on some of Heston."""
    generator = torch.Generator().manual_seed(1)
    low = torch.tensor([0.02, 0.5, 0.02, 0.2, -0.9, 80.0, 0.1], dtype=torch.float64)
    high = torch.tensor([0.09, 4.0, 0.09, 1.0, 0.0, 120.0, 2.0], dtype=torch.float64)
    drawn = (low + (high - low) * torch.rand(count, len(low), generator=generator, dtype=torch.float64)).tolist()
    jobs = [PricingJob(Heston(*row[:5]), [European(*row[5:])], Market(100.0, rate=0.03), Fourier()) for row in drawn]
    options = [option for job in jobs if (option := prepared(job))]
    for rows in groups(options):
        for i, (value, error) in zip(rows, results([options[i] for i in rows]), strict=True):
            alone = _alone(jobs[i])
            if (value, error) != alone:
                return False
    return True


@torch.no_grad()
def _alone(job: PricingJob) -> tuple[float, float]:
    assert isinstance(job.market, Market)
    assert isinstance(job.engine, Fourier)
    (found,) = price_exact(job.model, job.payoffs, job.market, job.engine)
    return float(found.value), float(found.error)
