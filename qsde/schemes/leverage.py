"""A scheme for local and local-stochastic volatility: the leverage is tabulated once per step, paths interpolate."""

from __future__ import annotations

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
from qsde.schemes.log_euler import heston_slope
from qsde.schemes.rows import rows

#: Nodes are uniform in `u = y / sqrt(_BEND^2 + y^2)`, `y = x / (scale sqrt(t + dt))`, for |u| up to _REACH (|y| = 40):
#: 1/16 apart in y at the forward, about the half of that in u for all that is far away.
_BEND, _REACH = 4.0, 0.995
#: Rows before the nodes with a constant variance: variance and deviation of the step, inverse width.
_CONSTANT_ROWS = 3


@dataclass(frozen=True)
class Leveraged(Scheme):
    """Log-Euler of `dx = -L^2 v dt / 2 + L sqrt(v) dW` with `L(t, x)` of the start of the step; `v` exactly, or by TQ.

    With a constant variance, `x' = x - L^2 vol^2 dt / 2 + L vol sqrt(dt) z`. With Heston's, `HestonTQ` moves `v` and
    integrates it, with a volatility of the price `L sqrt(v)`. `E[exp(x')] = exp(x)` holds exactly at every step size.

    `L` depends on t and x only: it is worked out at the nodes of one grid for each step, which is as wide as paths
    are, and paths interpolate linearly. A network costs next to nothing that way, and its gradient goes through the
    values at the nodes.

    State `(x,)` or `(x, v)`; one normal or two, as for the backbone.

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
        """Those of the backbone, then the inverse width of the grid, then the leverage at its nodes."""
        lsv = _lsv(model)
        t = torch.zeros_like(dt) if t is None else t
        width = lsv.leverage.scale * torch.sqrt(t + dt)
        x = width.reshape(-1, 1) * positions(self.nodes, dt)
        leverage = lsv.leverage.at(t.reshape(-1).expand(len(x)), x).movedim(-1, 0).reshape(-1, *width.shape)
        if _constant(model):
            vol = lsv.backbone.params["vol"].double()
            own = [vol.square() * dt, vol * torch.sqrt(dt)]
        else:
            own = list(HestonTQ().coefficients(lsv.backbone, dt).unbind(0))
        return rows(model, *own, 1 / width, *leverage.unbind(0))

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """One step with either variance, told apart by the state."""
        x = state[0]
        head = len(c) - self.nodes
        if self.frozen:
            state = (x, *(s.detach() for s in state[1:]))
            c = torch.cat([c[:head].detach(), c[head:]])
        own, level = c[: head - 1], interpolated(c[head:], x * c[head - 1])
        if len(state) == 1:
            shock = level * own[1]
            return (x + (shock * normals[0] - 0.5 * level.square() * own[0]),)
        *of_variance, rho, drift, side, largest, orthogonal = own.unbind(0)
        sigma, square = of_variance[4], level.square()
        # drift is kappa rho - sigma / 2
        load = level * (drift + 0.5 * sigma * (1 - level))
        return HestonTQ().moved(
            state, normals, of_variance, level * rho, load, square * side, square * orthogonal, largest
        )

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

        With a constant variance, the leverage at x = 0 everywhere, and the variance of x that each step adds; with
        Heston's, the leverage 1, and None.
        """
        head = c.shape[1] - self.nodes
        middle = c[:, head + self.nodes // 2].unsqueeze(1)
        constant = head == _CONSTANT_ROWS
        level = middle if constant else torch.ones_like(middle)
        flat = torch.cat([c[:, :head], level.expand(-1, self.nodes, *middle.shape[2:])], 1)
        return flat, level[:, 0].square() * c[:, 0] if constant else None


def _at(lsv: LocalStochasticVol, t: Tensor, x: Tensor) -> Tensor:
    """The leverage at times t [n, 1...] and log-prices x [n, *batch, P]."""
    flat = x.reshape(len(x), -1)
    return lsv.leverage.at(t.reshape(-1).expand(len(x)).to(flat), flat).reshape(x.shape)


def _backbone_variance(lsv: LocalStochasticVol, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
    if _constant(lsv):
        return lsv.backbone.params["vol"].unsqueeze(-1).to(before[0]).square() * dt
    return HestonTQ().variance(lsv.backbone, before, after, dt, t)


def positions(nodes: int, like: Tensor) -> Tensor:
    """Where the nodes are, [nodes]."""
    u = torch.linspace(-_REACH, _REACH, nodes, dtype=torch.float64, device=like.device)
    return _BEND * u / torch.sqrt(1 - u.square())


def interpolated(values: Tensor, y: Tensor) -> Tensor:
    """Values [nodes, *batch, 1] at `y` [*batch, P], linear in u."""
    last = len(values) - 1
    u = y * torch.rsqrt(y.square() + _BEND**2)
    at = ((u + _REACH) * (0.5 * last / _REACH)).clamp(0, last)
    left = at.detach().floor().clamp(max=last - 1)
    table = values.squeeze(-1).movedim(0, -1)
    table = table.expand(*y.shape[:-1], -1)
    index = left.long()
    low, high = table.gather(-1, index), table.gather(-1, index + 1)
    return low + (at - left) * (high - low)


def _lsv(model: Model) -> LocalStochasticVol:
    assert isinstance(model, LocalStochasticVol)
    return model


def _constant(model: Model) -> bool:
    return isinstance(_lsv(model).backbone, BlackScholes)
