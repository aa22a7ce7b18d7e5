"""Settings of the regressions, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from qsde.errors import InputError
from qsde.noise import Noise


@dataclass(frozen=True)
class LeastSquares:
    """How continuation values are regressed, and how the upper bound is simulated.

    Attributes:
        degree: total degree of the polynomials of log-prices and other state; lowered where they would be too many.
        in_the_money: regress on paths only where exercise pays, on polynomials alone, as Longstaff and Schwartz do.
            The upper bound needs continuation values everywhere and is loose then.
        hedged: take the gains of a hedge in the underlyings out of what is regressed, and of the values; never done
            with `in_the_money`, whose regressions say nothing of the other paths.
        outer: paths of the upper bound; 0 leaves it out.
        inner: points from each date of such a path to the next, a power of 2.

    Raises:
        InputError: a number out of its range.
    """

    degree: int = 5
    in_the_money: bool = False
    hedged: bool = True
    outer: int = 1024
    inner: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.degree <= 12:
            raise InputError(f"degree must be from 1 to 12, got {self.degree}")
        if self.outer < 0 or self.outer == 1:
            raise InputError(f"outer must be 0 (no upper bound) or at least 2, got {self.outer}")
        if self.inner < 2 or self.inner & (self.inner - 1):
            raise InputError(f"inner must be a power of 2, at least 2, got {self.inner}")


@dataclass(frozen=True)
class EarlyEstimate:
    """An interval for the price of a right to exercise, and what is done with it.

    Attributes:
        value: the lower bound, what the policy found is worth: the mean over paths that had no part in finding it.
            Differentiable, with the decisions of each path kept as they are.
        std_error: standard error of `value`, without gradient.
        upper: the upper bound, of Rogers' dual form; NaN if it was left out.
        upper_std_error: its standard error.
        exercise_probability: probability that the right is exercised, at expiry included.
        exercise_time: mean time at which it is, years; NaN if it never is.
        n_paths: paths of the lower bound; as many again found the policy.
        noise: the random numbers used: with the same noise the same digits come back.
        seconds: wall-clock time.
    """

    value: Tensor
    std_error: Tensor
    upper: Tensor
    upper_std_error: Tensor
    exercise_probability: float
    exercise_time: float
    n_paths: int
    noise: Noise
    seconds: float
