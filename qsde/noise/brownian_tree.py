"""Brownian motion at any time from one seed: values computed where they are asked for, never stored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.noise.base import check_seed
from qsde.noise.threefry import MAX_PATHS, path_words, seed_key, threefry2x32
from qsde.noise.transforms import box_muller

#: Halvings at most: node numbers stay within 31 bits.
MAX_DEPTH = 28
#: Second counter words of the keys of motions go down from here; no draw of `Threefry` or `Sobol` has one of them.
_KEYS = -16
#: Numbers drawn together: the temporaries stay near the size of a processor's cache.
_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class BrownianPoint:
    """A Brownian path at one time: all that intervals ending there need.

    Attributes:
        time: float64 [*times].
        value: `W(t) - W(start)`, float64 [*times, P, m].
        area: `int_start^t (W(r) - W(start)) dr`, likewise.
    """

    time: Tensor
    value: Tensor
    area: Tensor

    def until(self, end: BrownianPoint, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """`W` and `H` of the interval from here to a later point, [*times, P, m] each; 0 if it is empty."""
        span = (end.time - self.time).unsqueeze(-1)
        safe = torch.where(span > 0, span, 1.0)
        bend = (end.area - self.area) / safe - 0.5 * (self.value + end.value)
        return (end.value - self.value).to(dtype), torch.where(span > 0, bend, 0.0).to(dtype)


@dataclass(frozen=True)
class BrownianTree:
    """Brownian motions and their space-time Levy areas on [start, end], from a seed alone.

    For an interval [s, t] of length h the increment `W = W(t) - W(s)` and the space-time Levy area
    `H = (1/h) int_s^t (W(r) - W(s) - (r - s)/h W) dr` are independent, N(0, h) and N(0, h/12). Given both, those of the
    two halves are again Gaussian, so halving the interval down to the asked time gives the path there. Each halving
    draws from a counter made of seed, path, motion and node: values depend on nothing else, neither on the order nor
    on the grouping of the questions, and nothing is kept. The last interval, of at most `tolerance`, is split at the
    asked time itself: one time in each such interval has the exact joint law, two in the same one share their draw.
    Values at halving times do not depend on the tolerance.

    Attributes:
        seed: integer from 0 to 2^64 - 1.
        start, end: where the motions start, and the last time.
        tolerance: length below which intervals are not halved further; the work per question grows with
            `log2((end - start) / tolerance)`, which may be up to 28.
        rounds: Threefry rounds, from 13 to 32.

    Raises:
        InputError: a field out of range.

    Reference:
        Jelincic, Foster, Kidger (2024), "Single-seed generation of Brownian paths and integrals for adaptive and high
        order SDE solvers", arXiv:2405.06464, section 3; Foster, Lyons, Oberhauser (2020), SIAM J. Numer. Anal. 58.

    Example:
        >>> tree = BrownianTree(seed=1, start=0.0, end=1.0, tolerance=1e-3)
        >>> motions = tree.block(torch.arange(20_000), 2)
        >>> increment, area = motions.between(0.25, 0.5)
        >>> increment.shape, round(float(increment.var()), 2), round(12 * float(area.var()), 2)
        (torch.Size([20000, 2]), 0.25, 0.25)
        >>> first, second = motions.between(0.25, 0.3)[0], motions.between(0.3, 0.5)[0]
        >>> bool(torch.allclose(first + second, increment))
        True
    """

    seed: int
    start: float
    end: float
    tolerance: float
    rounds: int = 13

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not (math.isfinite(self.start) and math.isfinite(self.end) and self.start < self.end):
            raise InputError(f"start must lie before end, both finite, got start={self.start}, end={self.end}")
        shortest = (self.end - self.start) * 2.0**-MAX_DEPTH
        if not self.tolerance >= shortest:
            raise InputError(
                f"tolerance must be at least 2^-{MAX_DEPTH} of the whole interval, {shortest:.3g}, got {self.tolerance}"
            )
        if self.rounds not in range(13, 33):
            raise InputError(f"rounds must be an integer from 13 to 32, got {self.rounds}")

    @property
    def depth(self) -> int:
        """Number of halvings, the same for every time."""
        return max(0, math.ceil(math.log2((self.end - self.start) / self.tolerance)))

    def block(
        self, paths: Tensor, motions: int, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> BrownianBlock:
        """`motions` independent Brownian motions for each of these path numbers, int64 [P].

        float64 refines the float32 path with further random bits; sums are in float64 for both.
        """
        if paths.ndim != 1 or paths.dtype != torch.int64:
            raise InputError(f"paths must be an int64 vector of path numbers, got {paths.dtype} {list(paths.shape)}")
        if paths.numel() and not (int(paths.min()) >= 0 and int(paths.max()) < MAX_PATHS):
            raise InputError(f"path numbers must lie in [0, {MAX_PATHS}); for more paths use a second seed")
        if motions < 1 or dtype not in (torch.float32, torch.float64):
            raise InputError(f"a block has motions >= 1 in float32 or float64, got motions={motions}, dtype={dtype}")
        words = path_words(paths, device).unsqueeze(-1)
        slots = _KEYS - torch.arange(motions, dtype=torch.int32, device=device)
        # the cipher is a bijection: every (path, motion) has a key of its own
        key = torch.stack(threefry2x32(words, slots, seed_key(self.seed, device), self.rounds))
        return BrownianBlock(self, key, dtype)


@dataclass(frozen=True)
class BrownianBlock:
    """The Brownian motions of some paths, as a function of time.

    Attributes:
        tree: the seed and the interval.
        key: a Threefry key for each motion, int32 [2, P, m].
        dtype: precision of draws and increments.
    """

    tree: BrownianTree
    key: Tensor
    dtype: torch.dtype

    def at(self, t: Tensor | float) -> BrownianPoint:
        """The paths at `t`: one time for all, 0-dim, or a time for each path, [P], or several: [*, 1] or [*, P].

        Times outside of [start, end] are taken to be the nearer end.
        """
        tree, depth = self.tree, self.tree.depth
        t = torch.as_tensor(t, dtype=torch.float64, device=self.key.device)
        times = t.unsqueeze(-1) if t.dim() == 0 else t
        span = tree.end - tree.start
        place = ((times - tree.start) / span).clamp(0.0, 1.0) * 2.0**depth
        leaf = place.detach().floor().clamp(max=2.0**depth - 1)
        index = leaf.long().unsqueeze(-1)
        drawn = self._drawn(index, depth)
        z, y = next(drawn)
        w, h = math.sqrt(span) * z, math.sqrt(span / 12) * y
        value, area = torch.zeros_like(w), torch.zeros_like(w)
        for level in range(depth):
            z, y = next(drawn)
            span, root = 0.5 * span, math.sqrt(span)
            shift, turn = 1.5 * h + (0.25 * root) * z, 0.25 * h - (0.125 * root) * z
            tilt = (0.5 / math.sqrt(12) * root) * y
            right = ((index >> (depth - 1 - level)) & 1).bool()
            half = 0.5 * w
            passed = half + shift
            area = torch.where(right, area + span * (value + 0.5 * passed + turn + tilt), area)
            value = torch.where(right, value + passed, value)
            w = torch.where(right, half - shift, passed)
            h = torch.where(right, turn - tilt, turn + tilt)
        w, h = _part((place - leaf).unsqueeze(-1), math.sqrt(span), w, h, *next(drawn))
        area = area + span * (place - leaf).unsqueeze(-1) * (value + 0.5 * w + h)
        return BrownianPoint(times, value + w, area)

    def between(self, s: Tensor | float, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """`W` and `H` of [s, t], [*times, P, m] each."""
        return self.at(s).until(self.at(t), self.dtype)

    def _drawn(self, leaf: Tensor, depth: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Two normals for the whole interval, for each halving on the way to the leaf, and for the leaf."""
        shape = torch.broadcast_shapes(leaf.shape, self.key.shape[1:])
        together = max(1, _AT_ONCE // max(1, shape.numel()))
        number = leaf + (1 << depth)
        nodes = [torch.zeros_like(leaf), *(number >> (depth - level) for level in range(depth + 1))]
        for first in range(0, len(nodes), together):
            some = torch.stack(nodes[first : first + together]).to(torch.int32)
            yield from zip(*(z.double().unbind(0) for z in self._normals(some)), strict=True)

    def _normals(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        rounds = self.tree.rounds
        high = threefry2x32(nodes, 0, self.key, rounds)
        if self.dtype == torch.float32:
            return box_muller(high)
        return box_muller(high, threefry2x32(nodes, 1, self.key, rounds))


def _part(x: Tensor, root: float, w: Tensor, h: Tensor, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """`W` and `H` of the first part, the fraction x, of an interval of length root^2 with these `W` and `H`."""
    rest = 1 - x
    across = x * rest
    spread = torch.sqrt(1 - 3 * across)
    side = torch.sqrt(across) / spread
    value = x * w + 6 * across * h + (root * torch.sqrt(across) * spread) * z
    bend = x * x * h - (0.5 * root * x * x * side) * z + (root / math.sqrt(12) * rest * side) * y
    return value, bend
