"""What a scheme is: numbers that depend on model and step size, and a step that uses them."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.models.base import Model

#: State of the paths: log(S / F) of each underlying first, then whatever the model adds; each [*batch, P].
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Stretch:
    """What several steps take besides the state: that of `Scheme.step` with an axis of steps after the first.

    Attributes:
        c: coefficients [C, k, *batch, 1].
        normals, uniforms: draws [n, k, ..., P].
        constants: what every step needs besides.
        jumps: added to `x` after each step, [k, *batch, P].
    """

    c: Tensor
    normals: Tensor
    uniforms: Tensor
    constants: tuple[Tensor, ...] = ()
    jumps: Tensor | None = None


class Scheme(ABC):
    """A one-step discretisation of `x = log(S / F)` and the model's other state.

    Everything that depends on parameters and step size only is computed once, by `coefficients`; `step` is a pure
    function of tensors, which is what gets compiled and differentiated.

    Attributes:
        weak_order, strong_order: proven orders in the step size (`inf` for exact steps).
        exact: whether one step of any size has the exact distribution.
        time_dependent: whether the coefficients depend on when a step starts, not only on its size.
        jumps: whether `x` may jump at the end of a step.
        at_once: whether `steps` takes fewer operations than so many times `step`.
    """

    weak_order: ClassVar[float]
    strong_order: ClassVar[float]
    exact: ClassVar[bool] = False
    time_dependent: ClassVar[bool] = False
    jumps: ClassVar[bool] = False
    at_once: ClassVar[bool] = False

    @abstractmethod
    def check(self, model: Model) -> None:
        """Raises InputError, naming a scheme that fits, unless this scheme steps this model."""

    def bind(self, model: Model) -> Scheme:
        """The scheme with the functions of a model that is made of functions; itself for all others."""
        return self

    def watching(self) -> Scheme:
        """The scheme whose state ends with the jump of the last step, if there are jumps; else itself."""
        return self

    def conditional(self) -> Scheme | None:
        """The scheme that leaves the price's own noise out, if there is one.

        Given everything else that moves a path, `x` is normal: the state of that scheme starts with its mean and ends
        with its variance.
        """
        return None

    @abstractmethod
    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """Normals and uniforms consumed per step of at most `dt` years."""

    def knots(self, model: Model) -> tuple[float, ...]:
        """Times in years at which a step must end, because the model moves fast there."""
        return ()

    def longest(self, model: Model) -> float:
        """Years of the longest step that the scheme takes of this model; grids have no longer ones."""
        return math.inf

    @abstractmethod
    def initial(self, model: Model) -> State:
        """State at time 0, each tensor [*batch]."""

    @abstractmethod
    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """Numbers of steps of size `dt`: [C, *shape], differentiable in the parameters, in dt and in t.

        Args:
            model: the model.
            dt: 0-dim, or a shape that broadcasts against the batch axes of the parameters.
            t: when the steps start, like `dt`; only schemes that are `time_dependent` look at it.
        """

    def constants(self, model: Model) -> tuple[Tensor, ...]:
        """What every step needs besides its coefficients, such as the weights of a network."""
        return ()

    @abstractmethod
    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """One step: state [*batch, P] each, c [C, *batch, 1], normals [n, P], uniforms [m, P]; keeps dtype, device."""

    def steps(self, state: State, stretch: Stretch) -> State:
        """The states after each of `k` steps, [k, *batch, P]: to the digit what `step` gives, one after the other."""
        c, normals, uniforms, jumps = stretch.c, stretch.normals, stretch.uniforms, stretch.jumps
        path = [state]
        for k in range(normals.shape[1]):
            x, *rest = self.step(path[-1], c[:, k], normals[:, k], uniforms[:, k], stretch.constants)
            path.append((x if jumps is None else x + jumps[k], *rest))
        return tuple(torch.stack(component[1:]) for component in zip(*path, strict=True))

    @abstractmethod
    def variance(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """Quadratic variation of the diffusion part of `x` over a step, given the state at both of its ends.

        Args:
            model: the model.
            before: state [*, *batch, P] at the start of the step.
            after: state at its end, before a jump.
            dt: size of the step, [*, 1..., 1].
            t: its start, likewise.
        """

    def slope(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor | None:
        """Change of `variance` per unit of `x` at which a path is inside the step; None if there is none.

        It is the covariation of variance and `x` over that of `x`, times `dt`: `rho sigma dt` for Heston. Arguments as
        those of `variance`.
        """
        return None


def running(start: Tensor, *rises: Tensor | None) -> Tensor:
    """Sums of a start [*batch, P] and what is added in each step [k, *batch, P], as it is after each of them.

    One after the other, not `cumsum`, which adds in another precision.
    """

    def after(x: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        for part in parts:
            x = x + part
        return x

    by_step = zip(*(rise.unbind(0) for rise in rises if rise is not None), strict=True)
    return torch.stack(list(itertools.accumulate(by_step, after, initial=start))[1:])
