"""Compound Poisson jumps on top of any diffusion scheme."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.base import Model
from qsde.models.jumps import JumpLaw, MertonJumps
from qsde.schemes.base import Scheme, State, Stretch
from qsde.schemes.jump_samplers import SAMPLERS
from qsde.schemes.layers import layers, refusal, with_jumps_text
from qsde.schemes.rows import rows


@dataclass(frozen=True)
class WithJumps(Scheme):
    """A diffusion scheme with independent compensated jumps in `x`: Merton, Kou, Bates and every other mix.

    `x' = x_diffusion' + J_1 + ... + J_N - intensity dt (E[exp(J)] - 1)`, N Poisson with mean `intensity dt` by inverse
    cdf of a uniform. The jump part is exact at any step size and `E[exp(x')] = exp(x)` wherever it holds for the
    diffusion. Counts beyond a bound of probability below 1e-13 are cut.

    Pathwise derivatives to a jump *intensity* see the compensator only, since the count is an integer; those to the law
    of the sizes are complete.

    Args:
        diffusion: scheme of the innermost model, which takes normals only.
        laws: the jump laws, innermost first, one for each JumpDiffusion around that model.
        tracked: whether the state ends with the jump of the last step, for contracts watched continuously.

    Example:
        >>> from qsde.models import merton
        >>> from qsde.schemes.exact import Exact
        >>> scheme = WithJumps(Exact())
        >>> scheme.check(merton(vol=0.2, intensity=0.3, mean=-0.1, std=0.15))
        >>> scheme.draws(merton(vol=0.2, intensity=0.3, mean=-0.1, std=0.15), 0.25)
        (2, 1)
    """

    diffusion: Scheme
    laws: tuple[type[JumpLaw], ...] = (MertonJumps,)
    tracked: bool = False

    jumps: ClassVar[bool] = True
    weak_order: ClassVar[float] = 1.0
    strong_order: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        unknown = [law.__name__ for law in self.laws if law not in SAMPLERS]
        if unknown or not self.laws:
            known = [law.__name__ for law in SAMPLERS]
            raise InputError(f"laws must be a tuple of jump laws out of {known}, got {unknown or self.laws}")

        # jumps are exact, so the orders are those of the diffusion
        for name in ("weak_order", "strong_order", "exact", "time_dependent", "at_once"):
            object.__setattr__(self, name, getattr(self.diffusion, name))

    def __repr__(self) -> str:
        return with_jumps_text(repr(self.diffusion), self.laws)

    def check(self, model: Model) -> None:
        """Refuses models without these jumps, and diffusions that the inner scheme refuses."""
        inner, jumps = layers(model)
        got = tuple(type(law) for law in jumps)
        if got != self.laws:
            raise refusal(f"{self!r} steps a JumpDiffusion with exactly these jumps", model)
        self.diffusion.check(inner)
        if self.diffusion.draws(inner, 1.0)[1]:
            raise InputError(f"{self!r}: the diffusion under jumps must take normals only, such as HestonQE()")

    def bind(self, model: Model) -> WithJumps:
        """Binds the diffusion's scheme."""
        return replace(self, diffusion=self.diffusion.bind(layers(model)[0]))

    def watching(self) -> WithJumps:
        """The same scheme, tracked."""
        return replace(self, tracked=True)

    def conditional(self) -> WithJumps | None:
        """Jumps on the diffusion's conditional scheme, if it has one."""
        inner = self.diffusion.conditional()
        return None if inner is None else replace(self, diffusion=inner)

    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """Normals of the jumps and the diffusion; uniforms, as many for each law as the neediest of them takes."""
        inner, jumps = layers(model)
        normals = sum(SAMPLERS[type(law)].normals for law in jumps) + self.diffusion.draws(inner, dt)[0]
        share = max(SAMPLERS[type(law)].uniforms(float(law.intensity.detach().max()) * dt) for law in jumps)
        return normals, share * len(jumps)

    def knots(self, model: Model) -> tuple[float, ...]:
        """Those of the diffusion."""
        return self.diffusion.knots(layers(model)[0])

    def longest(self, model: Model) -> float:
        """That of the diffusion."""
        return self.diffusion.longest(layers(model)[0])

    def initial(self, model: Model) -> State:
        """State of the diffusion, and a jump of 0 if it is tracked."""
        state = self.diffusion.initial(layers(model)[0])
        full = tuple(s.expand(torch.broadcast_shapes(s.shape, model.batch_shape)) for s in state)
        return (*full, torch.zeros_like(full[0])) if self.tracked else full

    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """Those of each law, then those of the diffusion."""
        inner, jumps = layers(model)
        of_jumps = [value for law in jumps for value in SAMPLERS[type(law)].coefficients(law, dt)]
        return rows(model, *of_jumps, *self.diffusion.coefficients(inner, dt, t).unbind(0))

    def constants(self, model: Model) -> tuple[Tensor, ...]:
        """Those of the diffusion."""
        return self.diffusion.constants(layers(model)[0])

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """Jumps of every law, and a step of the diffusion with the draws that remain."""
        jump, c, normals = self._jump(c, normals, uniforms)
        x, *rest = self.diffusion.step(self._before(state), c, normals, uniforms[:0], constants)
        return (x + jump, *rest, *self._tail(jump))

    def steps(self, state: State, stretch: Stretch) -> State:
        """The same at once, if the diffusion can."""
        jump, c, normals = self._jump(stretch.c, stretch.normals, stretch.uniforms)
        jump = jump if stretch.jumps is None else jump + stretch.jumps
        rest = Stretch(c, normals, stretch.uniforms[:0], stretch.constants, jump)
        return *self.diffusion.steps(self._before(state), rest), *self._tail(jump)

    def _jump(self, c: Tensor, normals: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Jumps of every law, and the coefficients and normals that remain."""
        share = len(uniforms) // len(self.laws)
        jump = torch.zeros(())
        for i, law in enumerate(self.laws):
            sampler = SAMPLERS[law]
            jump = jump + sampler.sum(c, normals, uniforms[i * share : (i + 1) * share])
            c, normals = c[sampler.rows :], normals[sampler.normals :]
        return jump, c, normals

    def _before(self, state: State) -> State:
        return state[:-1] if self.tracked else state

    def _tail(self, jump: Tensor) -> State:
        return (jump,) if self.tracked else ()

    def variance(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """That of the diffusion."""
        return self.diffusion.variance(layers(model)[0], before, after, dt, t)

    def slope(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor | None:
        """That of the diffusion."""
        return self.diffusion.slope(layers(model)[0], before, after, dt, t)
