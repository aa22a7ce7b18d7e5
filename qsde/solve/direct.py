"""Gradients by plain automatic differentiation through the loop, of any order."""

from __future__ import annotations

from torch import Tensor

from qsde.noise.base import BlockNoise
from qsde.schemes.base import State
from qsde.solve.job import Job
from qsde.solve.kernel import draws
from qsde.solve.pullback import Tensors
from qsde.solve.walk import walk


def simulate_direct(
    job: Job, block: BlockNoise, coefficients: Tensor, initial: State, constants: Tensors = ()
) -> Tensors:
    """As `qsde.solve.loop.simulate`, recorded operation by operation: memory grows with the number of steps."""

    def step(state: State, k: int) -> State:
        drawn = draws(block, k, job.kernel.spare)
        return job.kernel.scheme.step(state, coefficients[job.rows[k]], *drawn, constants)

    return walk(job, initial, step)
