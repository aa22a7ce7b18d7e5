"""Simulated paths that several look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from qsde.pricing.simulation import Block, Parts, Simulation


class PathSet:
    """The blocks of one part of the paths after the other, each kept until other parts are asked for.

    Args:
        simulation: where they come from.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._parts: Parts | None = None
        self._with_gradient = False
        self._kept: dict[int, Block] = {}

    def blocks(self, parts: Parts) -> Iterator[Block]:
        """All blocks of these parts; with the graph of their gradient if they were first asked for with one."""
        gradient = torch.is_grad_enabled()
        if parts != self._parts or (gradient and not self._with_gradient):
            self._parts, self._with_gradient, self._kept = parts, gradient, {}
        for first in range(0, self.simulation.n_paths, self.simulation.block_size):
            if first not in self._kept:
                self._kept[first] = replace(self.simulation.block(first, parts=parts), kept=True)
            yield self._kept[first]
