"""Payoffs as functions of given paths, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch

from qsde.errors import InputError
from qsde.payoffs import Asian, Barrier, Digital, European, PathFunction, Payoff

PATHS = torch.tensor([[90.0, 80.0, 105.0], [110.0, 125.0, 118.0], [100.0, 100.0, 100.0]])
DATES = (0.25, 0.5, 1.0)


@pytest.mark.parametrize(
    ("payoff", "paid"),
    [
        (European(100.0, 1.0), [5.0, 18.0, 0.0]),
        (European(110.0, 1.0, "put"), [5.0, 0.0, 10.0]),
        (Digital(100.0, 1.0, cash=7.0), [7.0, 7.0, 0.0]),
        (Digital(100.0, 1.0, "put"), [0.0, 0.0, 0.0]),
        (Asian(95.0, DATES), [0.0, 353 / 3 - 95.0, 5.0]),
        (Barrier(95.0, 120.0, DATES, "up-and-out"), [10.0, 0.0, 5.0]),
        (Barrier(95.0, 120.0, DATES, "up-and-in", rebate=1.0), [1.0, 23.0, 1.0]),
        (Barrier(95.0, 85.0, DATES, "down-and-out"), [0.0, 23.0, 5.0]),
        (Barrier(95.0, 85.0, DATES, "down-and-in"), [10.0, 0.0, 0.0]),
        (Barrier(95.0, 125.0, DATES, "up-and-out"), [10.0, 0.0, 5.0]),  # a touch is a hit
        (PathFunction(DATES, lambda s: s.amax(-1)), [105.0, 125.0, 100.0]),
    ],
)
def test_amounts(payoff: Payoff, paid: list[float]) -> None:
    paths = PATHS[:, -1:] if len(payoff.times) == 1 else PATHS
    torch.testing.assert_close(payoff(paths), torch.tensor(paid))
    batch = payoff(paths.expand(2, *paths.shape))
    torch.testing.assert_close(batch[1], payoff(paths))


def test_knock_in_and_knock_out_make_the_vanilla() -> None:
    for style in ("up", "down"):
        parts = [Barrier(95.0, 101.0, DATES, f"{style}-and-{way}")(PATHS) for way in ("in", "out")]  # type: ignore[arg-type]
        torch.testing.assert_close(parts[0] + parts[1], European(95.0, 1.0)(PATHS[:, -1:]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: European(-1.0, 1.0), "European: strike must be positive"),
        (lambda: European(math.nan, 1.0), "strike must be positive and finite"),
        (lambda: European(100.0, -0.5), "must be finite and not negative"),
        (lambda: European(100.0, 0.0), "the contract has expired"),
        (lambda: European(100.0, 1.0, "Call"), "kind must be 'call' or 'put'"),
        (lambda: Asian(100.0, (1.0, 0.5)), r"times must increase, but times\[1\] = 0.5"),
        (lambda: Barrier(100.0, 0.0, DATES, "up-and-out"), "barrier must be positive"),
        (lambda: Barrier(100.0, 90.0, DATES, "up"), "style must be up or down"),
        (lambda: PathFunction(DATES, lambda s: s)(PATHS), "one amount per path"),
    ],
)
def test_what_is_wrong_is_named(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()  # type: ignore[operator]
