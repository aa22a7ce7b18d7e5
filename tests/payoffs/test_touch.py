"""Touch options on paths worked out by hand, and in one watched interval against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs import NoTouch, OneTouch, Paths, Payoff, Watched

PRICES = torch.tensor([[90.0, 80.0, 105.0], [110.0, 125.0, 118.0], [100.0, 100.0, 100.0]], dtype=torch.float64)
DATES = (0.25, 0.5, 1.0)
SPOT, RATE, VOL, EXPIRY = 100.0, 0.05, 0.3, 0.5


@pytest.mark.parametrize(
    ("payoff", "times", "amounts"),
    [
        (OneTouch(1.0, upper=120.0, cash=5.0, monitoring=DATES), DATES, [[0, 0, 0], [0, 5, 0], [0, 0, 0]]),
        (OneTouch(1.0, lower=90.0, cash=5.0, monitoring=DATES), DATES, [[5, 0, 0], [0, 0, 0], [0, 0, 0]]),
        (OneTouch(1.0, 85.0, 120.0, monitoring=DATES), DATES, [[0, 1, 0], [0, 1, 0], [0, 0, 0]]),
        (OneTouch(1.0, 85.0, 120.0, "asset", monitoring=DATES), DATES, [[0, 80, 0], [0, 125, 0], [0, 0, 0]]),
        (OneTouch(1.0, upper=120.0, pay_at="expiry", monitoring=DATES), (1.0,), [[0], [1], [0]]),
        (OneTouch(1.0, upper=120.0, pays="asset", pay_at="expiry", monitoring=DATES), (1.0,), [[0], [118], [0]]),
        (NoTouch(1.0, upper=120.0, cash=5.0, monitoring=DATES), (1.0,), [[5], [0], [5]]),
        (NoTouch(1.0, 85.0, 120.0, monitoring=DATES), (1.0,), [[0], [0], [1]]),
        (NoTouch(1.0, lower=85.0, pays="asset", monitoring=DATES), (1.0,), [[0], [118], [100]]),
    ],
)
def test_looked_at_on_dates(payoff: Payoff, times: tuple[float, ...], amounts: list[list[float]]) -> None:
    assert not payoff.continuous
    assert payoff.times == DATES
    flows = payoff.flows(Paths(PRICES))
    assert flows.times == times
    torch.testing.assert_close(flows.amounts, torch.tensor(amounts, dtype=torch.float64))


def one_interval(barriers: tuple[float, ...]) -> tuple[Paths, Tensor]:
    """Prices at expiry with their probabilities under Black-Scholes, the path in between watched."""
    size, mean = VOL * math.sqrt(EXPIRY), (RATE - VOL**2 / 2) * EXPIRY
    x, w = np.polynomial.legendre.leggauss(100)
    edges = [mean - 9 * size, *(math.log(b / SPOT) for b in barriers), mean + 9 * size]
    z = np.concatenate([a + (b - a) * (x + 1) / 2 for a, b in pairwise(edges)])
    weight = np.concatenate([(b - a) / 2 * w for a, b in pairwise(edges)])
    probability = weight * np.exp(-0.5 * ((z - mean) / size) ** 2) / (size * math.sqrt(2 * math.pi))
    end = torch.tensor(SPOT * np.exp(z))[:, None]
    prices = torch.cat([torch.full_like(end, SPOT), end], -1)
    watched = Watched((0.0, EXPIRY), prices.log(), end.log(), 0 * end + size**2, 0 * end + 0.5)
    return Paths(end, watched), torch.tensor(probability)


def worth(payoff: Payoff, *barriers: float) -> float:
    paths, probability = one_interval(barriers)
    flows = payoff.flows(paths)
    discount = torch.exp(-RATE * torch.tensor(flows.times, dtype=torch.float64))
    return float(probability @ (flows.amounts * discount).sum(-1))


def normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def touch_probability(barrier: float, drift: float) -> float:
    """Of `drift t + VOL W` reaching `log(barrier / SPOT)` by expiry."""
    b, sign = math.log(barrier / SPOT), 1 if barrier > SPOT else -1
    size = VOL * math.sqrt(EXPIRY)
    reflected = math.exp(2 * drift * b / VOL**2) * normal(sign * (-b - drift * EXPIRY) / size)
    return normal(sign * (-b + drift * EXPIRY) / size) + reflected


@pytest.mark.parametrize("barrier", [60.0, 90.0, 99.0, 101.0, 120.0, 160.0])
def test_one_barrier_by_reflection(barrier: float) -> None:
    side = {"upper" if barrier > SPOT else "lower": barrier}
    discount = math.exp(-RATE * EXPIRY)
    cash = discount * touch_probability(barrier, RATE - VOL**2 / 2)
    asset = SPOT * touch_probability(barrier, RATE + VOL**2 / 2)
    assert worth(OneTouch(EXPIRY, pay_at="expiry", **side), barrier) == pytest.approx(cash, abs=1e-10)
    assert worth(NoTouch(EXPIRY, **side), barrier) == pytest.approx(discount - cash, abs=1e-10)
    at_expiry = OneTouch(EXPIRY, pays="asset", pay_at="expiry", **side)
    assert worth(at_expiry, barrier) == pytest.approx(asset, abs=1e-8)
    # without dividends the asset at the hit is worth as much as at expiry; what is booked is at most that much off
    at_hit = worth(OneTouch(EXPIRY, pays="asset", **side), barrier)
    assert asset * (1 - 1e-9) <= at_hit <= asset * (1 + (RATE * EXPIRY) ** 2 / 8)


@pytest.mark.parametrize(("lower", "upper"), [(60.0, 170.0), (85.0, 120.0), (95.0, 103.0)])
def test_two_barriers_by_sines(lower: float, upper: float) -> None:
    """Double no-touch by the sine series of the whole problem (Hui 1996)."""
    width, x, mu = math.log(upper / lower), math.log(SPOT / lower), RATE - VOL**2 / 2
    a = mu / VOL**2
    total = 0.0
    for k in range(1, 100):
        b = k * math.pi / width
        integral = b * (1 - (-1) ** k * math.exp(a * width)) / (a * a + b * b)
        total += 2 / width * math.sin(b * x) * integral * math.exp(-0.5 * (b * VOL) ** 2 * EXPIRY)
    exact = total * math.exp(-a * x - (0.5 * mu**2 / VOL**2 + RATE) * EXPIRY)
    assert worth(NoTouch(EXPIRY, lower, upper), lower, upper) == pytest.approx(exact, abs=1e-10)
    touched = worth(OneTouch(EXPIRY, lower, upper, pay_at="expiry"), lower, upper)
    assert touched == pytest.approx(math.exp(-RATE * EXPIRY) - exact, abs=1e-10)
    now = worth(OneTouch(EXPIRY, lower, upper), lower, upper)
    assert touched <= now <= touched * math.exp(RATE * EXPIRY)


def test_either_of_two_barriers_is_less_than_the_sum() -> None:
    either = worth(OneTouch(EXPIRY, 85.0, 120.0), 85.0, 120.0)
    single = [worth(OneTouch(EXPIRY, lower=85.0), 85.0), worth(OneTouch(EXPIRY, upper=120.0), 120.0)]
    assert max(single) < either < sum(single)


@pytest.mark.parametrize(
    "payoff",
    [
        OneTouch(EXPIRY, upper=110.0),
        OneTouch(EXPIRY, lower=90.0, pays="asset"),
        OneTouch(EXPIRY, 90.0, 110.0),
        OneTouch(EXPIRY, 90.0, 110.0, "asset", pay_at="expiry"),
        NoTouch(EXPIRY, 90.0, 110.0),
        NoTouch(EXPIRY, lower=90.0, pays="asset"),
    ],
)
def test_gradient_is_the_bump(payoff: Payoff) -> None:
    paths, _ = one_interval((90.0, 110.0))
    assert payoff.continuous
    watched = paths.watched
    assert watched is not None

    def amounts(prices: Tensor, variance: Tensor) -> Tensor:
        seen = Watched(watched.times, prices.log(), prices[:, 1:].log(), variance, watched.uniforms)
        return payoff.flows(Paths(prices[:, 1:], seen)).amounts

    inputs = watched.prices[::17].clone().requires_grad_(), watched.variance[::17].clone().requires_grad_()
    assert torch.autograd.gradcheck(amounts, inputs, eps=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OneTouch(1.0), "there is no barrier; give lower, upper or both"),
        (lambda: NoTouch(1.0, 110.0, 90.0), "lower = 110.0 must be below upper = 90.0"),
        (lambda: NoTouch(1.0, lower=-1.0), "lower must be positive"),
        (lambda: NoTouch(1.0, upper=math.nan), "upper must be positive and finite"),
        (lambda: OneTouch(0.0, upper=100.0), "OneTouch: expiry must be positive"),
        (lambda: OneTouch(1.0, upper=100.0, pays="stock"), "pays must be one of 'cash', 'asset'"),  # type: ignore[arg-type]
        (lambda: OneTouch(1.0, upper=100.0, pay_at="end"), "pay_at must be one of 'hit', 'expiry'"),  # type: ignore[arg-type]
        (lambda: OneTouch(1.0, upper=100.0, cash=math.nan), "cash must be finite"),
        (lambda: OneTouch(1.0, 90.0, 100.0, "asset"), "at the hit is two amounts; use pay_at='expiry'"),
        (lambda: NoTouch(1.0, 90.0, monitoring=(0.5, 0.2)), "times must increase"),
    ],
)
def test_what_is_wrong_is_named(build: Callable[[], Payoff], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_the_wrong_side_of_the_spot() -> None:
    spot = torch.tensor(100.0, dtype=torch.float64)
    for payoff, message in (
        (OneTouch(1.0, upper=95.0, cash=15.0), r"touched already \(upper = 95.0\): it is worth 15.0 in cash now"),
        (OneTouch(1.0, lower=100.0, pays="asset", pay_at="expiry"), "it is worth the asset at expiry"),
        (NoTouch(1.0, 101.0, 120.0), r"\(lower = 101.0 and upper = 120.0\): it is worth nothing"),
    ):
        with pytest.raises(InputError, match=message):
            payoff.check_spot(spot)
    NoTouch(1.0, 99.0, 101.0).check_spot(spot)
    OneTouch(1.0, upper=95.0, monitoring=DATES).check_spot(spot)


def test_a_gradient_to_a_barrier_on_dates_is_refused() -> None:
    level = torch.tensor(110.0, dtype=torch.float64, requires_grad=True)
    with pytest.raises(InputError, match="NoTouch: the amount jumps where the price crosses upper"):
        NoTouch(1.0, upper=level, monitoring=DATES).flows(Paths(PRICES))
