"""The steps of a simulation: what moves its paths, when they are seen, and which states are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from qsde.noise.base import BlockNoise
from qsde.schemes.base import State
from qsde.solve.grid import TimeGrid
from qsde.solve.kernel import Kernel
from qsde.solve.pullback import Tensors

#: States stored by the forward sweep.
STORED = 100


@dataclass(frozen=True)
class Job:
    """What stays the same for all blocks.

    Attributes:
        kernel: the step.
        grid: the steps, and after which of them each date is seen.
        rows: for each step, the row of the coefficients that it takes.
        seen: components of the state that are kept at the dates.
        memory: bytes that a block may take to keep what the steps compute on their way, for the gradient.
    """

    kernel: Kernel
    grid: TimeGrid
    rows: tuple[int, ...]
    seen: tuple[int, ...] = (0,)
    memory: int = 0

    @classmethod
    def of(
        cls, kernel: Kernel, grid: TimeGrid, seen: Sequence[int] = (0,), memory: int = 0, apart: bool = False
    ) -> Job:
        """The job of a kernel: steps of one size share a row, unless they are kept `apart` or the scheme needs it."""
        each = apart or kernel.scheme.time_dependent
        rows = tuple(range(len(grid.step_size))) if each else grid.step_size
        return cls(kernel, grid, rows, tuple(seen), memory)

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.grid.step_size)

    @property
    def stride(self) -> int:
        """Steps between two stored states."""
        return max(1, math.ceil(self.n_steps / STORED))

    def row_times(self) -> tuple[Tensor, Tensor]:
        """Size and start of the step of each row of the coefficients, [rows] each."""
        grid, times = self.grid, torch.tensor(self.grid.times, dtype=torch.float64)
        firsts = sorted({row: k for k, row in reversed([*enumerate(self.rows)])}.values())  # rows come in their order
        sizes = torch.tensor([grid.sizes[grid.step_size[k]] for k in firsts], dtype=torch.float64)
        return sizes, times[torch.tensor(firsts, dtype=torch.long)]

    def advance(
        self, state: State, coefficients: Tensor | Tensors, constants: Tensors, block: BlockNoise, k: int
    ) -> State:
        """The state after step `k`."""
        step = self.kernel.number(k, state[0].device)
        return self.kernel.advance(state, coefficients[self.rows[k]], constants, block, step)

    @cached_property
    def dates(self) -> dict[int, list[int]]:
        """Which dates are seen after so many steps, the last first."""
        found: dict[int, list[int]] = {}
        for date, k in reversed([*enumerate(self.grid.observed_after)]):
            found.setdefault(k, []).append(date)
        return found

    def added(self, flow: State, gradient: Sequence[Tensor], k: int) -> State:
        """The flow, and the gradient [dates, ...] of what is seen after `k` steps."""
        out = list(flow)
        for date in self.dates.get(k, ()):
            for i, g in zip(self.seen, gradient, strict=True):
                out[i] = out[i] + g[date]
        return tuple(out)
