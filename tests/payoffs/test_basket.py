"""Payoffs of several underlyings: amounts by hand, relations between them, gradients, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs import Basket, BestOf, European, Payoff, Spread, Terminal, WorstOf
from qsde.payoffs.base import Kind

#: [asset, path, time] = two assets on three paths
PRICES = torch.tensor([[[90.0], [110.0], [100.0]], [[50.0], [30.0], [70.0]]], dtype=torch.float64)
GENERATOR = torch.Generator().manual_seed(1)
SAMPLE = 100 * torch.exp(0.3 * torch.randn(3, 400, 1, generator=GENERATOR, dtype=torch.float64))


@pytest.mark.parametrize(
    ("payoff", "paid"),
    [
        (Basket((1.0, 2.0), 180.0, 1.0), [10.0, 0.0, 60.0]),
        (Basket((1.0, 2.0), 180.0, 1.0, "put"), [0.0, 10.0, 0.0]),
        (Basket((1.0, -1.0), -50.0, 1.0), [90.0, 130.0, 80.0]),
        (Basket(torch.tensor([0.5, 0.0]), 50.0, 1.0), [0.0, 5.0, 0.0]),
        (Spread(35.0, 1.0), [5.0, 45.0, 0.0]),
        (Spread(35.0, 1.0, "put"), [0.0, 0.0, 5.0]),
        (BestOf((1.0, 1.0), 95.0, 1.0), [0.0, 15.0, 5.0]),
        (BestOf((1.0, 2.0), 120.0, 1.0, "put"), [20.0, 10.0, 0.0]),
        (WorstOf((1.0, 1.0), 40.0, 1.0), [10.0, 0.0, 30.0]),
        (WorstOf((1.0, 2.0), 95.0, 1.0, "put"), [5.0, 35.0, 0.0]),
    ],
)
def test_amounts(payoff: Terminal, paid: list[float]) -> None:
    want = torch.tensor(paid, dtype=torch.float64)
    torch.testing.assert_close(payoff(PRICES), want)
    torch.testing.assert_close(payoff(PRICES.expand(4, *PRICES.shape)), want.expand(4, 3))
    assert payoff.assets == 2
    assert payoff.times == (1.0,)


def test_best_and_worst_of_two_calls_are_both_calls() -> None:
    two = SAMPLE[:2]
    for kind in ("call", "put"):
        ranked = sum(p((1.0, 1.0), 105.0, 1.0, kind)(two) for p in (BestOf, WorstOf))  # type: ignore[arg-type]
        each = sum(European(105.0, 1.0, kind)(asset) for asset in two)  # type: ignore[arg-type]
        torch.testing.assert_close(ranked, each)


@pytest.mark.parametrize("kind", ["call", "put"])
def test_one_weight_is_a_european_and_a_spread_is_a_basket(kind: Kind) -> None:
    one = Basket((0.0, 1.0, 0.0), 105.0, 1.0, kind)(SAMPLE)
    torch.testing.assert_close(one, European(105.0, 1.0, kind)(SAMPLE[1]))
    torch.testing.assert_close(Spread(3.0, 1.0, kind)(SAMPLE[:2]), Basket((1.0, -1.0), 3.0, 1.0, kind)(SAMPLE[:2]))


@pytest.mark.parametrize("make", [lambda kind: Basket((0.2, 0.3, 0.5), 101.0, 1.0, kind),
                                  lambda kind: BestOf((1.0, 1.1, 0.9), 101.0, 1.0, kind),
                                  lambda kind: WorstOf((1.0, 1.1, 0.9), 101.0, 1.0, kind)])  # fmt: skip
def test_call_less_put_is_a_forward(make: Callable[[Kind], Terminal]) -> None:
    level = make("call")(SAMPLE) - make("put")(SAMPLE) + 101.0
    rest = SAMPLE[..., 0] * torch.tensor([1.0, 1.1, 0.9], dtype=torch.float64)[:, None]
    kinds = {
        "Basket": (SAMPLE[..., 0] * torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)[:, None]).sum(0),
        "BestOf": rest.max(0).values,
        "WorstOf": rest.min(0).values,
    }
    torch.testing.assert_close(level, kinds[make("call").name])


def test_a_basket_lies_between_the_worst_and_the_best() -> None:
    weights = (1 / 3, 1 / 3, 1 / 3)
    basket, best, worst = (
        p(SAMPLE)
        for p in (Basket(weights, 100.0, 1.0), BestOf((1.0,) * 3, 100.0, 1.0), WorstOf((1.0,) * 3, 100.0, 1.0))
    )
    assert (worst <= basket + 1e-12).all()
    assert (basket <= best + 1e-12).all()


@pytest.mark.parametrize("payoff", [Basket, BestOf, WorstOf])
def test_gradients_to_prices_weights_and_strike(payoff: type[Payoff]) -> None:
    prices = SAMPLE[:, :40].clone().requires_grad_()
    weights = torch.tensor([0.9, 1.0, 1.2], dtype=torch.float64, requires_grad=True)
    strike = torch.tensor(105.0, dtype=torch.float64, requires_grad=True)

    def amount(p: Tensor, w: Tensor, k: Tensor) -> Tensor:
        return payoff(w, k, 1.0)(p)  # type: ignore[call-arg, operator, no-any-return]

    assert torch.autograd.gradcheck(amount, (prices, weights, strike))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Basket((0.0, 0.0), 100.0, 1.0), "Basket: all weights are 0"),
        (lambda: Basket((1.0,), 100.0, 1.0), "Basket: weights must be two or more"),
        (lambda: Basket(torch.ones(2, 2), 100.0, 1.0), "weights must be two or more"),
        (lambda: Basket((1.0, math.nan), 100.0, 1.0), r"weights\[1\] must be finite"),
        (lambda: Basket((1.0, 1.0), math.inf, 1.0), "strike must be finite"),
        (lambda: BestOf((1.0, 0.0), 100.0, 1.0), "BestOf: weights must be positive"),
        (lambda: WorstOf((1.0, -1.0), 100.0, 1.0), "WorstOf: weights must be positive"),
        (lambda: Spread(math.nan, 1.0), "Spread: strike must be finite"),
        (lambda: Spread(1.0, 0.0), "Spread: expiry must be positive"),
        (lambda: Spread(1.0, 1.0, "calls"), "kind must be"),  # type: ignore[arg-type]
    ],
)
def test_refusals(make: Callable[[], Payoff], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
