"""Derivatives of means over paths to the parameters of a model, in memory that does not grow with the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from qsde.models.base import Model
from qsde.noise.base import BlockNoise
from qsde.noise.later import Later
from qsde.pricing.simulation import Simulation
from qsde.schemes.base import State
from qsde.solve import TimeGrid, simulate

#: Steps pulled back at once.
_STEPS = 16
#: Means times paths pulled back at once: what is kept per step stays near the size of a processor's cache.
_CHUNK = 1 << 17

#: From means [M] and log-prices at their date [P] to the derivatives of what each path adds [M, P].
Seed = Callable[[Tensor, Tensor], Tensor]


def slopes(simulation: Simulation, model: Model, names: Sequence[str], rows: Sequence[Tensor], seed: Seed) -> Tensor:
    """Derivatives [M, W] of means over paths to all entries of parameters.

    The paths of a block are walked once, and their states kept every few steps; then one sweep goes back for all means
    together, a few steps at a time. The coefficients of these lead to the parameters before the next are looked at, so
    that nothing is ever held for all steps.

    Args:
        simulation: the paths, with their dates.
        model: the model, whose parameters `names` are moved.
        names: its parameters.
        rows: the means seen at each date.
        seed: derivatives of a path's share in some of them to its log-price.
    """
    moving = model.with_params({name: model.params[name].detach().requires_grad_() for name in names})
    parameters = [moving.params[name] for name in names]
    out = torch.zeros(sum(map(len, rows)), sum(p.numel() for p in parameters), dtype=torch.float64)
    for first in range(0, simulation.n_paths, simulation.block_size):
        for chunk, roots, flow in _sweep(simulation, moving, first, rows, seed):
            out[chunk] += _pulled(roots, parameters, flow)
    return out


def _sweep(
    simulation: Simulation, model: Model, first: int, rows: Sequence[Tensor], seed: Seed
) -> Iterator[tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]]:
    """Means, functions of the parameters that a block depends on, and their derivatives to these, one after another."""
    path = _Path.of(simulation, first)
    flow = [s.new_zeros(sum(map(len, rows)), simulation.block_size) for s in path.states[0]]
    alive = rows[0][:0]
    for stretch, start in zip(reversed(path.stretches), reversed(path.states), strict=True):
        leaves = tuple(s.clone().requires_grad_() for s in start)
        c = path.coefficients(model, stretch)
        leaf = c.detach().requires_grad_()
        end = path.after(stretch, leaf, leaves)
        if stretch.date is not None:
            own = rows[stretch.date]
            real = slice(simulation.n_paths - first)  # a last block is padded
            flow[0][own, real] += seed(own, end[0].detach()[real]) / simulation.n_paths
            alive = torch.cat([alive, own])
        known = [(e, f) for e, f in zip(end, flow, strict=True) if e.requires_grad]
        for chunk in alive.split(max(1, _CHUNK // simulation.block_size)):
            of_c, *of_start = torch.autograd.grad(
                [e for e, _ in known], [leaf, *leaves], [f[chunk] for _, f in known],
                is_grads_batched=True, retain_graph=True, allow_unused=True,
            )  # fmt: skip
            for f, found in zip(flow, of_start, strict=True):
                f[chunk] = 0 if found is None else found
            yield chunk, [c], [of_c]
    initial = simulation.scheme.initial(model)
    for chunk in alive.split(max(1, _CHUNK // simulation.block_size)):
        yield chunk, initial, [f[chunk].sum(-1) for f in flow]


def _pulled(roots: Sequence[Tensor], parameters: Sequence[Tensor], flow: Sequence[Tensor]) -> Tensor:
    """From derivatives to functions of the parameters to those to the parameters, [M, W]."""
    known = [(r, f.to(r)) for r, f in zip(roots, flow, strict=True) if r.requires_grad]
    size = len(flow[0])
    found = torch.autograd.grad(
        [r for r, _ in known], parameters, [f for _, f in known],
        is_grads_batched=True, retain_graph=True, allow_unused=True,
    ) if known else [None] * len(parameters)  # fmt: skip
    parts = [p.new_zeros(size, p.numel()) if g is None else g.reshape(size, -1)
             for p, g in zip(parameters, found, strict=True)]  # fmt: skip
    return torch.cat(parts, 1).double().cpu()


@dataclass(frozen=True)
class _Stretch:
    """Steps from `first` to before `last`, and which date they end at, if one."""

    first: int
    last: int
    date: int | None


@dataclass(frozen=True)
class _Path:
    """The paths of a block, at the start of each stretch."""

    simulation: Simulation
    draws: BlockNoise
    stretches: list[_Stretch]
    states: list[State]

    @classmethod
    def of(cls, simulation: Simulation, first: int) -> _Path:
        grid = simulation.job.grid
        dates = {k: date for date, k in enumerate(grid.observed_after)}
        ends = sorted({*range(_STEPS, max(dates), _STEPS), *dates})
        stretches = [_Stretch(start, end, dates.get(end)) for start, end in pairwise([0, *ends])]
        path = cls(simulation, simulation.drawn(first)[1], stretches, [simulation.start()])
        with torch.no_grad():
            for stretch in stretches[:-1]:
                c = simulation.coefficients[list(simulation.job.rows[stretch.first : stretch.last])]
                path.states.append(path.after(stretch, c, path.states[-1]))
        return path

    def coefficients(self, model: Model, stretch: _Stretch) -> Tensor:
        """Those of each step, as functions of the parameters."""
        grid, own = self.simulation.job.grid, slice(stretch.first, stretch.last)
        dt = torch.tensor([grid.sizes[i] for i in grid.step_size[own]], dtype=torch.float64)
        t = torch.tensor(grid.times[own], dtype=torch.float64)
        c = self.simulation.scheme.coefficients(model, dt, t).movedim(1, 0).unsqueeze(-1)
        return c.to(self.simulation.coefficients)

    def after(self, stretch: _Stretch, coefficients: Tensor, start: State) -> State:
        """The state after the stretch, [P] each."""
        job, n = self.simulation.job, stretch.last - stretch.first
        grid = TimeGrid(
            (job.grid.times[stretch.last],), job.grid.sizes, job.grid.step_size[stretch.first : stretch.last], (n,)
        )
        own = replace(job, grid=grid, rows=tuple(range(n)), seen=tuple(range(len(start))))
        found = simulate(own, Later(self.draws, stretch.first), coefficients, start, self.simulation.constants)
        return tuple(s[0] for s in found)
