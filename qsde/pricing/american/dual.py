"""Both bounds with a martingale that imitates the price: an upper one by duality, a lower one with little noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.payoffs.base import Knock
from qsde.pricing.american.basis import exercise
from qsde.pricing.american.inner import Inner
from qsde.pricing.american.policy import Policy, as_amount, begun, carried
from qsde.pricing.american.stages import Sample, Stages, View
from qsde.schemes.base import State


@dataclass(frozen=True)
class _Next:
    """The next stage, and what happened on the way to it."""

    view: View
    growth: Tensor
    knock: Knock | None


@dataclass(frozen=True)
class Bounds:
    """On each path, worth today.

    Attributes:
        lower: what the policy gets, less the martingale until then, [P].
        upper: the most that could have been had beyond the martingale, [P].
    """

    lower: Tensor
    upper: Tensor


def bounds(stages: Stages, sample: Sample, policy: Policy, inner: Inner) -> Bounds:
    """Bounds of the price as means over paths.

    For every martingale M with M_0 = 0 the price is at most `E[max_i (D_i A_i - M_i)]` (Rogers 2002; Haugh and Kogan
    2004), and a policy that stops at s is worth `E[D_s A_s - M_s]`. Here M is that of the regressed value V, moving by
    `D_{i+1} V_{i+1} - E_i[D_{i+1} V_{i+1}]` from stage to stage, so that neither varies much. The expectation is an
    average over points drawn from the same state: it is unbiased, so M stays a martingale and the bounds are bounds
    however few the points (Andersen and Broadie 2004 argue so for points that run to the end). A barrier enters by its
    probabilities given the path. A right that knocks in is bounded, where it begins, by the bounds of the right.
    """
    claim, discounts, last = stages.claim, stages.discounts(), stages.last
    view = stages.view(sample.at(last), last)
    right = [torch.relu(exercise(claim, view))] * 2
    waiting = [as_amount(claim.never, view)] * 2
    for i in reversed(range(last)):
        step = _Step(stages, policy, i, discounts[i + 1], inner.points)
        here, knock, rule = sample.at(i), sample.knocks[i], policy.rules[i]
        view = stages.view(here, i)
        after, drawn = step.next(here, sample.at(i + 1), knock), step.drawn(here, inner)
        if rule.waiting is not None and knock is not None:
            surprise = step.surprise(rule.waiting.both(view)[1], after, drawn, step.waiting)
            waiting = [begun(step.discount, knock, w, r) - surprise for w, r in zip(waiting, right, strict=True)]
        stop, held = policy.decided(stages, i, view)
        surprise = step.surprise(held, after, drawn, step.right)
        lower, upper = (carried(claim, step.discount, knock, r) - surprise for r in right)
        amount = exercise(claim, view)
        right = [torch.where(stop, amount, lower), torch.maximum(amount, upper) if stages.allowed(i) else upper]
    return Bounds(*(waiting if claim.knocks_in else right))


@dataclass(frozen=True)
class _Step:
    """From one stage to the next."""

    stages: Stages
    policy: Policy
    i: int
    discount: Tensor
    points: int

    def next(self, here: State, there: State, knock: Knock | None) -> _Next:
        """The next stage of paths, or of points."""
        stages = self.stages
        return _Next(stages.view(there, self.i + 1), stages.growth(here, there), knock)

    def drawn(self, here: State, inner: Inner) -> _Next:
        """The next stage of all points, those of one path side by side."""
        states = inner.states(self.stages, here, self.i)
        return self.next(tuple(s[0] for s in states), tuple(s[-1] for s in states), self.stages.knock(states, self.i))

    def right(self, after: _Next) -> Tensor:
        """Value here of the right, given the next stage."""
        later = self.policy.value(self.stages, self.i + 1, after.view)
        return carried(self.stages.claim, self.discount, after.knock, later)

    def waiting(self, after: _Next) -> Tensor:
        """Value here of a right that has not begun, given the next stage."""
        assert after.knock is not None, "what knocks in is watched"
        later = self.policy.value(self.stages, self.i + 1, after.view)
        return begun(self.discount, after.knock, self.policy.waiting(self.stages, self.i + 1, after.view), later)

    def surprise(self, held: Tensor, after: _Next, drawn: _Next, value: Callable[[_Next], Tensor]) -> Tensor:
        """By how much a value differs from its mean over the points; the hedge takes noise out of that mean, [P]."""
        gains = (held.repeat_interleave(self.points, -1) * drawn.growth).sum(0)
        surprise: Tensor = value(after) - (value(drawn) - gains).unflatten(-1, (-1, self.points)).mean(-1)
        return surprise
