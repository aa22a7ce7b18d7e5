"""Sums of the jumps of one step, one sampler for each jump law."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from torch import Tensor

from qsde.models.jumps import JumpLaw, KouJumps, MertonJumps

#: More jumps than are counted come with at most this probability.
TAIL = 1e-13
#: Expected jumps that one uniform of a Merton law counts, and how far it counts: P(N > 15) = 2e-14.
_MEAN_COUNT, _MAX_COUNT = 1.0, 15
#: Probabilities below this are divided by as if they were this.
_SMALL = 1e-12

Law = TypeVar("Law", bound=JumpLaw)


class JumpSampler(ABC, Generic[Law]):
    """How the jumps of one law are drawn.

    Attributes:
        rows: coefficients of a step.
        normals: normals consumed per step.
    """

    rows: int
    normals: int

    @abstractmethod
    def uniforms(self, mean: float) -> int:
        """Uniforms needed for a step with at most `mean` expected jumps."""

    @abstractmethod
    def coefficients(self, law: Law, dt: Tensor) -> tuple[Tensor, ...]:
        """Coefficients of a step of size `dt`, the expected count and the compensator first."""

    @abstractmethod
    def sum(self, c: Tensor, normals: Tensor, uniforms: Tensor) -> Tensor:
        """Compensated sum of the jumps [*batch, P]; `c` [at least rows, *batch, 1]."""

    @abstractmethod
    def size(self, law: Law, uniform: Tensor) -> Tensor:
        """The size of one jump by inverse cdf, elementwise."""


class MertonSampler(JumpSampler[MertonJumps]):
    """N normal jumps are one normal: `N mean + sqrt(N) std z`.

    A step with more than one expected jump splits them among several uniforms, one Poisson count each.
    """

    rows, normals = 4, 1

    def uniforms(self, mean: float) -> int:
        """One for each expected jump."""
        return max(1, math.ceil(mean / _MEAN_COUNT))

    def coefficients(self, law: MertonJumps, dt: Tensor) -> tuple[Tensor, ...]:
        """Expected count, compensator, mean and deviation of a jump."""
        return *_count_and_compensator(law, dt), law.mean, law.std

    def sum(self, c: Tensor, normals: Tensor, uniforms: Tensor) -> Tensor:
        """`N mean + sqrt(N) std z` less the compensator."""
        share = c[0] / len(uniforms)
        count = torch.zeros_like(share + normals[0])
        for u in uniforms:
            count = count + _poisson(share, u, _MAX_COUNT)
        return count * c[2] + torch.sqrt(count) * (c[3] * normals[0]) - c[1]

    def size(self, law: MertonJumps, uniform: Tensor) -> Tensor:
        """`mean + std N^-1(u)`."""
        normal: Tensor = torch.special.ndtri(uniform)
        return law.mean + law.std * normal


class KouSampler(JumpSampler[KouJumps]):
    """Each double exponential jump by inverse cdf of its own uniform; the first uniform is the count's."""

    rows, normals = 7, 0

    def uniforms(self, mean: float) -> int:
        """One, and one for each jump that there may be."""
        return 1 + max(1, poisson_bound(mean))

    def coefficients(self, law: KouJumps, dt: Tensor) -> tuple[Tensor, ...]:
        """Expected count, compensator; P(down), 1 / P(down), 1 / P(up), and the scale of either side."""
        down, up = 1 - law.p_up, law.p_up
        sides = down, 1 / down.clamp(min=_SMALL), 1 / up.clamp(min=_SMALL), 1 / law.eta_down, -1 / law.eta_up
        return *_count_and_compensator(law, dt), *sides

    def sum(self, c: Tensor, normals: Tensor, uniforms: Tensor) -> Tensor:
        """Sum of the sizes whose turn comes, less the compensator."""
        down, per_down, per_up, below, above = c[2], c[3], c[4], c[5], c[6]
        total: Tensor | float = 0.0
        for u, more in zip(uniforms[1:], _exceeded(c[0], uniforms[0], len(uniforms) - 1), strict=True):
            falls = u < down
            # continuous in u at its switch, where the size is 0: the derivative to p_up is complete
            size = torch.where(falls, below, above) * torch.log(torch.where(falls, u * per_down, (1 - u) * per_up))
            total = total + torch.where(more, size, torch.zeros_like(size))
        return total - c[1]

    def size(self, law: KouJumps, uniform: Tensor) -> Tensor:
        """Down with the first uniforms, up with the others, exponentially far."""
        down = 1 - law.p_up
        below = torch.log((uniform / down.clamp(min=_SMALL)).clamp(max=1)) / law.eta_down
        above = -torch.log(((1 - uniform) / law.p_up.clamp(min=_SMALL)).clamp(max=1)) / law.eta_up
        return torch.where(uniform < down, below, above)


#: How the jumps of each law are drawn; a new law adds a row.
SAMPLERS: dict[type[JumpLaw], JumpSampler] = {MertonJumps: MertonSampler(), KouJumps: KouSampler()}  # type: ignore[type-arg]


def poisson_bound(mean: float, tail: float = TAIL) -> int:
    """The smallest n with `P(N > n) < tail` for N Poisson.

    Example:
        >>> poisson_bound(0.0), poisson_bound(0.025), poisson_bound(1.0)
        (0, 6, 15)
    """
    n = 0
    while _poisson_tail(mean, n) >= tail:
        n += 1
    return n


def _poisson_tail(mean: float, n: int) -> float:
    """`P(N > n)` for N Poisson, without cancellation."""
    return float(torch.special.gammainc(torch.tensor(n + 1.0).double(), torch.tensor(mean).double()))


def _count_and_compensator(law: JumpLaw, dt: Tensor) -> tuple[Tensor, Tensor]:
    mean = law.intensity.double() * dt.to(law.intensity.device, torch.float64)
    return mean, mean * (law.mgf(torch.ones((), dtype=torch.float64, device=mean.device)) - 1)


def _exceeded(mean: Tensor, uniform: Tensor, limit: int) -> list[Tensor]:
    """Whether the Poisson count exceeds 0, 1 ... limit - 1, by inverse cdf; the upper tail keeps its digits."""
    upper = 1 - uniform
    probability = torch.exp(-mean)
    tail = -torch.expm1(-mean)
    found = [upper < tail]
    for n in range(1, limit):
        probability = probability * (mean / n)
        tail = tail - probability
        found.append(upper < tail)
    return found


def _poisson(mean: Tensor, uniform: Tensor, limit: int) -> Tensor:
    """The Poisson count as a floating point number."""
    first, *others = _exceeded(mean, uniform, limit)
    count = first.to(uniform.dtype)
    for more in others:
        count = count + more.to(uniform.dtype)
    return count
