"""Fourier integrals of option prices along two contours, with nodes added until the error estimate is met.

All integrals run over `y` in [0, inf) after the map `y = scale sinh(tau)` with the trapezoidal rule, which converges
exponentially: halving the step squares the error, so the difference to the rule with every second node ("gap") tells
how far one is. The first pass shares its nodes among all parameter sets of a batch and all strikes of an expiry.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from qsde.models.base import FourierModel
from qsde.numerics import complex_exp, complex_log

#: Rounding of the first contour in units of sqrt(F K), and of the second relative to the price.
ABSOLUTE, RELATIVE = 1e-15, 1e-13
#: Error of n nodes as a power of the error of n / 2; `Integral.error` takes it by roots.
GAP_POWER = 1.25
#: Nodes reach this many inverse standard deviations at first: a Gaussian needs 9, exponential tails some tens.
_REACH = 50.0
#: Integrand at the last node, times the node: what the cut-off tail may amount to.
_TAIL = 1e-16
#: Slopes `d Re z / d Im z` of the second contour that are tried, and the fall of the integrand that ends it.
_TILTS, _LOG_EPS = (0.0, 0.25, -0.25, 0.5, -0.5), 38.0
_INV_SQRT_2 = math.sqrt(0.5)


@dataclass(frozen=True)
class Integral:
    """Values [B, E, K], the gap to the half rule, and a bound on the tail beyond the last node (both without grad)."""

    value: Tensor
    gap: Tensor
    tail: Tensor

    def error(self, unit: Tensor | float) -> Tensor:
        """Estimated error relative to `unit`: the gap is the error of half the nodes, of which ours is a power.

        The power is 2 where the integrand is analytic in a wide strip and falls to 1.3 in the hardest cases seen.
        """
        gap = self.gap / unit
        return gap * torch.sqrt(torch.sqrt(gap)) + self.tail / unit  # roots have the same digits in any shape

    def unfinished(self, unit: Tensor | float, limit: float) -> tuple[Tensor, Tensor]:
        """Which slices [B, E] need more nodes, and which [B, E, 1] must also reach further."""
        cut = (self.tail > _TAIL * unit).any(-1, keepdim=True)
        met = (self.gap <= limit * unit).all(-1)  # false for NaN too
        return ~met | cut.squeeze(-1), cut


class Contour(Protocol):
    """A path of integration for expiries [E, 1], log strikes [E, K], and parameters that broadcast to [B, E, 1].

    Where the tail is cut off too early the reach is multiplied by `widening`.
    """

    widening: ClassVar[float]

    def __call__(self, y: Tensor, weight: Tensor, model: FourierModel, t: Tensor, k: Tensor) -> Integral:
        """Integrates over nodes [E, N]."""

    def rows(self, rows: Tensor) -> Contour:
        """The contour of some expiries."""


def sinh_nodes(scale: Tensor, reach: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Trapezoidal nodes and weights on [0, scale * reach] after `y = scale sinh(tau)`: [..., n] each."""
    step = torch.asinh(reach) / n
    grow = torch.exp(step * torch.arange(n, dtype=scale.dtype, device=scale.device))
    shrink = 1 / grow
    half = 0.5 * scale
    weight = (half * step) * (grow + shrink)
    weight[..., 0] *= 0.5
    return half * (grow - shrink), weight


def lewis_range(least: Tensor, most: Tensor, farthest: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and reach of the sinh map for an expiry with total variances from `least` to `most` and largest `|k|`.

    Nodes are dense near 0 where heavy tails show, and even further out the more standard deviations away a strike is.
    """
    low, high = torch.sqrt(least.clamp(min=1e-14)), torch.sqrt(most.clamp(min=1e-14))
    stretch = (farthest / (3 * low)).clamp(2.0, 8.0)
    return stretch / high, _REACH / stretch * (high / low)


def nodes_needed(variance: Tensor, farthest: Tensor) -> Tensor:
    """Nodes that resolve a strike `farthest` away: with fewer, a rule and its half may agree on the same wrong number.

    The price at k is seen at `k - 2 pi / spacing` too, and spacing is about `3.6 / n` inverse standard deviations.
    """
    return 7.3 * (farthest / torch.sqrt(variance.clamp(min=1e-14)) + 3)


def nodes_for_ripples(model: FourierModel, t: Tensor, farthest: Tensor, reach: Tensor) -> Tensor | None:
    """Nodes that resolve the interference of jumps of nearly one size: spacing there is `asinh(reach) / n` of u."""
    found = model.ripple(t)
    if found is None:
        return None
    extent, distance = found
    return torch.where(distance > 0, extent * (distance + farthest) * torch.asinh(reach) / math.pi, 0.0)


@dataclass(frozen=True)
class Lewis:
    """Lewis (2001) eq. 3.11 minus its own Black-Scholes case, the variance chosen to match at the first node.

    The value is the out-of-the-money price over `sqrt(F K)`.
    """

    widening: ClassVar[float] = 8.0

    def rows(self, rows: Tensor) -> Lewis:
        """The same: nothing here belongs to an expiry."""
        return self

    def __call__(self, y: Tensor, weight: Tensor, model: FourierModel, t: Tensor, k: Tensor) -> Integral:
        """Integrates over nodes [E, N]."""
        phi = complex_exp(model.log_cf(torch.complex(y, torch.full_like(y, -0.5)), t))
        phi = phi if phi.dim() == 3 else phi.unsqueeze(0)
        q = y * y + 0.25
        phi_real = phi.real
        variance = (-8 * torch.log(phi_real.detach()[..., :1])).clamp(min=1e-30)
        gauss = torch.exp(q * (-0.5 * variance))
        # the sum runs over e^{-i k y} (gauss - phi); only the sign of the imaginary part is left to the sine
        parts = torch.cat([gauss - phi_real, -phi.imag], -1) * (weight / (math.pi * q)).repeat(1, 2)
        angle = k.unsqueeze(-1) * y.unsqueeze(-2)
        wave = torch.cat([torch.cos(angle), torch.sin(angle)], -1)
        fixed = parts.detach()
        half = fixed * half_rule(y.shape[-1], y.dtype, y.device)
        sums = (wave @ torch.cat([parts, half]).permute(1, 2, 0)).permute(2, 0, 1)
        value, coarse = sums[: len(phi)], sums.detach()[len(phi) :]
        last = y.shape[-1] - 1
        tail = (fixed[..., last :: last + 1].abs().sum(-1, keepdim=True)) * (y[:, -1:] / weight[:, -1:])
        smooth = black_otm(k, torch.sqrt(variance))
        return Integral(smooth + value, (value.detach() - coarse).abs(), tail)


@functools.lru_cache(maxsize=64)
def half_rule(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights [2 n] that turn the rule into the one with every second node."""
    one = torch.zeros(n, dtype=dtype, device=device)
    one[::2] = 2.0
    return one.repeat(2)


def black_otm(k: Tensor, deviation: Tensor) -> Tensor:
    """Out-of-the-money Black price over `sqrt(F K)`; absolute accuracy is all that the sum with an integral needs."""
    distance = torch.where(k >= 0, k, -k)  # abs has no slope at 0, where a call counts as out of the money
    half = 0.5 * deviation
    h = distance / deviation
    low = torch.exp(-0.5 * distance)
    up, down = torch.special.erfc((h - half) * _INV_SQRT_2), torch.special.erfc((h + half) * _INV_SQRT_2)
    price: Tensor = 0.5 * (low * up - down / low)
    return price


@dataclass(frozen=True)
class Hyperbola:
    """`Re z = p + tilt (sqrt(width^2 + y^2) - width)`, `Im z = y` for the Bromwich integral of one option per row.

    The value is `1/(2 pi i) int E[exp(z x)] e^{(1/2 - z) k} / (z (z - 1)) dz`. Bending the line towards the side where
    the integrand falls turns oscillation into decay; the singularities of the models all lie on the real axis.
    """

    p: Tensor
    tilt: Tensor
    width: Tensor
    reach: Tensor
    distance: Tensor
    widening: ClassVar[float] = 1.25

    def rows(self, rows: Tensor) -> Hyperbola:
        """The contours of some options."""
        return Hyperbola(*(getattr(self, f.name)[rows] for f in fields(self)))

    @property
    def rounding(self) -> Tensor:
        """Relative rounding error: it grows as the contour squeezes between singularities `distance` away."""
        return RELATIVE + 2e-17 / (self.distance * self.distance)

    def points(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Z and `dz/dy / i`."""
        root = torch.sqrt(self.width * self.width + y * y)
        z = torch.complex(self.p + self.tilt * (root - self.width), y)
        return z, torch.complex(torch.ones_like(y), -self.tilt * y / root)

    def log_integrand(self, z: Tensor, model: FourierModel, t: Tensor, k: Tensor) -> Tensor:
        """Logarithm of `E[exp(z x)] e^{(1/2 - z) k} / (z (z - 1))`."""
        return model.log_cf(-1j * z, t) + (0.5 - z) * k - complex_log(z * (z - 1))

    def __call__(self, y: Tensor, weight: Tensor, model: FourierModel, t: Tensor, k: Tensor) -> Integral:
        """Integrates over nodes [E, N]; k is [E, 1]."""
        z, slope = self.points(y)
        term = complex_exp(self.log_integrand(z, model, t, k)) * slope * (weight / math.pi)
        value = term.real.sum(-1, keepdim=True).unsqueeze(0)
        fixed = term.detach()
        coarse = 2 * fixed.real[:, ::2].sum(-1, keepdim=True)
        tail = fixed[:, -1:].abs() * (y[:, -1:] / weight[:, -1:])
        return Integral(value, (value.detach() - coarse).abs(), tail.unsqueeze(0))


@torch.no_grad()
def through_saddle(model: FourierModel, t: Tensor, k: Tensor) -> Hyperbola:
    """Contours through the real `p` where the integrand is smallest, bent as far as it does not grow.

    Lord and Kahl (2007) find p, Andersen and Lake (2018) bend. Parameters, t and k are [Q, 1], one option each.
    """
    lower, upper = model.moment_range(t)
    call = k >= 0
    room = torch.where(call, upper - 1, -lower).expand_as(k).clamp(max=1e7)
    # distances from the pole at 1 (calls) or 0 (puts), as logits of the share of the room that is used
    logit = torch.linspace(-30.0, 12.0, 256, dtype=k.dtype, device=k.device)
    distance = room * torch.sigmoid(logit)
    p = torch.where(call, 1 + distance, -distance)
    height = model.log_cf(-1j * p, t).real + (0.5 - p) * k - torch.log(distance * (1 + distance))
    height = torch.where(torch.isfinite(height), height, torch.full_like(height, torch.inf))
    # not the lowest point but the first nearly as low: beyond it a jump law may rise like a wall and oscillate
    near = _first(height <= height.amin(-1, keepdim=True) + 1.0)
    p, peak = p.gather(-1, near), height.gather(-1, near)
    y = torch.logspace(-5, 12, 171, dtype=k.dtype, device=k.device).expand(k.shape[0], 171)

    def fall(line: Hyperbola) -> Tensor:
        return peak - line.log_integrand(line.points(y)[0], model, t, k).real

    nearest = torch.where(call, torch.minimum(p - 1, upper - p), torch.minimum(-p, p - lower))
    straight = Hyperbola(p, torch.zeros_like(p), torch.ones_like(p), torch.ones_like(p), nearest)
    # the map must be fine where the integrand changes: on the scale of its fall, and of the nearest singularity
    width = torch.minimum(y.gather(-1, _first(fall(straight) > 1)), nearest)
    chosen = replace(straight, width=width, reach=torch.full_like(p, torch.inf))
    for tilt in _TILTS:
        line = replace(chosen, tilt=torch.full_like(p, tilt))
        drop = fall(line)
        end = y.gather(-1, _first(drop > _LOG_EPS)) / width
        # a jump law may grow back beyond the end: how far it stays small is looked at, too
        stays = torch.where(y <= end * width, drop > -0.5, (drop > _LOG_EPS - 5) | (y > 4 * end * width))
        usable = stays.all(-1, keepdim=True) & (end < 0.8 * chosen.reach)
        chosen = replace(
            chosen, tilt=torch.where(usable, line.tilt, chosen.tilt), reach=torch.where(usable, end, chosen.reach)
        )
    return replace(chosen, reach=torch.where(torch.isfinite(chosen.reach), 1.2 * chosen.reach, _REACH))


def _first(condition: Tensor) -> Tensor:
    """Index of the first true entry of each row (the last index if there is none): [R, 1]."""
    last = condition.shape[-1] - 1
    return torch.where(condition.any(-1, keepdim=True), condition.to(torch.int8).argmax(-1, keepdim=True), last)


def refine(
    contour: Contour, scale: Tensor, reach: Tensor, model: FourierModel, t: Tensor, k: Tensor,
    needed: Tensor, nodes: int, max_nodes: int, limit: float, relative: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Integrates rows (parameters, t, scale, reach, needed [R, 1], k [R, K]) with ever more nodes until each is good.

    Returns:
        Values [R, K], error estimates [R, K] in the unit of the values, and the rows [M] that never got there.
    """
    value, error = torch.zeros_like(k), torch.zeros_like(k)
    open_ = torch.ones(k.shape[0], dtype=torch.bool, device=k.device)
    while bool(open_.any()) and nodes <= max_nodes:
        rows = torch.nonzero(open_ & (needed.squeeze(-1) <= nodes)).squeeze(-1)
        if rows.numel():
            own = model.map(lambda p, rows=rows: p[rows])  # type: ignore[misc]
            found = contour.rows(rows)(*sinh_nodes(scale[rows], reach[rows], nodes), own, t[rows], k[rows])
            unit = found.value.detach().abs().clamp(min=1e-300) if relative else torch.ones(())
            value = value.index_put((rows,), found.value[0])
            error = error.index_put((rows,), (found.error(unit) * unit)[0].expand_as(k[rows]))
            again, cut = found.unfinished(unit, limit)
            reach = reach.index_put((rows,), torch.where(cut[0], reach[rows] * contour.widening, reach[rows]))
            open_ = open_.index_put((rows,), again[0])
        nodes *= 2
    return value, error, torch.nonzero(open_).squeeze(-1)
