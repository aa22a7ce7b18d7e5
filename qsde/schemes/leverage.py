"""A scheme for local and local-stochastic volatility: the leverage is tabulated once per step, paths interpolate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from qsde.models.base import Model
from qsde.models.black_scholes import BlackScholes
from qsde.models.lsv import LocalStochasticVol
from qsde.schemes.base import Scheme, State
from qsde.schemes.heston_tq import HestonTQ
from qsde.schemes.layers import refusal
from qsde.schemes.log_euler import LARGEST_TILT, heston_slope, quadratic
from qsde.schemes.rows import rows

#: Nodes are uniform in `u = y / sqrt(_BEND^2 + y^2)`, `y = x / (scale sqrt(t + dt))`, for |u| up to _REACH (|y| = 40):
#: 1/16 apart in y at the forward, about the half of that in u for all that is far away.
_BEND, _REACH = 4.0, 0.995
#: Least integral of the variance over whose root differences are taken.
_FLOOR = 1e-8


@dataclass(frozen=True)
class Leveraged(Scheme):
    """`dx = -L^2 v dt / 2 + L sqrt(v) dW`: steps of second order in the leverage, with the variance of `HestonTQ`.

    With a constant variance and `b(x) = vol L(t + dt / 2, x)` a step is

        `x' = x + e sqrt(dt) z + m z^2 + log(1 - 2 m) / 2 - e^2 dt / (2 - 4 m)`,
        `e = b + dt (b^2 b'' / 4 - 3 b^2 b' / 4)`,   `m = b b' dt / 2`,

    the terms in z of the weak Taylor scheme of order 2, and a drift that makes the mean exact. With Heston's variance
    `HestonTQ` moves `v` and integrates it to I; with N the integral of `sqrt(v) dW`

        `x' = x + e N + m (N^2 - I) + ...`,   `e = L + E[I] L^2 (L'' - 3 L') / 4`,   `m = L L' / 2`,

    again with the drift of an exact mean: what is left of the bias is that of `HestonTQ`. `E[exp(x')] = exp(x)` holds
    exactly at every step size.

    `L` depends on t and x only: it is worked out at the nodes of one grid for each step, which is as wide as paths
    are, and paths interpolate linearly. A network costs next to nothing that way, and its gradient goes through the
    values at the nodes. Its derivatives are differences over `b sqrt(dt)` or `L sqrt(E[I])`, as far as a path moves.

    State `(x,)` or `(x, v)`; one normal or two, as for the backbone.

    Reference:
        P. Kloeden, E. Platen, Numerical Solution of Stochastic Differential Equations (Springer 1992), section 14.2.

    Args:
        nodes: values of the leverage that a step knows.
        frozen: leave out gradients through the variance, which does not depend on the leverage: those to the leverage
            stay complete, at half of the cost.

    Example:
        >>> from qsde.models import GridLeverage
        >>> model = LocalStochasticVol(BlackScholes(0.2), GridLeverage([0.0], [0.0], [[1.1]]))
        >>> Leveraged().draws(model, 0.01)
        (1, 0)
    """

    nodes: int = 129
    frozen: bool = field(default=False, repr=False)

    weak_order: ClassVar[float] = 1.0
    strong_order: ClassVar[float] = 0.5
    time_dependent: ClassVar[bool] = True

    def check(self, model: Model) -> None:
        """Refuses everything but a LocalStochasticVol."""
        if not isinstance(model, LocalStochasticVol):
            raise refusal("Leveraged steps a LocalStochasticVol", model)

    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """One normal, or two for Heston."""
        return (1 if _constant(model) else 2), 0

    def knots(self, model: Model) -> tuple[float, ...]:
        """Those of the leverage."""
        return _lsv(model).leverage.knots

    def initial(self, model: Model) -> State:
        """`(0,)` or `(0, v0)`."""
        backbone = _lsv(model).backbone
        if _constant(model):
            return (torch.zeros_like(backbone.params["vol"]),)
        return HestonTQ().initial(backbone)

    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """Those of the backbone, the inverse width of the grid, the leverage at its nodes; or width, `e` and `m`."""
        lsv = _lsv(model)
        t = torch.zeros_like(dt) if t is None else t
        width, y = lsv.leverage.scale * torch.sqrt(t + dt).unsqueeze(-1), positions(self.nodes, dt)
        inverse, root = 1 / width.squeeze(-1), torch.sqrt(dt).unsqueeze(-1)
        if _constant(model):
            vol = lsv.backbone.params["vol"].double().unsqueeze(-1)
            b = vol * _at(lsv, (t + 0.5 * dt).unsqueeze(-1), width * y)
            return rows(model, inverse, *_second_order(b, root, y, width))
        own = HestonTQ().coefficients(lsv.backbone, dt)
        leverage = _at(lsv, (t + 0.5 * dt).unsqueeze(-1), width * y).movedim(-1, 0)
        return rows(model, *own.unbind(0), inverse, *leverage.unbind(0))

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """One step with either variance, told apart by the state."""
        x = state[0]
        if len(state) == 1:
            e, m = interpolated(c[1:].chunk(2), x * c[0])
            return (x + quadratic(e, m, normals[0]),)
        head = len(c) - self.nodes
        if self.frozen:
            state = (x, *(s.detach() for s in state[1:]))
            c = torch.cat([c[:head].detach(), c[head:]])
        own = c[: head - 1]
        return HestonTQ().moved(state, own, normals, *self._along(x, c[head - 1 :], HestonTQ.expected(state[1], own)))

    def _along(self, x: Tensor, c: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
        """The terms e and m where paths are, given the integral of the variance that a step expects."""
        inverse, table = c[0], (c[1:],)
        root = torch.sqrt(expected.clamp(min=_FLOOR))
        (level,) = interpolated(table, x * inverse)
        far = level * root
        ends = interpolated(table, torch.cat([x + far, x - far], -1) * inverse)[0]
        above, below = ends.chunk(2, -1)
        rise = above - below
        return 0.25 * (above + 2 * level + below) - 0.375 * far * rise, 0.25 * rise / root

    def variance(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """Mean of `L^2` at both ends, times `vol^2 dt` or the trapezoidal rule for Heston."""
        lsv = _lsv(model)
        ends = _at(lsv, t, before[0]).square() + _at(lsv, t + dt, after[0]).square()
        return 0.5 * ends * _backbone_variance(lsv, before, after, dt, t)

    def slope(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """`dL^2/dx v dt + L rho sigma dt`, the derivative over the stretch that a path covers in the step."""
        lsv, x = _lsv(model), before[0]
        width = 0.5 * lsv.leverage.scale * torch.sqrt(dt)
        high, low = (_at(lsv, t, x + side * width).square() for side in (1.0, -1.0))
        local = (high - low) / (2 * width) * _backbone_variance(lsv, before, after, dt, t)
        return local if _constant(model) else local + _at(lsv, t, x) * heston_slope(lsv.backbone, x, dt)

    def without_smile(self, c: Tensor) -> tuple[Tensor, Tensor | None]:
        """Coefficients [rows, C, *batch, 1] of the same noise under a model with exact prices.

        With a constant variance, `e` of x = 0 everywhere and no `m`, and the variance of x that each step adds; with
        Heston's, the leverage 1, and None.
        """
        constant = c.shape[1] == 1 + 2 * self.nodes
        head = c.shape[1] - self.nodes
        if not constant:
            return torch.cat([c[:, :head], torch.ones_like(c[:, head:])], 1), None
        middle = c[:, 1 + self.nodes // 2].unsqueeze(1)
        level = middle.expand(-1, self.nodes, *middle.shape[2:])
        return torch.cat([c[:, :1], level, torch.zeros_like(level)], 1), middle[:, 0].square()


def _second_order(b: Tensor, root: Tensor, y: Tensor, width: Tensor) -> Tensor:
    """`e sqrt(dt)` at nodes y [N] from volatilities there [*rows, N], then `m`: [2 N, *rows]."""
    table = b.movedim(-1, 0).unsqueeze(-1)
    above, below = (interpolated((table,), y + side * b * root / width)[0] for side in (1, -1))
    tilt = 0.5 * (above - below) * root
    e = root * (0.25 * (above + 2 * b + below) - 0.75 * b * tilt)
    m = (0.5 * tilt).clamp(max=LARGEST_TILT)
    return torch.cat([e, m], -1).movedim(-1, 0)


def _at(lsv: LocalStochasticVol, t: Tensor, x: Tensor) -> Tensor:
    """The leverage at times t [*rows, 1], broadcast, and log-prices x [*rows, P]."""
    times = t.to(x).expand(*x.shape[:-1], 1).flatten()
    return lsv.leverage.at(times, x.reshape(len(times), -1)).reshape(x.shape)


def _backbone_variance(lsv: LocalStochasticVol, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
    if _constant(lsv):
        return lsv.backbone.params["vol"].unsqueeze(-1).to(before[0]).square() * dt
    return HestonTQ().variance(lsv.backbone, before, after, dt, t)


def positions(nodes: int, like: Tensor) -> Tensor:
    """Where the nodes are, [nodes]."""
    u = torch.linspace(-_REACH, _REACH, nodes, dtype=torch.float64, device=like.device)
    return _BEND * u / torch.sqrt(1 - u.square())


def interpolated(tables: Sequence[Tensor], y: Tensor) -> list[Tensor]:
    """Tables of values [nodes, *batch, 1] at `y` [*batch, P], linear in u."""
    last = len(tables[0]) - 1
    u = y * torch.rsqrt(y.square() + _BEND**2)
    at = ((u + _REACH) * (0.5 * last / _REACH)).clamp(0, last)
    left = at.detach().floor().clamp(max=last - 1)
    index, share = left.long(), at - left
    found = []
    for values in tables:
        table = values.squeeze(-1).movedim(0, -1).expand(*y.shape[:-1], -1)
        low = table.gather(-1, index)
        found.append(low + share * (table.gather(-1, index + 1) - low))
    return found


def _lsv(model: Model) -> LocalStochasticVol:
    assert isinstance(model, LocalStochasticVol)
    return model


def _constant(model: Model) -> bool:
    return isinstance(_lsv(model).backbone, BlackScholes)
