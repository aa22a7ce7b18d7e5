"""Heston stochastic volatility: characteristic function, its gradient, and where its moments explode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from qsde.models.affine import Maps
from qsde.models.base import FourierModel, Parameter, Parametric
from qsde.numerics import (
    broadcast_shape,
    complex_exp,
    complex_expm1,
    complex_log,
    complex_sqrt,
    exp_quotient,
    log1p_quotient,
    nonzero,
)


@dataclass(frozen=True, eq=False)
class Heston(Parametric, FourierModel):
    """Heston (1993): `dx = -v/2 dt + sqrt(v) dW`, `dv = kappa (theta - v) dt + sigma sqrt(v) dB`, `dW dB = rho dt`.

    Args:
        v0: initial variance (0.04 is a volatility of 20 %).
        kappa: speed of mean reversion, per year.
        theta: long-run variance.
        sigma: volatility of variance.
        rho: correlation of spot and variance.

    The Feller condition `2 kappa theta >= sigma^2` is not required.

    Example:
        >>> m = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7)
        >>> round(float(m.feller_ratio), 4)
        0.9375
    """

    v0: Tensor
    kappa: Tensor
    theta: Tensor
    sigma: Tensor
    rho: Tensor

    PARAMETERS: ClassVar[Mapping[str, Parameter]] = {
        "v0": Parameter("initial variance", constraints.nonnegative, (1e-6, 9.0), (0.4, 2.5), 0.04, "short variance"),
        "kappa": Parameter("mean reversion per year", constraints.nonnegative, (1e-3, 100.0), (0.2, 20.0), 2.0),
        "theta": Parameter(
            "long-run variance", constraints.nonnegative, (1e-6, 9.0), (0.4, 2.5), 0.06, "long variance"
        ),
        "sigma": Parameter("volatility of variance", constraints.nonnegative, (1e-3, 20.0), (0.1, 4.0), 0.8),
        "rho": Parameter(
            "correlation of spot and variance", constraints.interval(-1.0, 1.0), (-0.9999, 0.9999), (-0.9, 0.9), -0.6
        ),
    }

    @property
    def table(self) -> Mapping[str, Parameter]:
        """Description, domain, bounds and typical value of each parameter."""
        return self.PARAMETERS

    @property
    def feller_ratio(self) -> Tensor:
        """`2 kappa theta / sigma^2`: at 1 or above the variance never touches zero."""
        return 2 * self.kappa * self.theta / nonzero(self.sigma * self.sigma)

    def log_cf(self, u: Tensor, t: Tensor) -> Tensor:
        """Heston (1993) in the branch-free form of Lord and Kahl (2010), arranged to be exact as sigma -> 0."""
        s2 = self.sigma * self.sigma
        z = 1j * u
        q = z - z * z
        xi = self.kappa - (self.rho * self.sigma) * z
        d = complex_sqrt(torch.addcmul(s2 * q, xi, xi))
        lost = complex_expm1(-t * d)  # exp(-d t) - 1
        decay = lost / d  # minus (1 - exp(-d t)) / d
        b = q * decay / (lost + 2 - xi * decay)
        # a = (2/sigma^2) [(xi - d) t / 2 - log(...)]: both terms are O(sigma^2), so sigma^2 is divided out by hand
        q_over = q / (xi + d + 1e-100)
        a = q_over * (t + decay * log1p_quotient((0.5 * s2) * (q_over * decay)))
        return b * self.v0 - (self.kappa * self.theta) * a

    def log_cf_gradient(self, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """`log_cf` and its closed-form derivatives to v0, kappa, theta, sigma, rho (chain rule through xi and d).

        Compare Cui, del Bano Rollin and Germano (2017), whose arrangement divides by quantities that vanish; here the
        derivative of the logarithm is taken before sigma^2 is divided out: accurate to 1e-16 / sigma^2, so that below
        sigma = 1e-3 the forward-mode derivative of `log_cf` takes over.
        """
        kappa, sigma, v0 = self.kappa, self.sigma, self.v0
        if float(sigma.min()) < 1e-3:
            return super().log_cf_gradient(u, t)
        s2 = sigma * sigma
        z = 1j * u
        q = z - z * z
        xi = kappa - self.rho * sigma * z
        d = complex_sqrt(xi * xi + s2 * q)
        e = complex_exp(-d * t)
        one_e = 1 - e
        m = xi * one_e + d * (1 + e)
        q_m = q / m
        b = -q_m * one_e
        a = ((xi - d) * t - 2 * complex_log(m / (2 * d))) / s2
        value = kappa * self.theta * a + b * v0

        # value depends on (kappa, sigma, rho) through xi, through d, and explicitly; r = xi / d = d(d)/d(xi)
        r = xi / d
        te = t * e
        m_d = 1 + e - te * (d - xi)
        b_d = q_m * (one_e * m_d / m - te)
        b_xi = q_m * one_e * one_e / m + r * b_d
        factor = kappa * self.theta / s2
        g_d = -t - 2 * (m_d / m - 1 / d)
        g_xi = t - 2 * one_e / m + r * g_d
        along_xi = factor * g_xi + v0 * b_xi
        along_d = factor * g_d + v0 * b_d
        sigma_d = sigma * q / d  # explicit sigma in d^2 = xi^2 + sigma^2 q
        rho_z = self.rho * z
        d_kappa = self.theta * a + along_xi
        d_sigma = -rho_z * along_xi + sigma_d * along_d - 2 * kappa * self.theta * a / sigma
        d_rho = -sigma * z * along_xi
        return value, torch.stack([b.expand_as(value), d_kappa, kappa * a, d_sigma, d_rho])

    @property
    def initial_variance(self) -> Tensor:
        """`v0`."""
        return self.v0

    def transition(self, u: Tensor, b: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """As `Affine.transition`: the Riccati equation of `log_cf` from the end value `b`.

        `B' = sigma^2 B^2 / 2 - xi B - q / 2` and `A' = kappa theta B`, where `z = i u`, `q = z - z^2` and
        `xi = kappa - rho sigma z`.
        """
        (p, q, r, s), a = self.riccati(u, dt)
        return a(b), (p + q * b) / (r + s * b)

    def riccati(self, u: Tensor, dt: Tensor) -> tuple[Maps, Callable[[Tensor], Tensor]]:
        """As `Affine.riccati`."""
        q, xi, d, lost = self._exponents(u, dt)
        decay, root = lost / d, self._root(q, xi, d)
        s = self.sigma * self.sigma * decay

        def a(b: Tensor) -> Tensor:
            ahead = root + b
            w = 0.5 * s * ahead  # U - 1, U solves the linear equation without growth
            return -(self.kappa * self.theta) * (root * dt + decay * ahead * log1p_quotient(w))

        return (q * decay, lost + 2 + xi * decay, 2 + s * root, s), a

    def _exponents(self, u: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`q`, `xi`, `d` with `d^2 = xi^2 + sigma^2 q`, and `exp(-d dt) - 1`."""
        z = 1j * u
        q = z - z * z
        xi = self.kappa - (self.rho * self.sigma) * z
        d = complex_sqrt(torch.addcmul(self.sigma * self.sigma * q, xi, xi))
        return q, xi, d, complex_expm1(-dt * d)

    def _root(self, q: Tensor, xi: Tensor, d: Tensor) -> Tensor:
        """`(d - xi) / sigma^2`, from whichever of `xi + d` and `d - xi` does not cancel."""
        ahead = (xi * d.conj()).real >= 0
        beyond = (d - xi) / torch.where(ahead, 1.0, nonzero(self.sigma * self.sigma))
        return torch.where(ahead, q / torch.where(ahead, xi + d + 1e-100, 1.0), beyond)

    def transition_exists(self, p: Tensor, b: Tensor, dt: Tensor) -> Tensor:
        """As `Affine.transition_exists`: whether the Riccati equation lives longer than `dt`."""
        slope = self.sigma * (self.sigma * b + self.rho * p) - self.kappa
        d2 = (self.rho * self.sigma * p - self.kappa) ** 2 - self.sigma * self.sigma * (p * p - p)
        d = torch.sqrt(d2.abs())
        safe_d = torch.clamp(d, min=1e-150)
        falls = slope > d
        real = torch.where(
            falls, torch.log1p(2 * d / torch.where(falls, slope - d, 1.0)) / safe_d, torch.full_like(d, torch.inf)
        )
        return torch.where(d2 >= 0, real, 2 * torch.atan2(d, slope) / safe_d) > dt

    def total_variance(self, t: Tensor) -> Tensor:
        """`E int_0^t v ds = theta t + (v0 - theta) (1 - exp(-kappa t)) / kappa`."""
        return self.theta * t + (self.v0 - self.theta) * t * exp_quotient(self.kappa * t)

    def moment_range(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Critical moments: where the explosion time of Andersen and Piterbarg (2007), Prop. 3.1, equals `t`."""
        with torch.no_grad():
            upper = self._critical_moment(t, 1.0)
            lower = self._critical_moment(t, -1.0)
        return lower, upper

    def _critical_moment(self, t: Tensor, side: float) -> Tensor:
        base = 1.0 if side > 0 else 0.0
        shape = broadcast_shape(self.batch_shape, t.shape)
        low = torch.zeros(shape, dtype=t.dtype, device=t.device)
        high = torch.full_like(low, 1e8)
        for _ in range(90):  # distance from [0, 1], bisected geometrically once it is away from 0
            middle = torch.where(low > 0, torch.sqrt(torch.clamp(low, min=1e-300) * high), 1e-9 * torch.ones_like(low))
            alive = self._explosion_time(base + side * middle) > t
            low, high = torch.where(alive, middle, low), torch.where(alive, high, middle)
        return base + side * low

    def _explosion_time(self, p: Tensor) -> Tensor:
        b = self.rho * self.sigma * p - self.kappa
        d2 = b * b - self.sigma * self.sigma * (p * p - p)
        d = torch.sqrt(d2.abs())
        safe_d = torch.clamp(d, min=1e-150)
        real = torch.where(
            b > 0, torch.log1p(2 * d / nonzero(torch.clamp(b - d, min=0.0))) / safe_d, torch.full_like(d, torch.inf)
        )
        angle = torch.atan2(d, b)  # in (0, pi): arctan(d / b), plus pi where b < 0
        return torch.where(d2 >= 0, real, 2 * angle / safe_d)
