"""Log-prices beside what they are given everything but their own noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qsde.models.base import Model
from qsde.schemes.base import Scheme, State, Stretch, running
from qsde.schemes.layers import layers
from qsde.schemes.with_jumps import WithJumps

#: Variances of a step below this count as this, where a root is taken.
_LEAST = 1e-20


@dataclass(frozen=True)
class Sampled(Scheme):
    """The paths of a scheme with their conditional mean and variance, from its `Scheme.conditional`.

    State `(x, *state)` with the state of the conditional scheme, `(E[x], ..., Var[x])`: one set of paths serves those
    who look at prices and those who look at means. The draws are those of the scheme itself, in their order.

    Args:
        mean: the conditional scheme.
        own: which normal of a step is the price's own noise.
        tracked: whether the state of the conditional scheme ends with the jump of the last step.

    Example:
        >>> from qsde.models import BlackScholes
        >>> from qsde.schemes.exact import Exact
        >>> scheme = Sampled(Exact().conditional())
        >>> scheme.draws(BlackScholes(0.2), 0.25), len(scheme.initial(BlackScholes(0.2)))
        ((1, 0), 3)
    """

    mean: Scheme
    own: int = 0
    tracked: bool = False

    def __post_init__(self) -> None:
        for name in ("weak_order", "strong_order", "exact", "time_dependent", "jumps", "at_once"):
            object.__setattr__(self, name, getattr(self.mean, name))

    @classmethod
    def of(cls, scheme: Scheme, model: Model) -> Sampled | None:
        """The paths of a scheme with mean and variance; None if it has no conditional scheme."""
        mean = scheme.conditional()
        if mean is None:
            return None
        if not isinstance(scheme, WithJumps):
            return cls(mean)
        own = scheme.draws(model, 1.0)[0] - scheme.diffusion.draws(layers(model)[0], 1.0)[0]
        return cls(mean, own)

    def check(self, model: Model) -> None:
        """What the scheme refuses."""
        self.mean.check(model)

    def bind(self, model: Model) -> Sampled:
        """Binds the scheme."""
        return replace(self, mean=self.mean.bind(model))

    def watching(self) -> Sampled:
        """The same with the jump of the last step, if there are jumps."""
        return replace(self, mean=self.mean.watching(), tracked=self.mean.jumps)

    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """One normal more."""
        normals, uniforms = self.mean.draws(model, dt)
        return normals + 1, uniforms

    def initial(self, model: Model) -> State:
        """Starts with `E[x]` twice."""
        state = self.mean.initial(model)
        return (state[0], *state)

    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """Those of the scheme."""
        return self.mean.coefficients(model, dt, t)

    def constants(self, model: Model) -> tuple[Tensor, ...]:
        """Those of the scheme."""
        return self.mean.constants(model)

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """Mean and variance, then the log-price given them."""
        x, *before = state
        after = self.mean.step(tuple(before), c, self._others(normals), uniforms, constants)
        last = -2 if self.tracked else -1
        deviation = torch.sqrt((after[last] - before[last]).clamp(min=_LEAST))
        return (x + (after[0] - before[0]) + deviation * normals[self.own], *after)

    def steps(self, state: State, stretch: Stretch) -> State:
        """Mean and variance of all steps, then the log-price."""
        x, *before = state
        after = self.mean.steps(tuple(before), replace(stretch, normals=self._others(stretch.normals)))
        last = -2 if self.tracked else -1
        mean, variance = (torch.cat([before[i].unsqueeze(0), after[i]]).diff(dim=0) for i in (0, last))
        deviation = torch.sqrt(variance.clamp(min=_LEAST))
        return running(x, mean, deviation * stretch.normals[self.own]), *after

    def _others(self, normals: Tensor) -> Tensor:
        return torch.cat([normals[: self.own], normals[self.own + 1 :]]) if self.own else normals[1:]

    def variance(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """That of the scheme."""
        return self.mean.variance(model, before[1:], after[1:], dt, t)

    def slope(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor | None:
        """That of the scheme."""
        return self.mean.slope(model, before[1:], after[1:], dt, t)
