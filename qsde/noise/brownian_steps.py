"""The Brownian tree as the noise of given steps, those of all paths or of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.noise.base import BlockNoise, Columns, Noise
from qsde.noise.brownian_tree import BrownianBlock, BrownianPoint, BrownianTree
from qsde.noise.threefry import Stretches

#: Draws made together at most.
_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class BrownianSteps(Noise):
    """Normals `W / sqrt(dt)` of the tree's motions over given steps, then `H sqrt(12 / dt)`; 0 where a step is empty.

    Attributes:
        tree: the motions.
        motions: how many each path has.
        starts, ends: times of the steps, one after another: float64 [n_steps, 1], or [n_steps, P] where each path has
            steps of its own.
    """

    tree: BrownianTree
    motions: int
    starts: Tensor
    ends: Tensor

    def block(
        self,
        paths: Tensor,
        n_steps: int,
        n_normals: int,
        n_uniforms: int,
        dtype: torch.dtype,
        device: torch.device | str,
        times: Tensor | None = None,
    ) -> BrownianStepsBlock:
        """The draws of these paths: as many normals as motions, or twice as many with the areas."""
        if n_normals not in (self.motions, 2 * self.motions) or n_uniforms or n_steps != len(self.starts):
            raise InputError(
                f"the steps have {self.motions} motions, {len(self.starts)} steps and no uniforms; asked were "
                f"n_normals={n_normals}, n_steps={n_steps}, n_uniforms={n_uniforms}"
            )
        own = slice(None) if self.starts.shape[1] == 1 else paths.to(self.starts.device)
        starts, ends = (t[:, own].to(device) for t in (self.starts, self.ends))
        return BrownianStepsBlock(self.tree.block(paths, self.motions, dtype, device), starts, ends, n_normals)

    def bytes_per_path(self, n_steps: int, n_normals: int, n_uniforms: int, dtype: torch.dtype) -> int:
        """Two counter words for each motion."""
        return 8 * self.motions


@dataclass(frozen=True)
class BrownianStepsBlock(BlockNoise):
    """Draws of some paths, computed on demand."""

    motion: BrownianBlock
    starts: Tensor
    ends: Tensor
    n_normals: int

    def columns(self, step: int | Tensor) -> tuple[Columns, Columns]:
        """Normals of a step, [P] each."""
        return self.draw(step)[0].unbind(0), ()

    def draw(self, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """Normals of a step, [n, P]."""
        return self._normals(int(step), int(step) + 1).squeeze(0), self.empty()

    def stretch(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Normals of several steps, [steps, n, P]."""
        normals = self._normals(first, last)
        return normals, normals[:, :0]

    def ahead(self, n_steps: int) -> BlockNoise:
        """Draws of several steps at once: with few motions a step costs what torch takes to start its operations."""
        together = _AT_ONCE // max(1, self.motion.key[0].numel())
        return Stretches(self, n_steps, together) if together > 1 else self

    def empty(self) -> Tensor:
        """A tensor `[0, P]`."""
        return self.motion.key.new_empty((0, self.motion.key.shape[1]), dtype=self.motion.dtype)

    def _normals(self, first: int, last: int) -> Tensor:
        # each step starts where the one before ends
        points = self.motion.at(torch.cat([self.starts[first : first + 1], self.ends[first:last]]))
        before, after = (
            BrownianPoint(points.time[part], points.value[part], points.area[part])
            for part in (slice(None, -1), slice(1, None))
        )
        w, h = before.until(after, self.motion.dtype)
        size = (after.time - before.time).unsqueeze(-1)
        root = torch.where(size > 0, size, 1.0).sqrt().to(w)
        normals = torch.cat([w / root, h * math.sqrt(12) / root], -1) if self.n_normals > w.shape[-1] else w / root
        return normals.mT
