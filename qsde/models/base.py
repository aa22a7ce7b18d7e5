"""What every pricing model is: a small frozen bag of tensors with a table of its parameters."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.distributions import constraints

from qsde.errors import InputError, ParameterError
from qsde.numerics import broadcast_shape, holds


@dataclass(frozen=True)
class Parameter:
    """One row of a model's parameter table.

    Attributes:
        text: what it is, with its unit.
        domain: where the model is defined (a `torch.distributions` constraint).
        bounds: the open interval a calibration stays in by construction.
        search: the range from which extra starts of a calibration are drawn (log-uniform if positive).
        typical: a plausible value for an equity index.
        relative_to: market level that `search` is a multiple of ("short variance", "long variance", "vol"), or "".
    """

    text: str
    domain: constraints.Constraint
    bounds: tuple[float, float]
    search: tuple[float, float]
    typical: float
    relative_to: str = ""


class Parametric(ABC):
    """A frozen dataclass of tensors, described by a table `PARAMETERS` in the order of its fields.

    Fields take floats or tensors; they become float64 tensors (float32 tensors stay). Leading **batch** axes are
    parameter sets: `Heston(v0=torch.tensor([0.04, 0.09]), ...)` is two models at once.

    Raises:
        ParameterError: a value is no number, outside its domain or not finite; the message names the parameter.
    """

    PARAMETERS: ClassVar[Mapping[str, Parameter]]

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            tensor = _tensor(type(self).__name__, field.name, value)
            check_parameter(type(self).__name__, field.name, tensor, self.PARAMETERS[field.name])
            object.__setattr__(self, field.name, tensor)

    @classmethod
    def typical(cls) -> Self:
        """A plausible parameter set for an equity index: a first start for a calibration."""
        return cls(**{name: p.typical for name, p in cls.PARAMETERS.items()})

    @property
    def params(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return {name: getattr(self, name) for name in self.PARAMETERS}

    def with_params(self, params: Mapping[str, Tensor]) -> Self:
        """The same model with some parameters replaced; values are taken as they are, unchecked."""
        unknown = set(params) - set(self.params)
        if unknown:
            raise ParameterError(
                f"{type(self).__name__} has no parameter {sorted(unknown)}; it has {list(self.params)}"
            )
        new = copy.copy(self)
        for name, value in params.items():
            object.__setattr__(new, name, value)
        return new


class Model(ABC):
    """What a simulation can step: parameters, and (through a scheme) the dynamics of `x_t = log(S_t / F_t)`.

    Curves stay outside the model: `F_t` is the forward.
    """

    @property
    @abstractmethod
    def params(self) -> dict[str, Tensor]:
        """The parameters by name."""

    @property
    @abstractmethod
    def table(self) -> Mapping[str, Parameter]:
        """Description, domain, bounds and typical value of each parameter."""

    @abstractmethod
    def with_params(self, params: Mapping[str, Tensor]) -> Self:
        """The same model with some parameters replaced; values are taken as they are, unchecked."""

    def map(self, f: Callable[[Tensor], Tensor]) -> Self:
        """The model with `f` applied to every parameter, for reshaping or moving to a device."""
        return self.with_params({name: f(p) for name, p in self.params.items()})

    @property
    def batch_shape(self) -> torch.Size:
        """Broadcast shape of the parameters: () for one model."""
        shape: torch.Size = broadcast_shape(*(p.shape for p in self.params.values()))
        return shape

    @property
    def name(self) -> str:
        """The name used in tables and messages."""
        return type(self).__name__

    @property
    def assets(self) -> int:
        """Number of underlyings."""
        return 1

    @property
    def martingale(self) -> bool:
        """Whether `E[exp(x_t)] = 1`, so that the forward serves as a control variate."""
        return True

    @property
    def has_cf(self) -> bool:
        """Whether there is a characteristic function, and so Fourier prices."""
        return False


class FourierModel(Model):
    """A model with a characteristic function of `x_t = log(S_t / F_t)`.

    Prices are martingales: `log_cf(-1j, t) == 0`.
    """

    @property
    def has_cf(self) -> bool:
        """True."""
        return True

    @abstractmethod
    def log_cf(self, u: Tensor, t: Tensor) -> Tensor:
        """Log characteristic function `log E[exp(i u x_t)]`, elementwise over broadcast `u`, `t` and parameters.

        Args:
            u: complex argument, inside the strip where `-Im(u)` lies in `moment_range(t)`.
            t: time in years.
        """

    @property
    def gaussian(self) -> bool:
        """Whether `x_t` is normal, so that options have closed forms."""
        return False

    @abstractmethod
    def total_variance(self, t: Tensor) -> Tensor:
        """Expected quadratic variation of `log S` over `[0, t]`."""

    @abstractmethod
    def moment_range(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The open interval of real `p` with `E[exp(p x_t)]` finite; it contains [0, 1]."""

    def ripple(self, t: Tensor) -> tuple[Tensor, Tensor] | None:
        """Up to which |u| the cf ripples, and the distance in `x` that sets the frequency; None if it falls smoothly.

        Jumps of nearly one size make a distribution with several peaks; a quadrature must resolve their interference.
        """
        return None

    def log_cf_gradient(self, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """`log_cf` and its derivatives to the parameters, stacked on a new first axis in the order of `params`.

        This default differentiates in forward mode; models override it where the closed form is faster.
        """
        params = self.params
        columns = []
        value = self.log_cf(u, t)
        for name, p in params.items():
            tangent = torch.func.jvp(
                lambda q, name=name: self.with_params({name: q}).log_cf(u, t), (p,), (torch.ones_like(p),)
            )[1]
            columns.append(tangent.expand_as(value))
        return value, torch.stack(columns)


def fourier_model(model: Model) -> FourierModel:
    """The model, as one with a characteristic function.

    Raises:
        InputError: it has none.
    """
    if isinstance(model, FourierModel) and model.has_cf:
        return model
    raise InputError(
        f"{model.name} has no characteristic function, so there are no Fourier prices; "
        "simulate it: qsde.pricing.montecarlo.price(model, payoffs, market, MonteCarlo(...))"
    )


def check_parameter(owner: str, name: str, value: Tensor, spec: Parameter) -> None:
    """Raises ParameterError unless every entry of `value` is finite and in the parameter's domain."""
    if not holds(torch.isfinite(value)):
        raise ParameterError(f"{owner}.{name} must be finite, got {_shown(value)}")
    if not holds(spec.domain.check(value)):
        raise ParameterError(f"{owner}.{name} ({spec.text}) must be {stated(spec.domain)}, got {_shown(value)}")


def stated(domain: constraints.Constraint) -> str:
    """A domain in words.

    Example:
        >>> stated(constraints.interval(-1.0, 1.0)), stated(constraints.nonnegative)
        ('from -1 to 1', 'at least 0')
    """
    low, high = (getattr(domain, end, None) for end in ("lower_bound", "upper_bound"))
    if low is not None and high is not None:
        return f"from {float(low):g} to {float(high):g}"
    if low is None:
        return "finite"
    strict = not bool(domain.check(torch.tensor(float(low), dtype=torch.float64)))
    return f"above {float(low):g}" if strict else f"at least {float(low):g}"


def _tensor(owner: str, name: str, value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ParameterError(f"{owner}.{name} must be a number, a list of numbers or a tensor, got {value!r}") from None


def _shown(value: Tensor) -> str:
    flat = value.detach().flatten()
    return str(flat[0].item()) if flat.numel() == 1 else f"values from {flat.min().item()} to {flat.max().item()}"
