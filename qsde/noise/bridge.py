"""Brownian bridge: Brownian increments built so that the first normals decide the coarse shape of the path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from qsde.errors import InputError


class _Level(NamedTuple):
    """The midpoints of one refinement: `W[mid] = left_weight W[left] + right_weight W[right] + spread z`."""

    mid: Tensor
    left: Tensor
    right: Tensor
    left_weight: Tensor
    right_weight: Tensor
    spread: Tensor


@dataclass(frozen=True)
class BrownianBridge:
    """The orthogonal map from `n` independent normals to the `n` standardised increments of Brownian motion.

    The first normal sets the end point, the next ones the midpoints of ever finer intervals:
    `W(t) | W(a), W(b)` is normal with mean `((b-t) W(a) + (t-a) W(b)) / (b-a)` and variance `(t-a)(b-t)/(b-a)`.
    Build one with `BrownianBridge.over(times)`.

    Reference:
        Caflisch, Morokoff, Owen: Valuation of mortgage-backed securities using Brownian bridges to reduce effective
        dimension. J. Comput. Finance 1 (1997).

    Example:
        >>> bridge = BrownianBridge.over(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
        >>> bridge.increments(torch.tensor([1.0, 0.0], dtype=torch.float64))
        tensor([0.7071, 0.7071], dtype=torch.float64)
    """

    end: Tensor
    levels: tuple[_Level, ...]
    scale: Tensor

    @classmethod
    def over(cls, times: Tensor) -> BrownianBridge:
        """The bridge over increasing times `[n + 1]`, the first being where the motion starts."""
        if times.ndim != 1 or len(times) < 2 or not bool((times.isfinite()).all() and (times.diff() > 0).all()):
            raise InputError("times must be at least two finite, strictly increasing numbers")
        t = times.detach().double()
        levels = tuple(_level(t, splits) for splits in _refinements(len(t) - 1))
        return cls(torch.sqrt(t[-1] - t[0]), levels, torch.rsqrt(t.diff()))

    def increments(self, normals: Tensor) -> Tensor:
        """Standardised increments `[n, ...]`, again independent N(0, 1), from independent normals `[n, ...]`."""
        tail = (1,) * (normals.ndim - 1)
        path = normals.new_zeros((len(normals) + 1, *normals.shape[1:]))
        path[-1] = self.end * normals[0]
        used = 1
        for mid, left, right, left_weight, right_weight, spread in self.levels:
            fresh = normals[used : used + len(mid)]
            between = left_weight.view(-1, *tail) * path[left] + right_weight.view(-1, *tail) * path[right]
            path[mid] = between + spread.view(-1, *tail) * fresh
            used += len(mid)
        return path.diff(dim=0) * self.scale.view(-1, *tail)


def _refinements(n: int) -> list[list[tuple[int, int, int]]]:
    """Per level the (left, mid, right) of every interval that still has a point inside."""
    levels, intervals = [], [(0, n)]
    while splits := [(a, (a + b) // 2, b) for a, b in intervals if b - a > 1]:
        levels.append(splits)
        intervals = [half for a, mid, b in splits for half in ((a, mid), (mid, b))]
    return levels


def _level(t: Tensor, splits: list[tuple[int, int, int]]) -> _Level:
    left, mid, right = torch.tensor(splits, device=t.device).unbind(1)
    span, before, after = t[right] - t[left], t[mid] - t[left], t[right] - t[mid]
    return _Level(mid, left, right, after / span, before / span, torch.sqrt(before * after / span))
