"""Prices of rights to exercise early, as an interval."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.noise import Noise, Threefry
from qsde.noise.seeds import other, seed_of
from qsde.payoffs.base import EarlyExercise
from qsde.pricing.american.constant import constant
from qsde.pricing.american.dual import Bounds, bounds
from qsde.pricing.american.inner import Inner
from qsde.pricing.american.lower import Worth, worth
from qsde.pricing.american.policy import Policy, fit
from qsde.pricing.american.settings import EarlyEstimate, LeastSquares
from qsde.pricing.american.stages import Sample, Stages
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.simulation import Block, Parts, refuse_intensity_gradient

#: What the seeds of paths beyond those of the lower bound are for.
_POLICY, _OUTER, _INNER = 1, 2, 3
#: Points simulated at a time for the upper bound.
_POINTS = 1 << 16


def price_early(
    model: Model,
    claim: EarlyExercise,
    market: Market | Markets,
    engine: MonteCarlo | None = None,
    method: LeastSquares | None = None,
) -> EarlyEstimate:
    """Prices a right to exercise early by least-squares Monte Carlo, between a lower and an upper bound.

    One set of paths finds a policy by regression (Longstaff and Schwartz 2001). A second one, independent, says what
    the policy is worth: no more than the price, since any policy is one that the holder may follow. A third one bounds
    the price from above by Rogers' dual (see `qsde.pricing.american.dual.bounds`). So within their standard errors

        value <= price of the right on these dates <= upper,

    and what lies between them measures the regression. For `American`, the price with exercise at any time is higher
    than that on the dates.

    Hedges in the underlyings that the regression finds serve as control variates of all three; their mean is 0 under
    every model whose discounted prices are martingales.

    The value is differentiable (first order, by `backward`, `torch.func.grad` and `jvp`) in spot, curves, parameters
    and strike. Policy and the decisions of each path are kept as they are: by the envelope theorem that is the
    derivative of the price if the policy is optimal, and wrong by as little as the policy otherwise. The upper bound
    has no gradient.

    Args:
        model: one parameter set; no batch axes.
        claim: the right.
        market: spots, curves and dividends.
        engine: settings; `n_paths` are those of the lower bound, and as many find the policy.
        method: settings of the regression and the upper bound.

    Raises:
        InputError: a model with batch axes or of another number of underlyings, a spot beyond the barrier, a gradient
            that would be wrong, or states that do not fit into the engine's memory budget.
        NumericsError: a path left the finite numbers.

    References:
        F. Longstaff and E. Schwartz, Valuing American options by simulation, Rev. Financ. Stud. 14 (2001);
        M. Potters, J.-P. Bouchaud and D. Sestovic, Hedged Monte-Carlo, Physica A 289 (2001);
        L. C. G. Rogers, Monte Carlo valuation of American options, Math. Finance 12 (2002);
        L. Andersen and M. Broadie, Primal-dual simulation algorithm for pricing multidimensional American options,
        Management Science 50 (2004).

    Example:
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import American
        >>> put = American(strike=40.0, expiry=1.0, kind="put", dates_per_year=10)
        >>> found = price_early(BlackScholes(0.2), put, Market(spot=36.0, rate=0.06), MonteCarlo(n_paths=4096))
        >>> 4.40 < float(found.value) < float(found.upper) < 4.50
        True
    """
    began = time.perf_counter()
    engine, method = engine or MonteCarlo(), method or LeastSquares()
    refuse_intensity_gradient(model)
    stages = prepared(model, claim, market, engine)
    policy = find_policy(stages, method)
    parts = [worth(stages, sample, policy) for sample in samples(stages, engine.noise)]
    found = Worth(*(torch.cat(column) for column in zip(*((w.value, w.chance, w.time) for w in parts), strict=True)))
    lower = _Mean.of(_grouped(found.value, stages.simulation.group))
    upper = _Mean(*torch.full((2,), math.nan, dtype=torch.float64))
    if method.outer:
        with constant():
            both = _bounds(stages, policy, method)
        lower, upper = lower.with_help(_Mean.of(both.lower)), _Mean.of(both.upper)
    chance, when = float(found.chance.mean()), float(found.time.mean())
    return EarlyEstimate(
        lower.value,
        lower.error,
        upper.value,
        upper.error,
        chance,
        when / chance if chance else math.nan,
        stages.simulation.n_paths,
        engine.noise,
        time.perf_counter() - began,
    )


def prepared(model: Model, claim: EarlyExercise, market: Market | Markets, engine: MonteCarlo) -> Stages:
    """The dates of the right, and the simulation to them.

    Args:
        model: one parameter set.
        claim: the right.
        market: spots, curves and dividends.
        engine: settings.

    Raises:
        InputError: what does not belong together, or does not fit into memory.
    """
    _check(model, claim, market)
    stages = Stages.of(model, claim, market, engine)
    _check_memory(stages, engine)
    return stages


def find_policy(stages: Stages, method: LeastSquares) -> Policy:
    """When to exercise, from paths that are used for nothing else; a constant to differentiation."""
    engine = stages.simulation.engine
    martingale = stages.simulation.model.martingale
    hedged = method.hedged and not method.in_the_money and engine.control_variate and martingale
    with constant():
        return fit(stages, Sample.joined(list(samples(stages, other(engine.noise, _POLICY)))), method, hedged)


def samples(
    stages: Stages, noise: Noise, parts: Parts | None = None, change: Callable[[Block], Block] | None = None
) -> Iterator[Sample]:
    """All blocks of paths, or of these parts of them, each changed first if wanted."""
    simulation = stages.simulation
    for first in range(0, simulation.n_paths, simulation.block_size):
        block = simulation.block(first, noise, parts)
        block = block if change is None else change(block)
        if not all(bool(torch.isfinite(s.detach().sum())) for s in block.states):
            raise NumericsError(simulation.where_not_finite(block.noise))
        yield Sample.of(stages, block.states)


def _bounds(stages: Stages, policy: Policy, method: LeastSquares) -> Bounds:
    """Both bounds on the paths of the dual."""
    noise = stages.simulation.engine.noise
    engine = dataclasses.replace(
        stages.simulation.engine, n_paths=method.outer, noise=Threefry(seed_of(noise, _OUTER)), compile="never"
    )
    outer = Stages.of(stages.simulation.model, stages.claim, stages.market, engine)
    found: list[Bounds] = []
    first = 0
    for sample in samples(outer, engine.noise):
        for part in sample.split(max(2, _POINTS // method.inner)):
            found.append(bounds(outer, part, policy, Inner(seed_of(noise, _INNER), method.inner, first)))
            first += len(found[-1].lower)
    return Bounds(torch.cat([b.lower for b in found]), torch.cat([b.upper for b in found]))


@dataclasses.dataclass(frozen=True)
class _Mean:
    """A mean and its standard error."""

    value: Tensor
    error: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> _Mean:
        """Of independent samples."""
        with constant():
            error = samples.std() / math.sqrt(len(samples))
        return cls(samples.mean(), error)

    def with_help(self, other: _Mean) -> _Mean:
        """The mean of two independent estimates of one number, each as heavy as it is sure; with the own gradient."""
        with constant():
            own, others = self.error.square(), other.error.square()
            total = own + others
            share = torch.where(total > 0, others / torch.where(total > 0, total, 1.0), 1.0)
            moved = (1 - share) * (other.value - self.value)
            error = torch.sqrt(share) * self.error
        return _Mean(self.value + moved, error)


def _grouped(values: Tensor, group: int) -> Tensor:
    """Independent samples from paths: means over neighbours, or (negative) over one path in `-group`."""
    if group == 1:
        return values
    means: Tensor = (
        values.unflatten(-1, (-1, group)).mean(-1) if group > 1 else values.unflatten(-1, (-1, -group)).mean(0)
    )
    return means


def _check(model: Model, claim: EarlyExercise, market: Market | Markets) -> None:
    if model.batch_shape:
        raise InputError(
            f"{model.name} has batch axes {list(model.batch_shape)}: a policy belongs to one parameter set; price one "
            "after another"
        )
    if claim.assets != model.assets:
        raise InputError(f"{claim.name} is on {claim.assets} underlyings, {model.name} simulates {model.assets}")
    if isinstance(market, Market):
        claim.check_spot(torch.as_tensor(market.spot))


def _check_memory(stages: Stages, engine: MonteCarlo) -> None:
    """The policy needs the states of all its paths at all stages at once."""
    simulation = stages.simulation
    knocks = 24 * stages.last if stages.claim.window else 0
    per_path = 2 * (len(simulation.initial) * len(stages.times) * engine.dtype.itemsize + knocks)  # joining takes twice
    needed, budget = simulation.n_paths * per_path, engine.memory_budget
    if needed > budget:
        raise InputError(
            f"{stages.claim.name}: {simulation.n_paths} paths at {len(stages.times)} dates take {needed >> 20} MiB, "
            f"over the memory_budget of {budget >> 20} MiB; use n_paths = {budget // per_path}, fewer dates, float32 "
            "or a larger memory_budget"
        )
