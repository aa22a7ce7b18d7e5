"""Schemes for SDEs of functions: Euler-Maruyama and Milstein in the sense of Ito."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.base import Model
from qsde.models.sde import SDE, Dynamics
from qsde.schemes.base import Scheme, State
from qsde.schemes.layers import refusal


@dataclass(frozen=True)
class _Ito(Scheme):
    """What Ito schemes of functions share: coefficients `[t, dt, sqrt(dt)]`, state of d tensors [P], one normal each.

    Args:
        dynamics: the functions, filled in by `bind`.
    """

    dynamics: Dynamics | None = None

    time_dependent: ClassVar[bool] = True

    def check(self, model: Model) -> None:
        """Refuses everything but an SDE, and functions of the wrong shape."""
        if not isinstance(model, SDE):
            raise refusal(f"{type(self).__name__} steps an SDE", model)
        model.factors()

    def bind(self, model: Model) -> Self:
        """The scheme for the functions of this SDE."""
        assert isinstance(model, SDE)
        return replace(self, dynamics=model.dynamics)

    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """One normal for each Brownian motion."""
        assert isinstance(model, SDE)
        return model.factors(), 0

    def initial(self, model: Model) -> State:
        """The components of the initial state."""
        return model.params["initial"].unbind(-1)

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
        """One step of the d components."""
        assert self.dynamics is not None, "bind comes before step"
        several = torch.stack(state, -1)
        t, dt, root = (v.squeeze(-1) for v in c.unbind(0))
        noise = root * normals.movedim(0, -1)
        # the functions are written for [P, d]: a batch axis, which vmap puts in front, becomes more paths
        y = several.flatten(0, -2)
        noise = noise.expand(*several.shape[:-1], -1).flatten(0, -2)
        new = y + self.dynamics.drift_at(t, y, constants) * dt + self._shock(t, y, dt, noise, constants)
        return new.view_as(several).unbind(-1)

    @abstractmethod
    def _shock(self, t: Tensor, y: Tensor, dt: Tensor, noise: Tensor, constants: tuple[Tensor, ...]) -> Tensor:
        """Effect [P, d] of Brownian increments `noise` [P, m]."""

    def variance(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """`sum_j diffusion_0j^2 dt` at the start of the step."""
        assert isinstance(model, SDE)
        dynamics, constants = model.dynamics, [k.to(before[0]) for k in self.constants(model)]
        y = torch.stack(before[: len(model.params["initial"])], -1)
        parts = []
        for states, size, start in zip(y, dt.flatten(), t.flatten(), strict=True):
            g = dynamics.diffusion_at(start, states, constants)[:, 0]
            parts.append((g * g if g.dim() == 1 else (g * g).sum(-1)) * size)
        return torch.stack(parts)


@dataclass(frozen=True)
class EulerMaruyama(_Ito):
    """`y' = y + drift dt + diffusion dW`: weak order 1, strong order 1/2, every kind of noise.

    Reference:
        Kloeden, Platen (1992), "Numerical Solution of Stochastic Differential Equations", section 10.2.

    Example:
        >>> EulerMaruyama()
        EulerMaruyama(dynamics=None)
    """

    weak_order: ClassVar[float] = 1.0
    strong_order: ClassVar[float] = 0.5

    def _shock(self, t: Tensor, y: Tensor, dt: Tensor, noise: Tensor, constants: tuple[Tensor, ...]) -> Tensor:
        assert self.dynamics is not None
        g = self.dynamics.diffusion_at(t, y, constants)
        shock: Tensor = torch.einsum("pdm,pm->pd", g, noise) if self.dynamics.noise == "general" else g * noise
        return shock


@dataclass(frozen=True)
class ItoMilstein(_Ito):
    """Euler's step plus `(dg/dy) g (dW^2 - dt) / 2`: strong order 1 for diagonal and scalar noise.

    The derivative of the diffusion is a Jacobian-vector product, no formula is asked of the user. With diagonal noise
    `g_i` must depend on `y_i` only.

    Reference:
        Kloeden, Platen (1992), section 10.3, equations (3.1) and (3.12).

    Example:
        >>> ItoMilstein.strong_order
        1.0
    """

    weak_order: ClassVar[float] = 1.0
    strong_order: ClassVar[float] = 1.0

    def check(self, model: Model) -> None:
        """Refuses general noise, which would need Levy areas."""
        super().check(model)
        if isinstance(model, SDE) and model.noise == "general":
            raise InputError(
                "ItoMilstein steps an SDE of diagonal or scalar noise, got general noise; use EulerMaruyama()"
            )

    def _shock(self, t: Tensor, y: Tensor, dt: Tensor, noise: Tensor, constants: tuple[Tensor, ...]) -> Tensor:
        dynamics = self.dynamics
        assert dynamics is not None
        g = dynamics.diffusion_at(t, y, constants)
        bend: Tensor = torch.func.jvp(lambda s: dynamics.diffusion_at(t, s, constants), (y,), (g,))[1]
        shock: Tensor = g * noise + 0.5 * bend * (noise * noise - dt)
        return shock
