"""Forward starts: amounts, limits and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from qsde.errors import InputError
from qsde.payoffs import European, ForwardStart, Payoff

PATHS = torch.tensor([[80.0, 100.0], [125.0, 100.0], [100.0, 100.0]])


@pytest.mark.parametrize(
    ("payoff", "paid"),
    [
        (ForwardStart(0.5, 1.0), [20.0, 0.0, 0.0]),
        (ForwardStart(0.5, 1.0, 1.1, "put"), [0.0, 37.5, 10.0]),
        (ForwardStart(0.5, 1.0, 0.9, pays="return"), [0.35, 0.0, 0.1]),
        (ForwardStart(0.5, 1.0, kind="put", pays="return"), [0.0, 0.2, 0.0]),
    ],
)
def test_amounts(payoff: ForwardStart, paid: list[float]) -> None:
    torch.testing.assert_close(payoff(PATHS), torch.tensor(paid))
    assert payoff.times == (0.5, 1.0)


def test_started_today_it_is_the_vanilla() -> None:
    path = torch.tensor([[100.0, 130.0]])
    torch.testing.assert_close(ForwardStart(0.0, 1.0, 1.1)(path), European(110.0, 1.0)(path[:, 1:]))


def test_gradients() -> None:
    path = torch.tensor([[90.0, 120.0]], dtype=torch.float64, requires_grad=True)
    moneyness = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    for pays in ("price", "return"):
        assert torch.autograd.gradcheck(
            lambda s, m, pays=pays: ForwardStart(0.5, 1.0, m, pays=pays)(s), (path, moneyness)
        )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ForwardStart(1.0, 0.5), r"ForwardStart \(start, expiry\): times must increase"),
        (lambda: ForwardStart(1.0, 1.0), "times must increase"),
        (lambda: ForwardStart(-0.5, 1.0), "must be finite and not negative"),
        (lambda: ForwardStart(0.5, 1.0, 0.0), "ForwardStart: moneyness must be positive"),
        (lambda: ForwardStart(0.5, 1.0, pays="percent"), "pays must be one of 'price', 'return', got 'percent'"),  # type: ignore[arg-type]
        (lambda: ForwardStart(0.5, 1.0, kind="straddle"), "kind must be"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_is_named(build: Callable[[], Payoff], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
