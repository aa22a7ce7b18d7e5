"""Soft constraints: extra residuals beside the quotes, in units of implied vol so that they compare with the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import nonzero


class Penalty(Protocol):
    """A callable from parameters by name (each [...]) to residuals [..., m], differentiable."""

    def __call__(self, params: Mapping[str, Tensor]) -> Tensor:
        """Residuals in units of vol."""


@dataclass(frozen=True)
class Feller:
    """Pushes towards `2 kappa theta >= sigma^2` in the Heston part of a model.

    Residual: `strength max(0, 1 - 2 kappa theta / sigma^2)`; a violation of 100 % weighs like a fit error (root mean
    square) of `strength`, by default 100 basis points of vol.
    """

    strength: float = 0.01

    def __call__(self, params: Mapping[str, Tensor]) -> Tensor:
        """Residual [..., 1].

        Raises:
            InputError: the model has no kappa, theta and sigma.
        """
        try:
            kappa, theta, sigma = (params[name] for name in ("kappa", "theta", "sigma"))
        except KeyError as missing:
            raise InputError(f"the Feller penalty needs a Heston model: there is no parameter {missing}") from None
        gap = 1 - 2 * kappa * theta / nonzero(sigma * sigma)
        return (self.strength * torch.clamp(gap, min=0.0)).unsqueeze(-1)


@dataclass(frozen=True)
class Prior:
    """Gaussian prior on some parameters, such as yesterday's fit.

    Residual: `noise (p - mean) / std`; `noise` is the vol error at which a quote surface as a whole and the prior
    weigh the same, by default 10 basis points.

    Attributes:
        mean: prior mean by parameter name.
        std: prior standard deviation by parameter name.
    """

    mean: Mapping[str, float]
    std: Mapping[str, float]
    noise: float = 0.001

    def __post_init__(self) -> None:
        if set(self.mean) != set(self.std):
            raise InputError(f"prior mean and std name different parameters: {sorted(set(self.mean) ^ set(self.std))}")
        bad = [name for name, s in self.std.items() if not s > 0]
        if bad:
            raise InputError(f"prior std must be positive: {bad}")

    def __call__(self, params: Mapping[str, Tensor]) -> Tensor:
        """Residuals [..., m].

        Raises:
            InputError: the model lacks a parameter the prior names.
        """
        unknown = set(self.mean) - set(params)
        if unknown:
            raise InputError(f"the prior names {sorted(unknown)}, but the model has {list(params)}")
        columns = [self.noise * (params[name] - self.mean[name]) / self.std[name] for name in self.mean]
        return torch.stack(torch.broadcast_tensors(*columns), -1)
