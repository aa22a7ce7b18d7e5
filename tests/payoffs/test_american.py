"""What exercising pays, worked out by hand, and the contracts that are refused."""

from __future__ import annotations

import math

import pytest
import torch

from qsde.errors import InputError
from qsde.payoffs import (
    American,
    AmericanBarrier,
    Asian,
    AssetDigital,
    Basket,
    Bermudan,
    BestOf,
    Digital,
    European,
    Exercisable,
    Gap,
    Spread,
    Watched,
)

PRICES = torch.tensor([[90.0, 100.0, 130.0]], dtype=torch.float64)
PAIR = torch.tensor([[[110.0, 70.0]], [[90.0, 80.0]]], dtype=torch.float64)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_vanillas_pay_at_every_date() -> None:
    torch.testing.assert_close(Bermudan(100.0, (0.5, 1.0, 1.5), "put").exercise(PRICES), row(10, 0, -30))
    torch.testing.assert_close(American(100.0, 1.0, "call", 2).exercise(PRICES), row(-10, 0, 30))


def test_an_american_is_exercised_today_at_expiry_and_in_equal_steps() -> None:
    assert American(100.0, 0.5, dates_per_year=4).times == (0.0, 0.25, 0.5)
    assert American(100.0, 0.01, dates_per_year=4).times == (0.0, 0.01)
    assert len(American(100.0, 0.3, dates_per_year=50).times) == 16


@pytest.mark.parametrize(
    ("payoff", "amounts"),
    [
        (European(100.0, 1.0, "put"), (10.0, 0.0, -30.0)),
        (Digital(95.0, 1.0, "call", cash=7.0), (-7.0, 7.0, 7.0)),
        (AssetDigital(95.0, 1.0, "put"), (90.0, -100.0, -130.0)),
        (Gap(95.0, 110.0, 1.0, "call"), (-5.0, -5.0, 35.0)),
    ],
    ids=lambda p: type(p).__name__,
)
def test_payoffs_of_one_date_pay_on_others(payoff: European, amounts: tuple[float, ...]) -> None:
    right = Exercisable(payoff, (0.25, 0.5))
    assert right.times == (0.25, 0.5, 1.0)
    torch.testing.assert_close(right.exercise(PRICES), row(*amounts))
    assert right.continuous == payoff.continuous


def test_several_underlyings() -> None:
    assert Exercisable(Spread(5.0, 1.0), (0.5,)).assets == 2
    torch.testing.assert_close(Exercisable(Spread(5.0, 1.0), (0.5,)).exercise(PAIR), row(15, -15))
    torch.testing.assert_close(Exercisable(Basket((0.5, 0.5), 90.0, 1.0, "put"), (0.5,)).exercise(PAIR), row(-10, 15))
    best = Exercisable(BestOf((1.0, 2.0), 100.0, 1.0), (0.5,))
    torch.testing.assert_close(best.exercise(PAIR), row(80, 60))
    swapped = Exercisable(BestOf((1.0, 1.0), 100.0, 1.0), (0.5,))
    torch.testing.assert_close(swapped.signals(PAIR), swapped.signals(PAIR.flip(0)))
    torch.testing.assert_close(Exercisable(Spread(0.0, 1.0), (0.5,)).signals(PAIR), torch.log(PAIR))


def interval(start: float, end: float, variance: float) -> Watched:
    prices = row(start, end)
    return Watched((0.25, 0.5), prices.log(), prices[:, 1:].log(), row(variance), torch.empty(0))


def test_the_holder_of_a_knock_out_exercises_on_the_way_to_the_barrier() -> None:
    option = AmericanBarrier(100.0, 110.0, 1.0, "up-and-out", "call", rebate=3.0)
    knock = option.between(interval(105.0, 104.0, 0.01))
    touched = math.exp(-2 * math.log(110 / 105) * math.log(110 / 104) / 0.01)
    assert float(knock.survival) == pytest.approx(1 - touched)
    assert float(knock.early + knock.late) == pytest.approx(10 * touched)
    assert 0 < float(knock.early) < 10 * touched
    out_of_the_money = AmericanBarrier(120.0, 110.0, 1.0, "up-and-out", "call", rebate=3.0)
    knock = out_of_the_money.between(interval(105.0, 104.0, 0.01))
    assert float(knock.early + knock.late) == pytest.approx(3 * touched)


def test_a_jump_over_the_barrier_leaves_the_rebate() -> None:
    option = AmericanBarrier(100.0, 90.0, 1.0, "down-and-out", "put", rebate=3.0)
    prices = row(110.0, 80.0)
    knock = option.between(Watched((0.25, 0.5), prices.log(), row(110.0).log(), row(1e-6), torch.empty(0)))
    assert (float(knock.survival), float(knock.early), float(knock.late)) == pytest.approx((0.0, 0.0, 3.0))


def test_a_knock_in_pays_nothing_on_the_way() -> None:
    option = AmericanBarrier(100.0, 90.0, 1.0, "down-and-in", "put", rebate=3.0)
    knock = option.between(interval(95.0, 94.0, 0.01))
    assert float(knock.early + knock.late) == 0.0
    assert option.never == 3.0
    assert option.knocks_in


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Bermudan(100.0, ()), "dates is empty|times is empty"),
        (lambda: Bermudan(100.0, (0.5, 0.25)), "increase"),
        (lambda: Bermudan(100.0, (-0.5, 1.0)), "not negative"),
        (lambda: Bermudan(100.0, (0.5, math.nan)), "finite"),
        (lambda: Bermudan(0.0, (1.0,)), "strike"),
        (lambda: Bermudan(100.0, (1.0,), "straddle"), "kind"),  # type: ignore[arg-type]
        (lambda: American(100.0, 0.0), "expiry must be positive"),
        (lambda: American(100.0, 1.0, dates_per_year=0.0), "dates_per_year"),
        (lambda: American(100.0, 10.0, dates_per_year=365.0), "at most 200 a year"),
        (lambda: American(math.inf, 1.0), "strike"),
        (lambda: Exercisable(European(100.0, 1.0), (0.5, 2.0)), "increase|after the expiry"),
        (lambda: Exercisable(European(100.0, 1.0), (0.5, 1.0, 2.0)), "after the expiry 1.0; drop"),
        (lambda: Exercisable(Asian(100.0, (0.5, 1.0)), (0.5,)), "at one date"),
        (lambda: AmericanBarrier(100.0, -1.0, 1.0, "up-and-out"), "barrier"),
        (lambda: AmericanBarrier(100.0, 90.0, 1.0, "down"), "style"),  # type: ignore[arg-type]
        (lambda: AmericanBarrier(100.0, 90.0, 1.0, "down-and-out", rebate=-1.0), "rebate"),
    ],
)
def test_contracts_that_make_no_sense_are_refused(make: object, text: str) -> None:
    with pytest.raises(InputError, match=text):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(("style", "text"), [("down-and-out", "out already, it is worth its rebate, 2"), ("down-and-in",
                         "in already, price American")])  # fmt: skip
def test_a_barrier_that_was_touched_is_refused(style: str, text: str) -> None:
    option = AmericanBarrier(100.0, 90.0, 1.0, style, rebate=2.0)  # type: ignore[arg-type]
    option.check_spot(torch.tensor(90.1))
    with pytest.raises(InputError, match=text):
        option.check_spot(torch.tensor(90.0))
