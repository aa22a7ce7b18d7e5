"""Forward variance at the money between expiries: smooth where the market's is, in steps where the market's is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
#: Cells of a stretch between two expiries.
_CELLS = 16
#: Years beyond which forward variances hardly change with time any more, and how far, in `log(t / (t + _SLOW))`, a
#: smooth change goes on.
_SLOW, _LENGTH = 0.25, 4.0
#: Deviations of the smooth part, and of a year of the part in steps, over the mean; what they are before quotes speak:
#: centre and deviation of their logarithms.
_SMOOTH, _STEPS = np.geomspace(0.03, 1.5, 10), np.geomspace(0.003, 1.0, 10)
_SMOOTH_PRIOR, _STEPS_PRIOR = (0.3, 1.0), (0.05, 1.5)
#: Deviation of the mean over that of the last expiry, and rounding of the total variances, relative.
_MEAN, _ROUNDING = 2.0, 1e-4
#: Least forward variance over that of its stretch.
_LEAST = 0.05


@dataclass(frozen=True)
class ForwardVariance:
    """Forward variance `f`, constant in cells, whose integrals to the expiries are given total variances.

    Before quotes speak, `f(t) = m (1 + g(t) + n(t))`: g is smooth, a Gaussian process in `log(t / (t + 1/4))`, as
    volatilities revert to a mean; n is white noise, as events at unknown times make it. Given the total variances,
    what is expected of g bends smoothly through the stretches between expiries, of n it is flat in each of them. How
    large both are is averaged over by the evidence of the total variances themselves (marginal likelihood). So an
    index or a coin has a smooth forward variance, and a share with earnings dates nearly total variances linear in
    time. Before the first expiry f is constant, after the last one it stays.

    Attributes:
        edges: years of the ends of the cells [C + 1], from 0.
        values: forward variance in the cells [C], annualised decimal.

    References:
        C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning (2006), sections 2.2 and 5.4.

    Example:
        >>> level = ForwardVariance.through(torch.tensor([0.25, 1.0]).double(), torch.tensor([0.01, 0.04]).double())
        >>> level.total(torch.tensor([0.5, 2.0]).double())
        tensor([0.0200, 0.0800], dtype=torch.float64)
    """

    edges: Tensor
    values: Tensor

    @classmethod
    def through(cls, t: Tensor, total: Tensor) -> ForwardVariance:
        """The curve through total variances [E], increasing, at years t [E], positive and increasing."""
        years, w = t.numpy(), total.numpy()
        edges = np.concatenate(
            [[0.0, years[0]], *(np.geomspace(start, end, _CELLS + 1)[1:] for start, end in pairwise(years))]
        )
        expected = _expected(years, w, edges)
        stretch = np.searchsorted(years, 0.5 * (edges[1:] + edges[:-1]))
        own = (np.diff(w, prepend=0.0) / np.diff(years, prepend=0.0))[stretch]
        values = np.maximum(expected, _LEAST * own)
        mean = np.bincount(stretch, values * np.diff(edges)) / np.diff(years, prepend=0.0)
        return cls(torch.tensor(edges), torch.tensor(values * own / mean[stretch]))

    def at(self, t: Tensor) -> Tensor:
        """Forward variance at years t; at the end of a cell that of the cell."""
        return self.values[self._cell(t)]

    def total(self, t: Tensor) -> Tensor:
        """Total variance at years t."""
        cell = self._cell(t)
        return self._totals[cell] + self.values[cell] * (t - self.edges[cell])

    @cached_property
    def _totals(self) -> Tensor:
        """Total variances at the edges."""
        return torch.cat([self.values.new_zeros(1), (self.values * self.edges.diff()).cumsum(0)])

    def _cell(self, t: Tensor) -> Tensor:
        return (torch.searchsorted(self.edges, t.contiguous()) - 1).clamp(0, len(self.values) - 1)


def _expected(t: Floats, w: Floats, edges: Floats) -> Floats:
    """Forward variances of the cells, given total variances w at years t, averaged over both deviations."""
    length, middle = np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
    within = (edges[1:] <= t[:, None] * (1 + 1e-12)) * length
    mean = w[-1] / t[-1]
    clock = np.log(middle / (middle + _SLOW))
    gap = np.sqrt(3.0) * np.abs(clock[:, None] - clock) / _LENGTH
    smooth = (1 + gap) * np.exp(-gap)  # Matern 3/2
    miss = w - mean * t
    # of the cells with each other's integrals; white noise of a cell is that of its share of the integral
    bent, level, noise = smooth @ within.T, _MEAN**2 * within.sum(1), (within > 0).T
    found, evidence = [], []
    for a in _SMOOTH:
        for b in _STEPS:
            cross = mean**2 * (a * a * bent + level + b * b * noise)
            own = within @ cross + np.diag((_ROUNDING * w) ** 2)
            solved = np.linalg.solve(own, miss)
            found.append(mean + cross @ solved)
            evidence.append(
                -0.5 * (miss @ solved + np.linalg.slogdet(own)[1])
                - 0.5 * (np.log(a / _SMOOTH_PRIOR[0]) / _SMOOTH_PRIOR[1]) ** 2
                - 0.5 * (np.log(b / _STEPS_PRIOR[0]) / _STEPS_PRIOR[1]) ** 2
            )
    share = np.exp(np.array(evidence) - max(evidence))
    average: Floats = share @ np.array(found) / share.sum()
    return average
