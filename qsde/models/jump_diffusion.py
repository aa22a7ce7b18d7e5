"""Any diffusion with any jump law: Merton, Kou, Bates, Heston-Kou and every other mix."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from qsde.errors import InputError, ParameterError
from qsde.models.affine import Riccati, affine
from qsde.models.base import FourierModel, Model, Parameter, fourier_model
from qsde.models.black_scholes import BlackScholes
from qsde.models.heston import Heston
from qsde.models.jumps import JumpLaw, KouJumps, MertonJumps
from qsde.numerics import broadcast_shape


@dataclass(frozen=True, eq=False)
class JumpDiffusion(FourierModel):
    """A diffusion with independent compensated jumps in `log S`.

    Parameters of the jump law appear as `jump_intensity`, `jump_mean` ...; a second law stacked on a JumpDiffusion
    has the prefix `jump2_`, and so on.

    Args:
        diffusion: any model (`BlackScholes` gives Merton or Kou, `Heston` gives Bates or Heston-Kou).
        jumps: any jump law.

    Example:
        >>> m = JumpDiffusion(BlackScholes(0.2), MertonJumps(intensity=0.3, mean=-0.1, std=0.15))
        >>> list(m.params)
        ['vol', 'jump_intensity', 'jump_mean', 'jump_std']
    """

    diffusion: Model
    jumps: JumpLaw

    def __post_init__(self) -> None:
        for name, value, kind in (("diffusion", self.diffusion, Model), ("jumps", self.jumps, JumpLaw)):
            if not isinstance(value, kind):
                raise InputError(
                    f"JumpDiffusion: {name} must be a {kind.__name__}, as in JumpDiffusion(BlackScholes(0.2), "
                    f"MertonJumps(0.3, -0.1, 0.15)), got {value!r:.60}"
                )

    @property
    def _prefix(self) -> str:
        depth, inner = 1, self.diffusion
        while isinstance(inner, JumpDiffusion):
            depth, inner = depth + 1, inner.diffusion
        return "jump_" if depth == 1 else f"jump{depth}_"

    @property
    def params(self) -> dict[str, Tensor]:
        """The parameters of the diffusion, then those of the jump law with their prefix."""
        return {**self.diffusion.params, **{self._prefix + k: v for k, v in self.jumps.params.items()}}

    @property
    def table(self) -> Mapping[str, Parameter]:
        """Description, domain, bounds and typical value of each parameter."""
        return {**self.diffusion.table, **{self._prefix + k: p for k, p in self.jumps.PARAMETERS.items()}}

    @property
    def name(self) -> str:
        """Bates, Merton, Kou, HestonKou, or the parts joined by a plus."""
        return _NAMES.get(
            (type(self.diffusion), type(self.jumps)), f"{self.diffusion.name}+{type(self.jumps).__name__}"
        )

    def with_params(self, params: Mapping[str, Tensor]) -> Self:
        """The same model with some parameters replaced; values are taken as they are, unchecked."""
        prefix = self._prefix
        own = {prefix + k for k in self.jumps.params}
        unknown = set(params) - own - set(self.diffusion.params)
        if unknown:
            raise ParameterError(f"{self.name} has no parameter {sorted(unknown)}; it has {list(self.params)}")
        new = copy.copy(self)
        inner = {k: v for k, v in params.items() if k not in own}
        jump = {k.removeprefix(prefix): v for k, v in params.items() if k in own}
        object.__setattr__(new, "diffusion", self.diffusion.with_params(inner))
        object.__setattr__(new, "jumps", self.jumps.with_params(jump))
        return new

    @property
    def batch_shape(self) -> torch.Size:
        """That of the diffusion and the law together."""
        shape: torch.Size = broadcast_shape(self.diffusion.batch_shape, *(p.shape for p in self.jumps.params.values()))
        return shape

    @property
    def has_cf(self) -> bool:
        """Whether the diffusion has a characteristic function."""
        return self.diffusion.has_cf

    @property
    def martingale(self) -> bool:
        """Whether the diffusion is a martingale; compensated jumps keep it one."""
        return self.diffusion.martingale

    @property
    def _cf(self) -> FourierModel:
        return fourier_model(self.diffusion)

    def log_cf(self, u: Tensor, t: Tensor) -> Tensor:
        """Sum of the two parts (they are independent)."""
        return self._cf.log_cf(u, t) + self.jumps.log_cf(u, t)

    def log_cf_gradient(self, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the two parts and all derivatives."""
        value, gradient = self._cf.log_cf_gradient(u, t)
        jump_value, jump_gradient = self.jumps.log_cf_gradient(u, t)
        return value + jump_value, torch.cat([gradient, jump_gradient])

    @property
    def initial_variance(self) -> Tensor:
        """That of the diffusion."""
        return affine(self.diffusion).initial_variance

    def transition(self, u: Tensor, b: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """As `Affine.transition`: that of the diffusion, with the jumps in `A`."""
        a, next_b = affine(self.diffusion).transition(u, b, dt)
        return a + self.jumps.log_cf(u, dt), next_b

    def riccati(self, u: Tensor, dt: Tensor) -> Riccati:
        """As `Affine.riccati`: that of the diffusion, with the jumps in `A`."""
        maps, a = affine(self.diffusion).riccati(u, dt)
        return maps, lambda b: a(b) + self.jumps.log_cf(u, dt)

    def transition_exists(self, p: Tensor, b: Tensor, dt: Tensor) -> Tensor:
        """As `Affine.transition_exists`: where the diffusion's does and the jumps have the moment."""
        lower, upper = self.jumps.moment_range()
        return affine(self.diffusion).transition_exists(p, b, dt) & (p > lower) & (p < upper)

    def total_variance(self, t: Tensor) -> Tensor:
        """Total variance of the diffusion plus `intensity t E[J^2]`."""
        return self._cf.total_variance(t) + self.jumps.intensity * t * self.jumps.mean_square()

    def ripple(self, t: Tensor) -> tuple[Tensor, Tensor] | None:
        """Ripples of both parts, as far out as the diffusion does not smooth them away."""
        found = [r for r in (self._cf.ripple(t), self.jumps.ripple(t)) if r is not None]
        if not found:
            return None
        smooth = 30 / torch.sqrt(self._cf.total_variance(t).clamp(min=1e-14))
        extent = found[0][0] if len(found) == 1 else torch.maximum(found[0][0], found[1][0])
        return torch.minimum(extent, smooth), sum((r[1] for r in found[1:]), found[0][1])

    def moment_range(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Intersection of the two strips."""
        lower, upper = self._cf.moment_range(t)
        jump_lower, jump_upper = self.jumps.moment_range()
        return torch.maximum(lower, jump_lower), torch.minimum(upper, jump_upper)


_NAMES = {
    (BlackScholes, MertonJumps): "Merton",
    (BlackScholes, KouJumps): "Kou",
    (Heston, MertonJumps): "Bates",
    (Heston, KouJumps): "HestonKou",
}

Number = float | Tensor


def merton(vol: Number, intensity: Number, mean: Number, std: Number) -> JumpDiffusion:
    """Merton (1976): Black-Scholes with normal jumps in `log S`.

    Arguments are those of `BlackScholes` (vol as annualised decimal) and of `MertonJumps` (jumps per year, mean and
    standard deviation of the log jump).

    Example:
        >>> list(merton(vol=0.2, intensity=0.3, mean=-0.1, std=0.15).params)
        ['vol', 'jump_intensity', 'jump_mean', 'jump_std']
    """
    return JumpDiffusion(BlackScholes(vol), MertonJumps(intensity, mean, std))  # type: ignore[arg-type]


def kou(vol: Number, intensity: Number, p_up: Number, eta_up: Number, eta_down: Number) -> JumpDiffusion:
    """Kou (2002): Black-Scholes with double exponential jumps in `log S`.

    Arguments are those of `BlackScholes` (vol as annualised decimal) and of `KouJumps` (jumps per year, probability of
    an upward one, and the rates of both sides, one over their mean sizes).

    Example:
        >>> list(kou(vol=0.2, intensity=0.5, p_up=0.3, eta_up=25.0, eta_down=10.0).params)
        ['vol', 'jump_intensity', 'jump_p_up', 'jump_eta_up', 'jump_eta_down']
    """
    return JumpDiffusion(BlackScholes(vol), KouJumps(intensity, p_up, eta_up, eta_down))  # type: ignore[arg-type]


def bates(
    v0: Number, kappa: Number, theta: Number, sigma: Number, rho: Number, intensity: Number, mean: Number, std: Number
) -> JumpDiffusion:
    """Bates (1996): Heston with normal jumps in `log S`.

    Arguments are those of `Heston` (variances as annualised decimals) and of `MertonJumps` (jumps per year, mean and
    standard deviation of the log jump).

    Example:
        >>> model = bates(0.04, 1.5, 0.05, 0.4, -0.7, intensity=0.3, mean=-0.1, std=0.15)
        >>> list(model.params)
        ['v0', 'kappa', 'theta', 'sigma', 'rho', 'jump_intensity', 'jump_mean', 'jump_std']
    """
    return JumpDiffusion(Heston(v0, kappa, theta, sigma, rho), MertonJumps(intensity, mean, std))  # type: ignore[arg-type]
