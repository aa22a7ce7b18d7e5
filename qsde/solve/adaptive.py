"""Step sizes that follow the error, on one Brownian path: the grid is found first, then solved on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError, StepLimitError
from qsde.noise.brownian_tree import BrownianBlock, BrownianPoint, BrownianTree
from qsde.schemes.base import State
from qsde.schemes.sde import SDEScheme
from qsde.solve.steps import Steps

#: Halvings between the whole time and the smallest step, where `min_dt` is not given.
_HALVINGS = 16
#: Halvings that the Brownian tree has counters for.
_MOST_HALVINGS = 27


@dataclass(frozen=True)
class PID:
    """How the error of a step decides the size of the next: `dt' = dt * factor`.

    With `e` the error over the tolerance, `e1` and `e2` those of the two steps accepted before, and `k` the order of
    the error in the step size, `factor = safety * e^-((p+i+d)/k) e1^((p+2d)/k) e2^(-d/k)`, within [least, most].

    Attributes:
        proportional, integral, derivative: p, i and d. `PID(0, 1, 0)` looks at the last error alone.
        safety: below 1.
        least, most: bounds of the factor.

    Reference:
        Soderlind (2003), "Digital filters in adaptive time-stepping", ACM Trans. Math. Softw. 29.

    Example:
        >>> PID()
        PID(proportional=0.1, integral=0.3, derivative=0.0, safety=0.9, least=0.125, most=8.0)
    """

    proportional: float = 0.1
    integral: float = 0.3
    derivative: float = 0.0
    safety: float = 0.9
    least: float = 0.125
    most: float = 8.0

    def __post_init__(self) -> None:
        if not (0 < self.safety <= 1 and 0 < self.least < 1 < self.most and self.integral > 0):
            raise InputError(f"PID needs 0 < safety <= 1, 0 < least < 1 < most and integral > 0, got {self}")

    def factor(self, error: Tensor, before: Tensor, order: float) -> Tensor:
        """Factors [Q] from errors [Q] and those of the two accepted steps before [2, Q]."""
        p, i, d = self.proportional / order, self.integral / order, self.derivative / order
        raw = self.safety * error ** -(p + i + d) * before[0] ** (p + 2 * d) * before[1] ** -d
        return raw.clamp(self.least, self.most)


@dataclass(frozen=True)
class Adaptive:
    """Steps as small as the tolerance asks.

    Each step is taken once whole and once in two halves on the same Brownian path; the halves are kept where the
    difference, over `atol + rtol max(|y|, |y'|)` and in the root mean square, is at most 1. Sizes are halvings of the
    interval between two of the times `ts`, so that steps land on `ts`, refinements are nested, and no time that was
    looked at is skipped later: without that, adaptive solutions may converge to something else (see the reference).

    Attributes:
        rtol, atol: relative and absolute tolerance of one step.
        controller: what turns errors into sizes.
        first_step: size to try first; None takes 1/64 of the whole time.
        min_dt: no step is smaller; None takes 2^-16 of the whole time, or half of `max_dt` if that is less.
        max_dt: no step is larger; at least twice `min_dt`, since sizes are halvings.
        per: "shared": one grid for all paths, from the error over all of them. "path": each path has its own; the
            functions are then given `t` as [P, 1, ...].
        max_steps: steps tried at most, accepted or not.

    Reference:
        Foster, Jelincic (2023), "On the convergence of adaptive approximations for stochastic differential equations",
        arXiv:2311.14201; Gaines, Lyons (1997), SIAM J. Appl. Math. 57.

    Example:
        >>> Adaptive(rtol=1e-3, atol=1e-6, per="path").per
        'path'
    """

    rtol: float = 1e-3
    atol: float = 1e-5
    controller: PID = field(default_factory=PID)
    first_step: float | None = None
    min_dt: float | None = None
    max_dt: float = math.inf
    per: Literal["shared", "path"] = "shared"
    max_steps: int = 1 << 16

    def __post_init__(self) -> None:
        if not (
            self.rtol >= 0 and self.atol >= 0 and self.rtol + self.atol > 0 and math.isfinite(self.rtol + self.atol)
        ):
            raise InputError(f"Adaptive: rtol and atol must be >= 0 and not both 0, got {self.rtol} and {self.atol}")
        for name in ("first_step", "min_dt", "max_dt"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"Adaptive: {name} must be positive, in the unit of ts, got {value}")
        if self.min_dt is not None and self.max_dt < 2 * self.min_dt:
            raise InputError(
                f"Adaptive: max_dt must be at least twice min_dt, got max_dt={self.max_dt:g} and "
                f"min_dt={self.min_dt:g}: steps are halvings of the time between two ts"
            )
        if self.per not in ("shared", "path"):
            raise InputError(f"Adaptive: per must be 'shared' or 'path', got {self.per!r}")
        if self.max_steps < 1:
            raise InputError(f"Adaptive: max_steps must be at least 1, got {self.max_steps}")

    def smallest(self, ts: Tensor) -> float:
        """The smallest step over these times."""
        whole = float(ts[-1] - ts[0])
        least = whole * 2.0**-_MOST_HALVINGS
        smallest = self.min_dt or min(whole * 2.0**-_HALVINGS, 0.5 * self.max_dt)
        if smallest < least:
            name = "min_dt" if self.min_dt else "half of max_dt"
            raise InputError(
                f"Adaptive: {name} must be at least 2^-{_MOST_HALVINGS} of the whole time, {least:.3g}, got "
                f"{smallest:.3g}"
            )
        # an interval between two times has at least two steps
        return min(smallest, float(ts.diff().min()) / 2)


def check_adaptive(scheme: SDEScheme) -> None:
    """Refuses schemes whose steps, chosen by what the path does later, would not converge to the solution.

    Raises:
        InputError: an Ito scheme below strong order 1.
    """
    assert scheme.dynamics is not None, "bound comes first"
    noise = scheme.dynamics.noise
    if scheme.interpretation == "ito" and scheme.orders[noise].strong < 1:
        fit = "ItoMilstein()" if noise in ("diagonal", "scalar") else "a Stratonovich SDE with Heun()"
        raise InputError(
            f"adaptive steps need a scheme of strong order 1, or one of Stratonovich type, and {type(scheme).__name__} "
            f"has order {scheme.orders[noise].strong:g} for {noise} noise; use {fit}"
        )


def tree_for(adaptive: Adaptive, ts: Tensor, seed: int, rounds: int) -> BrownianTree:
    """The Brownian tree that holds every time the search may ask about."""
    smallest = min(_unit(float(span), adaptive.smallest(ts))[1] for span in ts.diff())
    return BrownianTree(seed, float(ts[0]), float(ts[-1]), smallest, rounds)


def accepted_steps(
    adaptive: Adaptive,
    scheme: SDEScheme,
    state: State,
    constants: tuple[Tensor, ...],
    ts: Tensor,
    motion: BrownianBlock,
) -> Steps:
    """The accepted steps of these paths, from their state at the first of the times.

    Raises:
        NumericsError: the tolerance asks for steps below the smallest.
        StepLimitError: more than `max_steps` were tried.
    """
    with torch.no_grad():
        search = _Search(adaptive, scheme, state, tuple(k.detach() for k in constants), ts.detach(), motion)
        parts = [search.interval(float(a), float(b - a)) for a, b in pairwise(ts)]
    begins, ends = (torch.cat(column) for column in zip(*parts, strict=True))
    return Steps.between([len(part[0]) for part in parts], begins, ends)


class _Search:
    """Finds the grid; Q, the number of grids, is 1 or that of the paths."""

    def __init__(
        self, adaptive: Adaptive, scheme: SDEScheme, state: State, constants: tuple[Tensor, ...], ts: Tensor,
        motion: BrownianBlock,
    ) -> None:  # fmt: skip
        assert scheme.dynamics is not None, "bound comes first"
        self.adaptive, self.scheme, self.state, self.motion = adaptive, scheme, state, motion
        self.smallest = adaptive.smallest(ts)
        self.order = scheme.orders[scheme.dynamics.noise].strong + 0.5
        q = 1 if adaptive.per == "shared" else len(state[0])
        self.step = self._stepper(constants)
        whole = float(ts[-1] - ts[0])
        first = min(adaptive.first_step or whole / 64, adaptive.max_dt)
        self.proposal = torch.full((q,), first, dtype=torch.float64, device=state[0].device)
        self.before = torch.ones((2, q), dtype=torch.float64, device=state[0].device)
        self.tried = 0

    def interval(self, start: float, span: float) -> tuple[Tensor, Tensor]:
        """Begins and ends [steps, Q] of the steps from one time to the next, as fractions; the state moves on."""
        depth, unit = _unit(span, self.smallest)
        last = 1 << depth
        n = torch.zeros_like(self.proposal, dtype=torch.int64)
        rows: list[tuple[Tensor, Tensor, Tensor]] = []
        while bool((n < last).any()):
            self.tried += 1
            if self.tried > self.adaptive.max_steps:
                raise StepLimitError(
                    f"adaptive steps: max_steps = {self.adaptive.max_steps} steps were tried and t = "
                    f"{start + unit * int(n.min()):.6g} was reached; raise max_steps, rtol or atol"
                )
            half = self._half(n, depth, unit)
            fine, error = self._try(start + unit * (n + half * torch.arange(3, device=n.device).unsqueeze(-1)))
            accept = (error <= 1) & (n < last)
            self._check(error, half, n < last, start + unit * n, unit)
            self._learn(error, accept, n < last, half * unit)
            self.state = tuple(
                torch.where(accept.view(-1, *(1,) * (s.dim() - 1)), new, s)
                for new, s in zip(fine, self.state, strict=True)
            )
            rows.append((n.int(), half.int(), accept))
            n = torch.where(accept, n + 2 * half, n)
        return _packed(rows, last)

    def _half(self, n: Tensor, depth: int, unit: float) -> Tensor:
        """Units of the step to try at n: the halving nearest to what was proposed at which n is aligned."""
        last = 1 << depth
        most = (
            min(depth - 1, max(0, math.floor(math.log2(self.adaptive.max_dt / unit))))
            if (math.isfinite(self.adaptive.max_dt))
            else depth - 1
        )
        power = torch.log2(self.proposal / unit).round().clamp(0, most).long()
        aligned = torch.where(n % last == 0, last, n & -n)
        return torch.minimum(torch.ones_like(n) << power, aligned // 2)

    def _try(self, times: Tensor) -> tuple[State, Tensor]:
        """The state after two halves, and its error over the tolerance [Q], for times [3, Q]."""
        points = self.motion.at(times)
        start, middle, end = (
            BrownianPoint(t, w, a) for t, w, a in zip(points.time, points.value, points.area, strict=True)
        )
        y = self.state[0]
        whole = self.step(self.state, start, end)[0]
        fine = self.step(self.step(self.state, start, middle), middle, end)
        scale = self.adaptive.atol + self.adaptive.rtol * torch.maximum(y.abs(), fine[0].abs())
        square = ((fine[0] - whole) / scale).double().square().flatten(1 if y.dim() > 1 else 0)
        by_path = square.mean(-1) if y.dim() > 1 else square
        error = (by_path.mean(0, keepdim=True) if self.adaptive.per == "shared" else by_path).sqrt()
        return fine, torch.where(torch.isfinite(error), error, math.inf)

    def _stepper(self, constants: tuple[Tensor, ...]) -> Callable[[State, BrownianPoint, BrownianPoint], State]:
        y = self.state[0]
        nothing = y.new_empty((0, len(y)))

        def step(state: State, start: BrownianPoint, end: BrownianPoint) -> State:
            size = end.time - start.time
            root = torch.where(size > 0, size, 1.0).sqrt()
            w, h = start.until(end)
            drawn = torch.cat([w, math.sqrt(12) * h], -1) if self.scheme.levy else w
            normals = (drawn / root.unsqueeze(-1)).to(y).mT
            c = torch.stack([start.time, size, size.sqrt()]).to(y)
            return self.scheme.step(state, c, normals, nothing, constants)

        return step

    def _learn(self, error: Tensor, accept: Tensor, running: Tensor, size: Tensor) -> None:
        """The next proposal: at most half of a step that was refused."""
        error = error.clamp(1e-10, 1e10)
        factor = self.adaptive.controller.factor(error, self.before, self.order)
        factor = torch.where(accept, factor, factor.clamp(max=0.5))
        self.proposal = torch.where(running, (size * factor).clamp(max=self.adaptive.max_dt), self.proposal)
        self.before = torch.where(accept, torch.stack([error, self.before[0]]), self.before)

    def _check(self, error: Tensor, half: Tensor, running: Tensor, t: Tensor, unit: float) -> None:
        stuck = running & (half == 1) & ~(error <= 1)
        if bool(stuck.any()):
            where = int(stuck.nonzero()[0])
            raise NumericsError(
                f"adaptive steps: at t = {float(t[where]):.6g} the error of the smallest step, {unit:.3g}, is "
                f"{float(error[where]):.3g} times the tolerance; lower min_dt, or raise rtol or atol"
            )


def _unit(span: float, smallest: float) -> tuple[int, float]:
    """Number of halvings of an interval, and the size of the last one, which is at least the smallest step."""
    depth = max(1, math.floor(math.log2(span / smallest) + 1e-9))
    return depth, span * 2.0**-depth


def _packed(rows: list[tuple[Tensor, Tensor, Tensor]], last: int) -> tuple[Tensor, Tensor]:
    """Begins and ends [steps, Q] of both halves of what was accepted; empty steps at the end where others have more."""
    n, half, accept = (torch.stack(column) for column in zip(*rows, strict=True))
    counts = accept.sum(0)
    most = int(counts.max())
    order = accept.int().argsort(dim=0, descending=True, stable=True)[:most]
    real = torch.arange(most, device=n.device).unsqueeze(-1) < counts
    n, half = (v.gather(0, order).double() for v in (n, half))
    edges = torch.where(real, torch.stack([n, n + half, n + 2 * half]), float(last)) / last
    return torch.stack([edges[0], edges[1]], 1).flatten(0, 1), torch.stack([edges[1], edges[2]], 1).flatten(0, 1)
