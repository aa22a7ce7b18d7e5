"""A small smooth network as leverage function."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints

from qsde.errors import InputError, ParameterError
from qsde.models.base import Parameter, check_parameter
from qsde.models.leverage import Leverage

_ANY = (-math.inf, math.inf)
#: Where paths of all steps start from one point, steps are short: each ends 15 % later than it began.
_KNOTS_RATIO, _KNOTS_UNTIL = 1.15, 1 / 6
_SHAPES = ("inner", "inner_bias", "hidden", "hidden_bias", "outer")


def initial_weights(width: int, seed: int, outputs: tuple[int, ...] = ()) -> dict[str, Tensor]:
    """Weights of a network of two inputs whose outputs are 0, as the difference of two halves that are alike.

    Raises:
        InputError: `width` is not even.
    """
    if width < 2 or width % 2:
        raise InputError(f"width of a network must be an even number of units, got {width}")
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64)

    half = width // 2
    outer = normal(half, *outputs) / math.sqrt(half)
    return {
        "inner": 1.5 * normal(width, 2),
        "inner_bias": normal(width),
        "hidden": (normal(half, width) * math.sqrt(2 / width)).repeat(2, 1),
        "hidden_bias": (0.5 * normal(half)).repeat(2),
        "outer": torch.cat([outer, -outer]),
    }


def output(weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """The network at inputs [..., 2]: [...], or [..., outputs]."""
    w = {name: value.to(inputs) for name, value in weights.items()}
    first = torch.tanh(inputs @ w["inner"].mT + w["inner_bias"])
    # two products of one shape, so that halves that are alike cancel to the last digit
    halves = zip(*(w[name].chunk(2) for name in ("hidden", "hidden_bias", "outer")), strict=True)
    parts = [torch.tanh(first @ hidden.mT + bias) @ outer for hidden, bias, outer in halves]
    out: Tensor = parts[0] + parts[1]
    return out


def date(t: Tensor, shortest: float, longest: float) -> Tensor:
    """The logarithm of a time, -1 at the shortest and 1 at the longest."""
    low, high = math.log(shortest), math.log(longest)
    return (torch.log(t) - 0.5 * (low + high)) / max(0.5 * (high - low), 0.5)


def early_knots(shortest: float) -> tuple[float, ...]:
    """Times from a sixteenth of the shortest expiry to two months, each 15 % later than the one before."""
    count = max(0, math.ceil(math.log(_KNOTS_UNTIL / shortest * 16) / math.log(_KNOTS_RATIO)))
    return tuple(shortest / 16 * _KNOTS_RATIO**i for i in range(count))


@dataclass(frozen=True, eq=False)
class NeuralLeverage(Leverage):
    """`L = base(t, x) exp(cap tanh(n(u, s) / cap))` with a network n of two smooth hidden layers.

    Its inputs make short and long dates alike: `y = x / (scale sqrt(t + early))`, `u = y / sqrt(4 + y^2)`, and
    `s = log(t + early)`, shifted and scaled to [-1, 1] between the shortest and the longest expiry. All are bounded, so
    the leverage is far beyond the quotes too, between `exp(-cap)` and `exp(cap)` times the base.

    `initialised` draws the hidden layers; the output is the difference of two halves that start alike, so that the
    network starts at exactly 0, and training from the base, with all of its weights ready to move.

    Args:
        weights: `inner` [H, 2], `inner_bias` [H], `hidden` [H, H], `hidden_bias` [H], `outer` [H].
        scale: see `Leverage`.
        shortest, longest: expiries between which the network is used, years.
        cap: bound of the logarithm of the leverage over the base.
        base: what the network multiplies; None is 1.

    Example:
        >>> leverage = NeuralLeverage.initialised(scale=0.2, shortest=0.1, longest=2.0)
        >>> leverage.at(torch.tensor([0.5], dtype=torch.float64), torch.tensor([[-0.1, 0.2]], dtype=torch.float64))
        tensor([[1., 1.]], dtype=torch.float64)
    """

    weights: Mapping[str, Tensor]
    scale: float
    shortest: float
    longest: float
    cap: float = 1.5
    base: Leverage | None = field(default=None)

    def __post_init__(self) -> None:
        if tuple(self.weights) != _SHAPES:
            raise InputError(f"NeuralLeverage: weights must be {', '.join(_SHAPES)}, got {', '.join(self.weights)}")
        width = len(self.weights["inner"])
        wanted = ((width, 2), (width,), (width, width), (width,), (width,))
        for (name, value), shape in zip(self.weights.items(), wanted, strict=True):
            if tuple(value.shape) != shape:
                raise InputError(f"NeuralLeverage: {name} must be {list(shape)}, got {list(value.shape)}")
            check_parameter("NeuralLeverage", name, value.detach(), self.table[name])
        if not (0 < self.shortest <= self.longest < math.inf and self.scale > 0 and self.cap > 0):
            raise InputError(
                "NeuralLeverage: scale and cap must be positive and 0 < shortest <= longest, got "
                f"scale={self.scale}, cap={self.cap}, shortest={self.shortest}, longest={self.longest}"
            )

    @classmethod
    def initialised(
        cls,
        scale: float,
        shortest: float,
        longest: float,
        width: int = 32,
        seed: int = 0,
        cap: float = 1.5,
        base: Leverage | None = None,
    ) -> Self:
        """A network that is exactly its base.

        Args:
            scale: as for the class.
            shortest: likewise.
            longest: likewise.
            cap: likewise.
            base: likewise.
            width: units of each hidden layer, even.
            seed: seed of the hidden layers.
        """
        return cls(initial_weights(width, seed), scale, shortest, longest, cap, base)

    @property
    def params(self) -> dict[str, Tensor]:
        """The weights."""
        return dict(self.weights)

    @property
    def knots(self) -> tuple[float, ...]:
        """Times from a sixteenth of the shortest expiry to two months, each 15 % later than the one before."""
        own = early_knots(self.shortest)
        return own if self.base is None else (*own, *self.base.knots)

    @property
    def table(self) -> Mapping[str, Parameter]:
        """A row for each tensor of weights: any finite numbers."""
        return {name: Parameter(f"{name} weights", constraints.real, _ANY, _ANY, 0.0) for name in self.weights}

    def with_params(self, params: Mapping[str, Tensor]) -> Self:
        """The same network with other weights, unchecked."""
        unknown = set(params) - set(self.weights)
        if unknown:
            raise ParameterError(f"NeuralLeverage has no weights {sorted(unknown)}; it has {list(self.weights)}")
        new = copy.copy(self)
        object.__setattr__(new, "weights", {**self.weights, **params})
        return new

    def at(self, t: Tensor, x: Tensor) -> Tensor:
        """See `Leverage`."""
        early = 0.1 * self.shortest
        t = t.unsqueeze(-1) + early
        y = x / (self.scale * torch.sqrt(t))
        u = y * torch.rsqrt(4 + y.square())
        s = date(t, self.shortest + early, self.longest + early)
        out = output(self.weights, torch.stack(torch.broadcast_tensors(u, s), -1))
        factor = torch.exp(self.cap * torch.tanh(out / self.cap))
        return factor if self.base is None else factor * self.base.at(t.squeeze(-1) - early, x)
