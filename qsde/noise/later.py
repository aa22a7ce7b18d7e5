"""Draws of a block from some step on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from qsde.noise.base import BlockNoise, Columns


@dataclass(frozen=True)
class Later(BlockNoise):
    """The draws of a block whose step `first` is step 0 here.

    Attributes:
        block: the block.
        first: number of the step there.
    """

    block: BlockNoise
    first: int

    def columns(self, step: int | Tensor) -> tuple[Columns, Columns]:
        """Those of the block at the later step."""
        return self.block.columns(step + self.first)

    def draw(self, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """Those of the block at the later step."""
        return self.block.draw(step + self.first)

    def stretch(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Those of the block at the later steps."""
        return self.block.stretch(first + self.first, last + self.first)

    def empty(self) -> Tensor:
        """A tensor `[0, P]`."""
        return self.block.empty()
