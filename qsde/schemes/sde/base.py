"""What schemes of functions share: a state that is one tensor [P, *shape], and the noise of a step."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.base import Model
from qsde.models.dynamics import Dynamics, Equation, Interpretation, NoiseKind
from qsde.models.sde import SDE
from qsde.schemes.base import Scheme, State
from qsde.schemes.layers import refusal
from qsde.schemes.sde.components import Components

#: What steps every kind of noise, for each interpretation.
_ANY_NOISE: dict[Interpretation, str] = {"ito": "EulerMaruyama()", "stratonovich": "Heun()"}


class Orders(NamedTuple):
    """Orders of convergence in the step size."""

    strong: float
    weak: float


def commuting(strong: float, weak: float) -> dict[NoiseKind, Orders]:
    """The same orders for the three kinds of noise that commute."""
    return dict.fromkeys(("diagonal", "scalar", "additive"), Orders(strong, weak))


@dataclass(frozen=True)
class Step:
    """One step, as a scheme sees it.

    Attributes:
        t, dt: its start and its size, 0-dim.
        dw: increment of each Brownian motion, in the shape in which it meets the diffusion (`Equation.increments`).
        h: space-time Levy area `H = (1 / dt) int (W_s - W_t) ds - dw / 2` of each, likewise; independent of `dw` and
            normal with variance dt / 12. Only schemes with `levy` have it.
    """

    t: Tensor
    dt: Tensor
    dw: Tensor
    h: Tensor | None = None

    @property
    def area(self) -> Tensor:
        """The space-time Levy area."""
        assert self.h is not None, "only schemes that declare levy use it"
        return self.h


@dataclass(frozen=True)
class SDEScheme(Scheme):
    """A one-step scheme of functions: coefficients `[t, dt, sqrt(dt)]`, state `(y, ...)` of tensors [P, *shape].

    One Brownian motion consumes one normal a step, `dw = sqrt(dt) z`; with `levy` a second one, `h = sqrt(dt / 12) z'`,
    which comes after those of all increments: a path has the same Brownian motion under every scheme.

    As a pricing model an SDE is stepped by `bind`'s `Components`, which has one tensor for each component.

    Attributes:
        dynamics: the functions, filled in by `bound`.
        interpretation: the integral that it approximates.
        orders: strong and weak order for each kind of noise that it takes; the least of them are the scheme's own.
        levy: whether it uses the space-time Levy area.
        reversible: whether the step from the end with `-dt` and `-dW` leads back to the start exactly.
    """

    dynamics: Dynamics | None = field(default=None, repr=False)

    interpretation: ClassVar[Interpretation]
    orders: ClassVar[Mapping[NoiseKind, Orders]]
    levy: ClassVar[bool] = False
    reversible: ClassVar[bool] = False
    time_dependent: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        if "orders" in vars(cls):
            cls.strong_order, cls.weak_order = map(min, zip(*cls.orders.values(), strict=True))

    @abstractmethod
    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """The state after a step, from states [P, *shape]."""

    def start(self, equation: Equation, t: Tensor, y: Tensor) -> State:
        """The state at the start: `y` first, then what the scheme carries along."""
        return (y,)

    @property
    def tails(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of one path's state: that of `y`, then those of what the scheme carries along."""
        assert self.dynamics is not None, "bound comes first"
        return (self.dynamics.shape,)

    def bound(self, dynamics: Dynamics) -> Self:
        """The scheme for these functions.

        Raises:
            InputError: it is not for this interpretation and kind of noise.
        """
        noise, interpretation = dynamics.noise, dynamics.interpretation
        if noise not in self.orders or (interpretation != self.interpretation and noise != "additive"):
            raise InputError(
                f"{type(self).__name__} steps an SDE of {self.interpretation} type with {' or '.join(self.orders)} "
                f"noise, got {interpretation} type with {noise} noise; use {_ANY_NOISE[interpretation]}"
            )
        return replace(self, dynamics=dynamics)

    def check(self, model: Model) -> None:
        """Refuses everything but an SDE that can be priced with it."""
        if not isinstance(model, SDE):
            raise refusal(f"{type(self).__name__} steps an SDE", model)
        self.bound(model.pricing_dynamics())

    def bind(self, model: Model) -> Scheme:
        """The scheme for the functions of a pricing model, one tensor for each component."""
        assert isinstance(model, SDE)
        return Components(self.bound(model.pricing_dynamics()))

    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """Normals of a step."""
        return self.normals(self._dynamics_of(model)), 0

    def normals(self, dynamics: Dynamics) -> int:
        """Normals of a step of these functions."""
        return dynamics.motions * (1 + self.levy)

    def initial(self, model: Model) -> State:
        """The state at time 0 of one path of a pricing model."""
        y = model.params["initial"]
        equation = self._dynamics_of(model).at([k.to(y) for k in self.constants(model)])
        return tuple(s.squeeze(0) for s in self.start(equation, y.new_zeros(()), y.unsqueeze(0)))

    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """Start, size and root of the size of the step."""
        start = torch.zeros_like(dt) if t is None else t
        return torch.stack([start, dt, torch.sqrt(dt)])

    def constants(self, model: Model) -> tuple[Tensor, ...]:
        """The parameters of the functions."""
        assert isinstance(model, SDE)
        return tuple(model.parameters.values())  # type: ignore[arg-type]

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """One step of states [*batch, P, *shape] each; c [3, 1], normals [n, P]."""
        dynamics = self.dynamics
        assert dynamics is not None, "bound comes before step"
        batch = state[0].shape[: state[0].dim() - 1 - len(dynamics.shape)]
        noise = normals.movedim(0, -1)
        if batch:
            # the functions are written for [P, *shape]: a batch axis, which vmap puts in front, becomes more paths
            state = tuple(s.flatten(0, len(batch)) for s in state)
            noise, constants = _repeated(noise, batch), self._repeated_constants(constants, batch)
        equation = dynamics.at(constants)
        new = self._advanced(equation, state, c, noise.movedim(-1, 0))
        return tuple(s.unflatten(0, (*batch, -1)) for s in new) if batch else new

    def _advanced(self, equation: Equation, state: State, c: Tensor, normals: Tensor) -> State:
        """The state after a step; where each path has its own, an empty one leaves it alone."""
        if c.shape[-1] == 1:
            return self.advance(equation, state, self.one_step(equation, c, normals))
        full = c[1] > 0
        c = torch.cat([c[:1], torch.where(full, c[1:], 1.0)])  # schemes may divide by the size
        new = self.advance(equation, state, self.one_step(equation, c, normals))
        return tuple(
            torch.where(full.view(-1, *(1,) * (s.dim() - 1)), after, s) for after, s in zip(new, state, strict=True)
        )

    def _dynamics_of(self, model: Model) -> Dynamics:
        assert isinstance(model, SDE)
        return self.dynamics or model.pricing_dynamics()

    def one_step(self, equation: Equation, c: Tensor, normals: Tensor) -> Step:
        """Start, size and increments of a step from its coefficients [3, 1], or [3, P] where each path has its own.

        Times of each path's own are [P, 1, ...], so that they meet states [P, *shape].
        """
        tail = (1,) * len(equation.dynamics.shape)
        t, dt, _ = c.squeeze(-1).unbind(0) if c.shape[-1] == 1 else c.view(3, -1, *tail).unbind(0)
        scaled, m = c[2] * normals, equation.dynamics.motions
        dw = equation.increments(scaled[:m].movedim(0, -1))
        if not self.levy:
            return Step(t, dt, dw)
        return Step(t, dt, dw, equation.increments(math.sqrt(1 / 12) * scaled[m:].movedim(0, -1)))

    def _repeated_constants(self, constants: tuple[Tensor, ...], batch: tuple[int, ...]) -> tuple[Tensor, ...]:
        assert self.dynamics is not None
        shared = len(constants) - self.dynamics.per_path
        return (*constants[:shared], *(_repeated(k, batch) for k in constants[shared:]))

    def variance(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """Only pricing needs it, and pricing has `Components`."""
        raise NotImplementedError


def _repeated(values: Tensor, batch: tuple[int, ...]) -> Tensor:
    """The same paths again for every member of a batch."""
    return values.expand(*batch, *values.shape).flatten(0, len(batch))
