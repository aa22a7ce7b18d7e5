"""The one time loop, and its exact gradient by replaying noise over checkpointed segments.

The gradient is that of the discrete simulation (discretise, then differentiate). The forward sweep keeps the state at
no more than 100 steps; the backward sweep recomputes the states between two of them, then pulls the gradient through
one step at a time, drawing the same noise again. Up to 100 steps nothing is recomputed; a thousand take 10 more states.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qsde.noise.base import BlockNoise
from qsde.schemes.base import Scheme, State
from qsde.solve.grid import TimeGrid

#: States stored by the forward sweep.
STORED = 100
#: `advance(state, c, block, step) -> state`
Advance = Callable[[State, Tensor, BlockNoise, Tensor], State]
#: `pull(state, c, block, step, gradient) -> (gradient of the state, gradient of c)`
Pull = Callable[[State, Tensor, BlockNoise, Tensor, State], tuple[State, Tensor]]


@dataclass(frozen=True)
class Kernel:
    """One step of a scheme with its noise, and its vector-Jacobian product; either may be compiled."""

    advance: Advance
    pull: Pull

    @classmethod
    def eager(cls, scheme: Scheme) -> Kernel:
        """The plain functions."""

        def advance(state: State, c: Tensor, block: BlockNoise, step: Tensor) -> State:
            return scheme.step(state, c, *block.draw(step))

        def pull(state: State, c: Tensor, block: BlockNoise, step: Tensor, gradient: State) -> tuple[State, Tensor]:
            normals, uniforms = block.draw(step)
            found = torch.func.vjp(lambda s, coefficients: scheme.step(s, coefficients, normals, uniforms), state, c)
            state_gradient, c_gradient = found[1](gradient)
            return state_gradient, c_gradient

        return cls(advance, pull)


@dataclass(frozen=True)
class Job:
    """What stays the same for all blocks: kernel, grid, and the steps at which each date is seen."""

    kernel: Kernel
    grid: TimeGrid

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.grid.step_size)

    @property
    def stride(self) -> int:
        """Steps between two stored states."""
        return max(1, math.ceil(self.n_steps / STORED))


def simulate(job: Job, block: BlockNoise, coefficients: Tensor, initial: State) -> Tensor:
    """`x = log(S / F)` at the observation dates for one block of paths: [dates, *batch, P].

    Differentiable in `coefficients` and `initial` by reverse mode.

    Args:
        job: kernel and grid.
        block: the block's noise.
        coefficients: numbers of each distinct step size, [sizes, C, *batch, 1].
        initial: state at time 0, [*batch, P] each.
    """
    observed: Tensor = _Simulate.apply(job, block, coefficients, *initial)  # type: ignore[no-untyped-call]
    return observed


class _Simulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: Job, block: BlockNoise, coefficients: Tensor, *initial: Tensor) -> Tensor:
        needs_gradient = any(ctx.needs_input_grad)
        # detached: a kernel is compiled for one kind of input, whether or not somebody wants a gradient
        constants, state = coefficients.detach(), tuple(s.detach() for s in initial)
        seen: list[Tensor] = []
        stored: list[State] = []
        for n in range(job.n_steps + 1):
            while len(seen) < len(job.grid.dates) and job.grid.observed_after[len(seen)] == n:
                seen.append(state[0])
            if n == job.n_steps:
                break
            if needs_gradient and n % job.stride == 0:
                stored.append(state)
            state = _advance(job, block, constants, state, n)
        ctx.job, ctx.block, ctx.stored, ctx.n_states = job, block, stored, len(initial)
        ctx.save_for_backward(coefficients)
        return torch.stack(seen)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        job: Job = ctx.job
        coefficients = ctx.saved_tensors[0].detach()
        flow = tuple(torch.zeros_like(gradient[0]) for _ in range(ctx.n_states))
        c_gradient = torch.zeros_like(coefficients)
        date = len(job.grid.dates) - 1
        for segment in range(len(ctx.stored) - 1, -1, -1):
            first, last = segment * job.stride, min((segment + 1) * job.stride, job.n_steps)
            states = [ctx.stored[segment]]
            for n in range(first, last - 1):
                states.append(_advance(job, ctx.block, coefficients, states[-1], n))
            for n in range(last - 1, first - 1, -1):
                while date >= 0 and job.grid.observed_after[date] == n + 1:
                    flow = (flow[0] + gradient[date], *flow[1:])
                    date -= 1
                size = job.grid.step_size[n]
                step = torch.tensor(n, device=gradient.device)
                flow, c_part = job.kernel.pull(states.pop(), coefficients[size], ctx.block, step, flow)
                c_gradient[size] += c_part
        while date >= 0:
            flow = (flow[0] + gradient[date], *flow[1:])
            date -= 1
        return (None, None, c_gradient, *flow)


def _advance(job: Job, block: BlockNoise, coefficients: Tensor, state: State, n: int) -> State:
    step = torch.tensor(n, device=state[0].device)
    return job.kernel.advance(state, coefficients[job.grid.step_size[n]], block, step)
