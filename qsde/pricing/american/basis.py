"""What continuation values are regressed on."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.numerics import norm_pdf
from qsde.payoffs.base import EarlyExercise
from qsde.pricing.american.regression import least_squares
from qsde.pricing.american.stages import View

#: Polynomials at most, and standard deviations beyond which they stay what they are.
_MOST, _FARTHEST = 36, 3.5
#: Total degree of the polynomials that weigh the hedge, and of those for mean and variance of what is still to come.
_HEDGE, _REMAINING = 2, 2
#: How far the conditional deviation may be from the overall one.
_NARROWEST, _WIDEST = 0.1, 10.0


@dataclass(frozen=True)
class Polynomials:
    """Products of Hermite polynomials of standardised log-prices and other state, up to a total degree.

    Attributes:
        claim: the right, which says what to look at.
        rooted: which of the other state is never negative, such as a variance, and enters by its square root, [h, 1].
        centre, scale: mean and deviation of the variables, [k, 1].
        powers: exponents in each polynomial.
    """

    claim: EarlyExercise
    rooted: Tensor
    centre: Tensor
    scale: Tensor
    powers: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, claim: EarlyExercise, view: View, degree: int) -> Polynomials:
        """For paths like those seen; the degree is lowered until there are no more than 36 polynomials."""
        rooted = (view.hidden >= 0).all(-1, keepdim=True)
        variables = _variables(claim, view, rooted)
        centre = variables.mean(-1, keepdim=True)
        scale = torch.sqrt((variables - centre).square().mean(-1, keepdim=True))
        scale = torch.where(scale > 1e-12 * (1 + centre.abs()), scale, math.inf)  # what does not vary is 0
        return cls(claim, rooted, centre, scale, _powers(len(variables), degree))

    def __call__(self, z: Tensor, degree: int) -> list[Tensor]:
        """The polynomials of at most this degree, [P] each, of standardised variables [k, P]."""
        hermite = _hermite(z, min(degree, max(map(max, self.powers))))
        return [_product([hermite[n][j] for j, n in enumerate(p) if n], z) for p in self.powers if sum(p) <= degree]

    def standardised(self, view: View) -> Tensor:
        """The variables less their mean, over their deviation, within 3.5 of 0: [k, P]."""
        return ((_variables(self.claim, view, self.rooted) - self.centre) / self.scale).clamp(-_FARTHEST, _FARTHEST)


@dataclass(frozen=True)
class Remaining:
    """Mean and variance of what the exercise value still moves by until the last stage, given the state.

    Attributes:
        mean, variance: coefficients of the polynomials.
        overall: mean variance.
    """

    mean: Tensor
    variance: Tensor
    overall: Tensor

    @classmethod
    def of(cls, polynomials: list[Tensor], remaining: Tensor) -> Remaining:
        """Regression of what remained, [P], and of its square."""
        columns = torch.stack(polynomials)
        mean = least_squares(columns, remaining)
        square = (remaining - mean @ columns).square()
        return cls(mean, least_squares(columns, square), square.mean().clamp(min=1e-24))

    def european(self, amount: Tensor, price: Tensor, polynomials: list[Tensor]) -> list[Tensor]:
        """The exercise value m, and what a European right to it is worth under a normal law, with its derivatives.

        `(m + mean) N(d) + w n(d)`, `N(d)`, `n(d)` with `d = (m + mean) / w`.
        """
        columns = torch.stack(polynomials)
        width = _deviation(self.variance @ columns, self.overall)
        unit = torch.sqrt(self.overall)
        forward = amount + self.mean @ columns
        d = forward / width
        density, probability = norm_pdf(d), torch.special.ndtr(d)
        return [amount / unit, (forward * probability + width * density) / unit, probability, density]


@dataclass(frozen=True)
class LogRemaining:
    """As `Remaining`, for a call or put on one price: mean and variance of what the log-price still moves by.

    Attributes:
        mean, variance, overall: as in `Remaining`.
        sign: 1 for a call, -1 for a put.
    """

    mean: Tensor
    variance: Tensor
    overall: Tensor
    sign: float

    def european(self, amount: Tensor, price: Tensor, polynomials: list[Tensor]) -> list[Tensor]:
        """The exercise value, the formula of Black and Scholes, and its parts; all over the strike."""
        columns = torch.stack(polynomials)
        width = _deviation(self.variance @ columns, self.overall)
        strike = (price - self.sign * amount).clamp(min=1e-12)
        forward = price * torch.exp(self.mean @ columns + 0.5 * width * width) / strike
        d = torch.log(forward) / width - 0.5 * width
        probability = torch.special.ndtr(self.sign * d)
        stock = forward * torch.special.ndtr(self.sign * (d + width))
        return [amount / strike, self.sign * (stock - probability), probability, norm_pdf(d)]


def _deviation(variance: Tensor, overall: Tensor) -> Tensor:
    return torch.sqrt(torch.minimum(torch.maximum(variance, overall * _NARROWEST**2), overall * _WIDEST**2))


def _remaining(claim: EarlyExercise, view: View, final: View, polynomials: list[Tensor]) -> Remaining | LogRemaining:
    """What is still to come, on the scale of the exercise value.

    Where that is +-(S - K) and the price is all the state, on that of the log-price, which fits far better; with a
    variance beside it the plain scale gave the narrower intervals (Heston: 0.34 % against 0.48 % of the price).
    """
    amount = exercise(claim, view)
    if claim.assets == 1 and not len(view.hidden):
        twice = claim.exercise(2 * view.prices.unsqueeze(-1)).squeeze(-1)
        slope = (twice - claim.exercise(view.prices.unsqueeze(-1)).squeeze(-1)) / view.prices
        sign = 1.0 if float(slope[0]) > 0 else -1.0
        if bool((slope - sign).abs().max() < 1e-6):
            found = Remaining.of(polynomials, torch.log(final.prices / view.prices))
            return LogRemaining(found.mean, found.variance, found.overall, sign)
    return Remaining.of(polynomials, exercise(claim, final) - amount)


@dataclass(frozen=True)
class Basis:
    """Functions of the state at one stage: polynomials, the exercise value, and about what a European right is worth.

    The European right and its two derivatives bend where the value does, ever more sharply towards the end, which
    polynomials cannot; so each is multiplied by the other state, too.

    Attributes:
        polynomials: of log-prices and other state.
        degree: their total degree.
        remaining: what the exercise value still moves by; None for polynomials alone.
    """

    polynomials: Polynomials
    degree: int
    remaining: Remaining | LogRemaining | None

    @classmethod
    def of(cls, claim: EarlyExercise, view: View, final: View, degree: int, smooth: bool) -> Basis:
        """The basis for paths seen at a stage and at the last one."""
        polynomials = Polynomials.of(claim, view, degree)
        few = polynomials(polynomials.standardised(view), _REMAINING)
        return cls(polynomials, degree, _remaining(claim, view, final, few) if smooth else None)

    def columns(self, view: View) -> Tensor:
        """The functions, [p, P]."""
        z = self.polynomials.standardised(view)
        found = self.polynomials(z, self.degree)
        if self.remaining is None:
            return torch.stack(found)
        amount = exercise(self.polynomials.claim, view)
        european = self.remaining.european(amount, view.prices, self.polynomials(z, _REMAINING))
        hidden = z[len(z) - len(view.hidden) :]
        return torch.stack([*found, *european, *(f * h for f in european for h in hidden)])

    def hedges(self, columns: Tensor) -> Tensor:
        """Those of the functions that weigh the underlyings in the hedge, [m, P]: no polynomials of high degree."""
        powers = [sum(p) for p in self.polynomials.powers]
        return columns[[i for i in range(len(columns)) if i >= len(powers) or powers[i] <= _HEDGE]]


def exercise(claim: EarlyExercise, view: View) -> Tensor:
    """What exercising pays, [P]: on an ex-date the better of before and after, if there is a choice."""
    amount = claim.exercise(view.prices.unsqueeze(-1)).squeeze(-1)
    if view.cum is None:
        return amount
    return torch.maximum(amount, claim.exercise(view.cum.unsqueeze(-1)).squeeze(-1))


def _variables(claim: EarlyExercise, view: View, rooted: Tensor) -> Tensor:
    hidden = torch.where(rooted, torch.sqrt(torch.relu(view.hidden)), view.hidden)
    return torch.cat([claim.signals(view.prices.unsqueeze(-1)).squeeze(-1), hidden])


def _powers(variables: int, degree: int) -> tuple[tuple[int, ...], ...]:
    while degree > 1 and math.comb(variables + degree, degree) > _MOST:
        degree -= 1
    chosen = (c for n in range(degree + 1) for c in itertools.combinations_with_replacement(range(variables), n))
    return tuple(tuple(c.count(j) for j in range(variables)) for c in chosen)


def _hermite(z: Tensor, degree: int) -> list[Tensor]:
    """Hermite polynomials of variance 1 under a normal law: `sqrt(n) H_n = z H_{n-1} - sqrt(n - 1) H_{n-2}`."""
    out = [torch.ones_like(z), z]
    for n in range(2, degree + 1):
        out.append((z * out[-1] - math.sqrt(n - 1) * out[-2]) / math.sqrt(n))
    return out


def _product(factors: list[Tensor], like: Tensor) -> Tensor:
    out = like.new_ones(like.shape[-1])
    for factor in factors:
        out = out * factor
    return out
