"""Derivatives to jump intensities and to time: what one more jump would do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from qsde.models.base import Model
from qsde.models.jump_diffusion import JumpDiffusion
from qsde.models.jumps import JumpLaw, moves_by_jumps
from qsde.noise import Noise, Threefry
from qsde.noise.seeds import seed_of
from qsde.pricing.simulation import Block
from qsde.schemes.jump_samplers import SAMPLERS

#: What the seed of the extra jumps is for.
_PURPOSE = 41


@dataclass(frozen=True)
class ExtraJump:
    """Adds one jump at a uniform time to every path.

    For jumps that arrive at rate `lambda` over a span `T`, with `f` the worth of a path,

        `d E[f] / d lambda = T (E[f(path with one more jump at a uniform time)] - E[f(path)])`,

    besides the effect of the compensator, which moves paths smoothly. Unbiased, also for payoffs that jump; the two
    expectations share their paths. The derivative to `T` is the same with `lambda` in place of `T`.

    Reference:
        Last, Penrose (2017), "Lectures on the Poisson Process", theorem 19.3 (Russo's formula); Glasserman and Liu
        (2010), "Sensitivity estimates from characteristic functions", Operations Research 58(6), for the problem.

    Attributes:
        law: the jump law.
        span: years over which jumps may come.
        noise: where times and sizes of the jumps come from.
    """

    law: JumpLaw
    span: float
    noise: Threefry

    @property
    def intensity(self) -> float:
        """Jumps per year."""
        return float(self.law.intensity.detach())

    def until(self, date: float) -> ExtraJump:
        """The jump at a uniform time up to a date."""
        return replace(self, span=date)

    def __call__(self, block: Block) -> Block:
        """The block with the jump."""
        x = block.states[0]
        draws = self.noise.block(block.numbers, 1, 0, 2, x.dtype, x.device)
        when, size = (u.unflatten(0, (*x.shape[1:-1], -1))[..., : block.n_paths] for u in draws.columns(0)[1])
        law = self.law.with_params({k: v.detach().unsqueeze(-1).to(x) for k, v in self.law.params.items()})
        jump = SAMPLERS[type(law)].size(law, size)
        dates = torch.tensor(block.dates, dtype=x.dtype, device=x.device).reshape(-1, *(1,) * (x.dim() - 1))
        come = (dates >= self.span * when).to(x.dtype)
        first = torch.diff(come, dim=0, prepend=torch.zeros_like(come[:1]))
        return block.moved(come * jump, first * jump)


def extra_jumps(model: Model, span: float, noise: Noise) -> dict[str, ExtraJump]:
    """The extra jump of each jump law, by the name of its intensity among the parameters.

    Args:
        model: the model.
        span: years over which jumps may come: to the last date at least.
        noise: the noise of the simulation, from whose seed that of the jumps is made.
    """
    found: dict[str, ExtraJump] = {}
    while isinstance(model, JumpDiffusion):
        name = next(k for k in model.params if k not in model.diffusion.params and moves_by_jumps(k))
        found[name] = ExtraJump(model.jumps, span, Threefry(seed_of(noise, _PURPOSE + len(found))))
        model = model.diffusion
    return found
