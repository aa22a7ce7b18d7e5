"""Paths of a simulation, and their exact gradient by replaying noise over checkpointed segments.

The gradient is that of the discrete simulation (discretise, then differentiate). The forward sweep keeps the state at
no more than 100 steps; the backward sweep recomputes the states between two of them, then pulls the gradient through
one step at a time, drawing the same noise again. Up to 100 steps no state is computed again; a thousand take 10 more
states. Where a job has the memory for all that its steps compute on their way, that is kept instead, and no step is
taken twice. Forward mode pushes tangents through the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.noise.base import BlockNoise
from qsde.numerics import constant
from qsde.schemes.base import State
from qsde.solve.job import Job
from qsde.solve.kernel import Kernel, draws
from qsde.solve.once import SECOND_ORDER, first_order
from qsde.solve.pullback import Tensors
from qsde.solve.transforms import inside_transform, several_at_once
from qsde.solve.walk import Moves, walk


def simulate(
    job: Job, block: BlockNoise, coefficients: Tensor, initial: State, constants: Tensors = ()
) -> tuple[Tensor, ...]:
    """The components `job.seen` of the state at the observation dates for one block of paths: [dates, *batch, P] each.

    Differentiable in `coefficients`, `initial` and `constants`: in reverse mode by replay, in forward mode by tangents,
    both of first order, and under `torch.func.vmap`.

    Args:
        job: kernel and grid.
        block: the block's noise.
        coefficients: numbers of each row, [rows, C, *batch, 1].
        initial: state at time 0, [*batch, P] each.
        constants: what every step needs besides, such as the weights of a network.

    Raises:
        InputError: a second derivative was asked for.
    """
    if inside_transform():  # compiled code does not see through transforms
        job = replace(job, kernel=Kernel.eager(job.kernel.scheme, job.kernel.spare))
    tensors = (coefficients, *initial, *constants)
    if constant(*tensors):
        with torch.no_grad():
            # detached: a kernel is compiled for one kind of input, whether or not somebody wants a gradient
            initial = _detached(initial)
            return Moves.of(job, block, coefficients.detach(), initial, _detached(constants)).walk(job, initial)
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    recorded = _recorded(job, block, coefficients, initial, constants) if keep and job.memory else None
    if recorded is not None:
        return recorded
    out: Tensors = _Simulate.apply(job, block, len(initial), keep, *tensors)  # type: ignore[no-untyped-call]
    return out[: len(job.seen)]


def _recorded(job: Job, block: BlockNoise, coefficients: Tensor, initial: State, constants: Tensors) -> Tensors | None:
    """Paths with the graph of all steps, or None if that would take more than `job.memory`, as the first steps show."""
    if job.kernel.compiled or inside_transform():
        return None
    kept: dict[int, int] = {}

    def weighed(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t.detach()  # as it is, a result that its own step keeps would never be freed

    moves = Moves.of(job, block, coefficients, initial, constants)
    try:
        with torch.autograd.graph.saved_tensors_hooks(weighed, lambda t: t):
            first = moves.move(initial, 0) if job.n_steps else initial
    except RuntimeError:  # a derivative within the step cannot be weighed, and what else fails will fail again
        return None
    if sum(kept.values()) * math.ceil(job.n_steps / moves.together) > job.memory:
        return None
    found = replace(moves, move=lambda s, k: moves.move(s, k) if k else first).walk(job, initial)
    return tuple(first_order(values) for values in found)


class _Simulate(torch.autograd.Function):
    @staticmethod
    def forward(
        job: Job, block: BlockNoise, n: int, keep: bool, coefficients: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        c, state, constants = coefficients.detach(), _detached(rest[:n]), _detached(rest[n:])
        stored: list[Tensor] = []

        def step(state: State, k: int) -> State:
            if keep and k and k % job.stride == 0:
                stored.extend(state)
            return job.advance(state, c, constants, block, k)

        return (*walk(job, state, step), *stored)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        job, block, n, _, *tensors = inputs
        stored = output[len(job.seen) :]
        ctx.job, ctx.block, ctx.n, ctx.n_tensors, ctx.n_stored = job, block, n, len(tensors), len(stored)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*stored)
        ctx.save_for_backward(*tensors, *stored)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        job: Job = ctx.job
        wanted = gradient[: len(job.seen)]
        saved = ctx.saved_tensors
        if all(g is None for g in wanted):
            return (None,) * (4 + int(ctx.n_tensors))
        some = next(g for g in wanted if g is not None)
        full = tuple(torch.zeros_like(some) if g is None else g for g in wanted)
        pulled: Tensors = _Pull.apply(job, ctx.block, ctx.n, ctx.n_tensors, *full, *saved)  # type: ignore[no-untyped-call]
        return (None, None, None, None, *pulled)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        job: Job = ctx.job
        tensors = ctx.saved_tensors
        given = tangents[4:]
        flow = tuple(torch.zeros_like(t) if d is None else d for t, d in zip(tensors, given, strict=True))
        n = ctx.n
        c, state, constants = tensors[0], tensors[1 : 1 + n], tensors[1 + n :]
        dc, dstate, dconstants = flow[0], flow[1 : 1 + n], flow[1 + n :]

        def step(dstate: State, k: int) -> State:
            nonlocal state
            row, drawn = job.rows[k], draws(ctx.block, k, job.kernel.spare)
            found: Any = torch.func.jvp(
                lambda s, cs, w: job.kernel.scheme.step(s, cs, drawn[0], drawn[1], w),
                (state, c[row], constants), (dstate, dc[row], dconstants),
            )  # fmt: skip
            state = found[0]
            pushed: State = found[1]
            return pushed

        return (*walk(job, dstate, step), *(None,) * ctx.n_stored)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], job: Job, block: BlockNoise, n: int, keep: bool, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Parameter sets are a leading batch axis of coefficients and state; networks run one after another."""
        dims, size = in_dims[4:], info.batch_size
        moving_times = dims[0] is not None and job.kernel.scheme.time_dependent
        if not moving_times and all(d is None for d in dims[1 + n :]):
            c = tensors[0] if dims[0] is None else tensors[0].movedim(dims[0], 2)
            initial = (
                (t.expand(size, *t.shape) if d is None else t.movedim(d, 0)).contiguous()
                for t, d in zip(tensors[1 : 1 + n], dims[1 : 1 + n], strict=True)
            )
            out = _Simulate.apply(job, block, n, keep, c, *initial, *tensors[1 + n :])  # type: ignore[no-untyped-call]
            seen = len(job.seen)
            return out, (*(1,) * seen, *(0,) * (len(out) - seen))
        parts = [
            _Simulate.apply(  # type: ignore[no-untyped-call]
                job, block, n, keep, *(t if d is None else t.select(d, i) for t, d in zip(tensors, dims, strict=True))
            )
            for i in range(size)
        ]
        return tuple(torch.stack(column) for column in zip(*parts, strict=True)), (0,) * len(parts[0])


class _Pull(torch.autograd.Function):
    """The backward sweep; a function of its own, so that a second derivative is refused and not wrong."""

    generate_vmap_rule = True

    @staticmethod
    def forward(job: Job, block: BlockNoise, n: int, n_tensors: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        gradient, saved = tensors[: len(job.seen)], _detached(tensors[len(job.seen) :])
        coefficients, constants = saved[0], saved[1 + n : n_tensors]
        starts = [saved[1 : 1 + n], *(saved[i : i + n] for i in range(n_tensors, len(saved), n))]
        flow = tuple(torch.zeros_like(s) for s in starts[0])
        # in place where that works: small tensors kept among large ones would tear the heap
        of_c = None if several_at_once(gradient) else torch.zeros_like(coefficients)
        c_parts: list[Tensor | None] = [None] * len(coefficients)
        of_constants: Tensors | None = None
        for segment in range(math.ceil(job.n_steps / job.stride) - 1, -1, -1):
            first, last = segment * job.stride, min((segment + 1) * job.stride, job.n_steps)
            states = [starts[segment]]
            for k in range(first, last - 1):
                states.append(job.advance(states[-1], coefficients, constants, block, k))
            for k in range(last - 1, first - 1, -1):
                flow = job.added(flow, gradient, k + 1)
                row = job.rows[k]
                step = job.kernel.number(k, flow[0].device)
                flow, c_part, w_part = job.kernel.pull(states.pop(), coefficients[row], constants, block, step, flow)
                if of_c is not None:
                    of_c[row] += c_part
                else:
                    known = c_parts[row]
                    c_parts[row] = c_part if known is None else known + c_part
                of_constants = w_part if of_constants is None else _sum(of_constants, w_part)
        flow = job.added(flow, gradient, 0)
        if of_c is None:
            of_c = torch.stack([torch.zeros_like(coefficients[0]) if p is None else p for p in c_parts])
        return (of_c, *flow, *(of_constants if of_constants is not None else map(torch.zeros_like, constants)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[None, ...]:
        raise InputError(SECOND_ORDER)


def _sum(a: Tensors, b: Tensors) -> Tensors:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _detached(tensors: Sequence[Tensor]) -> Tensors:
    return tuple(t.detach() for t in tensors)
