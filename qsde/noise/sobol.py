"""Scrambled Sobol points as noise: several independent scrambles, each a path set of low discrepancy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from qsde.errors import InputError
from qsde.noise.base import BlockNoise, Columns, Noise, check_block, check_seed
from qsde.noise.bridge import BrownianBridge
from qsde.noise.threefry import seed_key, threefry2x32

_BITS = SobolEngine.MAXBIT
#: Numbers worked on at a time: the float64 temporaries stay near the size of a processor's cache.
_CHUNK = 1 << 19


@dataclass(frozen=True)
class Sobol(Noise):
    """Randomised quasi-Monte Carlo: Sobol points with random linear scrambles and digital shifts, one set per group.

    Path `p` is point `p // scrambles` of scramble `p % scrambles`. Scrambles are independent (`groups`), so the spread
    of their means gives a standard error; `scrambles * 2^m` paths are balanced best. With `bridge` every factor runs
    through a Brownian bridge, uniforms as the distribution function of theirs, so that the leading dimensions, where
    Sobol points are best, decide the coarse path of each factor.

    A block stores its draws. Points have 30 bits: up to 2^30 paths per scramble, |z| <= 6.2.

    Attributes:
        seed: integer from 0 to 2^64 - 1.
        scrambles: number of independent point sets.
        bridge: Brownian bridge over the block's `times`; otherwise the dimensions go step by step.

    Reference:
        Joe, Kuo: Constructing Sobol sequences with better two-dimensional projections. SIAM J. Sci. Comput. 30 (2008).
        Matousek: On the L2-discrepancy for anchored boxes. J. Complexity 14 (1998).

    Example:
        >>> noise = Sobol(3, scrambles=4)
        >>> normals, _ = noise.block(torch.arange(4 * 64), 8, 1, 0, torch.float64, "cpu").draw(0)
        >>> noise.groups(torch.arange(6))
        tensor([0, 1, 2, 3, 0, 1])
        >>> abs(float(normals.mean())) < 0.01
        True
    """

    seed: int
    scrambles: int = 16
    bridge: bool = True

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.scrambles < 2:
            raise InputError(f"scrambles must be at least 2 for a standard error to exist, got {self.scrambles}")

    def block(
        self,
        paths: Tensor,
        n_steps: int,
        n_normals: int,
        n_uniforms: int,
        dtype: torch.dtype,
        device: torch.device | str,
        times: Tensor | None = None,
    ) -> SobolBlock:
        """The draws of these paths, generated and kept: `n_steps * (n_normals + n_uniforms)` numbers each."""
        check_block(paths, self.scrambles << _BITS, n_steps, n_normals, n_uniforms, dtype)
        factors = n_normals + n_uniforms
        _check_dimension(n_steps, factors)
        bridge = self._bridge(n_steps, times, device)
        paths = paths.to(device)
        table = torch.empty((n_steps, factors, len(paths)), dtype=dtype, device=device)
        for scramble in self.groups(paths).unique().tolist() if factors else ():
            mine = (self.groups(paths) == scramble).nonzero().squeeze(1)
            for columns in mine.split(max(1, _CHUNK // (n_steps * factors))):
                points = self._points(paths[columns] // self.scrambles, scramble, n_steps * factors)
                table[..., columns] = _draws(points.view(n_steps, factors, -1), n_normals, bridge, dtype)
        return SobolBlock(table, n_normals)

    def groups(self, paths: Tensor) -> Tensor:
        """The scramble of each path."""
        return paths % self.scrambles

    def bytes_per_path(self, n_steps: int, n_normals: int, n_uniforms: int, dtype: torch.dtype) -> int:
        """All draws of the path."""
        return n_steps * (n_normals + n_uniforms) * dtype.itemsize

    def _bridge(self, n_steps: int, times: Tensor | None, device: torch.device | str) -> BrownianBridge | None:
        if not self.bridge:
            return None
        if times is None:
            times = torch.arange(n_steps + 1)
        if len(times) != n_steps + 1:
            raise InputError(f"times must have n_steps + 1 = {n_steps + 1} entries, got {len(times)}")
        return BrownianBridge.over(times.to(device))

    def _points(self, index: Tensor, scramble: int, dimension: int) -> Tensor:
        """Coordinates in (0, 1) of the points with these numbers, float64 `[dimension, P]`."""
        shift, directions = (part.to(index.device) for part in _scrambled(self.seed, scramble, dimension))
        gray = (index ^ (index >> 1)).int()
        digits = shift[:, None].expand(dimension, len(index))
        for bit in range(int(index.max()).bit_length()):
            digits = digits ^ (directions[bit][:, None] & -((gray >> bit) & 1))
        return (digits.double() + 0.5) * 2.0**-_BITS


@dataclass(frozen=True)
class SobolBlock(BlockNoise):
    """All draws of a block, `[n_steps, n_normals + n_uniforms, P]`."""

    table: Tensor
    n_normals: int

    def columns(self, step: int | Tensor) -> tuple[Columns, Columns]:
        """The row of this step."""
        row = self.table.index_select(0, step.reshape(1)).squeeze(0) if isinstance(step, Tensor) else self.table[step]
        factors = row.unbind(0)
        return factors[: self.n_normals], factors[self.n_normals :]

    def stretch(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """The rows of these steps."""
        rows = self.table[first:last]
        return rows[:, : self.n_normals], rows[:, self.n_normals :]

    def empty(self) -> Tensor:
        """A tensor `[0, P]`."""
        return self.table.new_empty((0, self.table.shape[-1]))


@lru_cache(maxsize=32)
def _scrambled(seed: int, scramble: int, dimension: int) -> tuple[Tensor, Tensor]:
    """Shift `[dimension]` and direction numbers `[30, dimension]` of one scramble, int32."""
    counter = torch.tensor([scramble, -1], dtype=torch.int32)
    high, low = threefry2x32(counter[0], counter[1], seed_key(seed, "cpu"))
    engine = SobolEngine(dimension, scramble=True, seed=(int(high) & 0x7FFFFFFF) << 32 | int(low) & 0xFFFFFFFF)
    return engine.shift.int(), engine.sobolstate.int().t().contiguous()


def _draws(points: Tensor, n_normals: int, bridge: BrownianBridge | None, dtype: torch.dtype) -> Tensor:
    """Normals and uniforms `[n_steps, factors, P]` from points of that shape."""
    if bridge is None:
        normals, uniforms = torch.special.ndtri(points[:, :n_normals]), points[:, n_normals:]
    else:
        increments = bridge.increments(torch.special.ndtri(points))
        normals, uniforms = increments[:, :n_normals], torch.special.ndtr(increments[:, n_normals:])
    # half an ulp below 1, so that neither end is reached after rounding to dtype
    margin = torch.finfo(dtype).eps / 2
    return torch.cat((normals, uniforms.clamp(margin, 1 - margin)), dim=1).to(dtype)


def _check_dimension(n_steps: int, factors: int) -> None:
    if n_steps * factors > SobolEngine.MAXDIM:
        raise InputError(
            f"{n_steps} steps of {factors} factors are {n_steps * factors} Sobol dimensions, and there are direction "
            f"numbers for {SobolEngine.MAXDIM}: use at most {SobolEngine.MAXDIM // factors} steps, or Threefry(seed)"
        )
