"""Gradients by tangents that go forwards with the state: memory does not grow with the number of steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.noise.base import BlockNoise
from qsde.schemes.base import State
from qsde.solve.job import Job
from qsde.solve.kernel import draws
from qsde.solve.once import once
from qsde.solve.pullback import Tensors

#: Tangents at most: each costs about as much as the state itself.
MAX_TANGENTS = 512


def simulate_forward(
    job: Job, block: BlockNoise, coefficients: Tensor, initial: State, constants: Tensors = ()
) -> Tensors:
    """As `qsde.solve.loop.simulate`; the gradient is that of tangents carried along, one for each number asked about.

    Those are the entries of the parameters, and the entries of one path's state and of one path's own parameters.

    Raises:
        InputError: more than 512 tangents, or a gradient to the times.
    """
    inputs = (*initial, *constants)
    wanted = tuple(torch.is_grad_enabled() and t.requires_grad for t in inputs)
    if torch.is_grad_enabled() and coefficients.requires_grad:
        raise InputError("gradient='forward' has no gradient to ts; use gradient='checkpoint'")
    per_path = job.kernel.scheme.dynamics.per_path  # type: ignore[attr-defined]
    shared = len(inputs) - per_path
    own = tuple(i < len(initial) or i >= shared for i in range(len(inputs)))
    plan = _Plan(job, block, len(initial), wanted, own)
    n = sum(plan.sizes(inputs))
    if n > MAX_TANGENTS:
        raise InputError(
            f"gradient='forward' would carry {n} tangents, one for each number that a gradient is asked for, and takes "
            f"at most {MAX_TANGENTS}; use gradient='checkpoint'"
        )
    out: Tensors = _Tangents.apply(plan, coefficients, *inputs)  # type: ignore[no-untyped-call]
    return out[: len(job.seen)]


@dataclass(frozen=True)
class _Plan:
    """What is carried.

    Attributes:
        job, block: steps and noise.
        n_state: number of tensors of the state, the first inputs.
        wanted: for each input, whether a gradient is asked for.
        own: for each input, whether its first axis is that of the paths.
    """

    job: Job
    block: BlockNoise
    n_state: int
    wanted: tuple[bool, ...]
    own: tuple[bool, ...]

    def sizes(self, inputs: Tensors) -> list[int]:
        """Number of tangents of each input."""
        return [
            math.prod(t.shape[own:]) if asked else 0
            for t, asked, own in zip(inputs, self.wanted, self.own, strict=True)
        ]

    def units(self, inputs: Tensors) -> Tensors:
        """Tangents [n, ...] of each input: the unit vectors of its own entries, zero for those of others."""
        sizes = self.sizes(inputs)
        out, first = [], 0
        for t, size, own in zip(inputs, sizes, self.own, strict=True):
            entries = t.shape[own:]
            unit = torch.zeros((sum(sizes), math.prod(entries)), dtype=t.dtype, device=t.device)
            unit[first : first + size] = torch.eye(size, math.prod(entries), dtype=t.dtype, device=t.device)
            unit = unit.view(-1, *(1,) * own, *entries)
            out.append(unit.expand(-1, *t.shape))
            first += size
        return tuple(out)

    def collected(self, inputs: Tensors, products: Tensor) -> list[Tensor | None]:
        """Gradients of the inputs from products [n, P] of tangents and gradients of the paths."""
        parts = products.split(self.sizes(inputs))
        out: list[Tensor | None] = []
        for t, part, asked, own in zip(inputs, parts, self.wanted, self.own, strict=True):
            gradient = part.movedim(0, -1) if own else part.sum(-1)
            out.append(gradient.reshape(t.shape) if asked else None)
        return out


class _Tangents(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, coefficients: Tensor, *inputs: Tensor) -> Tensors:
        job, n = plan.job, plan.n_state
        c, plain = coefficients.detach(), tuple(t.detach() for t in inputs)
        state, constants = plain[:n], plain[n:]
        units = plan.units(plain)
        flow, moved = units[:n], units[n:]
        seen: list[tuple[State, State]] = []
        for k in range(job.n_steps + 1):
            seen += [(state, flow)] * job.grid.observed_after.count(k)
            if k < job.n_steps:
                drawn = draws(plan.block, k, job.kernel.spare)
                state, flow = _advance(job, c[job.rows[k]], drawn, (state, constants), (flow, moved))
        values = [torch.stack([s[i] for s, _ in seen]) for i in job.seen]
        tangents = [torch.stack([f[i] for _, f in seen], 1) for i in job.seen]
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*tangents)
        ctx.save_for_backward(*inputs, *tangents)
        return (*values, *tangents)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        inputs, tangents = ctx.saved_tensors[: len(plan.wanted)], ctx.saved_tensors[len(plan.wanted) :]
        given = [(g, t) for g, t in zip(gradient, tangents, strict=False) if g is not None]
        if not given:
            return (None,) * (2 + len(inputs))
        with torch.no_grad():
            # [n, dates, P, *shape] to [n, P]
            products = sum((g * t).movedim(2, 1).flatten(2).sum(-1) for g, t in given)
            parts = plan.collected(inputs, products)
        return (None, None, *once(parts, *(g for g, _ in given), *inputs))


def _advance(
    job: Job, c: Tensor, drawn: tuple[Tensor, Tensor], primals: tuple[State, Tensors], tangents: tuple[State, Tensors]
) -> tuple[State, State]:
    """One step of the state and of all tangents."""

    def moved(*tangent: Any) -> tuple[State, State]:
        new = torch.func.jvp(lambda s, w: job.kernel.scheme.step(s, c, *drawn, w), primals, tangent)
        return new[0], new[1]

    if not len(tangents[0][0]):
        return job.kernel.scheme.step(primals[0], c, *drawn, primals[1]), tangents[0]
    out: tuple[State, State] = torch.func.vmap(moved, out_dims=(None, 0))(*tangents)  # type: ignore[arg-type]
    return out
