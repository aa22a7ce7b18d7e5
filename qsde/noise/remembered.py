"""Draws of which some are wanted again once the paths are there."""

from __future__ import annotations

from torch import Tensor

from qsde.noise.base import BlockNoise, Columns


class Remembered(BlockNoise):
    """The draws of a block, the last uniforms of each step kept from the first time it is drawn.

    Args:
        block: the block.
        last: how many uniforms of a step are kept.
    """

    def __init__(self, block: BlockNoise, last: int) -> None:
        self._block, self._last = block, last
        self._kept: dict[int, Columns] = {}

    def columns(self, step: int | Tensor) -> tuple[Columns, Columns]:
        """Those of the block."""
        normals, uniforms = self._block.columns(step)
        self._kept.setdefault(int(step), uniforms[-self._last :])
        return normals, uniforms

    def draw(self, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """Those of the block."""
        normals, uniforms = self._block.draw(step)
        self._kept.setdefault(int(step), uniforms[-self._last :].unbind(0))
        return normals, uniforms

    def stretch(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Those of the block."""
        normals, uniforms = self._block.stretch(first, last)
        for step, row in enumerate(uniforms, first):
            self._kept.setdefault(step, row[-self._last :].unbind(0))
        return normals, uniforms

    def last(self, step: int) -> Columns:
        """The uniforms of a step that are kept."""
        if step not in self._kept:
            self.columns(step)
        return self._kept[step]

    def empty(self) -> Tensor:
        """A tensor `[0, P]`."""
        return self._block.empty()
