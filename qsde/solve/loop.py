"""The one time loop, and its exact gradient by replaying noise over checkpointed segments.

The gradient is that of the discrete simulation (discretise, then differentiate). The forward sweep keeps the state at
no more than 100 steps; the backward sweep recomputes the states between two of them, then pulls the gradient through
one step at a time, drawing the same noise again. Up to 100 steps no state is computed again; a thousand take 10 more
states. Where a job has the memory for all that its steps compute on their way, that is kept instead, and no step is
taken twice. Forward mode pushes tangents through the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.noise.base import BlockNoise
from qsde.numerics import constant
from qsde.schemes.base import Scheme, State
from qsde.solve.grid import TimeGrid
from qsde.solve.pullback import pullback
from qsde.solve.transforms import inside_transform, several_at_once

#: States stored by the forward sweep.
STORED = 100
#: States of at most so many numbers are moved several steps at once, so many numbers together: such steps cost what
#: torch takes to start their operations.
_FEW, _AT_ONCE = 1 << 12, 1 << 15
Tensors = tuple[Tensor, ...]
#: `advance(state, c, constants, block, step) -> state`
Advance = Callable[[State, Tensor, Tensors, BlockNoise, int | Tensor], State]
#: `pull(state, c, constants, block, step, gradient) -> (gradient of the state, of c, of the constants)`
Pull = Callable[[State, Tensor, Tensors, BlockNoise, int | Tensor, State], tuple[State, Tensor, Tensors]]


@dataclass(frozen=True)
class Kernel:
    """One step of a scheme with its noise, and its vector-Jacobian product; either may be compiled.

    Attributes:
        scheme: the scheme.
        advance, pull: the two functions.
        spare: uniforms of a step, the last ones, that are not the scheme's.
        compiled: whether the functions are compiled, and draw in their own code.
    """

    scheme: Scheme
    advance: Advance
    pull: Pull
    spare: int = 0
    compiled: bool = False

    @classmethod
    def eager(cls, scheme: Scheme, spare: int = 0) -> Kernel:
        """The plain functions."""

        def advance(state: State, c: Tensor, constants: Tensors, block: BlockNoise, step: int | Tensor) -> State:
            return scheme.step(state, c, *draws(block, step, spare), constants)

        def pull(
            state: State, c: Tensor, constants: Tensors, block: BlockNoise, step: int | Tensor, gradient: State
        ) -> tuple[State, Tensor, Tensors]:
            normals, uniforms = draws(block, step, spare)

            def step_of(state: State, c: Tensors, constants: Tensors) -> State:
                return scheme.step(state, c[0], normals, uniforms, constants)

            _, (flow, (of_c,), of_constants) = pullback(step_of, (state, (c,), constants), lambda _: gradient)
            return flow, of_c, of_constants

        return cls(scheme, advance, pull, spare)

    def number(self, k: int, device: torch.device) -> int | Tensor:
        """The number of a step as the functions take it: a tensor if they would be compiled for each number."""
        return torch.full((), k, device=device) if self.compiled else k


def draws(block: BlockNoise, step: int | Tensor, spare: int) -> tuple[Tensor, Tensor]:
    """Normals and uniforms of a step, without the last `spare` uniforms."""
    normals, uniforms = block.draw(step)
    return normals, uniforms[: len(uniforms) - spare]


@dataclass(frozen=True)
class Job:
    """What stays the same for all blocks.

    Attributes:
        kernel: the step.
        grid: the steps, and after which of them each date is seen.
        rows: for each step, the row of the coefficients that it takes.
        seen: components of the state that are kept at the dates.
        memory: bytes that a block may take to keep what the steps compute on their way, for the gradient.
    """

    kernel: Kernel
    grid: TimeGrid
    rows: tuple[int, ...]
    seen: tuple[int, ...] = (0,)
    memory: int = 0

    @classmethod
    def of(
        cls, kernel: Kernel, grid: TimeGrid, seen: Sequence[int] = (0,), memory: int = 0, apart: bool = False
    ) -> Job:
        """The job of a kernel: steps of one size share a row, unless they are kept `apart` or the scheme needs it."""
        each = apart or kernel.scheme.time_dependent
        rows = tuple(range(len(grid.step_size))) if each else grid.step_size
        return cls(kernel, grid, rows, tuple(seen), memory)

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.grid.step_size)

    @property
    def stride(self) -> int:
        """Steps between two stored states."""
        return max(1, math.ceil(self.n_steps / STORED))

    def row_times(self) -> tuple[Tensor, Tensor]:
        """Size and start of the step of each row of the coefficients, [rows] each."""
        grid, times = self.grid, torch.tensor(self.grid.times, dtype=torch.float64)
        firsts = sorted({row: k for k, row in reversed([*enumerate(self.rows)])}.values())  # rows come in their order
        sizes = torch.tensor([grid.sizes[grid.step_size[k]] for k in firsts], dtype=torch.float64)
        return sizes, times[torch.tensor(firsts, dtype=torch.long)]


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
            return _walked(job, initial, *_moves(job, block, coefficients.detach(), initial, _detached(constants)))
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    recorded = _recorded(job, block, coefficients, initial, constants) if keep and job.memory else None
    if recorded is not None:
        return recorded
    out: Tensors = _Simulate.apply(job, block, len(initial), keep, *tensors)  # type: ignore[no-untyped-call]
    return out[: len(job.seen)]


def walk(job: Job, state: State, step: Callable[[State, int], State]) -> Tensors:
    """The components `job.seen` at the observation dates, from a function of the state and the number of the step."""
    seen: list[State] = []
    dates = job.grid.observed_after
    for k in range(job.n_steps + 1):
        while len(seen) < len(dates) and dates[len(seen)] == k:
            seen.append(state)
        if k < job.n_steps:
            state = step(state, k)
    return tuple(torch.stack([s[i] for s in seen]) for i in job.seen)


def _moves(
    job: Job, block: BlockNoise, coefficients: Tensor, initial: State, constants: Tensors
) -> tuple[int, Callable[[State, int], State]]:
    """How many steps to take at once, and what takes them from a state and the number of the first."""
    few = not job.kernel.compiled and job.kernel.scheme.at_once and initial[0].numel() <= _FEW
    together = _AT_ONCE // initial[0].numel() if few else 1
    if together > 1:
        return together, lambda s, k: _leap(job, block, coefficients, constants, s, k, together)
    rows = coefficients.unbind(0)  # indexed, each step's gradient would be as large as all rows
    return 1, lambda s, k: _advance(job, block, rows, constants, s, k)


def _leap(
    job: Job, block: BlockNoise, coefficients: Tensor, constants: Tensors, state: State, first: int, together: int
) -> State:
    """The states [steps, *batch, P] after each of `together` steps, or as many as are left."""
    rows = list(job.rows[first : first + together])
    drawn = (z.transpose(0, 1) for z in block.stretch(first, first + len(rows)))
    normals, uniforms = (z.reshape(*z.shape[:2], *(1,) * (state[0].dim() + 2 - z.dim()), *z.shape[2:]) for z in drawn)
    uniforms = uniforms[: len(uniforms) - job.kernel.spare]
    # a sixth less time, where states are copied by whoever looks at them; devices need not know it
    with torch.inference_mode(not torch.is_grad_enabled() and state[0].device.type == "cpu"):
        return job.kernel.scheme.steps(state, coefficients[rows].transpose(0, 1), normals, uniforms, constants)


def _walked(job: Job, initial: State, together: int, move: Callable[[State, int], State]) -> Tensors:
    """`walk` by `_moves`."""
    if together == 1:
        return walk(job, initial, move)
    dates, state = job.grid.observed_after, initial
    seen = [tuple(state[i].unsqueeze(0) for i in job.seen)] * (0 in dates)
    for first in range(0, job.n_steps, together):
        path = move(state, first)
        at = [k - first - 1 for k in dates if first < k <= first + together]
        whole = at == [*range(len(path[0]))]
        seen.append(tuple(path[i] if whole else path[i][at] for i in job.seen))
        state = tuple(s[-1] for s in path)
    return tuple(torch.cat(column) for column in zip(*seen, strict=True))


def _recorded(job: Job, block: BlockNoise, coefficients: Tensor, initial: State, constants: Tensors) -> Tensors | None:
    """Paths with the graph of all steps, or None if that would take more than `job.memory`, as the first steps show."""
    if job.kernel.compiled or inside_transform():
        return None
    kept: dict[int, int] = {}

    def weighed(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t.detach()  # as it is, a result that its own step keeps would never be freed

    together, move = _moves(job, block, coefficients, initial, constants)
    try:
        with torch.autograd.graph.saved_tensors_hooks(weighed, lambda t: t):
            first = move(initial, 0) if job.n_steps else initial
    except RuntimeError:  # a derivative within the step cannot be weighed, and what else fails will fail again
        return None
    if sum(kept.values()) * math.ceil(job.n_steps / together) > job.memory:
        return None

    found = _walked(job, initial, together, lambda s, k: move(s, k) if k else first)
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
            return _advance(job, block, c, constants, state, k)

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
        dates = job.grid.observed_after
        date = len(dates) - 1
        for segment in range(math.ceil(job.n_steps / job.stride) - 1, -1, -1):
            first, last = segment * job.stride, min((segment + 1) * job.stride, job.n_steps)
            states = [starts[segment]]
            for k in range(first, last - 1):
                states.append(_advance(job, block, coefficients, constants, states[-1], k))
            for k in range(last - 1, first - 1, -1):
                while date >= 0 and dates[date] == k + 1:
                    flow = added(flow, job.seen, [g[date] for g in gradient])
                    date -= 1
                row = job.rows[k]
                step = job.kernel.number(k, flow[0].device)
                flow, c_part, w_part = job.kernel.pull(states.pop(), coefficients[row], constants, block, step, flow)
                if of_c is not None:
                    of_c[row] += c_part
                else:
                    known = c_parts[row]
                    c_parts[row] = c_part if known is None else known + c_part
                of_constants = w_part if of_constants is None else _sum(of_constants, w_part)
        while date >= 0:
            flow = added(flow, job.seen, [g[date] for g in gradient])
            date -= 1
        if of_c is None:
            of_c = torch.stack([torch.zeros_like(coefficients[0]) if p is None else p for p in c_parts])
        return (of_c, *flow, *(of_constants if of_constants is not None else map(torch.zeros_like, constants)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[None, ...]:
        raise second_order()


def first_order(values: Tensor) -> Tensor:
    """The same values, whose gradient may not be differentiated again: kinks of a payoff have no second derivative.

    Without it the second derivative of a price to the spot would come out as 0.
    """
    sealed: Tensor = values if constant(values) else _FirstOrder.apply(values)  # type: ignore[no-untyped-call]
    return sealed


def second_order() -> InputError:
    """The error of whoever asks for a second derivative path by path."""
    return InputError(
        "simulated prices have gradients of first order: differentiating a gradient once more would miss the kinks of "
        "the payoffs; use qsde.greeks.greeks, or a difference of first-order gradients with the same noise"
    )


class _FirstOrder(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # the gradient of a kink does not depend on the values; that it seems to makes the second one ask here
        found: Tensor = _Sealed.apply(gradient, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return found

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.view_as(tangent)


class _Sealed(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, values: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        raise second_order()


def _advance(
    job: Job, block: BlockNoise, coefficients: Tensor | Tensors, constants: Tensors, state: State, k: int
) -> State:
    step = job.kernel.number(k, state[0].device)
    return job.kernel.advance(state, coefficients[job.rows[k]], constants, block, step)


def added(flow: State, seen: tuple[int, ...], gradient: Sequence[Tensor]) -> State:
    """The flow, and the gradient of what is seen at a date."""
    out = list(flow)
    for i, g in zip(seen, gradient, strict=True):
        out[i] = out[i] + g
    return tuple(out)


def _sum(a: Tensors, b: Tensors) -> Tensors:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _detached(tensors: Sequence[Tensor]) -> Tensors:
    return tuple(t.detach() for t in tensors)
