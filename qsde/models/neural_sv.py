"""A stochastic volatility whose functions are a network: nothing is assumed of the factor but that it is one."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints

from qsde.errors import InputError, ParameterError
from qsde.models.base import Model, Parameter, check_parameter
from qsde.models.leverage import GridLeverage
from qsde.models.neural import date, early_knots, initial_weights, output
from qsde.numerics import broadcast_shape

_PREFIX = "network."
_SCALARS = ("speed", "amplitude", "rho")
#: Bounds of what the network adds: to the logarithm of the volatility, the drift, the logarithm of the diffusion.
_CAPS = (1.5, 3.0, 1.0)
#: Bound of the logarithm of the volatility over its level, and of the correlation.
_LOGARITHM, _CORRELATION = 2.5, 0.999


@dataclass(frozen=True, eq=False)
class NeuralStochasticVol(Model):
    """`dx = -s^2 dt / 2 + s dW`, `dy = a dt + b dB`, `dW dB = r dt`, all functions of t and y from one network.

    With `n_0 .. n_3` the outputs of the network at `u = y / sqrt(4 + y^2)` and `log t`, each bounded by a tanh:

        `s = level(t) exp(c tanh((amplitude y + n_0) / c))`,   `a = speed (n_1 - y)`,
        `b = sqrt(2 speed) exp(n_2)`,   `r = tanh(artanh(rho) + n_3)` within 0.999,

    y starts at 0 and is measured in its own long-run deviations. At the start all `n` are 0: the logarithm of the
    volatility reverts to its level with `speed`, has the deviation `amplitude` and the correlation `rho`.

    Args:
        speed: mean reversion per year.
        amplitude: long-run deviation of the logarithm of the volatility.
        rho: correlation.
        level: volatility as a function of time, at any x: a grid of one column.
        weights: `inner` [H, 2], `inner_bias` [H], `hidden` [H, H], `hidden_bias` [H], `outer` [H, 4].
        shortest, longest: expiries between which it is used, years.

    Raises:
        InputError: weights of the wrong shape, or a level that depends on x.
        ParameterError: a number outside its domain.

    Example:
        >>> level = GridLeverage([0.0], [0.0], [[0.2]])
        >>> model = NeuralStochasticVol.initialised(3.0, 0.5, -0.7, level, shortest=0.1, longest=2.0)
        >>> t, y = torch.tensor([0.5]).double(), torch.tensor([[0.0, 1.0]]).double()
        >>> [round(float(f[0, 0]), 4) for f in model.functions(t, y)]
        [0.2, 0.0, 2.4495, -0.7]
    """

    speed: Tensor
    amplitude: Tensor
    rho: Tensor
    level: GridLeverage
    weights: Mapping[str, Tensor]
    shortest: float
    longest: float

    def __post_init__(self) -> None:
        for name in _SCALARS:
            value = torch.as_tensor(getattr(self, name), dtype=torch.float64)
            check_parameter("NeuralStochasticVol", name, value.detach(), self.table[name])
            object.__setattr__(self, name, value)
        if self.level.x.shape[-1] != 1:
            raise InputError("NeuralStochasticVol: the level is a function of time: a grid with one column")
        width = len(self.weights.get("inner", ()))
        wanted = {name: tuple(w.shape) for name, w in initial_weights(max(2, width), 0, (4,)).items()}
        got = {name: tuple(w.shape) for name, w in self.weights.items()}
        if got != wanted:
            raise InputError(f"NeuralStochasticVol: weights must be {wanted}, got {got}")
        if not 0 < self.shortest <= self.longest < math.inf:
            raise InputError(f"NeuralStochasticVol: 0 < shortest <= longest, got {self.shortest}, {self.longest}")

    @classmethod
    def initialised(
        cls,
        speed: float,
        amplitude: float,
        rho: float,
        level: GridLeverage,
        shortest: float,
        longest: float,
        width: int = 32,
        seed: int = 0,
    ) -> Self:
        """The model whose network is 0; arguments as for the class, and the units and the seed of the hidden layers."""
        weights = initial_weights(width, seed, (4,))
        return cls(speed, amplitude, rho, level, weights, shortest, longest)  # type: ignore[arg-type]

    @property
    def params(self) -> dict[str, Tensor]:
        """The three numbers, then the weights with their prefix."""
        return {
            **{name: getattr(self, name) for name in _SCALARS},
            **{_PREFIX + name: w for name, w in self.weights.items()},
        }

    @property
    def table(self) -> Mapping[str, Parameter]:
        """Description and domain of each parameter."""
        anything = (-math.inf, math.inf)
        return {
            "speed": Parameter("mean reversion per year", constraints.positive, (1e-2, 100.0), (0.5, 20.0), 3.0),
            "amplitude": Parameter("deviation of log volatility", constraints.positive, (1e-3, 3.0), (0.1, 1.0), 0.5),
            "rho": Parameter("correlation", constraints.interval(-0.9999, 0.9999), (-0.999, 0.999), (-0.9, 0.9), -0.7),
            **{
                _PREFIX + name: Parameter(f"{name} weights", constraints.real, anything, anything, 0.0)
                for name in self.weights
            },
        }

    @property
    def batch_shape(self) -> torch.Size:
        """Of the numbers and the weights; only one network is simulated."""
        sizes = (getattr(self, name).shape for name in _SCALARS)
        return broadcast_shape(*sizes, self.weights["inner"].shape[:-2])

    @property
    def knots(self) -> tuple[float, ...]:
        """As `Leverage.knots`."""
        return early_knots(self.shortest)

    def with_params(self, params: Mapping[str, Tensor]) -> Self:
        """The same model with some parameters replaced; values are taken as they are, unchecked."""
        unknown = set(params) - set(self.params)
        if unknown:
            raise ParameterError(f"{self.name} has no parameter {sorted(unknown)}; it has {list(self.params)}")
        new = copy.copy(self)
        weights = {k.removeprefix(_PREFIX): w for k, w in params.items() if k.startswith(_PREFIX)}
        object.__setattr__(new, "weights", {**self.weights, **weights})
        for name in set(_SCALARS) & set(params):
            object.__setattr__(new, name, params[name])
        return new

    def functions(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Volatility, drift and diffusion of the factor, and correlation, [*, N] at times [*] and factors [*, N].

        Batch axes of the three numbers are the last of the times'.
        """
        early = 0.1 * self.shortest
        s = date(t.unsqueeze(-1) + early, self.shortest + early, self.longest + early)
        u = y * torch.rsqrt(4 + y.square())
        of_vol, of_drift, of_diffusion, of_rho = output(
            self.weights, torch.stack(torch.broadcast_tensors(u, s), -1)
        ).unbind(-1)
        of_vol, of_drift, of_diffusion = (
            cap * torch.tanh(n / cap) for n, cap in zip((of_vol, of_drift, of_diffusion), _CAPS, strict=True)
        )
        speed, amplitude, rho = (p.to(y).unsqueeze(-1) for p in (self.speed, self.amplitude, self.rho))
        level = self.level.at(t.flatten(), y.new_zeros(t.numel(), 1)).reshape(*t.shape, 1)
        vol, drift, diffusion, correlation = torch.broadcast_tensors(
            level * torch.exp(_LOGARITHM * torch.tanh((amplitude * y + of_vol) / _LOGARITHM)),
            speed * (of_drift - y),
            torch.sqrt(2 * speed) * torch.exp(of_diffusion),
            _CORRELATION * torch.tanh(torch.atanh((rho / _CORRELATION).clamp(-0.9999, 0.9999)) + of_rho),
        )
        return vol, drift, diffusion, correlation
