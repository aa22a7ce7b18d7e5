"""Steps made of exact flows: Strang's splitting, and UBU for Langevin dynamics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.dynamics import Dynamics, Equation, Interpretation, NoiseKind
from qsde.numerics import exp_quotient
from qsde.schemes.base import State
from qsde.schemes.sde.base import Orders, SDEScheme, Step, commuting

#: `flow(t, dt, y, params)` of the drift, or `flow(t, dw, y, params)` of the noise: where y is carried to.
Flow = Callable[[Tensor, Tensor, Tensor, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Strang(SDEScheme):
    """Half a step along the drift, a step along the noise, half a step along the drift, by exact flows.

    The solution stays where both flows stay: a variance positive, a point on its sphere. Weak order 2; strong order 1
    where the noise commutes. General noise that does not has no flow in closed form: a composition of weak order 2
    that reads the same backwards serves (for Heston see `tests/schemes/test_sde_weak.py`).

    Args:
        drift_flow: `drift_flow(t, dt, y, params)`, the solution of `y' = f(y)` after dt, f in the sense of
            Stratonovich.
        noise_flow: `noise_flow(t, dw, y, params)`, the solution of `dy = g(y) o dW` after increments dw.

    The functions of the SDE only say what kind of noise there is.

    Reference:
        Strang (1968), "On the construction and comparison of difference schemes", SIAM J. Numer. Anal. 5; for square
        roots: Ninomiya, Victoir (2008), section 3.

    Example:
        The variance of Heston's model, positive where `4 kappa theta >= sigma^2`:

        >>> kappa, theta, sigma = 1.5, 0.05, 0.4
        >>> level = theta - sigma**2 / (4 * kappa)
        >>> strang = Strang(
        ...     drift_flow=lambda t, dt, v, p: level + (v - level) * torch.exp(-kappa * dt),
        ...     noise_flow=lambda t, dw, v, p: (torch.sqrt(v) + 0.5 * sigma * dw) ** 2,
        ... )
    """

    drift_flow: Flow
    noise_flow: Flow

    interpretation: ClassVar[Interpretation] = "stratonovich"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = {**commuting(1.0, 2.0), "general": Orders(0.5, 2.0)}

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """The three flows."""
        (y,) = state
        half, params = 0.5 * step.dt, equation.params
        middle = step.t + half
        y = self.drift_flow(step.t, half, y, params)
        y = self.noise_flow(middle, step.dw, y, params)
        return (self.drift_flow(middle, half, y, params),)


@dataclass(frozen=True)
class UBU(SDEScheme):
    """Langevin dynamics `dq = p dt`, `dp = (F(q) - c p) dt + s dW` with one force a step: strong order 2.

    A state [P, 2, *shape] holds positions `y[:, 0]` and momenta `y[:, 1]`. The step solves everything but the force
    exactly (U), kicks the momentum with the force in the middle (B), and goes on exactly (U). What the noise does to
    position and momentum is taken given its increment and space-time Levy area; the rest is of the size of the error.
    The force is the drift at momentum 0. Meant for `friction * dt` below about 1.

    Args:
        friction: name of the parameter c.

    Raises:
        InputError: the state has no axis of two behind that of the paths, or there is no such parameter.

    Reference:
        Sanz-Serna, Zygalakis (2021), "Wasserstein distance estimates for the distributions of numerical approximations
        to ergodic stochastic differential equations", JMLR 22, section 7; Foster, Oberhauser, Lyons (2020).

    Example:
        >>> UBU.orders["additive"]
        Orders(strong=2.0, weak=2.0)
    """

    friction: str = "friction"

    interpretation: ClassVar[Interpretation] = "ito"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = {"additive": Orders(2.0, 2.0)}
    levy: ClassVar[bool] = True

    def bound(self, dynamics: Dynamics) -> Self:
        """The scheme for these functions."""
        if dynamics.shape[:1] != (2,):
            raise InputError(
                f"UBU steps states [P, 2, *shape] of positions and momenta, got [P, *{list(dynamics.shape)}]; "
                "use SRA1() for other additive noise"
            )
        if self.friction not in dynamics.names:
            raise InputError(
                f"UBU needs the friction among the parameters of the SDE, got {list(dynamics.names)}; give its name: "
                "UBU(friction=...)"
            )
        return super().bound(dynamics)

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """All noise integrals of a step are linear in its increment and area."""
        (y,) = state
        q, p = y.unbind(1)
        c, dt = equation.params[self.friction], _inner(step.dt)
        g = equation.diffusion(step.t, y)
        w, h = (equation.product(g, part)[:, 1] for part in (step.dw, step.area))
        u = c * dt
        # int_0^{dt/2} (dt/2 - s) dW given the increment and the area of the whole step
        middle = q + 0.5 * dt * _momentum(0.5 * u) * p + dt * (0.125 * w + 0.5 * h)
        force = equation.drift(step.t + 0.5 * step.dt, torch.stack([middle, torch.zeros_like(p)], 1))[:, 1]
        area = _area(u)
        noise = _momentum(u) * w - u * area * h
        q = q + dt * _momentum(u) * p + dt * (_position(u) * w + area * h)
        q = q + 0.5 * dt * dt * _momentum(0.5 * u) * force
        return (torch.stack([q, torch.exp(-u) * p + torch.exp(-0.5 * u) * dt * force + noise], 1),)


def _inner(dt: Tensor) -> Tensor:
    """Sizes of each path's own step meet a state that has lost its axis of two."""
    return dt.squeeze(1) if dt.dim() > 1 else dt


_TERMS = 16
#: Below this a weight is its series, whose rest is under 1e-14; above, the formula loses no digits that matter.
_NEAR = 1.0


def _momentum(u: Tensor) -> Tensor:
    """`(1 - exp(-u)) / u`: mean of `exp(-c (dt - s))` over the step, with u = c dt."""
    return exp_quotient(u)


def _position(u: Tensor) -> Tensor:
    """`(u - 1 + exp(-u)) / u^2`: mean of `(1 - exp(-c (dt - s))) / u`."""
    away = torch.where(u < _NEAR, _NEAR, u)
    near = _series([1 / math.factorial(n + 2) for n in range(_TERMS)], torch.where(u < _NEAR, u, 0.0))
    return torch.where(u < _NEAR, near, (1 - exp_quotient(away)) / away)


def _area(u: Tensor) -> Tensor:
    """`(6 / u) ((1 - exp(-u)) / u - 2 (1 - (1 + u) exp(-u)) / u^2)`: what `exp(-c (dt - s)) / u` has of the area."""
    away = torch.where(u < _NEAR, _NEAR, u)
    weights = [6 / (math.factorial(n) * (n + 2) * (n + 3)) for n in range(_TERMS)]
    near = _series(weights, torch.where(u < _NEAR, u, 0.0))
    far = exp_quotient(away) - 2 * (1 - (1 + away) * torch.exp(-away)) / (away * away)
    return torch.where(u < _NEAR, near, 6 / away * far)


def _series(weights: list[float], u: Tensor) -> Tensor:
    """`sum_n weights_n (-u)^n`."""
    total = torch.full_like(u, weights[-1])
    for weight in reversed(weights[:-1]):
        total = weight - u * total
    return total
