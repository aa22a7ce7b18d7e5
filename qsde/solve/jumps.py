"""Compound Poisson jumps at their exact times, in steps that end there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.dynamics import Equation
from qsde.noise import Threefry
from qsde.noise.base import BlockNoise, Columns, Noise
from qsde.noise.brownian_steps import BrownianSteps
from qsde.noise.brownian_tree import BrownianTree
from qsde.noise.seeds import other
from qsde.noise.threefry import MAX_STEPS
from qsde.schemes.base import State
from qsde.solve.steps import Steps
from qsde.solve.wrapped import Wrapped

#: The seeds of jump times and of marks among those that a seed leads to.
_TIMES, _MARKS = 101, 102
#: Length below which the Brownian tree is not halved, in parts of the whole time.
_FINEST = 2.0**-20
#: Jumps of one path that there are random numbers for.
_MOST_JUMPS = MAX_STEPS


@dataclass(frozen=True)
class Jumps:
    """Jumps of a Poisson process: at each of them `effect(t, y, z, params)` is added to the state.

    Times are exact: gaps are exponential, and a step of the path ends at each of them, so that the orders of the scheme
    stay. Gradients flow through the effect. There is none to the rate or to times, since the number of jumps of a path
    does not move continuously.

    Attributes:
        rate: jumps per unit of time, the same for all states.
        effect: given t [P, 1, ...], the state y just before the jump [P, *shape], independent standard normals z
            [marks, P, 1, ...] and the parameters of the SDE; returns [P, *shape]. It is called for all paths in every
            step, and counts where a path jumps.
        marks: how many normals a jump has.

    Raises:
        InputError: the rate is not a positive number, or a gradient to it is asked for.

    Example:
        Lognormal jumps of a price: `Jumps(2.0, lambda t, y, z, p: y * torch.expm1(p["mean"] + p["sd"] * z[0]))`.

        >>> Jumps(2.0, lambda t, y, z, p: 0.1 * z[0]).marks
        1
    """

    rate: float | Tensor
    effect: Callable[[Tensor, Tensor, Tensor, Mapping[str, Tensor]], Tensor]
    marks: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.rate, Tensor) and self.rate.requires_grad:
            raise InputError(
                "Jumps: a path has no gradient to its rate, since jumps come and go; pass rate.detach(), and take the "
                "derivative of a mean to the rate as a difference with the same noise"
            )
        if not 0 < _one_number(self.rate) < math.inf or self.marks < 0:
            raise InputError(
                f"Jumps: rate must be one positive number and marks >= 0, got {self.rate} and {self.marks}"
            )


def _one_number(rate: object) -> float:
    try:
        return float(rate)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return math.nan


@dataclass(frozen=True, kw_only=True)
class Jumping(Wrapped):
    """A step, and at its end a jump where the fourth coefficient says so."""

    law: Jumps

    @property
    def more_normals(self) -> int:
        """Those of a jump."""
        return self.law.marks

    def more(
        self, equation: Equation, before: State, after: State, c: Tensor, normals: Tensor, uniforms: Tensor
    ) -> State:
        """The effect, on paths that jump."""
        (y,) = after
        tail = (1,) * (y.dim() - 1)
        t, jumps = (v.view(-1, *tail) for v in (c[0] + c[1], c[3]))
        effect = self.law.effect(t, y, normals.view(*normals.shape, *tail), equation.params)
        if not isinstance(effect, Tensor) or effect.shape != y.shape:
            got = tuple(effect.shape) if isinstance(effect, Tensor) else type(effect).__name__
            raise InputError(f"Jumps: effect must return [P, *shape] = {tuple(y.shape)}, got {got}")
        return (torch.where(jumps > 0, y + effect, y),)


def jump_times(jumps: Jumps, noise: Threefry, paths: Tensor, start: float, end: float) -> Tensor:
    """Times of the jumps of each path, increasing, [n, P] float64; those after the end do not happen."""
    mean = float(jumps.rate) * (end - start)
    if mean > _MOST_JUMPS / 2:
        raise InputError(
            f"Jumps: rate {float(jumps.rate):g} makes {mean:.3g} jumps of each path, and there are random numbers for "
            f"{_MOST_JUMPS:,}; put many small jumps into the diffusion"
        )
    block = other(noise, _TIMES).block(paths, _MOST_JUMPS, 0, 1, torch.float64, paths.device)
    times, now, k = [], torch.full(paths.shape, start, dtype=torch.float64, device=paths.device), 0
    while not k or bool((now < end).any()):
        now = now - torch.log(block.draw(k)[1][0]) / float(jumps.rate)
        times.append(now)
        k += 1
    return torch.stack(times)


def jumping_steps(counts: tuple[int, ...], ts: Tensor, times: Tensor) -> tuple[Steps, Tensor, Tensor]:
    """Equal steps, cut where paths jump.

    Args:
        counts: number of equal steps in each interval between two of `ts`.
        ts: the times.
        times: jump times [n, P].

    Returns:
        The steps; 1 where a jump ends the step, else 0, [n_steps, P]; and which jump of the path it is.
    """
    begins, ends, flags, which, found = [], [], [], [], []
    for n, (a, b) in zip(counts, pairwise(ts.tolist()), strict=True):
        inside = (times > a) & (times <= b)
        most = int(inside.sum(0).max())
        # jumps of the interval first, in order; what is left of other paths' share are empty steps at the end
        order = inside.int().argsort(dim=0, descending=True, stable=True)[:most]
        real = inside.gather(0, order)
        jumps = torch.where(real, (times.gather(0, order) - a) / (b - a), 1.0)
        equal = (
            (torch.arange(1, n + 1, dtype=ts.dtype, device=times.device) / n).unsqueeze(-1).expand(n, times.shape[1])
        )
        edges, rank = torch.cat([equal, jumps]).sort(dim=0, stable=True)
        begins.append(torch.cat([torch.zeros_like(edges[:1]), edges[:-1]]))
        ends.append(edges)
        flags.append(torch.cat([torch.zeros_like(equal), real.to(edges)]).gather(0, rank))
        which.append(torch.cat([torch.zeros_like(equal, dtype=order.dtype), order]).gather(0, rank))
        found.append(len(edges))
    return Steps.between(found, torch.cat(begins), torch.cat(ends)), torch.cat(flags), torch.cat(which)


@dataclass(frozen=True)
class JumpNoise(Noise):
    """Normals of the Brownian motions over the steps, and those of the jump that each path is at.

    Attributes:
        steps: the Brownian motions.
        seeds: noise of the marks, drawn by the number of the jump.
        marks: how many a jump has.
        which: number of the jump of each path at each step, [n_steps, P].
    """

    steps: BrownianSteps
    seeds: Noise
    marks: int
    which: Tensor

    @classmethod
    def of(cls, noise: Threefry, motions: int, marks: int, steps: Steps, ts: Tensor, which: Tensor) -> JumpNoise:
        """The noise of these steps."""
        start, end = float(ts[0]), float(ts[-1])
        tree = BrownianTree(noise.seed, start, end, (end - start) * _FINEST, noise.rounds)
        return cls(BrownianSteps(tree, motions, *steps.times(ts)), other(noise, _MARKS), marks, which)

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
        """The draws of these paths."""
        own = n_normals - self.marks
        brownian = self.steps.block(paths, n_steps, own, n_uniforms, dtype, device).ahead(n_steps)
        marks = self.seeds.block(paths, _MOST_JUMPS, self.marks, 0, dtype, device)
        return _JumpBlock(brownian, marks, self.which[:, paths.to(self.which.device)].to(device))

    def bytes_per_path(self, n_steps: int, n_normals: int, n_uniforms: int, dtype: torch.dtype) -> int:
        """Numbers of jumps, and what the others hold."""
        return 8 * n_steps + 8 * n_normals


@dataclass(frozen=True)
class _JumpBlock(BlockNoise):
    brownian: BlockNoise
    marks: BlockNoise
    which: Tensor

    def columns(self, step: int | Tensor) -> tuple[Columns, Columns]:
        """Normals of the motions, then the marks."""
        normals, uniforms = self.brownian.columns(step)
        return (*normals, *self.marks.columns(self.which[int(step)])[0]), uniforms

    def empty(self) -> Tensor:
        """A tensor `[0, P]`."""
        return self.brownian.empty()
