"""A user's own stochastic differential equation: two functions and their parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from qsde.errors import InputError, ParameterError
from qsde.models.base import Model, Parameter, check_parameter

#: `f(t, y, params)`, or a module called as `f(t, y)`.
Function = Callable[..., Tensor]
NoiseKind = Literal["diagonal", "scalar", "general"]

_ANY = (-float("inf"), float("inf"))


@dataclass(frozen=True)
class Dynamics:
    """The functions of an SDE, without numbers: what a scheme is bound to and a kernel is compiled for.

    Attributes:
        drift, diffusion: functions of `(t, y, params)`, or modules of `(t, y)`.
        names: names of the parameters, in the order in which a step is given them.
        noise: how Brownian motions enter.
    """

    drift: Function
    diffusion: Function
    names: tuple[str, ...]
    noise: NoiseKind

    def drift_at(self, t: Tensor, y: Tensor, values: Sequence[Tensor]) -> Tensor:
        """The drift [P, d] at states [P, d]."""
        return self._call("drift", self.drift, t, y, values)

    def diffusion_at(self, t: Tensor, y: Tensor, values: Sequence[Tensor]) -> Tensor:
        """The diffusion at states [P, d]: [P, d], or [P, d, m] if the noise is general."""
        return self._call("diffusion", self.diffusion, t, y, values)

    def _call(self, role: str, function: Function, t: Tensor, y: Tensor, values: Sequence[Tensor]) -> Tensor:
        params = dict(zip(self.names, values, strict=True))
        if isinstance(function, nn.Module):
            start = f"{role}."
            weights = {k.removeprefix(start): v for k, v in params.items() if k.startswith(start)}
            out: Tensor = torch.func.functional_call(function, weights, (t, y))
            return out
        return function(t, y, params)


@dataclass(frozen=True, eq=False)
class SDE(Model):
    """`dy = drift(t, y) dt + diffusion(t, y) dW` in the sense of Ito, for a state `y` of `d` components.

    As a pricing model its first component is `x = log(S / F)` and starts at 0, so that curves stay outside. Say
    `martingale=True` if `E[exp(x_t)] = 1` also for the steps of the scheme (a drift of `-diffusion^2 / 2` for x under
    Euler): the forward then serves as a control variate.

    Args:
        drift: `drift(t, y, params)` with t 0-dim and y [P, d], returning [P, d]; or an `nn.Module` of `(t, y)`.
        diffusion: likewise; returns [P, d], or [P, d, m] for `m` Brownian motions if the noise is "general".
        initial: state at time 0, [d].
        parameters: tensors (or numbers) that gradients are wanted for, given to the functions as a mapping. Weights
            of modules join them by themselves, named `drift.weight` and so on.
        noise: "diagonal" (component i has its own Brownian motion and `diffusion[..., i]` depends on `y[..., i]` only
            where a scheme differentiates it), "scalar" (one Brownian motion for all), or "general".
        martingale: see above.

    Raises:
        InputError: a function returns the wrong shape, or holds tensors that require grad but are not parameters,
            whose gradient would be lost.

    Example:
        Geometric Brownian motion in log price:

        >>> gbm = SDE(
        ...     drift=lambda t, y, p: -0.5 * p["vol"] ** 2 * torch.ones_like(y),
        ...     diffusion=lambda t, y, p: p["vol"] * torch.ones_like(y),
        ...     initial=[0.0],
        ...     parameters={"vol": 0.2},
        ...     martingale=True,
        ... )
        >>> list(gbm.params)
        ['initial', 'vol']
    """

    drift: Function
    diffusion: Function
    initial: Tensor | Sequence[float]
    parameters: Mapping[str, Tensor | float] = field(default_factory=dict)
    noise: NoiseKind = "diagonal"
    martingale: bool = False

    def __post_init__(self) -> None:
        if self.noise not in ("diagonal", "scalar", "general"):
            raise InputError(f"SDE: noise must be 'diagonal', 'scalar' or 'general', got {self.noise!r}")
        start = _tensor(self.initial)
        if start.dim() != 1 or not len(start):
            raise InputError(f"SDE: initial must be the state at time 0, a vector of d numbers, got {self.initial}")
        values = {name: _tensor(value) for name, value in self.parameters.items()}
        for role in ("drift", "diffusion"):
            function = getattr(self, role)
            if isinstance(function, nn.Module):
                values |= {f"{role}.{name}": weight for name, weight in function.named_parameters()}
        for name, value in {"initial": start, **values}.items():
            check_parameter("SDE", name, value, _row(name))
        object.__setattr__(self, "initial", start)
        object.__setattr__(self, "parameters", values)

    @property
    def params(self) -> dict[str, Tensor]:
        """The initial state, then the parameters of the functions."""
        return {"initial": self.initial, **self.parameters}  # type: ignore[dict-item]

    @property
    def table(self) -> Mapping[str, Parameter]:
        """A row for each parameter: any finite number."""
        return {name: _row(name) for name in self.params}

    def with_params(self, params: Mapping[str, Tensor]) -> Self:
        """The same SDE with some parameters replaced; values are taken as they are, unchecked."""
        unknown = set(params) - set(self.params)
        if unknown:
            raise ParameterError(f"{self.name} has no parameter {sorted(unknown)}; it has {list(self.params)}")
        new = copy.copy(self)
        new_values = {**self.params, **params}
        object.__setattr__(new, "initial", new_values.pop("initial"))
        object.__setattr__(new, "parameters", new_values)
        return new

    @property
    def batch_shape(self) -> torch.Size:
        """Always (): an SDE of functions has no batch axes; `torch.func.vmap` prices several."""
        return torch.Size()

    @property
    def dynamics(self) -> Dynamics:
        """The functions alone."""
        return Dynamics(self.drift, self.diffusion, tuple(self.parameters), self.noise)

    def factors(self) -> int:
        """Number of Brownian motions.

        Raises:
            InputError: see the class.
        """
        y = torch.stack([self.params["initial"]] * 3).detach()
        t = torch.zeros((), dtype=y.dtype, device=y.device)
        values = [v.detach().to(y.dtype) for v in self.parameters.values()]  # type: ignore[union-attr]
        with torch.enable_grad():
            drift = self.dynamics.drift_at(t, y, values)
            diffusion = self.dynamics.diffusion_at(t, y, values)
        for role, out in (("drift", drift), ("diffusion", diffusion)):
            _check_output(role, out, y, role == "diffusion" and self.noise == "general")
        return {"diagonal": y.shape[1], "scalar": 1, "general": diffusion.shape[-1]}[self.noise]


def _check_output(role: str, out: Any, y: Tensor, general: bool) -> None:
    wanted = "[P, d, m]" if general else "[P, d]"
    good = isinstance(out, Tensor) and out.dim() == y.dim() + general and out.shape[: y.dim()] == y.shape
    if not good:
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise InputError(f"SDE: {role} must return {wanted} for states [P, d] = {tuple(y.shape)}, got {got}")
    if out.requires_grad:
        raise InputError(
            f"SDE: {role} uses a tensor that requires grad and is not among its parameters, so its gradient would be "
            f"lost; pass it in parameters={{...}} and take it from the third argument, or make {role} an nn.Module"
        )


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)


def _row(name: str) -> Parameter:
    return Parameter(name, constraints.real, _ANY, _ANY, 0.0)
