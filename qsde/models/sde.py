"""A user's own stochastic differential equation: two functions and their parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from qsde.errors import InputError, ParameterError
from qsde.models.base import Model, Parameter, check_parameter
from qsde.models.dynamics import NOISE_KINDS, Dynamics, Function, Interpretation, NoiseKind
from qsde.numerics import holds

_ANY = (-float("inf"), float("inf"))


@dataclass(frozen=True, eq=False)
class SDE(Model):
    """`dy = drift(t, y) dt + diffusion(t, y) dW` for a state `y` of any shape.

    As a pricing model its state is a vector of `d` components, the first of them `x = log(S / F)`, which starts at 0,
    so that curves stay outside. Say `martingale=True` if `E[exp(x_t)] = 1` also for the steps of the scheme (a drift of
    `-diffusion^2 / 2` for x under Euler): the forward then serves as a control variate.

    Args:
        drift: `drift(t, y, params)` with t 0-dim and y [P, *shape], returning [P, *shape]; or an `nn.Module` of
            `(t, y)`, or of `(t, y, per_path)` where `sdeint` is given parameters of each path.
        diffusion: likewise; its shape depends on `noise`.
        initial: state at time 0, [d]; only pricing needs it.
        parameters: tensors (or numbers) that gradients are wanted for, given to the functions as a mapping. Weights
            of modules join them by themselves, named `drift.weight` and so on.
        noise: "diagonal": every entry of the state has its own Brownian motion, the diffusion returns [P, *shape], and
            an entry of it depends on that entry of y only. "scalar": one Brownian motion for all, [P, *shape].
            "general": m Brownian motions, [P, *shape, m]. "additive": does not depend on y; [P, *shape, m], or
            [*shape, m] where all paths share it, or [P, *shape] with a Brownian motion for each entry.
        martingale: see above.
        interpretation: "ito", or "stratonovich" (`dW` taken at the middle of each step). Schemes are for one of them;
            with additive noise both mean the same.

    Raises:
        InputError: an unknown noise or interpretation. Functions are tried where they are used, which then raises if
            one returns the wrong shape, or holds tensors that require grad but are not parameters, whose gradient
            would be lost.

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
    initial: Tensor | Sequence[float] | None = None
    parameters: Mapping[str, Tensor | float] = field(default_factory=dict)
    noise: NoiseKind = "diagonal"
    martingale: bool = False
    interpretation: Interpretation = "ito"

    def __post_init__(self) -> None:
        if self.noise not in NOISE_KINDS:
            raise InputError(f"SDE: noise must be one of {', '.join(map(repr, NOISE_KINDS))}, got {self.noise!r}")
        if self.interpretation not in ("ito", "stratonovich"):
            raise InputError(f"SDE: interpretation must be 'ito' or 'stratonovich', got {self.interpretation!r}")
        values = {name: _tensor(value) for name, value in self.parameters.items()}
        for role in ("drift", "diffusion"):
            function = getattr(self, role)
            if isinstance(function, nn.Module):
                values |= {f"{role}.{name}": weight for name, weight in function.named_parameters()}
        start = None if self.initial is None else _tensor(self.initial)
        if start is not None and (start.dim() != 1 or not len(start)):
            raise InputError(f"SDE: initial must be the state at time 0, a vector of d numbers, got {self.initial}")
        object.__setattr__(self, "initial", start)
        object.__setattr__(self, "parameters", values)
        for name, value in self.params.items():
            check_parameter("SDE", name, value, _row(name))

    @property
    def params(self) -> dict[str, Tensor]:
        """The initial state if there is one, then the parameters of the functions."""
        start = {} if self.initial is None else {"initial": self.initial}
        return {**start, **self.parameters}  # type: ignore[dict-item]

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
        object.__setattr__(new, "initial", new_values.pop("initial", None))
        object.__setattr__(new, "parameters", new_values)
        return new

    @property
    def batch_shape(self) -> torch.Size:
        """Always (): an SDE of functions has no batch axes; `torch.func.vmap` prices several."""
        return torch.Size()

    def dynamics(self, y: Tensor, t: Tensor, per_path: Mapping[str, Tensor] | None = None) -> Dynamics:
        """The functions alone, tried on states [P, *shape] at a time: see `Dynamics.of`."""
        parameters: Mapping[str, Tensor] = self.parameters  # type: ignore[assignment]
        return Dynamics.of(self.drift, self.diffusion, parameters, self.noise, self.interpretation, y, t, per_path)

    def pricing_dynamics(self) -> Dynamics:
        """The functions alone, tried on the initial state.

        Raises:
            InputError: there is none, it does not start at log(S / F) = 0, or the functions do not fit it.
        """
        start = self.params.get("initial")
        if start is None:
            raise InputError("SDE: as a pricing model it needs initial=[...], its state at time 0, log(S / F) first")
        if not holds(start[0] == 0):
            raise InputError(
                f"SDE: initial[0] is log(S / F) at time 0, so it must be 0, got {start[0].item():.6g}: the spot is the "
                "market's, and drift and diffusion are those of the logarithm (use sdeint for other states)"
            )
        y = start.detach().expand(3, -1)
        model = self.with_params({name: p.to(y) for name, p in self.params.items()})
        return model.dynamics(y, y.new_zeros(()))


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)


def _row(name: str) -> Parameter:
    return Parameter(name, constraints.real, _ANY, _ANY, 0.0)
