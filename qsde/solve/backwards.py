"""Gradients by stepping the solution backwards in time: memory does not grow with the number of steps.

`ReversibleWalk` undoes steps algebraically, which is exact; `AdjointWalk` solves the equation and its adjoint
backwards, which is as accurate as the steps are small.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from qsde.models.dynamics import Equation
from qsde.noise.base import BlockNoise
from qsde.schemes.base import State
from qsde.schemes.sde import SDEScheme, Step
from qsde.solve.compiled import OrEager
from qsde.solve.job import Job
from qsde.solve.once import once
from qsde.solve.pullback import Tensors, pullback
from qsde.solve.walk import walk as walked


@dataclass(frozen=True)
class Walk(ABC):
    """How the backward sweep gets from the end of a step to its start.

    Attributes:
        scheme: the scheme of the forward sweep.
        carried: how many tensors of the state it takes along; None stands for all.
        restarts: whether the state is set to what was seen at each date.
    """

    scheme: SDEScheme

    carried: ClassVar[int | None]
    restarts: ClassVar[bool]

    @abstractmethod
    def back(
        self, after: State, flow: State, c: Tensor, constants: Tensors, block: BlockNoise, step: int | Tensor
    ) -> tuple[State, State, Tensor, Tensors]:
        """State and gradient before the step; what the step adds to the gradients of its coefficients and constants."""

    def equation(self, constants: Tensors) -> Equation:
        """The equation with these parameters."""
        assert self.scheme.dynamics is not None, "bound comes first"
        return self.scheme.dynamics.at(constants)


@dataclass(frozen=True)
class ReversibleWalk(Walk):
    """Undoes each step of a time-symmetric scheme: the step from the end with `-dt` and `-dW`.

    Reference:
        Kidger, Foster, Li, Lyons (2021), "Efficient and accurate gradients for neural SDEs", NeurIPS, algorithm 2.
    """

    carried: ClassVar[int | None] = None
    restarts: ClassVar[bool] = False

    def back(
        self, after: State, flow: State, c: Tensor, constants: Tensors, block: BlockNoise, step: int | Tensor
    ) -> tuple[State, State, Tensor, Tensors]:
        """The state is that of the forward sweep up to rounding, and so is the gradient."""
        equation, normals = self.equation(constants), block.draw(step)[0]
        forth = self.scheme.one_step(equation, c, normals)
        before = self.scheme.advance(equation, after, Step(forth.t + forth.dt, -forth.dt, -forth.dw))

        def again(state: State, c: Tensors, constants: Tensors) -> State:
            equation = self.equation(constants)
            return self.scheme.advance(equation, state, self.scheme.one_step(equation, c[0], normals))

        _, (flow, (of_c,), of_constants) = pullback(again, (before, (c,), constants), lambda _: flow)
        return before, flow, of_c, of_constants


@dataclass(frozen=True)
class AdjointWalk(Walk):
    """Heun steps of the backward Stratonovich equation of the state, its adjoint and the gradient of the parameters.

    With `dy = f dt + g o dW` the adjoint `a = dL/dy` solves `da = -a f_y dt - a g_y o dW` on the same Brownian path,
    from the end to the start, and `dL/dtheta = int a f_theta dt + int a g_theta o dW`. An Ito equation is converted:
    `f = f_Ito - (1/2) sum_j (dg_j/dy) g_j`.

    Reference:
        Li, Wong, Chen, Duvenaud (2020), "Scalable gradients for stochastic differential equations", AISTATS,
        section 3 and algorithm 2.
    """

    carried: ClassVar[int | None] = 1
    restarts: ClassVar[bool] = True

    def back(
        self, after: State, flow: State, c: Tensor, constants: Tensors, block: BlockNoise, step: int | Tensor
    ) -> tuple[State, State, Tensor, Tensors]:
        """Two vector-Jacobian products of drift and diffusion."""
        normals = block.draw(step)[0]

        def slope(late: bool) -> Callable[..., Tensors]:
            def at(y: Tensors, c: Tensors, constants: Tensors) -> Tensors:
                equation = self.equation(constants)
                s = self.scheme.one_step(equation, c[0], normals)
                return (_increment(equation, s.t + s.dt if late else s.t, y[0], s),)

            return at

        (y,), (a,) = after, flow
        (end,), ((dy_end,), (dc_end,), w_end) = pullback(slope(late=True), ((y,), (c,), constants), lambda _: (a,))
        back = (y - end,), (c,), constants
        (start,), ((dy,), (dc,), w) = pullback(slope(late=False), back, lambda _: (a + dy_end,))
        parts = tuple(0.5 * (u + v) for u, v in zip(w_end, w, strict=True))
        return (y - 0.5 * (end + start),), (a + 0.5 * (dy_end + dy),), 0.5 * (dc_end + dc), parts


def simulate_backwards(
    walk: Walk, job: Job, block: BlockNoise, coefficients: Tensor, initial: State, constants: Tensors = ()
) -> Tensors:
    """As `qsde.solve.loop.simulate`, with a backward sweep that keeps nothing but the states at the dates."""
    out: Tensors = _Backwards.apply(walk, job, block, len(initial), coefficients, *initial, *constants)  # type: ignore[no-untyped-call]
    return out[: len(job.seen)]


class _Backwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, walk: Walk, job: Job, block: BlockNoise, n: int, *inputs: Tensor) -> Tensors:
        plain = tuple(t.detach() for t in inputs)
        c, state, constants = plain[0], plain[1 : 1 + n], plain[1 + n :]

        def step(before: State, k: int) -> State:
            nonlocal state
            state = job.advance(before, c, constants, block, k)
            return state

        out = walked(job, state, step)
        ctx.walk, ctx.job, ctx.block, ctx.n = walk, job, block, n
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*state)
        ctx.save_for_backward(*inputs, *out, *state)
        return (*out, *state)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        job: Job = ctx.job
        seen = len(job.seen)
        inputs = ctx.saved_tensors[: len(ctx.saved_tensors) - seen - ctx.n]
        out, end = ctx.saved_tensors[len(inputs) : len(inputs) + seen], ctx.saved_tensors[len(inputs) + seen :]
        given = [g for g in gradient[:seen] if g is not None]
        if not given:
            return (None,) * (4 + len(inputs))
        full = tuple(torch.zeros_like(o) if g is None else g for g, o in zip(gradient, out, strict=False))
        with torch.no_grad():
            parts = _swept(ctx.walk, job, ctx.block, tuple(t.detach() for t in inputs), ctx.n, out, end, full)
        return (None, None, None, None, *once(parts, *given, *inputs))


@functools.lru_cache(maxsize=32)
def compiled_back(walk: Walk) -> Callable[..., tuple[State, State, Tensor, Tensors]]:
    """The backward step through `torch.compile`."""
    return OrEager(walk.back, walk.scheme)


def _swept(
    walk: Walk, job: Job, block: BlockNoise, inputs: Tensors, n: int, out: Tensors, end: State, gradient: Tensors
) -> Tensors:
    """Gradients of coefficients, initial state and constants."""
    c, constants = inputs[0], inputs[1 + n :]
    state = end[: walk.carried]
    flow = tuple(torch.zeros_like(s) for s in state)
    of_c, of_constants = torch.zeros_like(c), tuple(torch.zeros_like(w) for w in constants)
    back = compiled_back(walk) if job.kernel.compiled else walk.back
    for k in range(job.n_steps, -1, -1):
        flow = job.added(flow, gradient, k)
        if walk.restarts and k in job.dates:
            state = tuple(o[job.dates[k][0]] for o in out)
        if k == 0:
            break
        row, step = job.rows[k - 1], job.kernel.number(k - 1, c.device)
        state, flow, c_part, parts = back(state, flow, c[row], constants, block, step)
        of_c[row] += c_part
        of_constants = tuple(u + v for u, v in zip(of_constants, parts, strict=True))
    rest = tuple(torch.zeros_like(s) for s in inputs[1 + len(flow) : 1 + n])
    return (of_c, *flow, *rest, *of_constants)


def _increment(equation: Equation, t: Tensor, y: Tensor, step: Step) -> Tensor:
    """`f dt + g dW` with the Stratonovich drift."""
    g = equation.diffusion(t, y)
    drift = equation.drift(t, y)
    if equation.dynamics.interpretation == "ito" and equation.dynamics.noise != "additive":
        drift = drift - 0.5 * _correction(equation, t, y, g)
    return drift * step.dt + equation.product(g, step.dw)


def _correction(equation: Equation, t: Tensor, y: Tensor, g: Tensor) -> Tensor:
    """`sum_j (dg_j/dy) g_j`; entry by entry where the noise is diagonal."""

    def turned(direction: Tensor) -> Tensor:
        moved: Tensor = torch.func.jvp(lambda s: equation.diffusion(t, s), (y,), (direction,))[1]
        return moved

    if equation.dynamics.layout != "matrix":
        return turned(g)
    return sum((turned(column)[..., j] for j, column in enumerate(g.unbind(-1))), torch.zeros_like(y))
