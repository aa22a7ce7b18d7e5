"""A scheme for Heston without branches: truncated-quadratic variance, and its integral regressed on both ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qsde.models.base import Model
from qsde.numerics import exp_quotient, polynomial
from qsde.schemes.base import State
from qsde.schemes.heston import HestonScheme
from qsde.schemes.log_euler import LARGEST_TILT, quadratic
from qsde.schemes.rows import double, rows

#: Above this sqrt(psi / 2) the variance of v' is that at it: psi = 5000.
WIDEST = 50.0
#: `tau b` in powers of `2 tau / 0.9005 - 1`, highest first; `tau = 1 - 1 / sqrt(1 + 2 root)`: psi to 2e-4.
_SHIFT = (
    -0.24589226, -0.01628703, 0.66756787, -0.18596913, -0.77871478, 0.38855113, 0.27732071, -0.48855494,
    -0.03431166, -0.08940909, -0.81458802, -1.71023826, 0.24087824,
)  # fmt: skip
#: `(1 + 0.3 x) N(-x) / phi(x)` in powers of `1 / (1 + 0.3 x)`, highest first.
_MILLS = (
    0.0938525269, -0.412697494, 0.549841006, -0.165129198, 0.33882634, 0.245265398, 0.303548492, 0.299807118,
)  # fmt: skip
#: Variances this small do not matter, but quotients of them would have derivatives that float32 cannot hold.
_FIRM_HALF, _FIRM_MEAN = 1e-10, 1e-7
_TAU = 1 - 1 / math.sqrt(1 + 2 * WIDEST)
#: Above this b nothing is truncated.
_UNTOUCHED = 9.0
#: E[exp(A v')] is finite in every state where `2 A a` is below this.
_MOMENT = 0.9
#: Divisors and arguments of roots stay above these; where `sqrt(psi / 2)` is below _ROOT nothing depends on b.
_MEAN, _HALF, _ROOT, _SIGMA, _SHORTEST = 1e-12, 1e-20, 1e-2, 1e-6, 1e-4
_POINTS, _SHARES = np.polynomial.legendre.leggauss(16)
_NODES, _WEIGHTS = (0.5 + 0.5 * _POINTS).tolist(), (0.5 * _SHARES).tolist()


@dataclass(frozen=True)
class HestonTQ(HestonScheme):
    """Truncated-quadratic scheme with martingale correction: continuous path by path in the state and all parameters.

    `HestonQE` switches between two laws, where its paths jump: pathwise derivatives miss a boundary term, and prices
    are rough in the small as functions of the parameters. Here one law serves every psi:

        `v' = a max(0, b + z)^2`,   `z = z_v`,

    quadratic in a normal for small psi, with an atom at 0 for large. With `m` and `m^2 psi` the exact mean and variance
    of `v' | v`, b depends on psi only and a keeps the mean:
    `M_2 = E[max(0, b + z)^2] = (1 + b^2) N(b) + b phi(b)`, `a = m / M_2`. b is a fit that gives the variance to 2e-4
    of itself for psi up to 5000; above, the variance is that at 5000. The mean is exact always.

    The integral of the variance over the step is `I = E[I | v] + c (v' - m)`, its regression on `v'` with exact moments
    of Heston: mean, `c = Cov(I, v') / Var(v')`, and residual variance `R`, which goes to the log-price as a normal:

        `x' = x + A v' - log E[exp(A v') | v] - w / 2 + sqrt(w) z_x`,
        `w = (1 - rho^2) (E[I | v] + g (v' - m)) + (kappa rho / sigma - 1 / 2)^2 R`,
        `A = rho / sigma + (kappa rho / sigma - 1 / 2) c + (1 - rho^2) g / 2`,
        `g = min(c + kappa R / (Var(v') (1 + kappa c)), E[I | v] / m)`.

    g exceeds c so that w and the drift of x have their covariance although the residual enters them apart.
    `E[exp(x')] = exp(x)` holds exactly at every step size:
    `E[exp(A v')] = N(-b) + exp(t b^2 / (1 - 2 t)) N(b / sqrt(1 - 2 t)) / sqrt(1 - 2 t)`, `t = A a`; where that would be
    infinite for some v (rho > 0 and rho sigma dt above 0.3 to 1.8) A is lowered.

    Against HestonQE (benchmarks/qe_greeks.py): no boundary term; where Feller's condition is violated, standard errors
    of pathwise Greeks smaller by 1 to 5, as their tails are thinner; Greeks to v0 nearer to Fourier at any step size,
    those to sigma and rho further off below some 50 steps a year; about 1.6 times the cost.

    State `(x, v)` with `v >= 0`; two normals per step, `z_x` and `z_v`; v' does not decrease in `z_v`. Finite gradients
    everywhere: v = 0, sigma = 0, kappa = 0, rho = +-1.

    Args:
        averaged: leave `z_x` out; the state is `(E[x], v, sum of w)` (`Scheme.conditional`).

    References:
        Andersen (2008), "Simple and efficient simulation of the Heston stochastic volatility model", J. Comp. Finance
        11(3): moment matching and the martingale correction. The law of v' and the regression of the integral are ours.

    Example:
        >>> from qsde.models import Heston
        >>> m = Heston(v0=0.04, kappa=0.5, theta=0.04, sigma=1.0, rho=-0.9)
        >>> scheme = HestonTQ()
        >>> c = scheme.coefficients(m, torch.tensor(0.125, dtype=torch.float64)).unsqueeze(-1)
        >>> x, v = scheme.step(scheme.initial(m), c, torch.ones(2, 1, dtype=torch.float64), torch.empty(0, 1))
        >>> round(float(v), 6)
        0.086492
    """

    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """Moments of v' and I as slopes and intercepts in v, and what multiplies c, g and R."""
        p, dt = double(model, dt)
        kappa, theta, sigma, rho = p["kappa"], p["theta"], p["sigma"], p["rho"]
        decay, span = torch.exp(-kappa * dt), dt * exp_quotient(kappa * dt)
        pull = theta * kappa * span
        slope, intercept = 0.5 * decay * span, 0.25 * pull * span
        kept, gained, covariance, covariance_0, variance, variance_0 = _integrals(kappa, dt)
        start = 0.5 * sigma / torch.sqrt((kappa * theta).clamp(min=_MEAN))  # the largest root, that at v = 0
        largest = _MOMENT * _shape(start.clamp(max=WIDEST))[2] / (sigma * span).clamp(min=_SHORTEST)
        return rows(
            model,
            decay,
            pull,
            slope,
            intercept,
            sigma,
            WIDEST / sigma.clamp(min=_SIGMA),
            kept,
            theta * gained,
            covariance,
            theta * covariance_0,
            variance,
            theta * variance_0,
            kappa,
            rho,
            kappa * rho - 0.5 * sigma,
            0.5 * sigma * (1 - rho * rho),
            largest,
            1 - rho * rho,
        )

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """Variance, then log-price given both ends of it."""
        return self.moved(state, c, normals)

    @staticmethod
    def expected(v: Tensor, c: Tensor) -> Tensor:
        """Mean of the integral of the variance over a step."""
        return torch.addcmul(c[7], c[6], v)

    def moved(
        self, state: State, c: Tensor, normals: Tensor, level: Tensor | None = None, m: Tensor | None = None
    ) -> State:
        """The step with the volatility `sqrt(v)` of the log-price, or with a leverage on it.

        With N the integral of `sqrt(v) dW` and I that of v, the step has `level N + m (N^2 - I)` in place of N, and the
        drift that keeps the mean exact. The square of the part of N that moves the variance is quartic in `z_v`; it
        enters as `z_v^2` and a multiple of `v'` with the same covariances up to `dt^2`, whose exponentials have a mean
        in closed form.
        """
        x, v = state[:2]
        z = normals[len(normals) - 1]
        decay, pull, slope, intercept, sigma, widest, *integral, rho, drift, side, largest, orthogonal = c.unbind(0)
        covariance, covariance_0, variance, variance_0, kappa = integral[2:]
        mean, expected = torch.addcmul(pull, decay, v), self.expected(v, c)
        half = torch.addcmul(intercept, slope, v).clamp(min=_HALF)  # Var(v') / (2 sigma^2)
        spread = torch.minimum(torch.sqrt(half), widest * mean)
        root = sigma * spread / mean.clamp(min=_MEAN)  # sqrt(psi / 2)
        b, rb, scale, below = _shape(root)
        y = torch.maximum(z, -b)
        bend = torch.addcmul(rb, root, z).clamp(min=0)  # not y: rounding would keep v' off 0
        new = mean * bend.square() / scale

        common = torch.addcmul(covariance_0, covariance, v)
        firm = half.clamp(min=_FIRM_HALF)
        load = common / firm / 2
        residual = (torch.addcmul(variance_0, variance, v) - common * load).clamp(min=0)  # R / sigma^2
        more = load + 0.5 * kappa * residual / (firm * (1 + kappa * load))
        more = torch.minimum(more, expected / mean.clamp(min=_FIRM_MEAN))

        w = orthogonal * (expected + more * (new - mean))
        lean, aside = rho, w
        if level is not None and m is not None:
            lean = level * rho + m * rho * (sigma * rho * load + 2 * level * orthogonal * expected)
            # drift is kappa rho - sigma / 2
            drift, side, w = level * (drift + 0.5 * sigma * (1 - level)), level.square() * side, level.square() * w
        w = w + drift.square() * residual

        # A v' - log E[exp(A v')] with A = lift / sigma; t and t b without dividing by sigma
        lift = torch.minimum(lean + drift * load + side * more, largest)
        share = lift * spread / scale
        t, tb = share * root, share * rb
        inner, fall = b, tb
        if m is not None:
            bent = torch.minimum(2 * m * rho.square() * half, (LARGEST_TILT - t).clamp(min=0))
            t, inner = t + bent, b * (1 - 2 * bent)
            fall = tb - bent * inner
        inverse = 1 / (1 - 2 * t)
        narrow = torch.sqrt(inverse)
        atom = below * torch.exp(torch.where(b < _UNTOUCHED, -fall * b * inverse, 0.0))
        log = torch.log(torch.addcmul(atom, narrow, _normal(inner * narrow)))
        lifted = torch.addcmul(2 * tb, t, y) * y - 2 * tb.square() * inverse - log

        if self.averaged:
            return x + (lifted - 0.5 * w), new, state[2] + w
        deviation = torch.sqrt(w.clamp(min=_HALF))
        if m is None:
            return x + torch.addcmul(lifted - 0.5 * w, deviation, normals[0]), new
        deviation = deviation + 2 * m * rho * torch.sqrt((2 * half * aside).clamp(min=_HALF)) * y  # and 2 m N_v
        return x + (lifted + quadratic(deviation, (m * aside).clamp(max=LARGEST_TILT), normals[0])), new


def _shape(root: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """b, `root b`, `root^2 M_2` and N(-b) at `root = sqrt(psi / 2)`."""
    q = torch.sqrt(1 + 2 * root)
    grown = 0.5 * q * (1 + q)  # root / tau
    at = root / grown * (2 / _TAU) - 1
    rb = polynomial(_SHIFT, at) * grown
    b = rb / root.clamp(min=_ROOT)
    density, rest = normal_tail(b)
    positive = b > 0  # the smaller of the two keeps all its digits
    above, below = torch.where(positive, 1 - rest, rest), torch.where(positive, rest, 1 - rest)
    scale = (root.square() + rb.square()) * above + root * rb * density
    return b, rb, scale, below


def normal_tail(x: Tensor) -> tuple[Tensor, Tensor]:
    """Standard normal density, and N(-|x|); compiled in float32 from a fit to 1e-7, as erfc takes half of the step."""
    size, density = x.abs(), torch.exp(-0.5 * x.square()) * (1 / math.sqrt(2 * math.pi))
    if x.dtype == torch.float32 and torch.compiler.is_compiling():
        u = 1 / (1 + 0.3 * size)
        return density, density * u * polynomial(_MILLS, u)
    return density, 0.5 * torch.special.erfc(size * math.sqrt(0.5))


def _normal(x: Tensor) -> Tensor:
    """Standard normal distribution function."""
    rest = normal_tail(x)[1]
    return torch.where(x > 0, 1 - rest, rest)


def _integrals(kappa: Tensor, dt: Tensor) -> tuple[Tensor, ...]:
    """Mean of I, its covariance with v' and its variance, both over sigma^2: each per unit of v, and of theta.

    Integrals of positive functions by Gauss and Legendre with 16 nodes: nothing cancels as kappa goes to 0.
    """
    nodes, weights = (torch.tensor(values, dtype=dt.dtype, device=dt.device) for values in (_NODES, _WEIGHTS))
    kappa, s = kappa.unsqueeze(-1), nodes * dt.unsqueeze(-1)
    rest = dt.unsqueeze(-1) - s

    def faded(time: Tensor) -> Tensor:
        return time * exp_quotient(kappa * time)

    v_of_v, v_of_theta = torch.exp(-kappa * s) * faded(s), 0.5 * kappa * faded(s).square()  # Var(v_s) / sigma^2
    late = torch.exp(-kappa * rest)
    means = torch.exp(-kappa * s), kappa * faded(s)
    covariances = late * v_of_v, late * v_of_theta
    variances = 2 * faded(rest) * v_of_v, 2 * faded(rest) * v_of_theta
    return tuple((f * weights).sum(-1) * dt for f in (*means, *covariances, *variances))
