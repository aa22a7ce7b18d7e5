"""Laws of the jump size `J` of `log S` in a compound Poisson process, each with its moment generating function."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from qsde.models.base import Parameter, Parametric

_INTENSITY = Parameter("jumps per year", constraints.nonnegative, (1e-4, 50.0), (0.05, 3.0), 0.3)


def moves_by_jumps(name: str) -> bool:
    """Whether paths jump as this parameter of a model moves, so that only averages over many of them have a slope.

    Example:
        >>> [moves_by_jumps(name) for name in ("vol", "intensity", "jumps2_intensity")]
        [False, True, True]
    """
    return name.endswith("intensity")


class JumpLaw(Parametric):
    """A compound Poisson process of `intensity` jumps per year with iid sizes `J` in `log S`, compensated."""

    intensity: Tensor

    @abstractmethod
    def mgf(self, z: Tensor) -> Tensor:
        """`E[exp(z J)]` for real or complex `z` inside `moment_range`."""

    @abstractmethod
    def mgf_gradient(self, z: Tensor) -> list[Tensor]:
        """Derivatives of `mgf` to the parameters after `intensity`, in field order."""

    @abstractmethod
    def mean_square(self) -> Tensor:
        """`E[J^2]`."""

    @abstractmethod
    def moment_range(self) -> tuple[Tensor, Tensor]:
        """The open interval of real `z` where `mgf` is finite."""

    def ripple(self, t: Tensor) -> tuple[Tensor, Tensor] | None:
        """As `Model.ripple`; laws with a wide density have none."""
        return None

    def log_cf(self, u: Tensor, t: Tensor) -> Tensor:
        """`intensity t (E[exp(i u J)] - 1 - i u (E[exp(J)] - 1))`: the compensated jump part of `log_cf`."""
        z = 1j * u
        return self.intensity * t * (self.mgf(z) - 1 - z * (self.mgf(_one_like(t)) - 1))

    def log_cf_gradient(self, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """`log_cf` and its derivatives to all parameters, stacked on a new first axis in field order."""
        z = 1j * u
        one = _one_like(t)
        unit = t * (self.mgf(z) - 1 - z * (self.mgf(one) - 1))
        scale = self.intensity * t
        rest = [
            scale * (at_z - z * at_one)
            for at_z, at_one in zip(self.mgf_gradient(z), self.mgf_gradient(one), strict=True)
        ]
        # a batch of intensities may come with one law of the sizes
        return self.intensity * unit, torch.stack(torch.broadcast_tensors(unit, *rest))


@dataclass(frozen=True, eq=False)
class MertonJumps(JumpLaw):
    """Normal jumps in `log S` (Merton 1976): `J ~ N(mean, std^2)`.

    Args:
        intensity: jumps per year.
        mean: mean of `J` (so `E[exp(J)] = exp(mean + std^2 / 2)`).
        std: standard deviation of `J`.
    """

    intensity: Tensor
    mean: Tensor
    std: Tensor

    PARAMETERS: ClassVar[Mapping[str, Parameter]] = {
        "intensity": _INTENSITY,
        "mean": Parameter("mean log jump", constraints.real, (-3.0, 3.0), (-0.5, 0.2), -0.1),
        "std": Parameter("standard deviation of the log jump", constraints.nonnegative, (1e-2, 3.0), (0.02, 0.5), 0.15),
    }

    def mgf(self, z: Tensor) -> Tensor:
        """`exp(mean z + std^2 z^2 / 2)`."""
        return torch.exp(z * (self.mean + 0.5 * self.std * self.std * z))

    def mgf_gradient(self, z: Tensor) -> list[Tensor]:
        """Derivatives to mean and std."""
        value = self.mgf(z)
        return [z * value, self.std * z * z * value]

    def mean_square(self) -> Tensor:
        """`mean^2 + std^2`."""
        return self.mean * self.mean + self.std * self.std

    def ripple(self, t: Tensor) -> tuple[Tensor, Tensor] | None:
        """`exp(i mean u)` shows until `exp(-std^2 u^2 / 2)` hides it; as many jumps add up as are at all likely."""
        expected = self.intensity * t
        jumps = expected + 6 * torch.sqrt(expected) + 2
        return 7.4 / self.std.clamp(min=1e-12), torch.where(expected > 0, jumps * self.mean.abs(), 0.0)

    def moment_range(self) -> tuple[Tensor, Tensor]:
        """All moments exist."""
        whole = torch.full_like(self.mean + self.std, torch.inf)
        return -whole, whole


@dataclass(frozen=True, eq=False)
class KouJumps(JumpLaw):
    """Double exponential jumps in `log S` (Kou 2002): up with probability `p_up` at rate `eta_up`, else down.

    Args:
        intensity: jumps per year.
        p_up: probability that a jump goes up.
        eta_up: rate of upward jumps (mean size `1 / eta_up`), above 1 so that `E[exp(J)]` is finite.
        eta_down: rate of downward jumps (mean size `1 / eta_down`).
    """

    intensity: Tensor
    p_up: Tensor
    eta_up: Tensor
    eta_down: Tensor

    PARAMETERS: ClassVar[Mapping[str, Parameter]] = {
        "intensity": _INTENSITY,
        "p_up": Parameter(
            "probability of an upward jump", constraints.interval(0.0, 1.0), (1e-4, 0.9999), (0.05, 0.8), 0.3
        ),
        "eta_up": Parameter("rate of upward jumps", constraints.greater_than(1.0), (1.01, 500.0), (4.0, 60.0), 20.0),
        "eta_down": Parameter("rate of downward jumps", constraints.positive, (0.5, 500.0), (2.0, 40.0), 8.0),
    }

    def mgf(self, z: Tensor) -> Tensor:
        """`p eta_up / (eta_up - z) + (1 - p) eta_down / (eta_down + z)`."""
        return self.p_up * self.eta_up / (self.eta_up - z) + (1 - self.p_up) * self.eta_down / (self.eta_down + z)

    def mgf_gradient(self, z: Tensor) -> list[Tensor]:
        """Derivatives to p_up, eta_up and eta_down."""
        up, down = self.eta_up - z, self.eta_down + z
        return [
            self.eta_up / up - self.eta_down / down,
            -self.p_up * z / (up * up),
            (1 - self.p_up) * z / (down * down),
        ]

    def mean_square(self) -> Tensor:
        """`2 p / eta_up^2 + 2 (1 - p) / eta_down^2`."""
        return 2 * self.p_up / self.eta_up**2 + 2 * (1 - self.p_up) / self.eta_down**2

    def moment_range(self) -> tuple[Tensor, Tensor]:
        """`(-eta_down, eta_up)`."""
        return -self.eta_down, self.eta_up


def _one_like(t: Tensor) -> Tensor:
    return torch.ones((), dtype=t.dtype, device=t.device)
