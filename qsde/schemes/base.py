"""What a scheme is: numbers that depend on model and step size, and a step that uses them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from qsde.models.base import Model

#: State of the paths: log(S / F) first, then whatever the model adds; each [*batch, P].
State = tuple[Tensor, ...]


class Scheme(ABC):
    """A one-step discretisation of `x = log(S / F)` and the model's other state.

    Everything that depends on parameters and step size only is computed once, by `coefficients`; `step` is a pure
    function of tensors, which is what gets compiled and differentiated.

    Attributes:
        weak_order, strong_order: proven orders in the step size (`inf` for exact steps).
        exact: whether one step of any size has the exact distribution.
    """

    weak_order: ClassVar[float]
    strong_order: ClassVar[float]
    exact: ClassVar[bool] = False

    @abstractmethod
    def check(self, model: Model) -> None:
        """Raises InputError, naming a scheme that fits, unless this scheme steps this model."""

    @abstractmethod
    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """Normals and uniforms consumed per step of at most `dt` years."""

    @abstractmethod
    def initial(self, model: Model) -> State:
        """State at time 0, each tensor [*batch]."""

    @abstractmethod
    def coefficients(self, model: Model, dt: Tensor) -> Tensor:
        """Numbers of a step of size `dt` (0-dim): [C, *batch], differentiable in the parameters and in dt."""

    @abstractmethod
    def step(self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor) -> State:
        """One step: state [*batch, P] each, c [C, *batch, 1], normals [n, P], uniforms [m, P]; keeps dtype, device."""
