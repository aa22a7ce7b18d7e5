"""A scheme for Heston that is nearly exact at any step size, and continuous path by path."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.models.base import Model
from qsde.numerics import exp_quotient, largest, polynomial
from qsde.schemes.base import State
from qsde.schemes.heston import HestonScheme
from qsde.schemes.heston_tq import normal_tail
from qsde.schemes.rows import double, rows

# Fits of moments: each of a polynomial, highest power first, in a variable on [-1, 1].
#: beta - sqrt(lambda), rho and tau of the branching part at `2 sqrt(s / (1 + s)) - 1`, `s = sqrt(lambda)`.
_KINK = (
    -1.63519803, -0.549171023, 0.930552888, 0.379508119, -0.365429917, 0.240821493, -0.105190264, 0.393475279,
    -0.277643484, 1.66669119, -1.94014696,
)  # fmt: skip
_ONSET = (
    11.8401282, -3.64811455, -25.2251577, 11.2536539, 17.0529773, -5.74072864, -1.31859544, -1.12126402,
    -1.27377348, -3.94078975, 4.68288211,
)  # fmt: skip
_CUBE = (
    -2.463395, 1.76174951, 2.32006054, -1.58638855, -0.728413676, 0.473389218, 0.251298219, -0.168319237,
    -0.0980201335, 0.0435739837, 0.0172297967,
)  # fmt: skip
#: `b / q`, `log(q sqrt(1 + delta))` and r of the immigration at `1 - 2 log(delta / (1 + delta)) / _DEEPEST`; the first
#: over `sqrt(1 + delta)`.
_SHIFT = (
    0.00400577243, -0.0428321316, -0.0290790062, 0.105388762, 0.178653763, 0.293877572, 0.62441498, 1.69373314,
    -1.11381682,
)  # fmt: skip
_TILT = (
    0.0604082445, -0.0373118318, -0.145930575, 0.0456050188, 0.0917162096, -0.0620856712, -0.213076531, -0.63115346,
    1.48035263,
)  # fmt: skip
_POWER = (
    0.0263034635, -0.0317330565, -0.0633917455, 0.0687556811, 0.0890167225, 0.0441277935, 0.136807626, 0.316551612,
    1.98513763,
)  # fmt: skip
_DEEPEST, _LEAST_DELTA, _LEAST_LAMBDA = -5.26059094, 0.00522, 1e-4
_SIGMA, _SHORTEST, _MEAN, _VARIANCE, _SQUARE, _RATE = 1e-4, 1e-10, 1e-7, 1e-12, 1e-20, 1e-6
#: Largest skewness of the integral, and the range of alpha.
_SKEW, _LEAST_ALPHA, _ALPHA = 3.6, 1e-3, 3.0
_AXIS = torch.linspace(-8, 8, 161, dtype=torch.float64)
_LAW = torch.softmax(-0.5 * _AXIS.square(), 0)


@dataclass(frozen=True)
class HestonNearExact(HestonScheme):
    """Transition of Heston by laws with its first three moments: little bias at four steps a year.

    With `c = sigma^2 (1 - exp(-kappa dt)) / (4 kappa)`, `delta = 4 kappa theta / sigma^2` and
    `lambda = v exp(-kappa dt) / c`, the new variance is c times a noncentral chi-squared variable: what is left of v
    (X, which may be 0) and what came since (G, a gamma variable),

    - `v' = c (X + G)`, `X = a t (rho + t + tau t^2)`, `t = max(0, beta + z_b)`, `G = a' log(1 + exp(b + q z_g))^r`.

    a and a' keep both means; beta, rho and tau depend on lambda, b, q and r on delta: fits that give variances to 2e-4,
    third moments to 2e-3 and what is near 0 to 1e-2 of themselves. No branches.

    Given v and v' the integral I of the variance has cumulants in closed form, but for a ratio of Bessel functions, of
    which a continued fraction is taken. I is drawn from a shifted Birnbaum-Saunders law, with mean m, variance s^2 and
    the skewness, which gives alpha:

    - `I = max(0, m + s (z_i sqrt(1 + alpha^2 z_i^2 / 4) + alpha (z_i^2 - 1) / 2) / sqrt(1 + 5 alpha^2 / 4))`,
    - `x' = x + (rho / sigma) (v' - v - kappa theta dt + kappa I) - I / 2 + sqrt((1 - rho^2) I) z_x`.

    Derivatives to lambda are those of the law: all quantiles y of v' / c move by
    `dy / dlambda = sqrt(y / lambda) I_{delta / 2}(sqrt(lambda y)) / I_{delta / 2 - 1}(sqrt(lambda y)) <= y / delta`,
    and so does v' on every path, while X alone would leave 0 steeply. So derivatives of expectations are right (second
    ones, too, with gradient="direct"), but to v0, kappa, theta and sigma they are not the differences of a path: those
    have tails so heavy that hundreds of times as many paths are needed.

    Steps are no longer than `1 / max(kappa / 2, 5 sigma - kappa)` years: longer ones are divided. Nothing corrects the
    martingale, which the laws of such a step miss by 3e-5, 1e-4 at most. Bias of Greeks against HestonQE and HestonTQ:
    benchmarks/qe_greeks.py. A step costs about as much as one of HestonTQ, and two more normals.

    State `(x, v)` with `v >= 0`; four normals per step: z_x, z_i, z_g, z_b. A sigma below 1e-4 counts as that.

    Args:
        averaged: leave `z_x` out; the state is `(E[x], v, sum of w)` (`Scheme.conditional`).

    References:
        Broadie and Kaya (2006), "Exact simulation of stochastic volatility and other affine jump diffusion processes",
        Operations Research 54(2): the law of I given both ends. Tse and Wan (2013), "Low-bias simulation scheme for the
        Heston model by inverse Gaussian approximation", Quantitative Finance 13(6): I by its moments. The laws of X, G
        and I are ours.

    Example:
        >>> from qsde.models import Heston
        >>> m = Heston(v0=0.04, kappa=0.5, theta=0.04, sigma=1.0, rho=-0.9)
        >>> scheme = HestonNearExact()
        >>> c = scheme.coefficients(m, torch.tensor(0.25, dtype=torch.float64)).unsqueeze(-1)
        >>> x, v = scheme.step(scheme.initial(m), c, torch.ones(4, 1, dtype=torch.float64), torch.empty(0, 1))
        >>> round(float(v), 6)
        0.068156
    """

    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """Four normals, or the three of the variance and its integral."""
        return 4 - self.averaged, 0

    def longest(self, model: Model) -> float:
        """`1 / max(kappa / 2, 5 sigma - kappa)`."""
        kappa, sigma = model.params["kappa"], model.params["sigma"]
        rate = largest(torch.maximum(0.5 * kappa, 5 * sigma - kappa))
        return 1 / rate if rate > 0 else math.inf

    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """Of v' (lambda per v, scales and shape of both parts), of I / dt, and of x'."""
        p, dt = double(model, dt)
        kappa, theta, sigma, rho = p["kappa"], p["theta"], p["sigma"].clamp(min=_SIGMA), p["rho"]
        decay, span = torch.exp(-kappa * dt), dt * exp_quotient(kappa * dt)
        scale = 0.25 * sigma.square() * span.clamp(min=_SHORTEST)
        delta = 4 * kappa * theta / sigma.square()
        *of_arrived, mean = _immigration(delta)
        return rows(
            model,
            decay / scale,
            scale,
            *of_arrived,
            delta / mean,
            delta.clamp(min=_LEAST_LAMBDA),
            *_bridge(kappa, sigma, dt),
            rho / sigma,
            rho / sigma * kappa * theta * dt,
            (rho / sigma * kappa - 0.5) * dt,
            (1 - rho * rho) * dt,
        )

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """Variance, its integral given both ends, log-price given these."""
        x, v = state[:2]
        z_i, z_g, z_b = normals[len(normals) - 3 :].unbind(0)
        rate, scale, b, q, r, came, delta, *bridge, load, lost, drift, side = c.unbind(0)
        lam, arrived = rate * v, came * _power(b, q, r, z_g)
        total = _with_slope(_branching(lam.detach(), z_b), arrived, lam, delta)
        new = scale * total
        average = _average(v + new, lam * total, delta, bridge, z_i)
        mean = load * (new - v) - lost + drift * average
        w = side * average
        if self.averaged:
            return x + mean, new, state[2] + w
        return x + torch.addcmul(mean, torch.sqrt(w.clamp(min=_SQUARE)), normals[0]), new


def _branching(lam: Tensor, z: Tensor) -> Tensor:
    """X at a normal z: noncentral chi-squared with no degrees of freedom."""
    s = torch.sqrt(lam.clamp(min=_LEAST_LAMBDA))
    at = 2 * torch.sqrt(s / (1 + s)) - 1
    beta, rho, tau = polynomial(_KINK, at) + s, polynomial(_ONSET, at), polynomial(_CUBE, at).clamp(min=0)
    density, rest = normal_tail(beta)
    above = torch.where(beta > 0, 1 - rest, rest)
    first = torch.addcmul(density, beta, above)
    second = torch.addcmul(above, beta, first)
    t = (beta + z).clamp(min=0)
    mean = second + rho * first + tau * (2 * first + beta * second)
    return lam * (t * (rho + t * (1 + tau * t))) / mean


def _with_slope(left: Tensor, arrived: Tensor, lam: Tensor, delta: Tensor) -> Tensor:
    """X + G, whose derivative to lambda is that of the quantile of its law.

    X alone would leave 0 steeply. By the midpoint rule, whose second derivatives are right, too.
    """
    held, total = lam.detach(), left + arrived
    half = 0.5 * (lam - held)
    middle = total + half * _slope(held, total, delta).detach()
    return total + 2 * half * _slope(held + half, middle, delta)


def _slope(lam: Tensor, x: Tensor, delta: Tensor) -> Tensor:
    """Derivative of a quantile x of the noncentral chi-squared law to lambda: `_bessel(lam x) / lam`, to 2e-5.

    sigma moves lambda and c against each other, and over many short steps errors add up: so six levels, the last of
    them improved by Riccati's equation `2 u r' = u - r^2 - 2 nu r`.
    """
    u = lam * x
    low = 0.5 * delta + 5.5
    root = torch.sqrt(u + (low + 0.2) * (low + 1))
    value = u / (low + root)
    rest = u - value * (2 - value / root)
    value = rest / (low - 0.5 + torch.sqrt((low - 0.5).square() + rest))
    for level in (5, 4, 3, 2, 1):
        value = u / (delta + 2 * level + value)
    return x / (delta + value)


def _immigration(delta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """b, q and r of G, and the mean of `log(1 + exp(b + q z))^r`."""
    delta = delta.clamp(min=_LEAST_DELTA)
    at = 1 - 2 * torch.log(delta / (1 + delta)) / _DEEPEST
    tilt, r = torch.exp(polynomial(_TILT, at)), polynomial(_POWER, at)
    b, q = tilt * polynomial(_SHIFT, at), tilt * torch.rsqrt(1 + delta)
    axis, law = _AXIS.to(delta), _LAW.to(delta)
    return b, q, r, (_power(b.unsqueeze(-1), q.unsqueeze(-1), r.unsqueeze(-1), axis) * law).sum(-1)


def _power(b: Tensor, q: Tensor, r: Tensor, z: Tensor) -> Tensor:
    return torch.nn.functional.softplus(torch.addcmul(b, q, z), threshold=30.0) ** r


def _bridge(kappa: Tensor, sigma: Tensor, dt: Tensor) -> tuple[Tensor, ...]:
    """First three cumulants of I / dt given v, v' and N: per unit of `v + v'`, and per unit of `delta / 2 + 2 N`.

    N is the random index of Bessel's series (Glasserman and Kim 2011).

    They are derivatives of `F = y coth(y)` and `log(y / sinh(y))` by `y^2`, `y = kappa dt / 2`. `E = (F - 1) / y^2` is
    a continued fraction of the same kind as the ratio of Bessel functions.
    """
    y = (0.5 * kappa * dt).square().clamp(min=_RATE)
    ratio, by_log, by_log2 = _bessel(y, torch.full_like(y, 5.0), 14)
    e = 1 / (3 + ratio)
    slope = -by_log * e.square()
    bend = 2 * by_log.square() * e**3 - by_log2 * e.square()
    e1, e2 = slope / y, (bend - slope) / y.square()
    f1 = 0.5 * (1 - e - y * e * e)
    f2 = -0.5 * (e1 + e * e + 2 * y * e * e1)
    f3 = -0.5 * (e2 + 4 * e * e1 + 2 * y * e1 * e1 + 2 * y * e * e2)
    unit = sigma.square() * dt
    return f1, -0.5 * unit * f2, 0.25 * unit**2 * f3, 0.25 * unit * e, -0.125 * unit**2 * e1, unit**3 * e2 / 16


def _bessel(u: Tensor, delta: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """`z I_{nu + 1}(z) / I_nu(z)`, `u = z^2`, `delta = 2 nu + 2`, and its two first derivatives by `log u`.

    They are twice the first three cumulants of N given both ends. A continued fraction, whose last level is between
    Amos' bound and what is right to the second order in 1 / z: with four levels, 6e-4 of the value.
    """
    low = 0.5 * delta + (levels - 0.5)
    root = torch.sqrt(u + (low + 0.4) * (low + 1))
    value = u / (low + root)
    part = value / (2 * root)
    first = value * (1 - part)
    second = first * (1 - part) - value * part * (1 - part - 0.5 * u / root.square())
    for level in reversed(range(levels)):
        inverse = 1 / (delta + 2 * level + value)
        value, part, change = u * inverse, first * inverse, second * inverse
        first = value * (1 - part)
        second = first * (1 - part) - value * (change - part.square())
    return value, first, second


def _average(ends: Tensor, u: Tensor, delta: Tensor, bridge: list[Tensor], z: Tensor) -> Tensor:
    """I / dt at a normal z."""
    a1, b1, c1, a2, b2, c2 = bridge
    ratio, by_log, by_log2 = _bessel(u, delta, 4)
    count = 0.5 * delta + ratio
    mean = a1 * ends + a2 * count
    variance = b1 * ends + b2 * count + 2 * a2.square() * by_log
    third = c1 * ends + c2 * count + 6 * a2 * b2 * by_log + 4 * a2 * a2.square() * by_log2
    inverse = torch.rsqrt(variance.clamp(min=_VARIANCE))
    spread = variance * inverse
    skew = (third * inverse * inverse * inverse).clamp(0, _SKEW)
    alpha = skew * torch.rsqrt(9 - skew * skew * skew * (9 / 55))  # skewness of the law, inverted
    # what would be below 0 too often gets a larger alpha and less variance
    wide = spread / mean.clamp(min=_MEAN)
    alpha = torch.maximum(alpha, 0.85 * wide.square()).clamp(_LEAST_ALPHA, _ALPHA)
    square = alpha.square()
    most = mean * (alpha + 0.2 / alpha) / (1 + 0.5 * square)
    size = torch.minimum(spread * torch.rsqrt(1 + 1.25 * square), most)
    bent = z * torch.sqrt(1 + 0.25 * square * z.square()) + 0.5 * alpha * (z.square() - 1)
    return torch.addcmul(mean, size, bent).clamp(min=0)
