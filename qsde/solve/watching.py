"""Schemes that watch a barrier: how the step of a path meets it, and what becomes of the path.

Between two grid points a path is a Brownian bridge to first order, with the diffusion frozen at the start of the step.
With the distance to the barrier `d0` and `d1` at both ends and its variance `s^2` per unit of time, the bridge meets
the barrier with probability `exp(-2 d0 d1 / (s^2 dt))`, or 1 where the ends lie on both sides. Without it events would
be missed at a rate of `sqrt(dt)`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.dynamics import Equation
from qsde.schemes.base import State
from qsde.solve.wrapped import Wrapped

#: `distance(t, y, params)` [P]: positive before the event, which is where it first is 0.
Distance = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
#: `reward(t, y, params)` [P], with t [P].
Reward = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Watching(Wrapped):
    """A scheme with a barrier, whose state ends with two tensors on how paths meet it.

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

    @abstractmethod
    def met(
        self, equation: Equation, meeting: Meeting, before: State, normals: Tensor, uniforms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The two tensors after a step."""

    def more(
        self, equation: Equation, before: State, after: State, c: Tensor, normals: Tensor, uniforms: Tensor
    ) -> State:
        """The inner state, and what the barrier does."""
        t, dt, _ = c.squeeze(-1).unbind(0)
        return (
            *after,
            *self.met(equation, self.meeting(equation, before[0], after[0], t, dt), before, normals, uniforms),
        )

    def meeting(self, equation: Equation, y: Tensor, new: Tensor, t: Tensor, dt: Tensor) -> Meeting:
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
        after = self.away(equation, t + dt, new)
        return Meeting(t, dt, y, new, before, after, _total(normal * across, tail), across)


@dataclass(frozen=True)
class Meeting:
    """A step and the barrier.

    Attributes:
        t, dt: start and size of the step.
        y, new: states at both ends, [P, *shape].
        before, after: distances at both ends, [P].
        variance: that of the distance per unit of time, [P].
        across: covariance of the distance with y per unit of time, [P, *shape].
    """

    t: Tensor
    dt: Tensor
    y: Tensor
    new: Tensor
    before: Tensor
    after: Tensor
    variance: Tensor
    across: Tensor

    def probability(self) -> Tensor:
        """That the bridge meets the barrier."""
        apart = (self.before > 0) & (self.after > 0)
        room = 2 * torch.where(apart, self.before * self.after, 0.0)
        moves = self.variance > 0
        exponent = room / torch.where(moves, self.variance * self.dt, 1.0)
        return torch.where(apart, torch.where(moves, torch.exp(-exponent), 0.0), 1.0)

    def straight(self) -> Tensor:
        """The part of the step after which a straight line, reflected where it must be, meets the barrier."""
        start, end = self.before.clamp(min=0.0), self.after.abs()
        whole = start + end
        some = whole > 0
        return torch.where(some, start / torch.where(some, whole, 1.0), 0.0)

    def place(self, part: Tensor) -> Tensor:
        """The mean of the state at this part of the step, given that it is at the barrier then."""
        tail = (1,) * (self.y.dim() - 1)
        off = self.before.clamp(min=0.0) * (1 - part) + self.after * part
        moves = self.variance > 0
        pull = torch.where(moves, off / torch.where(moves, self.variance, 1.0), 0.0)
        return self.y + part.view(-1, *tail) * (self.new - self.y) - pull.view(-1, *tail) * self.across


@dataclass(frozen=True, kw_only=True)
class Killing(Watching):
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

    def met(
        self, equation: Equation, meeting: Meeting, before: State, normals: Tensor, uniforms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Survival falls by the probability of the event; the reward is that of its mean place."""
        alive, paid = before[-2:]
        probability = meeting.probability()
        if self.reward is not None:
            part = meeting.straight()
            pays = self.reward(meeting.t + part * meeting.dt, meeting.place(part), equation.params)
            paid = paid + alive * probability * pays
        return alive * (1 - probability), paid


@dataclass(frozen=True, kw_only=True)
class Stopping(Watching):
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

    def met(
        self, equation: Equation, meeting: Meeting, before: State, normals: Tensor, uniforms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Paths that meet the barrier stay there."""
        frozen, time = before[-2:]
        running = torch.isinf(time)
        hits = running & (uniforms[0] < meeting.probability())
        part = first_passage(meeting, normals[0], uniforms[1])
        tail = (1,) * (frozen.dim() - 1)
        now = torch.where(hits.view(-1, *tail), meeting.place(part), meeting.new)
        frozen = torch.where(running.view(-1, *tail), now, frozen)
        return frozen, torch.where(hits, meeting.t + part * meeting.dt, time)


def first_passage(meeting: Meeting, normal: Tensor, uniform: Tensor) -> Tensor:
    """The part of the step after which the bridge first meets the barrier, drawn from its law given that it does.

    With `a = d0` and `b = |d1|`, `tau / (dt - tau)` is inverse Gaussian with mean `a / b` and shape `a^2 / (s^2 dt)`.
    """
    tiny = torch.finfo(normal.dtype).tiny
    a, b = meeting.before.clamp(min=0.0), meeting.after.abs()
    shape = a * a / (meeting.variance * meeting.dt).clamp(min=tiny)
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
