"""Scores of forecasts that are ensembles, and whether two forecasters differ by more than chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError

_FEWEST = 8


def crps(ensemble: Tensor, came: Tensor) -> Tensor:
    """Continuous ranked probability score `E|X - y| - E|X - X'| / 2` of what came, in its unit; smaller is better.

    The fair estimate: its mean does not depend on the number of members M.

    Args:
        ensemble: M forecasts of each number, [M, *shape].
        came: what came, [*shape].

    Returns:
        [*shape].

    Raises:
        InputError: shapes do not fit, fewer than 8 members, or a number is not finite.

    Reference:
        Gneiting, Raftery (2007), "Strictly Proper Scoring Rules, Prediction, and Estimation", equation (21);
        Ferro (2014), "Fair scores for ensemble forecasts", equation (3).

    Example:
        A standard normal forecast scores `(sqrt(2) - 1) / sqrt(pi)` where 0 comes:

        >>> members = torch.special.ndtri((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
        >>> print(f"{float(crps(members, torch.zeros((), dtype=torch.float64))):.2f}")
        0.23
    """
    _check(ensemble, came)
    m = len(ensemble)
    ordered = ensemble.sort(0).values
    rank = torch.arange(1, m + 1, dtype=ensemble.dtype, device=ensemble.device).view(-1, *[1] * came.dim())
    # sum over pairs i < j of x_j - x_i, from the ordered members
    apart = ((2 * rank - m - 1) * ordered).sum(0) / (m * (m - 1))
    return (ensemble - came).abs().mean(0) - apart


def log_score(ensemble: Tensor, came: Tensor) -> Tensor:
    """Log of the forecast density at what came, from a Gaussian kernel estimate of it; larger is better.

    The width of the kernel is Silverman's, `0.9 min(sd, IQR / 1.34) M^(-1/5)`. Forecast numbers that cannot be
    negative, such as volatilities, by their logarithm.

    Args:
        ensemble: M forecasts of each number, [M, *shape].
        came: what came, [*shape].

    Returns:
        [*shape].

    Raises:
        InputError: as for `crps`, or all members are equal.

    Reference:
        Silverman (1986), "Density Estimation for Statistics and Data Analysis", equation (3.31).

    Example:
        >>> members = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
        >>> score = log_score(members, torch.zeros((), dtype=torch.float64))
        >>> abs(float(score) + 0.5 * math.log(2 * math.pi)) < 0.02
        True
    """
    _check(ensemble, came)
    m = len(ensemble)
    quartiles = torch.quantile(ensemble, torch.tensor([0.25, 0.75], dtype=ensemble.dtype, device=ensemble.device), 0)
    spread = torch.minimum(ensemble.std(0), (quartiles[1] - quartiles[0]) / 1.34)
    if not bool((spread > 0).all()):
        raise InputError("log_score needs an ensemble whose members differ; three quarters of one are equal")
    width = 0.9 * spread * m**-0.2
    terms = -0.5 * ((came - ensemble) / width) ** 2
    return torch.logsumexp(terms, 0) - torch.log(width) - math.log(m) - 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Difference:
    """Mean of the differences of two forecasters' scores, and what chance explains of it.

    Attributes:
        mean: of first minus second.
        std_error: of the mean, allowing for autocorrelation.
    """

    mean: float
    std_error: float

    @property
    def statistic(self) -> float:
        """The Diebold-Mariano statistic, about N(0, 1) where both are equally good."""
        if not self.std_error:
            return math.copysign(math.inf, self.mean) if self.mean else 0.0
        return self.mean / self.std_error

    @property
    def p_value(self) -> float:
        """Two-sided probability of a statistic as large where both are equally good."""
        return math.erfc(abs(self.statistic) / math.sqrt(2))


def diebold_mariano(first: Tensor, second: Tensor, lags: int) -> Difference:
    """Compares two forecasters by their scores on the same dates.

    The variance of the mean is that of Newey and West with Bartlett weights, as forecasts over h days made every day
    have errors that overlap over `h - 1` dates.

    Args:
        first: scores in order of time, [n].
        second: those of the other, [n].
        lags: dates over which differences may be correlated.

    Raises:
        InputError: lengths differ, or there are not more dates than twice the lags.

    Reference:
        Diebold, Mariano (1995), "Comparing Predictive Accuracy"; Newey, West (1987).

    Example:
        >>> ours, theirs = torch.tensor([1.0, 2.0, 1.0, 3.0]), torch.tensor([2.0, 2.0, 3.0, 3.0])
        >>> found = diebold_mariano(ours, theirs, lags=0)
        >>> f"{found.mean:.3f} +- {found.std_error:.3f}"
        '-0.750 +- 0.415'
    """
    if first.shape != second.shape or first.dim() != 1 or lags < 0 or len(first) <= 2 * lags + 1:
        raise InputError(
            f"diebold_mariano takes two vectors of n > 2 lags + 1 scores, got {list(first.shape)}, "
            f"{list(second.shape)} and lags={lags}"
        )
    gap = (first - second).double()
    n, centred = len(gap), gap - gap.mean()
    variance = centred.square().sum() / n
    for lag in range(1, lags + 1):
        variance = variance + 2 * (1 - lag / (lags + 1)) * (centred[lag:] * centred[:-lag]).sum() / n
    return Difference(float(gap.mean()), math.sqrt(float(variance) / n))


def _check(ensemble: Tensor, came: Tensor) -> None:
    if ensemble.shape[1:] != came.shape or len(ensemble) < _FEWEST:
        raise InputError(
            f"an ensemble is [M, *shape] with M >= {_FEWEST} for what came [*shape], got {list(ensemble.shape)} for "
            f"{list(came.shape)}"
        )
    if not bool(torch.isfinite(ensemble).all() and torch.isfinite(came).all()):
        raise InputError("scores need finite numbers; drop dates without an outcome")
