"""Antithetic pairs over any noise of independent paths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.noise.base import BlockNoise, Columns, Noise
from qsde.noise.sobol import Sobol


@dataclass(frozen=True)
class Antithetic(Noise):
    """Paths `2i` and `2i + 1` share their draws with opposite sign: `z` and `-z`, `u` and `1 - u`.

    Pairs are the independent replicates (`groups`), so the standard error is that of pair means. The variance falls
    where the payoff is monotone in the noise and doubles where it is even.

    Attributes:
        noise: the noise of the pairs; not Sobol points, whose balance antithetic copies would repeat rather than add
            to, and not another Antithetic.

    Example:
        >>> from qsde.noise import Threefry
        >>> block = Antithetic(Threefry(1)).block(torch.arange(2), 1, 1, 1, torch.float64, "cpu")
        >>> normals, uniforms = block.draw(0)
        >>> float(normals.sum()), float(uniforms.sum())
        (0.0, 1.0)
    """

    noise: Noise

    def __post_init__(self) -> None:
        if isinstance(self.noise, Sobol):
            raise InputError("Sobol points are balanced already and cannot be antithetic: use Sobol(seed) alone")
        if isinstance(self.noise, Antithetic):
            raise InputError("Antithetic(Antithetic(noise)) is one wrapper too many: use Antithetic(noise)")

    def block(
        self,
        paths: Tensor,
        n_steps: int,
        n_normals: int,
        n_uniforms: int,
        dtype: torch.dtype,
        device: torch.device | str,
        times: Tensor | None = None,
    ) -> AntitheticBlock:
        """The draws of these paths, those of odd number mirrored."""
        inner = self.noise.block(self.groups(paths), n_steps, n_normals, n_uniforms, dtype, device, times)
        return AntitheticBlock(inner, (1 - 2 * (paths % 2)).to(device, dtype))

    def groups(self, paths: Tensor) -> Tensor:
        """The pair of each path."""
        return paths // 2

    def bytes_per_path(self, n_steps: int, n_normals: int, n_uniforms: int, dtype: torch.dtype) -> int:
        """Those of the noise underneath, and the sign."""
        return self.noise.bytes_per_path(n_steps, n_normals, n_uniforms, dtype) + dtype.itemsize


@dataclass(frozen=True)
class AntitheticBlock(BlockNoise):
    """Draws of the pairs and the sign `[P]` of each path."""

    pairs: BlockNoise
    sign: Tensor

    def columns(self, step: int | Tensor) -> tuple[Columns, Columns]:
        """Draws of the pairs, mirrored where the sign is negative."""
        normals, uniforms = self.pairs.columns(step)
        mirrored = tuple(torch.where(self.sign < 0, 1 - u, u) for u in uniforms)
        return tuple(self.sign * z for z in normals), mirrored

    def draw(self, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """The same, stacked."""
        return self._mirrored(*self.pairs.draw(step))

    def stretch(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """The same of several steps."""
        return self._mirrored(*self.pairs.stretch(first, last))

    def _mirrored(self, normals: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        return self.sign * normals, torch.where(self.sign < 0, 1 - uniforms, uniforms)

    def empty(self) -> Tensor:
        """A tensor `[0, P]`."""
        return self.pairs.empty()

    def ahead(self, n_steps: int) -> BlockNoise:
        """The pairs drawn ahead."""
        return replace(self, pairs=self.pairs.ahead(n_steps))
