"""A robust local fit of one smile, to tell a bad quote from a steep wing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def fit_smile(x: Floats, vol: Floats, noise: Floats, trusted: NDArray[np.bool_] | None = None) -> Floats:
    """Local linear regression of log vol on `x` with tricube and bisquare weights (robust LOESS).

    Args:
        x: where on the smile, such as `log(K / F) / sqrt(t)`.
        vol: implied vols, positive.
        noise: relative uncertainty of each vol (half its bid/ask over the vol), positive; tight quotes lead.
        trusted: quotes that may shape the fit; the others are only judged by it. Default all.

    Returns:
        The fitted vol at every `x`. Where fewer than three trusted quotes are near, the vol itself.

    Example:
        >>> x = np.linspace(-1.0, 1.0, 21)
        >>> vol = 0.2 - 0.05 * x
        >>> vol[10] = 0.4                                                     # a bad quote
        >>> round(float(fit_smile(x, vol, np.full(21, 0.01))[10]), 3)
        0.2
    """
    usable = np.ones(len(x), dtype=bool) if trusted is None else trusted
    if usable.sum() < 5:
        return vol.copy()
    y = np.log(vol)
    near = _tricube(x, x[usable])
    base = near / (noise[usable] + np.median(noise[usable]) + 1e-4) ** 2
    fitted = _running_median(x, y, usable)
    for _ in range(4):
        gap = (y - fitted)[usable]
        scale = 6 * 1.4826 * np.median(np.abs(gap)) + 1e-9
        robust = np.maximum(1 - np.minimum(np.abs(gap / scale), 1) ** 2, 1e-4) ** 2
        fitted = _local_line(x, x[usable], y[usable], base * robust)
    return np.asarray(np.exp(fitted))


def smile_distance(vol: Floats, fitted: Floats, noise: Floats, trusted: NDArray[np.bool_] | None = None) -> Floats:
    """How many robust deviations each log vol lies off the fit: its gap over `max(noise, typical gap)`.

    The typical gap is the median absolute deviation of the trusted quotes, in units of their own noise, so that
    wide quotes in the wings may scatter more than tight ones at the money.
    """
    gap = np.abs(np.log(vol / fitted))
    unit = noise + 0.002
    usable = np.ones(len(vol), dtype=bool) if trusted is None else trusted
    typical = 1.4826 * float(np.median((gap / unit)[usable])) if usable.any() else 1.0
    return np.asarray(gap / (unit * max(typical, 0.25)))


def _tricube(at: Floats, x: Floats) -> Floats:
    distance = np.abs(at[:, None] - x[None, :])
    neighbours = min(len(x), max(7, len(x) // 8))
    width = np.partition(distance, neighbours - 1, axis=1)[:, neighbours - 1] * 1.0001 + 1e-12
    return np.asarray((1 - np.minimum(distance / width[:, None], 1) ** 3) ** 3 + 1e-12)


def _running_median(x: Floats, y: Floats, usable: NDArray[np.bool_]) -> Floats:
    """Median of the seven nearest usable values of `y`, tilted to nothing: only a start for the robust weights."""
    distance = np.abs(x[:, None] - x[None, usable])
    nearest = np.argsort(distance, axis=1)[:, : min(7, int(usable.sum()))]
    return np.asarray(np.median(y[usable][nearest], axis=1))


def _local_line(at: Floats, x: Floats, y: Floats, weight: Floats) -> Floats:
    """Weighted straight line around each point of `at`, evaluated there."""
    total = weight.sum(axis=1)
    mean_x, mean_y = weight @ x / total, weight @ y / total
    covariance = weight @ (x * y) / total - mean_x * mean_y
    variance = weight @ (x * x) / total - mean_x**2
    slope = covariance / np.maximum(variance, 1e-12 * (1 + mean_x**2))
    return np.asarray(mean_y + slope * (at - mean_x))
