"""Standard errors are honest: over 200 seeds, (value - reference) / error follows the law that it should.

Normal for independent paths and antithetic pairs, Student's t with 15 degrees of freedom for the 16 scrambles of Sobol
points. The reference is a long run on the same steps, whose own error counts. Sobol points get more paths: means of 128
points are as skewed as the payoff, and the scores then lean to one side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, Model
from qsde.noise import Antithetic, Noise, Sobol, Threefry
from qsde.payoffs import Asian, Barrier, Bermudan, European, Payoff
from qsde.pricing.american import LeastSquares, price_early
from qsde.pricing.montecarlo import MonteCarlo, price

#: Values and errors [payoffs].
Run = Callable[[MonteCarlo], tuple[torch.Tensor, torch.Tensor]]

SEEDS = range(1, 201)
MARKET = Market(spot=100.0, rate=0.03, dividend_yield=0.01)
QUARTERS = (0.25, 0.5, 0.75, 1.0)
HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7)
ENGINE = MonteCarlo(max_dt=0.25, compile="never")
LONG = dataclasses.replace(ENGINE, n_paths=1 << 18, noise=Sobol(987654321, scrambles=64))
EUROPEAN, ASIAN = European(105.0, 1.0), Asian(100.0, QUARTERS)
BARRIER = Barrier(100.0, 85.0, 1.0, "down-and-out")
PUT = Bermudan(105.0, QUARTERS, "put")


@dataclass(frozen=True)
class Kind:
    """A noise for each seed, the law of its scores, and the paths that it takes."""

    noise: Callable[[int], Noise]
    law: stats.rv_continuous
    paths: int = 1 << 11


KINDS = {
    "Threefry": Kind(Threefry, stats.norm),
    "Antithetic": Kind(lambda seed: Antithetic(Threefry(seed)), stats.norm),
    "Sobol": Kind(Sobol, stats.t(15), 1 << 13),
}


def from_book(model: Model, book: list[Payoff]) -> Run:
    """Values and errors of payoffs on the same paths."""

    def run(engine: MonteCarlo) -> tuple[torch.Tensor, torch.Tensor]:
        found = price(model, book, MARKET, engine)
        return found.value, found.std_error

    return run


def early(engine: MonteCarlo) -> tuple[torch.Tensor, torch.Tensor]:
    """The lower bound of a right to exercise; every seed has a policy of its own."""
    found = price_early(BlackScholes(0.2), PUT, MARKET, engine, LeastSquares(outer=0, degree=3))
    return found.value.reshape(1), found.std_error.reshape(1)


CASES = {
    "Black-Scholes": from_book(BlackScholes(0.2), [EUROPEAN, ASIAN, BARRIER]),
    "Heston": from_book(HESTON, [EUROPEAN, ASIAN, BARRIER]),
    "Heston, conditional": from_book(HESTON, [EUROPEAN]),
}
#: The same payoffs as under Black-Scholes, and 200 regressions on 8,192 Sobol points: 9 and 6 seconds.
SLOW = {"Heston", "early exercise, Sobol"}


def over_seeds(run: Run, kind: Kind) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and errors [seeds, payoffs]."""
    pairs = [run(dataclasses.replace(ENGINE, n_paths=kind.paths, noise=kind.noise(seed))) for seed in SEEDS]
    value, error = (torch.stack(column) for column in zip(*pairs, strict=True))
    return value, error


def check(scores: torch.Tensor, law: stats.rv_continuous, freedom: int) -> None:
    """Kolmogorov and Smirnov on the shape, chi-square (of the normal scores of the same rank) on the size."""
    found = scores.numpy()
    assert stats.kstest(found, law.cdf).pvalue > 1e-3
    normal = stats.norm.ppf(law.cdf(found))
    assert 1e-3 < stats.chi2.cdf(np.square(normal).sum(), freedom) < 1 - 1e-3


def named(things: dict[str, Any], prefix: str = "") -> list[Any]:
    """Parameters of a test, those in SLOW marked."""
    return [pytest.param(v, id=k, marks=[pytest.mark.slow] * (prefix + k in SLOW)) for k, v in things.items()]


@pytest.mark.parametrize("kind", named(KINDS))
@pytest.mark.parametrize("run", named(CASES))
def test_scores_follow_their_law(run: Run, kind: Kind) -> None:
    exact, exact_error = run(LONG)
    value, error = over_seeds(run, kind)
    scores = (value - exact) / torch.sqrt(error.square() + exact_error.square())
    for column in scores.unbind(-1):
        check(column, kind.law, len(SEEDS))


@pytest.mark.parametrize("kind", named(KINDS, "early exercise, "))
def test_scores_of_early_exercise_follow_their_law(kind: Kind) -> None:
    """About the mean of all seeds: a policy from few paths is worth less than one from many, but not by much."""
    exact, exact_error = early(LONG)
    value, error = over_seeds(early, kind)
    weight = 1 / error.square()
    mean = (weight * value).sum(0) / weight.sum(0)
    check(((value - mean) / error).squeeze(-1), kind.law, len(SEEDS) - 1)
    spread = torch.sqrt(1 / weight.sum(0) + exact_error.square())
    assert -2e-3 * float(exact) - 4 * float(spread) < float(mean - exact) < 4 * float(spread)


def test_scores_that_are_wrong_by_a_fifth_are_noticed() -> None:
    """The chi-square bounds are narrow enough to see an error understated by a fifth."""
    low, high = stats.chi2.ppf([1e-3, 1 - 1e-3], len(SEEDS)) / len(SEEDS)
    assert low > 0.8**2
    assert high < 1.2**2
