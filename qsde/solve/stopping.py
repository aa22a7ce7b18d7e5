"""The first time at which a path meets a barrier: paths that stop there, and the probability of not having stopped.

Between two grid points a path is a Brownian bridge to first order, with the diffusion frozen at the start of the step.
With the distance to the barrier `d0` and `d1` at both ends and its variance `s^2` per unit of time, the bridge meets
the barrier with probability `exp(-2 d0 d1 / (s^2 dt))`, or 1 where the ends lie on both sides. Without it events would
be missed at a rate of `sqrt(dt)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.dynamics import Equation
from qsde.models.sde import SDE
from qsde.noise import Noise, Threefry
from qsde.schemes import SDEScheme
from qsde.schemes.base import State
from qsde.solve.compiled import Compile
from qsde.solve.integrate import prepared
from qsde.solve.run import Options, Run
from qsde.solve.wrapped import Wrapped

_SEED_0 = Threefry(seed=0)
#: `distance(t, y, params)` [P]: positive before the event, which is where it first is 0.
Distance = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
#: `reward(t, y, params)` [P], with t [P].
Reward = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Stopped:
    """Paths that stay where they met the barrier.

    Attributes:
        y: [len(ts), P, *shape]; where the path met the barrier from then on.
        time: when it did, [P]; inf where it did not.
        hit: whether it did, [P].
    """

    y: Tensor
    time: Tensor
    hit: Tensor


@dataclass(frozen=True)
class Killed:
    """Paths that go on, and how likely they are not to have met the barrier, given their grid points.

    Attributes:
        y: [len(ts), P, *shape].
        survival: probability of no event so far, [len(ts), P].
        reward: expected reward of the event so far, [len(ts), P].
    """

    y: Tensor
    survival: Tensor
    reward: Tensor


def stopped(
    sde: SDE,
    y0: Tensor,
    ts: Tensor | Sequence[float],
    distance: Distance,
    *,
    max_dt: float,
    scheme: SDEScheme | None = None,
    noise: Noise = _SEED_0,
    per_path: Mapping[str, Tensor] | None = None,
    compile: Compile = "auto",
    memory_budget: int = 1 << 30,
) -> Stopped:
    """Solves the SDE until `distance(t, y, params)` first is 0, and stays there.

    Whether a path meets the barrier inside a step is drawn from the law of the bridge, and when from that of its first
    passage (an inverse Gaussian). It has no gradient: moving a parameter moves paths across the barrier, which no
    derivative of a path sees. `killed` gives means with gradients.

    Args:
        sde: the equation.
        y0: starts, [P, *shape].
        ts: increasing times, the first of them the start.
        distance: [P], positive where the event has not happened; differentiable in y.
        max_dt: largest step.
        scheme: as in `sdeint`.
        noise: the random numbers.
        per_path: parameters of each path, as in `sdeint`.
        compile: as in `sdeint`.
        memory_budget: as in `sdeint`.

    Raises:
        InputError: as `sdeint`; or a gradient is asked for.

    Reference:
        Gobet (2000), "Weak approximation of killed diffusion using Euler schemes", Stoch. Proc. Appl. 87; Michael,
        Schucany, Haas (1976), Amer. Statist. 30, for the inverse Gaussian.

    Example:
        Brownian motion from 0 until it meets 1, which it does before time 4 with probability 2 N(-1/2):

        >>> brownian = SDE(lambda t, y, p: 0 * y, lambda t, y, p: 1 + 0 * y)
        >>> out = stopped(brownian, torch.zeros(20_000), [0.0, 4.0], lambda t, y, p: 1 - y, max_dt=0.5)
        >>> abs(float(out.hit.float().mean()) - 0.6171) < 0.01
        True
    """
    wanted = (y0, ts, *sde.params.values(), *(per_path or {}).values())
    if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in wanted):
        raise InputError(
            "stopped paths have no gradient, since events come and go; use qsde.solve.killed, whose means have one, or "
            "torch.no_grad()"
        )
    wrap = _wrapper(_Stopping, distance)
    y, time = _run(sde, y0, ts, wrap, max_dt, scheme, noise, per_path, "checkpoint", compile, memory_budget).paths()
    return Stopped(y, time[-1], torch.isfinite(time[-1]))


def killed(
    sde: SDE,
    y0: Tensor,
    ts: Tensor | Sequence[float],
    distance: Distance,
    reward: Reward | None = None,
    *,
    max_dt: float,
    scheme: SDEScheme | None = None,
    noise: Noise = _SEED_0,
    per_path: Mapping[str, Tensor] | None = None,
    gradient: Literal["checkpoint", "direct", "forward"] = "checkpoint",
    compile: Compile = "auto",
    memory_budget: int = 1 << 30,
) -> Killed:
    """Solves the SDE on, with the probability that `distance(t, y, params)` has not met 0, and a reward for it.

    `mean(f(y[-1]) survival[-1])` is the mean of f over paths without an event, `1 - mean(survival[-1])` the probability
    of the event, and `mean(reward[-1])` the mean reward: `reward=lambda t, y, p: t` with `mean(reward[-1] + T
    survival[-1])` gives the mean of the time of the event or of the end T. All are continuous in parameters, start and
    barrier, so that their gradients are unbiased for the discrete law; its bias is of the order of the step.

    Args:
        sde: the equation.
        y0: starts, [P, *shape].
        ts: increasing times, the first of them the start.
        distance: as in `stopped`.
        reward: what the event pays, from its time [P], the state there [P, *shape] and the parameters; None is 0.
        max_dt: largest step.
        scheme: as in `sdeint`.
        noise: the random numbers.
        per_path: parameters of each path, as in `sdeint`.
        gradient: as in `sdeint`.
        compile: as in `sdeint`.
        memory_budget: as in `sdeint`.

    Reference:
        Gobet (2000), Stoch. Proc. Appl. 87, theorem 2.1.

    Example:
        The same probability, and its derivative to the start:

        >>> brownian = SDE(lambda t, y, p: 0 * y, lambda t, y, p: 1 + 0 * y)
        >>> y0 = torch.zeros(20_000, requires_grad=True)
        >>> out = killed(brownian, y0, [0.0, 4.0], lambda t, y, p: 1 - y, max_dt=0.5)
        >>> hit = 1 - out.survival[-1].mean()
        >>> (slope,) = torch.autograd.grad(hit, y0)
        >>> abs(float(hit.detach()) - 0.6171) < 0.01, abs(float(slope.sum()) - 0.3521) < 0.01
        (True, True)
    """
    wrap = _wrapper(_Killing, distance, reward=reward)
    return Killed(*_run(sde, y0, ts, wrap, max_dt, scheme, noise, per_path, gradient, compile, memory_budget).paths())


def _wrapper(kind: type[_Watching], distance: Distance, **fields: Any) -> Callable[[SDEScheme], Wrapped]:
    return lambda scheme: kind(scheme.dynamics, inner=scheme, distance=distance, **fields)


def _run(
    sde: SDE, y0: Tensor, ts: Tensor | Sequence[float], wrap: Callable[[SDEScheme], Wrapped], max_dt: float,
    scheme: SDEScheme | None, noise: Noise, per_path: Mapping[str, Tensor] | None, gradient: Any, compile: Compile,
    memory_budget: int,
) -> Run:  # fmt: skip
    model, times, own = prepared(sde, y0, ts, per_path)
    return Run.of(
        model, y0, times, own, Options(max_dt, scheme, noise, gradient, None, compile, memory_budget, wrap=wrap)
    )


@dataclass(frozen=True, kw_only=True)
class _Watching(Wrapped):
    """A scheme with a barrier.

    Attributes:
        distance: to the barrier.
    """

    distance: Distance

    @property
    def more_normals(self) -> int:
        """None."""
        return 0

    def away(self, equation: Equation, t: Tensor, y: Tensor) -> Tensor:
        """The distance [P]."""
        d = self.distance(t, y, equation.params)
        if not isinstance(d, Tensor) or d.shape != y.shape[:1]:
            got = tuple(d.shape) if isinstance(d, Tensor) else type(d).__name__
            raise InputError(f"distance must return [P] = {tuple(y.shape[:1])} for states {tuple(y.shape)}, got {got}")
        return d

    def meeting(self, equation: Equation, y: Tensor, new: Tensor, t: Tensor, dt: Tensor) -> _Meeting:
        """How a step from y to `new` meets the barrier."""
        found = torch.func.vjp(lambda s: self.away(equation, t, s), y)
        before, (normal,) = found[0], found[1](torch.ones_like(found[0]))
        g = equation.diffusion(t, y)
        layout = equation.dynamics.layout
        tail = tuple(range(1, y.dim()))
        if layout == "diagonal":
            across = g * g * normal
        elif layout == "scalar":
            across = g * _total(g * normal, tail).view(-1, *(1,) * len(tail))
        else:
            each = _total(g * normal.unsqueeze(-1), tail)
            across = (g * each.view(-1, *(1,) * len(tail), each.shape[-1])).sum(-1)
        return _Meeting(before, self.away(equation, t + dt, new), _total(normal * across, tail), across)


@dataclass(frozen=True)
class _Meeting:
    """A step and the barrier.

    Attributes:
        before, after: distances at both ends, [P].
        variance: that of the distance per unit of time, [P].
        across: covariance of the distance with y per unit of time, [P, *shape].
    """

    before: Tensor
    after: Tensor
    variance: Tensor
    across: Tensor

    def probability(self, dt: Tensor) -> Tensor:
        """That the bridge meets the barrier."""
        apart = (self.before > 0) & (self.after > 0)
        room = 2 * torch.where(apart, self.before * self.after, 0.0)
        moves = self.variance > 0
        exponent = room / torch.where(moves, self.variance * dt, 1.0)
        return torch.where(apart, torch.where(moves, torch.exp(-exponent), 0.0), 1.0)

    def straight(self) -> Tensor:
        """The part of the step after which a straight line, reflected where it must be, meets the barrier."""
        start, end = self.before.clamp(min=0.0), self.after.abs()
        whole = start + end
        some = whole > 0
        return torch.where(some, start / torch.where(some, whole, 1.0), 0.0)

    def place(self, y: Tensor, new: Tensor, part: Tensor) -> Tensor:
        """The mean of the state at this part of the step, given that it is at the barrier then."""
        tail = (1,) * (y.dim() - 1)
        off = self.before.clamp(min=0.0) * (1 - part) + self.after * part
        moves = self.variance > 0
        pull = torch.where(moves, off / torch.where(moves, self.variance, 1.0), 0.0)
        return y + part.view(-1, *tail) * (new - y) - pull.view(-1, *tail) * self.across


@dataclass(frozen=True, kw_only=True)
class _Killing(_Watching):
    """State: that of the inner scheme, the probability of survival, the reward so far."""

    reward: Reward | None = None
    seen: ClassVar[tuple[int, ...]] = (0, -2, -1)

    @property
    def tails(self) -> tuple[tuple[int, ...], ...]:
        """Those of the inner scheme, and two numbers."""
        return (*self.inner.tails, (), ())

    def start(self, equation: Equation, t: Tensor, y: Tensor) -> State:
        """Alive."""
        one = y.new_ones(len(y))
        return (*self.inner.start(equation, t, y), one, torch.zeros_like(one))

    def more(
        self, equation: Equation, before: State, after: State, c: Tensor, normals: Tensor, uniforms: Tensor
    ) -> State:
        """Survival falls by the probability of the event; the reward is that of its mean place."""
        t, dt, _ = c.squeeze(-1).unbind(0)
        y, alive, paid = before[0], before[-2], before[-1]
        meeting = self.meeting(equation, y, after[0], t, dt)
        probability = meeting.probability(dt)
        if self.reward is not None:
            part = meeting.straight()
            pays = self.reward(t + part * dt, meeting.place(y, after[0], part), equation.params)
            paid = paid + alive * probability * pays
        return (*after, alive * (1 - probability), paid)


@dataclass(frozen=True, kw_only=True)
class _Stopping(_Watching):
    """State: what is seen of y, that of the inner scheme, and the time of the event."""

    uniforms: ClassVar[int] = 2
    seen: ClassVar[tuple[int, ...]] = (-2, -1)

    @property
    def tails(self) -> tuple[tuple[int, ...], ...]:
        """Those of the inner scheme, the frozen state, and a time."""
        return (*self.inner.tails, self.inner.tails[0], ())

    @property
    def more_normals(self) -> int:
        """One for the time of the event."""
        return 1

    def start(self, equation: Equation, t: Tensor, y: Tensor) -> State:
        """Not stopped, unless it starts at the barrier."""
        time = torch.where(self.away(equation, t, y) > 0, torch.inf, t.expand(len(y)))
        return (*self.inner.start(equation, t, y), y, time)

    def more(
        self, equation: Equation, before: State, after: State, c: Tensor, normals: Tensor, uniforms: Tensor
    ) -> State:
        """Paths that meet the barrier stay there."""
        t, dt, _ = c.squeeze(-1).unbind(0)
        y, frozen, time = before[0], before[-2], before[-1]
        meeting = self.meeting(equation, y, after[0], t, dt)
        running = torch.isinf(time)
        hits = running & (uniforms[0] < meeting.probability(dt))
        part = first_passage(meeting, dt, normals[0], uniforms[1])
        tail = (1,) * (y.dim() - 1)
        now = torch.where(hits.view(-1, *tail), meeting.place(y, after[0], part), after[0])
        frozen = torch.where(running.view(-1, *tail), now, frozen)
        return (*after, frozen, torch.where(hits, t + part * dt, time))


def first_passage(meeting: _Meeting, dt: Tensor, normal: Tensor, uniform: Tensor) -> Tensor:
    """The part of the step after which the bridge first meets the barrier, drawn from its law given that it does.

    With `a = d0` and `b = |d1|`, `tau / (dt - tau)` is inverse Gaussian with mean `a / b` and shape `a^2 / (s^2 dt)`.
    """
    tiny = torch.finfo(normal.dtype).tiny
    a, b = meeting.before.clamp(min=0.0), meeting.after.abs()
    shape = a * a / (meeting.variance * dt).clamp(min=tiny)
    mean = a / b.clamp(min=tiny)
    ratio = 0.5 * mean * normal * normal / shape.clamp(min=tiny)
    # the smaller root, in the form that does not cancel
    small = mean / (1 + ratio + torch.sqrt(ratio * (2 + ratio)))
    drawn = torch.where(uniform * (mean + small) <= mean, small, mean * mean / small.clamp(min=tiny))
    part = torch.where(torch.isfinite(drawn), drawn / (1 + drawn), 1.0)
    return torch.where(a > 0, part, 0.0)


def _total(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The sum over the axes of the state."""
    return values.sum(axes) if axes else values
