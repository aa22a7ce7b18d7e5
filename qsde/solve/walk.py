"""Forward through the steps of a job: one after the other, or several at once where that takes less time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.noise.base import BlockNoise
from qsde.schemes.base import State, Stretch
from qsde.solve.job import Job
from qsde.solve.pullback import Tensors

#: States of at most so many numbers are moved several steps at once, so many numbers together: such steps cost what
#: torch takes to start their operations.
_FEW, _AT_ONCE = 1 << 12, 1 << 15


def walk(job: Job, state: State, step: Callable[[State, int], State]) -> Tensors:
    """The components `job.seen` at the observation dates, from a function of the state and the number of the step."""
    seen: list[State] = []
    dates = job.grid.observed_after
    for k in range(job.n_steps + 1):
        while len(seen) < len(dates) and dates[len(seen)] == k:
            seen.append(state)
        if k < job.n_steps:
            state = step(state, k)
    return tuple(torch.stack([s[i] for s in seen]) for i in job.seen)


@dataclass(frozen=True)
class Moves:
    """How the paths of a block are moved.

    Attributes:
        together: how many steps a move takes.
        move: takes a state and the number of the first step; the state after it, [*batch, P] each, or, of several, the
            states after each of them, [steps, *batch, P].
    """

    together: int
    move: Callable[[State, int], State]

    @classmethod
    def of(cls, job: Job, block: BlockNoise, coefficients: Tensor, initial: State, constants: Tensors) -> Moves:
        """As many steps at once as pay."""
        few = not job.kernel.compiled and job.kernel.scheme.at_once and initial[0].numel() <= _FEW
        together = _AT_ONCE // initial[0].numel() if few else 1
        if together > 1:
            return cls(together, lambda s, k: _leap(job, block, coefficients, constants, s, k, together))
        rows = coefficients.unbind(0)  # indexed, each step's gradient would be as large as all rows
        return cls(1, lambda s, k: job.advance(s, rows, constants, block, k))

    def walk(self, job: Job, initial: State) -> Tensors:
        """The components `job.seen` at the observation dates."""
        if self.together == 1:
            return walk(job, initial, self.move)
        dates, state = job.grid.observed_after, initial
        seen = [tuple(state[i].unsqueeze(0) for i in job.seen)] * (0 in dates)
        for first in range(0, job.n_steps, self.together):
            path = self.move(state, first)
            at = [k - first - 1 for k in dates if first < k <= first + self.together]
            whole = at == [*range(len(path[0]))]
            seen.append(tuple(path[i] if whole else path[i][at] for i in job.seen))
            state = tuple(s[-1] for s in path)
        return tuple(torch.cat(column) for column in zip(*seen, strict=True))


def _leap(
    job: Job, block: BlockNoise, coefficients: Tensor, constants: Tensors, state: State, first: int, together: int
) -> State:
    """The states [steps, *batch, P] after each of `together` steps, or as many as are left."""
    rows = list(job.rows[first : first + together])
    drawn = (z.transpose(0, 1) for z in block.stretch(first, first + len(rows)))
    normals, uniforms = (z.reshape(*z.shape[:2], *(1,) * (state[0].dim() + 2 - z.dim()), *z.shape[2:]) for z in drawn)
    uniforms = uniforms[: len(uniforms) - job.kernel.spare]
    # a sixth less time, where states are copied by whoever looks at them; devices need not know it
    with torch.inference_mode(not torch.is_grad_enabled() and state[0].device.type == "cpu"):
        stretch = Stretch(coefficients[rows].transpose(0, 1), normals, uniforms, constants)
        return job.kernel.scheme.steps(state, stretch)
