"""Draws of one long block seen as several short ones, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from qsde.noise.base import BlockNoise, Columns


@dataclass(frozen=True)
class Folded(BlockNoise):
    """The draws [folds * P] of a block as [folds, P]: each fold has paths of its own.

    Attributes:
        block: the long block.
        folds: how many.
    """

    block: BlockNoise
    folds: int

    def columns(self, step: int | Tensor) -> tuple[Columns, Columns]:
        """Draws [folds, P]."""
        normals, uniforms = self.block.columns(step)
        return tuple(self._folded(z) for z in normals), tuple(self._folded(u) for u in uniforms)

    def stretch(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Draws [steps, n, folds, P]."""
        normals, uniforms = self.block.stretch(first, last)
        return self._folded(normals), self._folded(uniforms)

    def empty(self) -> Tensor:
        """A tensor [0, folds, P]."""
        return self._folded(self.block.empty())

    def _folded(self, values: Tensor) -> Tensor:
        folded: Tensor = values.unflatten(-1, (self.folds, -1))
        return folded
