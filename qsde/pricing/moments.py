"""Streaming mean, control variates and standard error over blocks of independent samples; sums in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Directions in which the controls vary by less than this, relatively, are left out of the regression.
_RANK = 1e-10


@dataclass(frozen=True)
class Result:
    """A mean, its standard error, and how many times more plain samples the same error would take; [...] each."""

    value: Tensor
    std_error: Tensor
    variance_ratio: Tensor


@dataclass(frozen=True)
class Control:
    """Samples of quantities with known mean 0, prepared once for all values regressed on them.

    Attributes:
        mean: means [..., k], differentiable.
        centred: samples minus mean [..., k, n], without gradient.
        products: sums of products of `centred` [..., k, k].
    """

    mean: Tensor
    centred: Tensor
    products: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> Control:
        """From samples [..., k, n]."""
        mean = samples.mean(-1, dtype=torch.float64)
        centred = _centred(samples, mean)
        return cls(mean, centred, _total(centred.unsqueeze(-2), centred.unsqueeze(-3)))


@dataclass
class Moments:
    """Means and centred second moments of a value y and its k controls c; merged block by block.

    Attributes:
        n: samples so far.
        size: paths in each sample.
        mean_y, mean_c: means [...] and [..., k], differentiable.
        yy, yc, cc: centred second moments, sums [...], [..., k] and [..., k, k], without gradient.
        spread: centred second moment of plain paths, sum [...].
    """

    n: int
    size: int
    mean_y: Tensor
    mean_c: Tensor
    yy: Tensor
    yc: Tensor
    cc: Tensor
    spread: Tensor

    @classmethod
    def of(cls, y: Tensor, control: Control, size: int = 1, within: Tensor | None = None) -> Moments:
        """Moments of one block.

        Args:
            y: samples [..., n].
            control: their controls.
            size: paths in each sample.
            within: variance of the paths within each sample [..., n], where it was averaged out.
        """
        mean = y.mean(-1, dtype=torch.float64)
        centred = _centred(y, mean)
        yy = _total(centred, centred)
        spread = size * (yy if within is None else yy + within.detach().sum(-1, dtype=torch.float64))
        yc = _total(centred.unsqueeze(-2), control.centred)
        return cls(y.shape[-1], size, mean, control.mean, yy, yc, control.products, spread)

    def merge(self, other: Moments) -> Moments:
        """Moments of both (Chan, Golub and LeVeque 1983)."""
        n = self.n + other.n
        share = other.n / n
        # detached, not only under no_grad, which does not stop the tangents of forward mode
        gy, gc = (other.mean_y - self.mean_y).detach(), (other.mean_c - self.mean_c).detach()
        weight = self.n * share
        yy = self.yy + other.yy + gy * gy * weight
        yc = self.yc + other.yc + gy.unsqueeze(-1) * gc * weight
        cc = self.cc + other.cc + gc.unsqueeze(-1) * gc.unsqueeze(-2) * weight
        spread = self.spread + other.spread + gy * gy * (weight * self.size)
        mean_y = self.mean_y + (other.mean_y - self.mean_y) * share
        mean_c = self.mean_c + (other.mean_c - self.mean_c) * share
        return Moments(n, self.size, mean_y, mean_c, yy, yc, cc, spread)

    def result(self) -> Result:
        """The mean after regression on the controls."""
        beta = self.beta()
        rest = (self.yy - (beta * self.yc).sum(-1)).clamp(min=0.0)
        error = torch.sqrt(rest / max(1, self.n - 1 - beta.shape[-1]) / self.n)
        return self._result(self.mean_y - (beta * self.mean_c).sum(-1), error)

    def of_replicates(self, y: Tensor, c: Tensor) -> Result:
        """The mean of independent replicates of all paths, with the regression of single paths.

        Args:
            y: means of the replicates [..., r].
            c: means of their controls [..., k, r].
        """
        means = y - (self.beta().unsqueeze(-1) * c).sum(-2)
        r = means.shape[-1]
        return self._result(means.mean(-1), means.detach().std(-1) / r**0.5)

    def beta(self) -> Tensor:
        """Regression coefficients [..., k]; controls that do not vary, or repeat another, get no say of their own."""
        if not self.yc.shape[-1]:
            return self.yc
        scale = torch.sqrt(torch.diagonal(self.cc, dim1=-2, dim2=-1))
        inverse = torch.where(scale > 0, 1 / torch.where(scale > 0, scale, 1.0), 0.0)
        correlation = self.cc * inverse.unsqueeze(-1) * inverse.unsqueeze(-2)
        if correlation.shape[-1] == 1:
            return self.yc * inverse * inverse
        if correlation.shape[-1] == 2:
            return _of_two(correlation[..., 0, 1], self.yc * inverse) * inverse
        solved: Tensor = torch.linalg.pinv(correlation, rtol=_RANK, hermitian=True) @ (self.yc * inverse).unsqueeze(-1)
        return solved.squeeze(-1) * inverse

    def _result(self, value: Tensor, error: Tensor) -> Result:
        paths = self.n * self.size
        plain = self.spread / max(1, paths - 1) / paths
        some = (error > 0) & (plain > 0)
        ratio = torch.where(some, plain / torch.where(some, error, 1.0).square(), 1.0)
        return Result(value, error, ratio)


def _of_two(c: Tensor, y: Tensor) -> Tensor:
    """Solution of `[[1, c], [c, 1]] x = y` in the directions that count: the pseudo-inverse in a tenth of its time.

    The directions are the sum and the difference of the two, with the eigenvalues `1 + c` and `1 - c`.
    """
    both = torch.stack([1.0 + c, 1.0 - c], -1)
    counts = both > _RANK * both.amax(-1, keepdim=True)
    y = torch.stack([y[..., 0] + y[..., 1], y[..., 0] - y[..., 1]], -1)
    along = torch.where(counts, 0.5 * y / torch.where(counts, both, 1.0), 0.0)
    return torch.stack([along[..., 0] + along[..., 1], along[..., 0] - along[..., 1]], -1)


def _centred(samples: Tensor, mean: Tensor) -> Tensor:
    return samples.detach() - mean.detach().unsqueeze(-1).to(samples.dtype)


def _total(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, dtype=torch.float64)
