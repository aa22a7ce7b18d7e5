"""Streaming mean, control variate and standard error over blocks of independent samples; sums in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Control:
    """Samples of a quantity with known mean 0, prepared once for all values regressed on it.

    Attributes:
        mean: mean [...], differentiable.
        centred: samples minus mean [..., n], without gradient.
        square: sum of squares of `centred` [...].
    """

    mean: Tensor
    centred: Tensor
    square: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> Control:
        """From samples [..., n]."""
        mean = samples.mean(-1, dtype=torch.float64)
        centred = _centred(samples, mean)
        return cls(mean, centred, _total(centred, centred))


@dataclass
class Moments:
    """Means and centred second moments of a value y and its control c; merged block by block.

    Attributes:
        n: samples so far.
        mean_y, mean_c: means [...], differentiable.
        yy, yc, cc: centred second moments, sums [...], without gradient.
    """

    n: int
    mean_y: Tensor
    mean_c: Tensor
    yy: Tensor
    yc: Tensor
    cc: Tensor

    @classmethod
    def of(cls, y: Tensor, control: Control) -> Moments:
        """Moments of one block: y [..., n]."""
        mean = y.mean(-1, dtype=torch.float64)
        centred = _centred(y, mean)
        return cls(
            y.shape[-1], mean, control.mean, _total(centred, centred), _total(centred, control.centred), control.square
        )

    @classmethod
    def stack(cls, parts: Sequence[Moments]) -> Moments:
        """Moments of several values of the same samples on a new first axis."""
        fields = ("mean_y", "mean_c", "yy", "yc", "cc")
        return cls(parts[0].n, *(torch.stack([getattr(part, name) for part in parts]) for name in fields))

    def merge(self, other: Moments) -> Moments:
        """Moments of both (Chan, Golub and LeVeque 1983)."""
        n = self.n + other.n
        share = other.n / n
        with torch.no_grad():
            gy, gc = other.mean_y - self.mean_y, other.mean_c - self.mean_c
            weight = self.n * share
            yy = self.yy + other.yy + gy * gy * weight
            yc = self.yc + other.yc + gy * gc * weight
            cc = self.cc + other.cc + gc * gc * weight
        mean_y = self.mean_y + (other.mean_y - self.mean_y) * share
        mean_c = self.mean_c + (other.mean_c - self.mean_c) * share
        return Moments(n, mean_y, mean_c, yy, yc, cc)

    def estimate(self, use_control: bool) -> tuple[Tensor, Tensor]:
        """Mean and its standard error, with the regression on the control if it is used (and varies)."""
        degrees = max(1, self.n - 1)
        if not use_control:
            return self.mean_y, torch.sqrt(self.yy / degrees / self.n)
        varies = self.cc > 0
        beta = torch.where(varies, self.yc / torch.where(varies, self.cc, torch.ones_like(self.cc)), 0.0)
        rest = (self.yy - beta * self.yc).clamp(min=0.0)
        return self.mean_y - beta * self.mean_c, torch.sqrt(rest / max(1, self.n - 2) / self.n)


def _centred(samples: Tensor, mean: Tensor) -> Tensor:
    return samples.detach() - mean.detach().unsqueeze(-1).to(samples.dtype)


def _total(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, dtype=torch.float64)
