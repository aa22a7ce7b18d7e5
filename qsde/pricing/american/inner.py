"""Points drawn from each path's state at one stage to the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from qsde.noise import Threefry
from qsde.noise.sobol import SobolBlock
from qsde.pricing.american.stages import Stages
from qsde.schemes.base import State
from qsde.solve import Job, Kernel, TimeGrid, simulate
from qsde.solve.transforms import outside_transforms

_BITS = 30


@dataclass(frozen=True)
class Inner:
    """Sobol points with a random digital shift for each path and stage.

    Each point alone is uniform whatever the path, so means over the points are unbiased; together they fill the cube.

    Attributes:
        seed: of the points and of the shifts.
        points: per path, a power of 2.
        first: number of the first path.
    """

    seed: int
    points: int
    first: int = 0

    def states(self, stages: Stages, here: State, i: int) -> State:
        """Components [date, P * points] at all dates of the simulation from stage `i` to the next.

        Args:
            stages: the stages.
            here: the paths' state at stage `i`, [P] each.
            i: stage.
        """
        simulation = stages.simulation
        job = _between(simulation.job, stages.columns[i], stages.columns[i + 1])
        normals, uniforms = simulation.draws
        with outside_transforms():
            table = self._table(here[0].shape[-1], i, job.n_steps, normals, uniforms)
            table = table.to(simulation.engine.device, simulation.engine.dtype)
        start = tuple(s.repeat_interleave(self.points, -1) for s in here)
        return simulate(job, SobolBlock(table, normals), simulation.coefficients, start, simulation.constants)

    def _table(self, paths: int, stage: int, steps: int, normals: int, uniforms: int) -> Tensor:
        """Draws [steps, normals + uniforms, paths * points]."""
        factors = normals + uniforms
        base = SobolEngine(steps * factors, scramble=True, seed=self.seed & 0x7FFFFFFF).draw(
            self.points, dtype=torch.float64
        )
        numbers = torch.arange(self.first, self.first + paths)
        shifts = Threefry(self.seed).block(numbers, (stage + 1) * steps, 0, factors, torch.float64, "cpu")
        shift = torch.cat([shifts.draw(stage * steps + k)[1] for k in range(steps)])
        digits = _digits(base).t().unsqueeze(1) ^ _digits(shift).unsqueeze(-1)  # [dimension, path, point]
        uniform = ((digits.double() + 0.5) * 2.0**-_BITS).flatten(1).unflatten(0, (steps, factors))
        return torch.cat([torch.special.ndtri(uniform[:, :normals]), uniform[:, normals:]], 1)


def _digits(uniform: Tensor) -> Tensor:
    return (uniform * 2.0**_BITS).long()


def _between(job: Job, first: int, last: int) -> Job:
    """The part of a job from one of its dates to another; steps are not compiled for its shape."""
    grid = job.grid
    start, end = grid.observed_after[first], grid.observed_after[last]
    part = TimeGrid(
        grid.dates[first : last + 1],
        grid.sizes,
        grid.step_size[start:end],
        tuple(k - start for k in grid.observed_after[first : last + 1]),
    )
    return Job(Kernel.eager(job.kernel.scheme), part, job.rows[start:end], job.seen)
