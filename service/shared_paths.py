"""Monte Carlo requests of one model family priced on one simulation, to the digits that each has alone.

What a simulation steps does not depend on the market (its states are logarithms of the price over the forward), so
requests that differ in parameters, spot, curves, strikes and kinds of payoff share the stepping of their paths if their
model is of one family and their engine, dates and windows are equal. Everything before it (coefficients of the steps)
and after it (what payoffs see, regression, errors) is computed for each request as if it were alone; control variates
of one kind are integrated together (`qsde.pricing.controls.companion_rows`).

Stepping is elementwise, so a row of a batch has the digits of the same row alone as long as torch treats every element
alike. It computes the last few of an array that do not fill a vector register by other instructions, and splits work
among threads anywhere. Hence `ALIGNED`, and one thread for each worker; a compiled kernel is not shared. `checked`
looks again on the machine at hand.

Rows share the draws, so the more of them the better; so many paths are stepped at a time that all rows of them fit the
cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from qsde.models import Model
from qsde.noise import BlockNoise, Columns, Noise
from qsde.noise.remembered import Remembered
from qsde.payoffs import Payoff
from qsde.pricing.controls import companion_rows
from qsde.pricing.engine import Auto, MonteCarlo
from qsde.pricing.exact import why_not_exact
from qsde.pricing.moments import Result
from qsde.pricing.path_set import PathSet
from qsde.pricing.run import Run
from qsde.pricing.simulation import Block, Parts, Simulation
from qsde.spec import PriceRequest, PriceResult, PricingJob

#: Blocks of a multiple of so many paths leave no rest beside vector registers: two registers of 64 bytes of float32.
ALIGNED = 32
#: Numbers in one component of the state that are stepped together, and fewest paths: fewer leave torch more overhead.
_AT_ONCE, _LEAST_PATHS = 1 << 15, 1 << 9
#: Most numbers that a batch keeps of its paths.
_MOST_KEPT = 1 << 24


@dataclass(frozen=True)
class _Observed(Simulation):
    """A simulation of one block that has been stepped already."""

    given: Block | None = None

    def block(self, first: int, noise: Noise | None = None, parts: Parts | None = None) -> Block:
        """The given block."""
        assert self.given is not None
        assert first == 0
        return self.given


@dataclass(frozen=True)
class _Joined(BlockNoise):
    """The draws of blocks side by side."""

    parts: tuple[BlockNoise, ...]

    def columns(self, step: int | torch.Tensor) -> tuple[Columns, Columns]:
        """Those of the blocks."""
        normals, uniforms = zip(*(part.columns(step) for part in self.parts), strict=True)
        return _side_by_side(normals), _side_by_side(uniforms)

    def empty(self) -> torch.Tensor:
        """A tensor `[0, P]`."""
        return torch.cat([part.empty() for part in self.parts], -1)


def _side_by_side(parts: Sequence[Columns]) -> Columns:
    return tuple(torch.cat(some, -1) for some in zip(*parts, strict=True))


@torch.no_grad()
def prepared(job: PricingJob) -> Run | None:
    """The simulation of a job if it may be shared; None if it may not.

    Raises:
        InputError: payoffs, model and market do not belong together.
    """
    engine = _simulation(job)
    payoffs = [claim for claim in job.payoffs if isinstance(claim, Payoff)]
    if engine is None or engine.device != "cpu" or len(payoffs) < len(job.payoffs) or job.model.assets > 1:
        return None
    # the companion of a single payoff waits for those of its group
    run = Run.of(job.model, payoffs, job.market, engine, [None] if len(payoffs) == 1 else None)
    return run if _may_share(run.simulation) else None


def _simulation(job: PricingJob) -> MonteCarlo | None:
    """What simulates every payoff of a job; None if one is integrated."""
    engine = job.engine
    if isinstance(engine, Auto):
        exact = any(why_not_exact(job.model, payoff, job.market) is None for payoff in job.payoffs)
        return None if exact else engine.simulation
    return engine if isinstance(engine, MonteCarlo) else None


def _may_share(simulation: Simulation) -> bool:
    one_block = simulation.block_size >= simulation.n_paths and simulation.n_paths % ALIGNED == 0
    return one_block and simulation.engine.compile == "never" and not simulation.constants


def groups(runs: Sequence[Run]) -> list[list[int]]:
    """Indices of runs that are stepped together, no more at a time than memory may hold."""
    found: list[list[int]] = []
    for i, run in enumerate(runs):
        most = max(1, _MOST_KEPT // _kept_numbers(run.simulation))
        for group in found:
            if len(group) < most and _alike(runs[group[0]].simulation, run.simulation):
                group.append(i)
                break
        else:
            found.append([i])
    return found


def _alike(a: Simulation, b: Simulation) -> bool:
    return (
        list(a.model.params) == list(b.model.params)
        and type(a.model) is type(b.model)
        and a.engine == b.engine
        and a.scheme == b.scheme
        and a.job.grid == b.job.grid
        and a.job.seen == b.job.seen
        and a.coefficients.shape == b.coefficients.shape
        and _kept(a) == _kept(b)
    )


def _kept(simulation: Simulation) -> tuple[object, ...]:
    """What steps draw, and what their states hold."""
    s = simulation
    return s.draws, s.averaged, s.sampled, s.tracked, len(s.initial)


def _kept_numbers(simulation: Simulation) -> int:
    return simulation.n_paths * len(simulation.job.grid.dates) * len(simulation.job.seen)


@torch.no_grad()
def results(runs: Sequence[Run]) -> list[list[Result]]:
    """Results of runs of one group: one list for each, in the order of its payoffs.

    Raises:
        NumericsError: a path left the finite numbers; price them one by one to see which.
    """
    together = _together([run.simulation for run in runs])
    block = _block(together)
    found = enumerate(_accompanied(runs, together.model))
    return [_observed(run, block, row).results(lambda done, total: None) for row, run in found]


def _accompanied(runs: Sequence[Run], model: Model) -> list[Run]:
    """Runs of one payoff with its companion; the others have theirs."""
    rows = [i for i, run in enumerate(runs) if run.simulation.engine.control_variate and len(run.book) == 1]
    own = model.map(lambda p: p[rows])
    found = companion_rows(own, [runs[i].market for i in rows], [runs[i].book[0] for i in rows])  # type: ignore[misc]
    likes = dict(zip(rows, found, strict=True))
    return [replace(run, companions=[likes[i]]) if i in likes else run for i, run in enumerate(runs)]


def _together(simulations: Sequence[Simulation]) -> Simulation:
    lead = simulations[0]
    params = {name: torch.stack([s.model.params[name] for s in simulations]) for name in lead.model.params}
    return replace(
        lead,
        model=lead.model.with_params(params),
        coefficients=torch.stack([s.coefficients for s in simulations], -2),
        initial=tuple(torch.stack(component) for component in zip(*(s.initial for s in simulations), strict=True)),
    )


def _block(together: Simulation) -> Block:
    """All paths of all rows, stepped some at a time."""
    rows, total = together.model.batch_shape.numel(), together.n_paths
    most = max(_LEAST_PATHS, _AT_ONCE // rows // ALIGNED * ALIGNED)
    parts = [replace(together, block_size=min(most, total - first)).block(first) for first in range(0, total, most)]
    noise: BlockNoise = _Joined(tuple(part.noise for part in parts))
    if together.job.kernel.spare:
        noise = Remembered(noise, together.job.kernel.spare)
    states = tuple(torch.cat(component, -1) for component in zip(*(part.states for part in parts), strict=True))
    numbers = torch.cat([part.numbers for part in parts])
    return replace(parts[0], states=states, noise=noise, n_paths=total, numbers=numbers)


def _observed(run: Run, block: Block, row: int) -> Run:
    own = replace(block, states=tuple(s[:, row].contiguous() for s in block.states))
    fields = {name: getattr(run.simulation, name) for name in Simulation.__dataclass_fields__}
    return replace(run, paths=PathSet(_Observed(**fields, given=own)))


def checked(count: int = 12) -> bool:
    """Whether requests have the same digits here and in the library on this machine, on Asians under Heston."""
    requests = [_asian(0.02 + 0.005 * i, 0.3 + 0.05 * i, 90.0 + 2 * i) for i in range(count)]
    runs = [run for request in requests if (run := prepared(request.build()))]
    found = [[float(row.value), float(row.std_error)] for (row,) in results(runs)]
    alone = [PriceResult.of(request, request.build()).payoffs[0] for request in requests]
    return found == [[one.value, one.std_error] for one in alone]


def _asian(v0: float, sigma: float, strike: float) -> PriceRequest:
    return PriceRequest.model_validate(
        {
            "model": {"model": "heston", "v0": v0, "kappa": 1.5, "theta": 0.05, "sigma": sigma, "rho": -0.7},
            "market": {"spot": 100.0, "rate": 0.03},
            "payoffs": [{"type": "asian", "strike": strike, "fixings": [0.25, 0.5, 0.75, 1.0]}],
            "engine": {"type": "monte_carlo", "paths": 1024, "compile": "never"},
        }
    )
