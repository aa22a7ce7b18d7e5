"""A scheme for volatility as a free function of a factor: the functions are tabulated per step, paths interpolate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.base import Model
from qsde.models.neural_sv import NeuralStochasticVol
from qsde.schemes.base import Scheme, State
from qsde.schemes.layers import refusal
from qsde.schemes.leverage import interpolated, positions
from qsde.schemes.rows import model_dtype

#: Correlations stay this far from +-1, where a root has no derivative.
_FLOOR = 1e-12


@dataclass(frozen=True)
class FreeVolatility(Scheme):
    """Log-Euler of `dx = -s^2 dt / 2 + s dW` with Euler for the factor y that s depends on.

    `x' = x - s^2 dt / 2 + s sqrt(dt) (r z_y + sqrt(1 - r^2) z_x)`, `y' = y + a dt + b sqrt(dt) z_y`, the four functions
    at the start of the step: `E[exp(x')] = exp(x)` holds exactly at every step size. Each step knows them at the nodes
    of one grid in y, and paths interpolate linearly.

    State `(x, y)`; two normals, `z_x` and `z_y`.

    Args:
        nodes: values of each function that a step knows.

    Example:
        >>> FreeVolatility().nodes
        97
    """

    nodes: int = 97

    weak_order: ClassVar[float] = 1.0
    strong_order: ClassVar[float] = 0.5
    time_dependent: ClassVar[bool] = True

    def check(self, model: Model) -> None:
        """Refuses everything but a NeuralStochasticVol of one network."""
        if not isinstance(model, NeuralStochasticVol):
            raise refusal("FreeVolatility steps a NeuralStochasticVol", model)
        axes = list(model.weights["inner"].shape[:-2])
        if axes:
            raise InputError(
                f"FreeVolatility steps a NeuralStochasticVol of one network, got batch axes {axes} in its weights; "
                "price the models one by one"
            )

    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """Two normals."""
        return 2, 0

    def knots(self, model: Model) -> tuple[float, ...]:
        """Those of the model."""
        assert isinstance(model, NeuralStochasticVol)
        return model.knots

    def initial(self, model: Model) -> State:
        """`(0, 0)`."""
        zero = torch.zeros(model.batch_shape, dtype=torch.float64, device=model.params["speed"].device)
        return zero, zero

    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """`dt`, `sqrt(dt)`, then drift, diffusion, correlation and volatility at the nodes."""
        assert isinstance(model, NeuralStochasticVol)
        dt = dt.to(model.params["speed"].device, torch.float64)
        t = torch.zeros_like(dt) if t is None else t.to(dt)
        y = positions(self.nodes, dt).expand(*dt.shape, -1)
        vol, drift, diffusion, rho = model.functions(t.expand(dt.shape), y)
        tables = torch.cat([drift, diffusion, rho, vol], -1).movedim(-1, 0)
        own = torch.stack([dt, torch.sqrt(dt)]).expand(2, *tables.shape[1:])
        return torch.cat([own, tables]).to(model_dtype(model))

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """One step of price and factor."""
        x, y = state
        drift, diffusion, rho, vol = interpolated(c[2:].chunk(4), y)
        side = torch.sqrt((1 - rho.square()).clamp(min=_FLOOR))
        shock = rho * normals[1] + side * normals[0]
        moved = x + (vol * c[1] * shock - 0.5 * vol.square() * c[0])
        return moved, y + (drift * c[0] + diffusion * c[1] * normals[1])

    def variance(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """Trapezoidal rule: `dt (s^2 + s'^2) / 2`."""
        ends = _functions(model, t, before[1])[0].square() + _functions(model, t + dt, after[1])[0].square()
        return 0.5 * dt * ends

    def slope(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """`2 ds/dy b r dt`, the derivative as a difference over the deviation of half a step."""
        y = before[1]
        _, _, diffusion, rho = _functions(model, t, y)
        width = 0.5 * diffusion * torch.sqrt(dt)
        high, low = (_functions(model, t, y + side * width)[0] for side in (1.0, -1.0))
        return (high - low) / width * diffusion * rho * dt

    def without_smile(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """As `Leveraged.without_smile`: the volatility of y = 0."""
        head = c.shape[1] - self.nodes
        level = c[:, head + self.nodes // 2].unsqueeze(1)
        flat = torch.cat([c[:, :head], level.expand(-1, self.nodes, *level.shape[2:])], 1)
        return flat, level[:, 0].square() * c[:, 0]


def _functions(model: Model, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """The four functions at times t [n, 1...] and factors y [n, *batch, P]."""
    assert isinstance(model, NeuralStochasticVol)
    times = t.to(y).reshape(-1, *(1,) * (y.dim() - 2))
    return model.functions(times.expand(y.shape[:-1]), y)
