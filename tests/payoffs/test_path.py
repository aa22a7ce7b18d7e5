"""Payoffs of the user's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from qsde.errors import InputError
from qsde.greeks import greeks
from qsde.market.underlying import Market
from qsde.models import BlackScholes
from qsde.payoffs import PathFunction
from qsde.pricing.montecarlo import MonteCarlo, price

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
        (lambda: PathFunction(DATES, lambda s: s.numpy().max(-1))(PATHS), "got ndarray; use torch functions"),
        (lambda: PathFunction(DATES, 3.0), "must be a function of prices .*, got 3.0"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_is_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_a_function_that_works_in_place_leaves_the_prices_to_the_others() -> None:
    payoffs = [PathFunction(DATES, lambda s: s.sub_(100.0)[..., -1]), PathFunction(DATES, lambda s: s[..., -1])]
    engine = MonteCarlo(n_paths=1 << 8)
    together = price(BlackScholes(0.2), payoffs, Market(100.0), engine).value
    assert together.tolist() == pytest.approx([0.0, 100.0], abs=1e-9)


DIGITAL = PathFunction((1.0,), lambda s: (s[..., -1] > 100).to(s.dtype), label="mine")


@pytest.mark.parametrize(
    "derivative", [torch.func.grad, lambda f: lambda x: torch.func.jvp(f, (x,), (torch.ones_like(x),))]
)
def test_a_gradient_through_an_undeclared_jump_is_refused(derivative: Callable[..., Callable[..., object]]) -> None:
    def value(vol: torch.Tensor) -> torch.Tensor:
        return price(BlackScholes(vol), DIGITAL, Market(100.0), MonteCarlo(n_paths=1 << 8)).value

    vol = torch.tensor(0.2, dtype=torch.float64)
    with pytest.raises(InputError, match=r"mine: the amount has no derivative to the prices.*jumps=True"):
        derivative(value)(vol)
    assert 0 < value(vol) < 1


def test_greeks_of_an_undeclared_jump_are_refused() -> None:
    with pytest.raises(InputError, match=r"jumps=True and take qsde.greeks.greeks"):
        greeks(BlackScholes(0.2), DIGITAL, Market(100.0), MonteCarlo(n_paths=1 << 8), which=["delta"])
