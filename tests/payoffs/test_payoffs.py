"""Payoffs as functions of given paths, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from qsde.errors import InputError
from qsde.payoffs import Barrier, European, PathFunction, Terminal

PATHS = torch.tensor([[90.0, 80.0, 105.0], [110.0, 125.0, 118.0], [100.0, 100.0, 100.0]])
DATES = (0.25, 0.5, 1.0)


@pytest.mark.parametrize(
    ("payoff", "paid"),
    [
        (Barrier(95.0, 120.0, DATES, "up-and-out"), [10.0, 0.0, 5.0]),
        (Barrier(95.0, 120.0, DATES, "up-and-in", rebate=1.0), [1.0, 23.0, 1.0]),
        (Barrier(95.0, 85.0, DATES, "down-and-out"), [0.0, 23.0, 5.0]),
        (Barrier(95.0, 85.0, DATES, "down-and-in"), [10.0, 0.0, 0.0]),
        (Barrier(95.0, 125.0, DATES, "up-and-out"), [10.0, 0.0, 5.0]),  # a touch is a hit
        (PathFunction(DATES, lambda s: s.amax(-1)), [105.0, 125.0, 100.0]),
    ],
)
def test_amounts(payoff: Terminal, paid: list[float]) -> None:
    torch.testing.assert_close(payoff(PATHS), torch.tensor(paid))
    torch.testing.assert_close(payoff(PATHS.expand(2, 3, 3))[1], payoff(PATHS))


def test_knock_in_and_knock_out_make_the_vanilla() -> None:
    for style in ("up", "down"):
        parts = [Barrier(95.0, 101.0, DATES, f"{style}-and-{way}")(PATHS) for way in ("in", "out")]  # type: ignore[arg-type]
        torch.testing.assert_close(parts[0] + parts[1], European(95.0, 1.0)(PATHS[:, -1:]))


def test_a_function_that_jumps_says_so() -> None:
    assert PathFunction(DATES, lambda s: s.amax(-1)).continuous
    assert not PathFunction(DATES, lambda s: (s > 100).any(-1).to(s.dtype), jumps=True).continuous


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Barrier(100.0, 0.0, DATES, "up-and-out"), "barrier must be positive"),
        (lambda: Barrier(100.0, 90.0, DATES, "up"), "style must be up or down"),
        (lambda: PathFunction(DATES, lambda s: s)(PATHS), "one amount per path"),
    ],
)
def test_what_is_wrong_is_named(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()  # type: ignore[operator]
