"""What every noise is: a seed that turns path numbers and a step into normals and uniforms."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from qsde.errors import InputError

#: One tensor `[P]` per factor.
Columns = tuple[Tensor, ...]


class BlockNoise(ABC):
    """The draws of one block of `P` paths: a pure function of the step, callable in any order and as often as needed.

    Two forms of the same numbers: `draw` stacks the factors, `columns` leaves them apart. Code that indexes
    `normals[j]` accepts either; inside a compiled step `columns` is faster because nothing is written to memory.
    """

    @abstractmethod
    def columns(self, step: int | Tensor) -> tuple[Columns, Columns]:
        """Normals and uniforms of `step`, one `[P]` tensor per factor.

        A 0-dim integer tensor for `step` lets one compiled graph serve every step.
        """

    @abstractmethod
    def empty(self) -> Tensor:
        """A tensor `[0, P]` of the block's dtype and device: what no factors look like."""

    def ahead(self, n_steps: int) -> BlockNoise:
        """The same draws, made beforehand for all steps where that is faster: for blocks of few paths."""
        return self

    def draw(self, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """Normals `[n_normals, P]` with law N(0, 1) and uniforms `[n_uniforms, P]` strictly inside (0, 1)."""
        normals, uniforms = self.columns(step)
        return self._stacked(normals), self._stacked(uniforms)

    def stretch(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Normals and uniforms of the steps from `first` to before `last`, [steps, n, P]."""
        normals, uniforms = zip(*(self.draw(k) for k in range(first, last)), strict=True)
        return torch.stack(normals), torch.stack(uniforms)

    def _stacked(self, columns: Columns) -> Tensor:
        if not columns:
            return self.empty()
        return torch.stack(columns) if len(columns) > 1 else columns[0].unsqueeze(0)


class Noise(ABC):
    """A value, not a state: equal noises give equal digits, and drawing changes nothing."""

    @abstractmethod
    def block(
        self,
        paths: Tensor,
        n_steps: int,
        n_normals: int,
        n_uniforms: int,
        dtype: torch.dtype,
        device: torch.device | str,
        times: Tensor | None = None,
    ) -> BlockNoise:
        """The draws of the paths with these numbers.

        Args:
            paths: path numbers, int64 `[P]`, in any order.
            n_steps: how many steps there are; `draw` takes 0 to `n_steps - 1`.
            n_normals: normal factors per step.
            n_uniforms: uniform factors per step.
            dtype: torch.float32 or torch.float64.
            device: where the draws live.
            times: `[n_steps + 1]` increasing times, step `k` going from `times[k]` to `times[k + 1]`. Only a Brownian
                bridge uses them; without them it takes equal steps.
        """

    def groups(self, paths: Tensor) -> Tensor:
        """Number of the independent replicate each path belongs to, int64 `[P]`.

        Means over groups are independent, so the standard error is that of the group means. Here each path is its own
        group.
        """
        return paths

    @abstractmethod
    def bytes_per_path(self, n_steps: int, n_normals: int, n_uniforms: int, dtype: torch.dtype) -> int:
        """Memory one path of a block holds on to, for sizing blocks."""


def check_seed(seed: int) -> None:
    """Refuse a seed that is not an integer in [0, 2^64)."""
    try:
        ok = 0 <= operator.index(seed) < 1 << 64
    except TypeError:
        ok = False
    if not ok:
        raise InputError(f"seed must be an integer from 0 to 2^64 - 1, got {seed!r}")


def check_block(paths: Tensor, n_paths: int, n_steps: int, n_normals: int, n_uniforms: int, dtype: torch.dtype) -> None:
    """Refuse a block that no noise can serve; `n_paths` is how many path numbers the noise has."""
    if paths.ndim != 1 or paths.dtype != torch.int64:
        raise InputError(f"paths must be an int64 vector of path numbers, got {paths.dtype} {list(paths.shape)}")
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    if n_steps < 1 or n_normals < 0 or n_uniforms < 0:
        raise InputError(
            f"a block needs n_steps >= 1 and factors >= 0, got n_steps={n_steps}, n_normals={n_normals}, "
            f"n_uniforms={n_uniforms}"
        )
    if paths.numel() and not (int(paths.min()) >= 0 and int(paths.max()) < n_paths):
        raise InputError(
            f"path numbers must lie in [0, {n_paths}), got {int(paths.min())} to {int(paths.max())}; "
            "for more paths use a second seed"
        )
