"""Cliquets: amounts, limits, the bounds they keep, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from qsde.errors import InputError
from qsde.payoffs import Cliquet, ForwardStart, Payoff

RESETS = (0.0, 0.5, 1.0)
PATHS = torch.tensor([[100.0, 120.0, 114.0], [100.0, 90.0, 90.0], [100.0, 50.0, 75.0]])  # +20 -5, -10 0, -50 +50 %
SAMPLE = 100 * torch.exp(
    0.1 * torch.randn(400, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64).cumsum(-1)
)
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(
    ("option", "paid"),
    [
        (Cliquet(RESETS), [0.15, -0.1, 0.0]),
        (Cliquet(RESETS, local_floor=0.0), [0.2, 0.0, 0.5]),
        (Cliquet(RESETS, local_cap=0.08), [0.03, -0.1, -0.42]),
        (Cliquet(RESETS, -0.01, 0.08, notional=100.0), [7.0, -1.0, 7.0]),
        (Cliquet(RESETS, -0.01, 0.08, 0.0, 0.05), [0.05, 0.0, 0.05]),
        (Cliquet(RESETS, global_floor=0.02, global_cap=0.02), [0.02, 0.02, 0.02]),
    ],
)
def test_amounts(option: Cliquet, paid: list[float]) -> None:
    torch.testing.assert_close(option(PATHS), torch.tensor(paid), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(option(PATHS.expand(2, 3, 3))[1], option(PATHS))


def test_without_bounds_it_is_the_sum_of_returns() -> None:
    returns = SAMPLE[:, 1:] / SAMPLE[:, :-1] - 1
    torch.testing.assert_close(Cliquet(QUARTERS)(SAMPLE), returns.sum(-1))


def test_floored_at_zero_it_is_a_strip_of_forward_starts() -> None:
    strip = sum(
        ForwardStart(QUARTERS[i], QUARTERS[i + 1], pays="return")(SAMPLE[:, i : i + 2]) for i in range(4)
    )  # fmt: skip
    torch.testing.assert_close(Cliquet(QUARTERS, local_floor=0.0)(SAMPLE), strip)


def test_bounds_are_kept() -> None:
    paid = Cliquet(QUARTERS, -0.02, 0.03, -0.01, 0.06)(SAMPLE)
    assert float(paid.min()) == -0.01
    assert float(paid.max()) == 0.06
    local = Cliquet(QUARTERS, -0.02, 0.03)(SAMPLE)
    assert float(local.min()) >= -0.08
    assert float(local.max()) <= 0.12


def test_gradients_to_prices_bounds_and_notional() -> None:
    path = torch.tensor([[100.0, 120.0, 114.0, 116.0]], dtype=torch.float64, requires_grad=True)
    floor, cap, notional = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (-0.01, 0.08, 100.0))
    assert torch.autograd.gradcheck(
        lambda s, f, c, n: Cliquet((0.0, 0.5, 1.0, 1.5), f, c, notional=n)(s), (path, floor, cap, notional)
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Cliquet((1.0,)), "Cliquet: resets has one time"),
        (lambda: Cliquet(()), "Cliquet.resets: times is empty"),
        (lambda: Cliquet((0.5, 0.25)), "Cliquet.resets: times must increase"),
        (lambda: Cliquet(RESETS, 0.05, 0.01), "Cliquet: local_cap = 0.01 is below local_floor = 0.05"),
        (lambda: Cliquet(RESETS, global_floor=0.1, global_cap=0.0), "global_cap = 0.0 is below global_floor = 0.1"),
        (lambda: Cliquet(RESETS, local_cap=math.nan), "Cliquet: local_cap must be finite"),
        (lambda: Cliquet(RESETS, notional=0.0), "Cliquet: notional must be positive"),
    ],
)
def test_what_is_wrong_is_named(build: Callable[[], Payoff], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
