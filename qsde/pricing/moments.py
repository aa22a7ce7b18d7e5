"""Streaming mean, control variate and standard error over blocks of independent samples, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Sums over samples of a value y and a control c with known mean 0; merged block by block.

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
    def of(cls, y: Tensor, c: Tensor) -> Moments:
        """Moments of one block: y and c [..., samples]."""
        n = y.shape[-1]
        mean_y, mean_c = y.mean(-1, dtype=torch.float64), c.mean(-1, dtype=torch.float64)
        with torch.no_grad():
            dy = y.double() - mean_y.unsqueeze(-1)
            dc = c.double() - mean_c.unsqueeze(-1)
            return cls(n, mean_y, mean_c, (dy * dy).sum(-1), (dy * dc).sum(-1), (dc * dc).sum(-1))

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
