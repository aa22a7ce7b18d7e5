"""European options of several requests integrated together, to the digits that each has alone.

One row for each option, with parameters, expiry and strike of its own: rows do not share nodes, so nothing that a row
is made of comes from its neighbours. What remains is how torch adds and multiplies arrays of different shapes. Up to
`TOGETHER` rows it does so alike: no difference in tens of thousands of options (`tests/service/test_shared_integrals`);
from 16 rows on, some last digits differ. `checked` looks again on the machine at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qsde.market.underlying import Market
from qsde.models import Heston, Model
from qsde.payoffs import European
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
    """Indices of options that are integrated together."""
    families: dict[tuple[Any, ...], list[int]] = {}
    for i, option in enumerate(options):
        families.setdefault(option.family, []).append(i)
    return [rows[i : i + TOGETHER] for rows in families.values() for i in range(0, len(rows), TOGETHER)]


@torch.no_grad()
def results(options: Sequence[Option]) -> list[tuple[float, float]]:
    """Value and estimated error of each option of a group.

    Raises:
        QsdeError: one of them cannot be priced; price them one by one to see which.
    """
    lead = options[0].model
    params = {name: torch.stack([option.model.params[name] for option in options]) for name in lead.params}
    strike, t, forward, discount = (torch.stack(column) for column in zip(*(o.terms for o in options), strict=True))
    calls = torch.tensor([option.is_call for option in options]).reshape(-1, 1, 1)
    model = lead.with_params(params)
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
