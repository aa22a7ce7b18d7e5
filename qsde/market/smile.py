"""A robust local fit of one smile, to tell a bad quote from a steep wing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


#: Neighbours on each side that shape the fit at a point: a sixth of the quotes, within these bounds.
_SIDE = (2, 5)


@dataclass(frozen=True)
class SmileFit:
    """What the neighbours of each quote say about its vol.

    Attributes:
        vol: local fit through both sides.
        low: least of the local fit and the lines continued from the left and from the right.
        high: most of them. At a kink or the tip of a smile the range is wide, on a smooth stretch it is a point.
        distance: robust deviations of each quoted vol outside the range.
        gap: relative distance of each quoted vol outside the range.
    """

    vol: Floats
    low: Floats
    high: Floats
    distance: Floats
    gap: Floats


def fit_smile(x: Floats, vol: Floats, noise: Floats, trusted: NDArray[np.bool_] | None = None) -> SmileFit:
    """Local linear regression of log vol on `x` with tricube and bisquare weights (robust LOESS).

    Neighbours count by rank, two to five on each side, so that the sparse strikes of a wing are not fitted by the
    dense ones at the money. Distances count in units of each quote's noise, and these in units of their median over
    the trusted quotes, so that wide quotes in the wings may scatter more than tight ones at the money.

    Args:
        x: where on the smile, such as `log(K / F) / sqrt(t)`, increasing.
        vol: implied vols, positive.
        noise: relative uncertainty of each vol (half its bid/ask over the vol), positive; tight quotes lead.
        trusted: quotes that may shape the fit, at least five; the others are only judged by it. Default all.

    Example:
        >>> x = np.linspace(-1.0, 1.0, 21)
        >>> vol = 0.2 - 0.05 * x
        >>> vol[10] = 0.4                                                     # a bad quote
        >>> fit = fit_smile(x, vol, np.full(21, 0.01))
        >>> round(float(fit.vol[10]), 3), np.flatnonzero(fit.gap > 0.01).tolist()
        (0.2, [10])
    """
    usable = np.ones(len(x), dtype=bool) if trusted is None else trusted
    y, unit = np.log(vol), noise[usable] + np.median(noise[usable]) + 1e-4
    steps = _steps(usable)
    side = int(np.clip(usable.sum() // 6, *_SIDE))
    near = _tricube(steps, side) / unit
    fitted = running_median(y, usable)
    for _ in range(4):
        gap = np.abs((y - fitted)[usable]) / unit
        robust = np.maximum(1 - np.minimum(gap / (6 * 1.4826 * np.median(gap) + 1e-9), 1) ** 2, 1e-4) ** 2
        fitted = _local_line(x, x[usable], y[usable], near * robust)
    beside = _tricube(steps, 3) * robust / unit
    lines = [fitted]
    for one_side in (steps < 0, steps > 0):
        line = _local_line(x, x[usable], y[usable], np.where(one_side, beside, 0.0) + 1e-300)
        lines.append(np.where(one_side.sum(axis=1) >= 2, line, fitted))
    return _judged(y, np.array(lines), noise, usable)


def _judged(y: Floats, lines: Floats, noise: Floats, usable: NDArray[np.bool_]) -> SmileFit:
    low, high = lines.min(axis=0), lines.max(axis=0)
    gap = np.maximum(np.maximum(low - y, y - high), 0.0)
    unit = noise + 0.002
    typical = 1.4826 * float(np.median((np.abs(y - lines[0]) / unit)[usable]))
    return SmileFit(np.exp(lines[0]), np.exp(low), np.exp(high), gap / (unit * max(typical, 0.25)), gap)


def running_median(y: Floats, usable: NDArray[np.bool_] | None = None, side: int = 3) -> Floats:
    """Median of up to `side` usable neighbours on each side and the point itself if usable.

    The window is symmetric, shrinking towards the ends, so that a monotone wing is its own median.

    Example:
        >>> running_median(np.array([5.0, 4.0, 9.0, 2.0, 1.0])).tolist()
        [5.0, 5.0, 4.0, 2.0, 1.0]
    """
    mask = np.ones(len(y), dtype=bool) if usable is None else usable
    rank, own = _ranks(mask)
    values = y[mask]
    offsets = np.arange(-side, side + 1)
    positions = rank[:, None] + np.where(offsets > 0, offsets - 1 + own[:, None], offsets)
    reach = np.minimum(rank, len(values) - rank - own)
    inside = (np.abs(offsets) <= reach[:, None]) & ((offsets != 0) | own[:, None].astype(bool))
    window = np.where(inside, values[np.clip(positions, 0, len(values) - 1)], np.nan)
    alone = ~inside.any(axis=1)
    window[alone, side] = values[np.clip(rank[alone], 0, len(values) - 1)]
    return np.asarray(np.nanmedian(window, axis=1))


def _ranks(usable: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Usable points before each point, and 1 where the point itself is usable."""
    own = usable.astype(np.int64)
    return np.cumsum(own) - own, own


def _steps(usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Steps [point, usable point] from one to the other, counted in usable points, negative to the left."""
    rank, own = _ranks(usable)
    steps = np.arange(int(usable.sum()))[None, :] - rank[:, None]
    # A point that is not usable sits between its neighbours: one step to either side.
    return np.asarray(np.where((own[:, None] == 0) & (steps >= 0), steps + 1, steps))


def _tricube(steps: NDArray[np.int64], side: int) -> Floats:
    return np.asarray((1 - np.minimum(np.abs(steps) / (side + 1), 1) ** 3) ** 3 + 1e-12)


def _local_line(at: Floats, x: Floats, y: Floats, weight: Floats) -> Floats:
    """Weighted straight line around each point of `at`, evaluated there."""
    total = weight.sum(axis=1)
    mean_x, mean_y = weight @ x / total, weight @ y / total
    covariance = weight @ (x * y) / total - mean_x * mean_y
    variance = weight @ (x * x) / total - mean_x**2
    slope = covariance / np.maximum(variance, 1e-12 * (1 + mean_x**2))
    return np.asarray(mean_y + slope * (at - mean_x))
