"""Payoffs of the user's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from qsde.errors import InputError
from qsde.payoffs import PathFunction

PATHS = torch.tensor([[90.0, 80.0, 105.0], [110.0, 125.0, 118.0], [100.0, 100.0, 100.0]])
DATES = (0.25, 0.5, 1.0)


def test_amounts() -> None:
    best = PathFunction(DATES, lambda s: s.amax(-1), label="best")
    torch.testing.assert_close(best(PATHS), torch.tensor([105.0, 125.0, 100.0]))
    torch.testing.assert_close(best(PATHS.expand(2, 3, 3))[1], best(PATHS))
    assert best.times == DATES
    assert best.name == "best"


def test_a_function_that_jumps_says_so() -> None:
    assert PathFunction(DATES, lambda s: s.amax(-1)).continuous
    assert not PathFunction(DATES, lambda s: (s > 100).any(-1).to(s.dtype), jumps=True).continuous


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PathFunction((), lambda s: s), "PathFunction.dates: times is empty"),
        (lambda: PathFunction((1.0, 0.5), lambda s: s, label="mine"), "mine.dates: times must increase"),
        (lambda: PathFunction(DATES, lambda s: s)(PATHS), "one amount per path, shape \\(3,\\), got \\(3, 3\\)"),
        (lambda: PathFunction(DATES, lambda s: s.sum())(PATHS), "one amount per path"),
    ],
)
def test_what_is_wrong_is_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
