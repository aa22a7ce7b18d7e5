"""Gradients by plain automatic differentiation through the loop, of any order."""

from __future__ import annotations

import torch
from torch import Tensor

from qsde.noise.base import BlockNoise
from qsde.schemes.base import State
from qsde.solve.loop import Job, Tensors, draws


def simulate_direct(
    job: Job, block: BlockNoise, coefficients: Tensor, initial: State, constants: Tensors = ()
) -> Tensors:
    """As `qsde.solve.loop.simulate`, recorded operation by operation: memory grows with the number of steps."""
    state, seen = initial, []
    for k in range(job.n_steps + 1):
        seen += [state] * job.grid.observed_after.count(k)
        if k < job.n_steps:
            state = job.kernel.scheme.step(
                state, coefficients[job.rows[k]], *draws(block, k, job.kernel.spare), constants
            )
    return tuple(torch.stack([s[i] for s in seen]) for i in job.seen)
