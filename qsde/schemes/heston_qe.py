"""Andersen's quadratic-exponential scheme for Heston, with the martingale correction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from qsde.models.base import Model
from qsde.numerics import exp_quotient, polynomial
from qsde.schemes.base import State, Stretch, running
from qsde.schemes.heston import HestonScheme
from qsde.schemes.rows import double, rows

#: psi above which the variance is drawn from the exponential branch (Andersen's psi_c).
SWITCH = 1.5
#: Below these a mean, a variance or a squared deviation is as good as 0, and its inverse or root is taken here.
_MEAN, _VARIANCE, _SQUARE = 1e-12, 1e-30, 1e-20
#: Both moment conditions hold in every state where `sigma A` is below this over `sigma (1 - exp(-kappa dt)) / kappa`.
_MOMENT = 1.14
#: Divisors that may be 0 stay above these; forward mode subtracts what `minimum` did not take, so not too small.
_SMALLEST_SIGMA, _SHORTEST = 1e-6, 1e-4


@dataclass(frozen=True)
class HestonQE(HestonScheme):
    """Quadratic-exponential scheme with martingale correction: QE-M, `psi_c = 3/2`, `gamma_1 = gamma_2 = 1/2`.

    With `m` and `m^2 psi` the exact mean and variance of `v' | v` the new variance is

    - `psi <= 3/2`: `v' = m (sqrt(s) + sqrt(1 - s) z)^2`, `s = sqrt(1 - psi / 2)`, `z = z_v`;
    - else `v' = m h max(0, -log(h (1 - u)))`, `h = (1 + psi) / 2`, `u = N(z_v)`: an atom at 0 and an exponential tail.

    These are the two branches of the paper with their matched constants put in, arranged so that nothing divides by psi
    or sigma. Then, with `A = K_2 + K_4 / 2`, Proposition 9 amounts to

        `x' = x + A v' - log E[exp(A v') | v] - w / 2 + sqrt(w) z_x`,   `w = (1 - rho^2) dt (v + v') / 2`.

    `E[exp(x')] = exp(x)` holds exactly at every step size. Where `E[exp(A v')]` would be infinite for some v (only if
    rho > 0 and `rho sigma dt` is above about 1.5) A is lowered until it is finite, rather than giving the
    martingale up: such steps carry less correlation.

    State `(x, v)` with `v >= 0`; two normals per step, `z_x` and `z_v`. One draw serves both branches of the variance:
    the uniform of the exponential branch is the normal's own probability. Compiled, two normals cost 2.4 ns where
    a normal, a uniform and its quantile cost 15, and normals are what a Brownian bridge provides.

    Finite gradients everywhere: both sides of psi = 3/2, v = 0, sigma = 0, kappa = 0, rho = +-1. Path by path v' jumps
    where psi crosses 3/2, so pathwise derivatives miss a boundary term, and the price itself jumps where psi of the
    first step crosses it. Measured on one-year calls at the money (benchmarks/qe_greeks.py) the term is below 0.15 % to
    rho; to the other parameters it cannot be told from its standard error of 0.1 to 1 % but to v0 in Andersen's case II
    (2.2 +- 0.7 % at 52 steps a year), and a bump across the jump of the price
    saw 19 % to sigma (Broadie and Kaya's case, four steps a year). `HestonTQ` has neither.

    Args:
        averaged: leave `z_x` out; the state is `(E[x], v, sum of w)` (`Scheme.conditional`).

    Reference:
        Andersen (2008), "Simple and efficient simulation of the Heston stochastic volatility model", J. Comp. Finance
        11(3): QE scheme, and Proposition 9.

    Example:
        >>> from qsde.models import Heston
        >>> m = Heston(v0=0.04, kappa=0.5, theta=0.04, sigma=1.0, rho=-0.9)
        >>> scheme = HestonQE()
        >>> c = scheme.coefficients(m, torch.tensor(0.125, dtype=torch.float64)).unsqueeze(-1)
        >>> x, v = scheme.step(scheme.initial(m), c, torch.zeros(2, 1, dtype=torch.float64), torch.empty(0, 1))
        >>> round(float(v), 6)
        0.001239
    """

    at_once: ClassVar[bool] = True

    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """Decay and pull of the mean, slope and intercept of half the variance over sigma^2, sigma, sigma A, A, w."""
        p, dt = double(model, dt)
        kappa, sigma, rho = p["kappa"], p["sigma"], p["rho"]
        decay, span = torch.exp(-kappa * dt), dt * exp_quotient(kappa * dt)
        pull = p["theta"] * kappa * span
        lift = rho * (1 + 0.5 * kappa * dt) - 0.25 * sigma * rho * rho * dt
        lift = torch.minimum(lift, _MOMENT / (sigma * span).clamp(min=_SHORTEST))
        return rows(
            model,
            decay,
            pull,
            0.5 * decay * span,
            0.25 * pull * span,
            sigma,
            lift,
            lift / sigma.clamp(min=_SMALLEST_SIGMA),
            0.5 * (1 - rho * rho) * dt,
        )

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """Variance, then log-price given both ends of it."""
        z = normals[len(normals) - 1]
        law = _Law.of(state[1], torch.ones_like(c[0]), *c.unbind(0)[:5])
        return self._moved(state, law.draw(z, exceedance(z)), law, c, normals)

    def steps(self, state: State, stretch: Stretch) -> State:
        """The variance alone step by step, then the log-price of all steps."""
        c, normals = stretch.c, stretch.normals
        z = normals[len(normals) - 1]
        own = zip(*(row.unbind(0) for row in (*c[:5].expand(5, len(z), *c.shape[2:]), z, exceedance(z))), strict=True)
        path, laws, one = [state[1]], list[_Law](), torch.ones_like(c[0, 0])
        for *of_step, z_v, tail in own:
            laws.append(_Law.of(path[-1], one, *of_step))
            path.append(laws[-1].draw(z_v, tail))
        before, after = torch.stack(path[:-1]), torch.stack(path[1:])
        none, law = torch.zeros_like(before), _Law(*map(torch.stack, zip(*laws, strict=True)))
        rise = self._moved((none, before, none), after, law, c, normals)
        return (
            running(state[0], rise[0], stretch.jumps),
            after,
            *(running(s, r) for s, r in zip(state[2:], rise[2:], strict=True)),
        )

    def _moved(self, state: State, new: Tensor, law: _Law, c: Tensor, normals: Tensor) -> State:
        """The state after a step in which the variance went from `state[1]` to `new`."""
        x, v = state[:2]
        z = normals[len(normals) - 1]
        lift, a, side = c.unbind(0)[5:]
        # A v' - log E[exp(A v')]; t is A times the linear coefficient of v' in z over 2 sqrt(s)
        t = lift * (law.spread * law.under)
        square = t * law.tip
        inverse = torch.where(law.quadratic, 1 - 2 * square, 1 - a * (law.h * law.mean)).reciprocal()
        log = torch.log(torch.where(law.quadratic, inverse, 1 + a * law.mean * inverse))
        ts = t * law.root_s
        lifted = torch.addcmul(2 * ts, square, z) * z - 2 * ts.square() * inverse - 0.5 * log
        lifted = torch.where(law.quadratic, lifted, a * new - log)

        w = side * (v + new)
        if self.averaged:
            return x + (lifted - 0.5 * w), new, state[2] + w
        rise = torch.addcmul(lifted - 0.5 * w, torch.sqrt(w.clamp_min(_SQUARE)), normals[0])
        return x + rise, new


class _Law(NamedTuple):
    """What `v' | v` is drawn from: each branch sees inputs that are good for it, whichever is taken."""

    mean: Tensor
    spread: Tensor
    quadratic: Tensor
    under: Tensor
    tip: Tensor
    root_s: Tensor
    h: Tensor

    @classmethod
    def of(
        cls, v: Tensor, one: Tensor, decay: Tensor, pull: Tensor, slope: Tensor, intercept: Tensor, sigma: Tensor
    ) -> _Law:
        """From the variance before and the coefficients of the step; a tensor of 1 saves torch the making of others."""
        mean = torch.addcmul(pull, decay, v)
        spread = torch.sqrt(torch.addcmul(intercept, slope, v).clamp_min(_VARIANCE))
        root = sigma * spread / mean.clamp_min(_MEAN)  # sqrt(psi / 2)
        low = root.clamp_max(_ROOT)
        s = torch.sqrt(torch.addcmul(one, low, low, value=-1))
        under = torch.rsqrt(one + s)
        h = torch.add(root.clamp_min(_ROOT).square(), one, alpha=0.5)
        return cls(mean, spread, root <= _ROOT, under, low * under, torch.sqrt(s), h)

    def draw(self, z: Tensor, tail: Tensor) -> Tensor:
        """The new variance from a normal and its `exceedance`."""
        bend = torch.addcmul(self.root_s, self.tip, z)
        beyond = self.h * torch.relu(tail - torch.log(self.h))
        return self.mean * torch.where(self.quadratic, bend.square(), beyond)


_ROOT = math.sqrt(SWITCH / 2)

#: `-log(1 - N(z)) - z^2 / 2` on [-0.85, 6] in powers of `(z - 2.575) / 3.425`, highest first: 1e-6 in float32.
_LOW, _HIGH = -0.85, 6.0
_TAIL = (
    -0.00117075964, 0.00356290414, -0.0030229646, -0.00239201613, 0.0122398468, -0.0326380438,
    0.0740419084, -0.147828993, 0.273857531, -0.503438137, 1.08295076, 1.9806069,
)  # fmt: skip


def exceedance(z: Tensor) -> Tensor:
    """`-log(1 - N(z))`: exponentially distributed if z is normal.

    Compiled in float32 it is a polynomial, four times as fast as erfc; then it is only right for z above -0.85 and
    stays below -log(0.8) elsewhere, all that the exponential branch asks for, whose atom has a probability above 0.2.
    """
    if z.dtype == torch.float32 and torch.compiler.is_compiling():
        z = z.clamp(_LOW, _HIGH)
        t = (z - 0.5 * (_HIGH + _LOW)) * (2 / (_HIGH - _LOW))
        return 0.5 * z * z + polynomial(_TAIL, t)
    return -torch.log(0.5 * torch.special.erfc(z * math.sqrt(0.5)))
