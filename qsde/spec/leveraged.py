"""Local and local-stochastic volatility as text: a backbone, and a leverage as a table or as a network."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from qsde.errors import InputError
from qsde.models import BlackScholes, JumpDiffusion, Model
from qsde.models.leverage import GridLeverage, Leverage
from qsde.models.lsv import LocalStochasticVol, leveraged, unleveraged
from qsde.models.neural import NeuralLeverage
from qsde.models.neural_sv import NeuralStochasticVol
from qsde.spec.base import Spec, at
from qsde.spec.models import (
    BatesSpec,
    BlackScholesSpec,
    HestonKouSpec,
    HestonSpec,
    KouSpec,
    MertonSpec,
    ParametricSpec,
    parametric_spec_of,
)

#: Most rows and columns of a table, and units of a layer.
MAX_ROWS, MAX_COLUMNS, MAX_WIDTH = 4096, 1024, 512
_Row = Annotated[tuple[float, ...], Field(min_length=1, max_length=MAX_COLUMNS)]
_Rows = Annotated[tuple[_Row, ...], Field(min_length=1, max_length=MAX_ROWS)]
_Units = Annotated[tuple[float, ...], Field(min_length=2, max_length=MAX_WIDTH)]
_Layer = Annotated[tuple[_Units, ...], Field(min_length=2, max_length=MAX_WIDTH)]

#: How a model with a leverage is called: by its variance, and by its leverage.
LeveragedName = Literal["local_vol", "lsv", "neural_local_vol", "neural_lsv"]
#: All models with a table or a network in them.
LEVERAGED: tuple[str, ...] = (*get_args(LeveragedName), "neural_sv")


class GridLeverageSpec(Spec):
    """A table of a leverage; see `qsde.models.GridLeverage`."""

    type: Literal["grid"] = "grid"
    times: Annotated[tuple[float, ...], Field(min_length=1, max_length=MAX_ROWS)]
    x: _Row | _Rows
    values: _Rows
    scale: float = Field(gt=0)

    def build(self) -> GridLeverage:
        """The leverage.

        Raises:
            InputError: rows of different lengths, or points that do not increase.
        """
        x = _matrix("x", self.x) if isinstance(self.x[0], tuple) else _numbers(self.x)
        return GridLeverage(_numbers(self.times), x, _matrix("values", self.values), self.scale)

    @classmethod
    def of(cls, leverage: GridLeverage) -> GridLeverageSpec:
        """The spec of a table."""
        fields = {name: getattr(leverage, name).tolist() for name in ("times", "x", "values")}
        return cls.model_validate({**fields, "scale": leverage.scale})


class NeuralLeverageSpec(Spec):
    """A network as leverage; see `qsde.models.neural.NeuralLeverage`."""

    type: Literal["neural"] = "neural"
    inner: Annotated[tuple[tuple[float, float], ...], Field(min_length=2, max_length=MAX_WIDTH)]
    inner_bias: _Units
    hidden: _Layer
    hidden_bias: _Units
    outer: _Units
    scale: float = Field(gt=0)
    shortest: float = Field(gt=0)
    longest: float = Field(gt=0)
    cap: float = Field(gt=0)
    base: GridLeverageSpec | None = None

    def build(self) -> NeuralLeverage:
        """The leverage.

        Raises:
            InputError: layers that do not fit together.
        """
        weights = {
            "inner": _matrix("inner", self.inner),
            "inner_bias": _numbers(self.inner_bias),
            "hidden": _matrix("hidden", self.hidden),
            "hidden_bias": _numbers(self.hidden_bias),
            "outer": _numbers(self.outer),
        }
        base = None if self.base is None else self.base.build()
        return NeuralLeverage(weights, self.scale, self.shortest, self.longest, self.cap, base)

    @classmethod
    def of(cls, leverage: NeuralLeverage) -> NeuralLeverageSpec:
        """The spec of a network.

        Raises:
            InputError: its base is neither a table nor 1.
        """
        base = leverage.base
        if not (base is None or isinstance(base, GridLeverage)):
            raise InputError("a network on another network has no text form")
        return cls.model_validate(
            {
                **{name: value.tolist() for name, value in leverage.weights.items()},
                **{name: getattr(leverage, name) for name in ("scale", "shortest", "longest", "cap")},
                "base": None if base is None else GridLeverageSpec.of(base),
            }
        )


class LeveragedSpec(Spec):
    """A volatility times a leverage; see `qsde.models.LocalStochasticVol`.

    Attributes:
        model: "local_vol" for a constant volatility times a table, "lsv" for Heston's, "neural_..." with a network.
        backbone: the volatility, and jumps.
        leverage: the function of time and `x = log(S / F)` that multiplies it.

    Example:
        >>> table = {"type": "grid", "times": [0.5], "x": [-0.1, 0.1], "values": [[0.25, 0.2]], "scale": 0.2}
        >>> flat = {"model": "black_scholes", "vol": 1.0}
        >>> spec = LeveragedSpec.model_validate({"model": "local_vol", "backbone": flat, "leverage": table})
        >>> spec.build().name, spec_of(spec.build()) == spec
        ('LocalVol', True)
    """

    model: LeveragedName
    backbone: Annotated[
        BlackScholesSpec | HestonSpec | MertonSpec | KouSpec | BatesSpec | HestonKouSpec, Field(discriminator="model")
    ]
    leverage: Annotated[GridLeverageSpec | NeuralLeverageSpec, Field(discriminator="type")]

    def build(self) -> Model:
        """The model.

        Raises:
            InputError: the name is not that of such a backbone and leverage, or tables that make no sense.
        """
        with at("leverage"):
            leverage = self.leverage.build()
        built = leveraged(self.backbone.build(), leverage)
        if _name(built, leverage) != self.model:
            raise InputError(f"model: with this backbone and leverage it is {_name(built, leverage)!r}")
        return built


class NeuralStochasticVolSpec(Spec):
    """A stochastic volatility whose functions are a network; see `qsde.models.neural_sv.NeuralStochasticVol`."""

    model: Literal["neural_sv"] = "neural_sv"
    speed: float
    amplitude: float
    rho: float
    level: GridLeverageSpec
    inner: Annotated[tuple[tuple[float, float], ...], Field(min_length=2, max_length=MAX_WIDTH)]
    inner_bias: _Units
    hidden: _Layer
    hidden_bias: _Units
    outer: Annotated[tuple[tuple[float, float, float, float], ...], Field(min_length=2, max_length=MAX_WIDTH)]
    shortest: float = Field(gt=0)
    longest: float = Field(gt=0)

    def build(self) -> Model:
        """The model.

        Raises:
            InputError: layers that do not fit together, or a level that depends on the price.
        """
        with at("level"):
            level = self.level.build()
        weights = {
            "inner": _matrix("inner", self.inner),
            "inner_bias": _numbers(self.inner_bias),
            "hidden": _matrix("hidden", self.hidden),
            "hidden_bias": _numbers(self.hidden_bias),
            "outer": _matrix("outer", self.outer),
        }
        speed, amplitude, rho = (_numbers(x) for x in (self.speed, self.amplitude, self.rho))
        return NeuralStochasticVol(speed, amplitude, rho, level, weights, self.shortest, self.longest)

    @classmethod
    def of(cls, model: NeuralStochasticVol) -> NeuralStochasticVolSpec:
        """The spec of a model."""
        return cls.model_validate(
            {
                **{name: value.tolist() for name, value in model.weights.items()},
                **{name: float(getattr(model, name)) for name in ("speed", "amplitude", "rho", "shortest", "longest")},
                "level": GridLeverageSpec.of(model.level),
            }
        )


#: Any model, told apart by its field `model`.
ModelSpec = Annotated[
    BlackScholesSpec
    | HestonSpec
    | MertonSpec
    | KouSpec
    | BatesSpec
    | HestonKouSpec
    | LeveragedSpec
    | NeuralStochasticVolSpec,
    Field(discriminator="model"),
]
AnyModelSpec = ParametricSpec | LeveragedSpec | NeuralStochasticVolSpec


def spec_of(model: Model) -> AnyModelSpec:
    """The spec that builds `model`.

    Raises:
        InputError: the model has batch axes or no spec describes it.

    Example:
        >>> spec_of(BlackScholes(0.2))
        BlackScholesSpec(vol=0.2, model='black_scholes')
    """
    if isinstance(model, NeuralStochasticVol):
        return NeuralStochasticVolSpec.of(model)
    inner = _inner(model)
    return parametric_spec_of(model) if inner is None else _leveraged(model, inner.leverage)


def _leveraged(model: Model, leverage: Leverage) -> LeveragedSpec:
    backbone: ParametricSpec = parametric_spec_of(unleveraged(model))
    spec: GridLeverageSpec | NeuralLeverageSpec
    if isinstance(leverage, GridLeverage):
        spec = GridLeverageSpec.of(leverage)
    elif isinstance(leverage, NeuralLeverage):
        spec = NeuralLeverageSpec.of(leverage)
    else:
        raise InputError(f"{model.name}: a {type(leverage).__name__} has no text form; a table or a network has one")
    return LeveragedSpec.model_validate({"model": _name(model, leverage), "backbone": backbone, "leverage": spec})


def _inner(model: Model) -> LocalStochasticVol | None:
    inner = model.diffusion if isinstance(model, JumpDiffusion) else model
    return inner if isinstance(inner, LocalStochasticVol) else None


def _name(model: Model, leverage: Leverage) -> LeveragedName:
    inner = _inner(model)
    constant = inner is not None and isinstance(inner.backbone, BlackScholes)
    names: tuple[LeveragedName, ...] = get_args(LeveragedName)
    return names[2 * isinstance(leverage, NeuralLeverage) + (not constant)]


def _numbers(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _matrix(name: str, rows: object) -> Tensor:
    lengths = {len(row) for row in rows}  # type: ignore[attr-defined]
    if len(lengths) > 1:
        raise InputError(f"{name}: rows must be equally long, got lengths from {min(lengths)} to {max(lengths)}")
    return _numbers(rows)
