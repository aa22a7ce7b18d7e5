"""Contracts on realised variance: conventions, limits, gradients and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from qsde.errors import InputError
from qsde.payoffs import Payoff, VarianceOption, VarianceSwap, VolatilitySwap

DATES = (0.0, 0.25, 0.5)
PATHS = 100 * torch.exp(torch.tensor([[0.0, 0.1, 0.3], [0.2, 0.1, 0.0]], dtype=torch.float64))
REALISED = torch.tensor([0.05, 0.02], dtype=torch.float64) / 0.5


def test_conventions() -> None:
    torch.testing.assert_close(VarianceSwap(0.04, DATES)(PATHS), REALISED - 0.04)
    torch.testing.assert_close(VarianceSwap(0.0, DATES, 50.0)(PATHS), 50 * REALISED)
    torch.testing.assert_close(VolatilitySwap(0.2, DATES, 10.0)(PATHS), 10 * (REALISED.sqrt() - 0.2))
    torch.testing.assert_close(VarianceOption(0.05, DATES, notional=10.0)(PATHS), 10 * (REALISED - 0.05).clamp(min=0))
    put = VarianceOption(0.05, DATES, "put")(PATHS)
    torch.testing.assert_close(put, (0.05 - REALISED).clamp(min=0))
    daily = VarianceSwap(0.0, DATES, periods_per_year=252)(PATHS)
    torch.testing.assert_close(daily, 252 / 2 * REALISED * 0.5)
    torch.testing.assert_close(VarianceSwap(0.04, DATES)(PATHS.expand(3, 2, 3))[2], REALISED - 0.04)


def test_a_path_of_constant_growth_realises_the_square_of_its_growth() -> None:
    n = 250
    dates = [i / n for i in range(n + 1)]
    path = 100 * torch.exp(0.2 * math.sqrt(1 / n) * torch.arange(n + 1, dtype=torch.float64)).unsqueeze(0)
    for periods in (None, 250.0):
        torch.testing.assert_close(
            VarianceSwap(0.01, dates, periods_per_year=periods)(path), torch.tensor([0.03], dtype=torch.float64)
        )


def test_the_mean_is_not_subtracted_and_single_precision_will_do() -> None:
    path = torch.tensor([[100.0, 110.0, 121.0]])
    torch.testing.assert_close(VarianceSwap(0.0, DATES)(path), torch.tensor([4 * math.log(1.1) ** 2]))


def test_calls_and_puts_make_the_swap() -> None:
    sides = [VarianceOption(0.07, DATES, kind)(PATHS) for kind in ("call", "put")]  # type: ignore[arg-type]
    torch.testing.assert_close(sides[0] - sides[1], VarianceSwap(0.07, DATES)(PATHS))


def test_volatility_is_at_most_the_root_of_variance() -> None:
    draws = torch.randn(200, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    paths = 100 * torch.exp(0.1 * draws.cumsum(-1))
    assert VolatilitySwap(0.0, DATES)(paths).mean() < VarianceSwap(0.0, DATES)(paths).mean().sqrt()


def test_gradients() -> None:
    paths = PATHS.clone().requires_grad_()
    strike, notional = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.07, 3.0))
    for kind in (VarianceSwap, VolatilitySwap, VarianceOption):
        assert torch.autograd.gradcheck(
            lambda s, k, n, kind=kind: kind(k, DATES, notional=n)(s), (paths, strike, notional)
        )


def test_a_path_that_does_not_move_has_a_finite_gradient() -> None:
    still = torch.full((1, 3), 100.0, requires_grad=True)
    paid = VolatilitySwap(0.2, DATES)(still)
    (slope,) = torch.autograd.grad(paid.sum(), still)
    torch.testing.assert_close(paid.detach(), torch.tensor([-0.2]))
    assert (slope == 0).all()


def test_a_path_that_is_not_a_number_stays_one() -> None:
    broken = torch.tensor([[100.0, math.nan, 100.0]])
    for payoff in (VarianceSwap(0.04, DATES), VolatilitySwap(0.2, DATES), VarianceOption(0.04, DATES)):
        assert torch.isnan(payoff(broken)).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VarianceSwap(0.04, (1.0,)), "VarianceSwap: observations has one time"),
        (lambda: VarianceSwap(0.04, ()), "VarianceSwap.observations: times is empty"),
        (lambda: VarianceSwap(0.04, (0.0, 1.0, 0.5)), "VarianceSwap.observations: times must increase"),
        (lambda: VarianceSwap(-0.04, DATES), "VarianceSwap: strike must be finite and not negative"),
        (lambda: VarianceSwap(0.04, DATES, periods_per_year=0), "VarianceSwap: periods_per_year must be positive"),
        (lambda: VolatilitySwap(0.2, (0.5,)), "VolatilitySwap: observations has one time"),
        (lambda: VolatilitySwap(math.nan, DATES), "VolatilitySwap: strike must be finite"),
        (lambda: VolatilitySwap(0.2, DATES, notional=0.0), "VolatilitySwap: notional must be positive"),
        (lambda: VarianceOption(0.0, DATES), "VarianceOption: strike must be positive"),
        (lambda: VarianceOption(0.04, DATES, "both"), "VarianceOption: kind must be"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_is_named(build: Callable[[], Payoff], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
