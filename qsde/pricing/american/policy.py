"""When to exercise: continuation values regressed backwards from the last date."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qsde.payoffs.base import EarlyExercise, Knock
from qsde.pricing.american.basis import Basis, exercise
from qsde.pricing.american.regression import least_squares
from qsde.pricing.american.settings import LeastSquares
from qsde.pricing.american.stages import Sample, Stages, View


@dataclass(frozen=True)
class Fitted:
    """A regressed value and the hedge that came with it, both kept within what they were on the paths of the fit.

    Attributes:
        basis: functions of the state.
        value: their coefficients, [p].
        weights: coefficients of the hedge in each underlying, [asset, m]; None if there is none.
        span: least and largest value.
        held: least and largest amount of each underlying, [asset, 1] each.
    """

    basis: Basis
    value: Tensor
    weights: Tensor | None
    span: tuple[Tensor, Tensor] | None = None
    held: tuple[Tensor, Tensor] | None = None

    def __call__(self, view: View) -> Tensor:
        """The value, [P]."""
        return _within(self.value @ self.basis.columns(view), self.span)

    def both(self, view: View) -> tuple[Tensor, Tensor]:
        """The value [P] and the amounts held of each underlying up to the next stage [asset, P]."""
        return self._both(self.basis.columns(view))

    def _both(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        value = _within(self.value @ columns, self.span)
        if self.weights is None:
            return value, columns.new_zeros(1, columns.shape[-1])
        return value, _within(self.weights @ self.basis.hedges(columns), self.held)

    @classmethod
    def of(cls, basis: Basis, view: View, growth: Tensor, target: Tensor, used: Tensor, hedged: bool) -> Regressed:
        """Regression of `target` [P] on the functions and on the gains of hedges, over the paths that are `used`."""
        columns = basis.columns(view)
        p, n = columns.shape
        every = columns
        if hedged:
            every = torch.cat([columns, (basis.hedges(columns) * growth.unsqueeze(1)).reshape(-1, n)])
        chosen = slice(None) if bool(used.all()) else used
        solved = least_squares(every[:, chosen], target[chosen])
        fitted = cls(basis, solved[:p], solved[p:].reshape(len(growth), -1) if hedged else None)
        value, held = fitted._both(columns)
        if bool(used.any()):
            low, high = value[chosen].aminmax()
            least, most = held[:, chosen].aminmax(dim=-1, keepdim=True)
            fitted = replace(fitted, span=(low, high), held=(least, most))
        return Regressed(fitted, value, target - (held * growth).sum(0))


def _within(values: Tensor, span: tuple[Tensor, Tensor] | None) -> Tensor:
    return values if span is None else torch.minimum(torch.maximum(values, span[0]), span[1])


@dataclass(frozen=True)
class Regressed:
    """A regression, and what it says of the paths it was made from.

    Attributes:
        fitted: the functions.
        value: the value, [P].
        hedged: the target less the gains of the hedge, [P].
    """

    fitted: Fitted
    value: Tensor
    hedged: Tensor


@dataclass(frozen=True)
class Rule:
    """What is known at one stage but the last.

    Attributes:
        right: value of keeping the right.
        waiting: value of a right that has not begun, of contracts that knock in.
    """

    right: Fitted
    waiting: Fitted | None


@dataclass(frozen=True)
class Policy:
    """Rules of all stages but the last, where whatever pays is taken.

    Attributes:
        claim: the right.
        rules: of each stage.
        now: what is decided at stage 0, whose rule knows one spot only; None leaves it to the rule.
    """

    claim: EarlyExercise
    rules: tuple[Rule, ...]
    now: bool | None = None

    def decided(self, stages: Stages, i: int, view: View) -> tuple[Tensor, Tensor]:
        """On which paths the right is exercised at a stage but the last [P], and what is held where not [asset, P]."""
        amount = exercise(self.claim, view)
        kept, held = self.rules[i].right.both(view)
        if i == 0 and self.now is not None:
            return torch.full_like(amount, self.now, dtype=torch.bool), held
        return (amount > 0) & (amount >= kept) & stages.allowed(i), held

    def value(self, stages: Stages, i: int, view: View) -> Tensor:
        """Regressed value of the right at a stage, [P]."""
        amount = exercise(self.claim, view)
        if i == stages.last:
            return torch.relu(amount)
        kept = self.rules[i].right(view)
        return torch.maximum(amount, kept) if stages.allowed(i) else kept

    def waiting(self, stages: Stages, i: int, view: View) -> Tensor:
        """Regressed value of a right that has not begun, [P]."""
        fitted = None if i == stages.last else self.rules[i].waiting
        if fitted is None:
            return as_amount(self.claim.never, view)
        return fitted(view)


def carried(claim: EarlyExercise, discount: Tensor, knock: Knock | None, later: Tensor) -> Tensor:
    """Value at a stage of a right worth `later` at the next, if no barrier ends it before."""
    if knock is None or claim.knocks_in:
        return discount * later
    return knock.early + discount * (knock.late + knock.survival * later)


def begun(discount: Tensor, knock: Knock, waiting: Tensor, later: Tensor) -> Tensor:
    """Value at a stage of a right that begins where the barrier is touched, worth `later` at the next stage then."""
    return discount * (knock.survival * waiting + (1.0 - knock.survival) * later)


def as_amount(amount: float | Tensor, view: View) -> Tensor:
    """One amount on every path, [P]."""
    shape = view.prices.shape[-1:]
    return torch.as_tensor(amount, dtype=view.prices.dtype, device=view.prices.device).expand(shape)


def fit(stages: Stages, sample: Sample, method: LeastSquares, hedged: bool) -> Policy:
    """The policy from paths that are used for nothing else (Longstaff and Schwartz 2001).

    What is regressed is what each path gets under the rules found so far, less the gains of the hedges found with them
    (Potters, Bouchaud and Sestovic 2001): these have mean 0 and take most of the noise away.
    """
    claim, discounts, last = stages.claim, stages.discounts(), stages.last
    final = stages.view(sample.at(last), last)
    value = torch.relu(exercise(claim, final))
    waiting = as_amount(claim.never, final)
    rules: list[Rule] = []
    for i in reversed(range(last)):
        view, growth = stages.view(sample.at(i), i), stages.growth(sample.at(i), sample.at(i + 1))
        amount, knock = exercise(claim, view), sample.knocks[i]
        live = torch.ones_like(amount, dtype=torch.bool) if knock is None else claim.inside(view.prices)
        every = torch.ones_like(live) if claim.knocks_in else live
        used = every & (amount > 0) if method.in_the_money and i else every
        target = carried(claim, discounts[i + 1], knock, value)
        right = Fitted.of(_basis(claim, view, final, used, method), view, growth, target, used, hedged)
        waits: Regressed | None = None
        if claim.knocks_in and knock is not None:
            goal = begun(discounts[i + 1], knock, waiting, value)
            waits = Fitted.of(_basis(claim, view, final, live, method), view, growth, goal, live, hedged)
            waiting = waits.hedged
        rules.insert(0, Rule(right.fitted, waits.fitted if waits else None))
        stop = (amount > 0) & (amount >= right.value) & stages.allowed(i)
        value = torch.where(stop, amount, right.hedged)
    return Policy(claim, tuple(rules))


def _basis(claim: EarlyExercise, view: View, final: View, used: Tensor, method: LeastSquares) -> Basis:
    if bool(used.any()) and not bool(used.all()):
        view, final = view.of(used), final.of(used)
    return Basis.of(claim, view, final, method.degree, smooth=not method.in_the_money)
