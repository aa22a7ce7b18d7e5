"""Contracts observed at dates, priced: closed forms and relations that hold for the simulated price too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from scipy.stats import multivariate_normal, norm
from torch import Tensor

from qsde.errors import InputError
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, Model
from qsde.noise import Antithetic, Threefry
from qsde.payoffs import (
    Asian,
    Autocallable,
    AverageStrike,
    Cliquet,
    Digital,
    European,
    ForwardStart,
    Gap,
    PathFunction,
    Payoff,
    VarianceOption,
    VarianceSwap,
    VolatilitySwap,
)
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import Estimate, MonteCarlo, price

VOL, RATE, YIELD = 0.25, 0.04, 0.01
BLACK_SCHOLES = BlackScholes(VOL)
HESTON = Heston(v0=0.04, kappa=1.5, theta=0.06, sigma=0.5, rho=-0.7)
MARKET = Market(spot=100.0, rate=RATE, dividend_yield=YIELD)
ENGINE = MonteCarlo(n_paths=1 << 16, noise=Antithetic(Threefry(seed=21)), compile="never")
PLAIN = replace(ENGINE, control_variate=False)  # relations between payoffs hold path by path
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def close(found: Estimate, want: Sequence[float] | Tensor, errors: float = 3.5) -> None:
    off = (found.value - torch.as_tensor(want, dtype=torch.float64)).abs()
    assert (off <= errors * found.std_error).all(), off / found.std_error
    assert (found.std_error > 0).all()


def vanilla(model: Model, strike: float, t: float, kind: str = "call", market: Market = MARKET) -> float:
    call = torch.tensor(kind == "call")
    return float(price_european(model, strike, t, market.forward(t), market.discount(t), call).value)


def test_forward_starts_black_scholes() -> None:
    unit = Market(1.0, RATE, YIELD)
    for kind in ("call", "put"):
        one = vanilla(BLACK_SCHOLES, 1.1, 0.6, kind, unit)
        book = [ForwardStart(0.4, 1.0, 1.1, kind, pays) for pays in ("price", "return")]  # type: ignore[arg-type]
        want = torch.tensor([100 * math.exp(-YIELD * 0.4), math.exp(-RATE * 0.4)]) * one
        close(price(BLACK_SCHOLES, book, MARKET, ENGINE), want)
    today = price(HESTON, [ForwardStart(0.0, 1.0, 1.1), European(110.0, 1.0)], MARKET, PLAIN).value
    torch.testing.assert_close(today[0], today[1], rtol=1e-12, atol=0)


def test_cliquets_black_scholes() -> None:
    unit = Market(1.0, RATE, YIELD)
    growth = math.exp((RATE - YIELD) / 4) - 1
    call, capped = (vanilla(BLACK_SCHOLES, k, 0.25, market=unit) * math.exp(RATE / 4) for k in (1.0, 1.05))
    per_quarter = torch.tensor([growth, call, call - capped], dtype=torch.float64)
    book = [Cliquet(QUARTERS), Cliquet(QUARTERS, local_floor=0.0), Cliquet(QUARTERS, 0.0, 0.05)]
    close(price(BLACK_SCHOLES, book, MARKET, ENGINE), 4 * per_quarter * math.exp(-RATE))


def test_variance_swap_black_scholes() -> None:
    drift = RATE - YIELD - VOL**2 / 2
    dates = (0.0, 0.1, 0.4, 1.0)
    want = VOL**2 + drift**2 * (0.1**2 + 0.3**2 + 0.6**2)
    book = [VarianceSwap(0.05, dates, 100.0), VarianceSwap(0.0, dates, periods_per_year=3.0)]
    fair = torch.tensor([100 * (want - 0.05), want], dtype=torch.float64) * math.exp(-RATE)
    close(price(BLACK_SCHOLES, book, MARKET, ENGINE), fair)


def test_variance_contracts_heston() -> None:
    days = [i / 52 for i in range(53)]
    book = [
        VarianceSwap(0.0, days),
        VolatilitySwap(0.0, days),
        VarianceOption(0.04, days),
        VarianceOption(0.04, days, "put"),
    ]
    found = price(HESTON, book, MARKET, replace(PLAIN, n_paths=1 << 14))
    swap, volatility, call, put = (float(v) for v in found.value)
    discount = math.exp(-RATE)
    assert call - put == pytest.approx(swap - 0.04 * discount, rel=1e-10)
    assert volatility < discount * math.sqrt(swap / discount)
    # weekly dates add the squared drift and half the skew, both of the order of a week
    assert swap / discount == pytest.approx(float(HESTON.total_variance(torch.tensor(1.0))), rel=0.02)


def test_payment_may_come_later() -> None:
    dates = (0.25, 0.5)
    soon, late = price(HESTON, [Asian(98.0, dates), Asian(98.0, dates, expiry=2.0)], MARKET, PLAIN).value
    assert float(late / soon) == pytest.approx(math.exp(-1.5 * RATE), rel=1e-12)
    strike = AverageStrike((0.25, 0.5), expiry=1.0)
    function = PathFunction((0.25, 0.5, 1.0), lambda s: torch.relu(s[..., 2] - s[..., :2].mean(-1)))
    pair = price(HESTON, [strike, function], MARKET, PLAIN).value
    torch.testing.assert_close(pair[0], pair[1])


def test_a_seasoned_asian_with_one_fixing_left_is_a_european() -> None:
    book = [Asian(100.0, (1.0,), past=[90.0, 115.0]), European(95.0, 1.0)]
    asian, european = price(HESTON, book, MARKET, PLAIN).value
    assert float(3 * asian) == pytest.approx(float(european), rel=1e-12)


def test_an_autocallable_of_one_date_is_bond_digital_and_gap_put() -> None:
    note = Autocallable((1.0,), 100.0, 0.1, knock_in=0.7, notional=100.0)
    parts = [Digital(100.0, 1.0, cash=10.0), Gap(100.0, 70.0, 1.0, "put")]
    found = price(HESTON, [note, *parts], MARKET, PLAIN).value
    assert float(found[0]) == pytest.approx(100 * math.exp(-RATE) + float(found[1] - found[2]), rel=1e-10)
    always_in = Autocallable((1.0,), 100.0, 0.0, autocall_barrier=math.inf, knock_in=1e6, notional=100.0)
    close(price(HESTON, [always_in], MARKET, ENGINE), [100 * math.exp(-RATE) - vanilla(HESTON, 100.0, 1.0, "put")])


def test_an_autocallable_of_two_dates_black_scholes() -> None:
    barrier = [1.0, 0.95]
    memory = Autocallable((0.5, 1.0), 100.0, 0.04, autocall_barrier=barrier, memory=True, notional=100.0)
    t = torch.tensor([0.5, 1.0], dtype=torch.float64)
    below = (torch.log(torch.tensor(barrier).double()) - (RATE - YIELD - VOL**2 / 2) * t) / (VOL * t.sqrt())
    first = norm.cdf(-float(below[0]))
    never = multivariate_normal([0, 0], [[1, math.sqrt(0.5)], [math.sqrt(0.5), 1]]).cdf(below.numpy())
    early, late = math.exp(-RATE / 2), math.exp(-RATE)
    want = 104 * first * early + 108 * (1 - first - never) * late + 100 * never * late
    forgetful = want - 4 * (1 - first - never) * late
    close(
        price(BLACK_SCHOLES, [memory, replace(memory, memory=False)], MARKET, ENGINE), torch.tensor([want, forgetful])
    )


def test_a_batch_of_models() -> None:
    vols = torch.tensor([0.1, 0.3], dtype=torch.float64)
    book: list[Payoff] = [
        Autocallable((0.5, 1.0), 100.0, 0.04, coupon_barrier=0.8, memory=True, knock_in=0.7),
        Cliquet(QUARTERS, -0.02, 0.05), AverageStrike(QUARTERS), VolatilitySwap(0.2, QUARTERS), Gap(95.0, 100.0, 1.0),
    ]  # fmt: skip
    engine = replace(ENGINE, n_paths=1 << 10)
    both = price(BlackScholes(vols), book, MARKET, engine).value
    for i, vol in enumerate(vols):
        torch.testing.assert_close(both[i], price(BlackScholes(float(vol)), book, MARKET, engine).value)


def test_gradients_equal_bumps() -> None:
    engine = replace(PLAIN, n_paths=1 << 12, max_dt=1 / 8)

    def total(spot: Tensor, level: Tensor) -> Tensor:
        book: list[Payoff] = [
            Asian(100 * level, QUARTERS, "put", "geometric", past=[101.0]), AverageStrike(QUARTERS, "put"),
            ForwardStart(0.25, 1.0, level), Cliquet(QUARTERS, -0.02, 0.05 * level, notional=1e3),
            VarianceOption(0.04 * level, QUARTERS, notional=1e3), VolatilitySwap(0.2 * level, QUARTERS, 1e2),
            Gap(100 * level, 100 * level, 1.0),
        ]  # fmt: skip
        return price(HESTON, book, Market(spot, RATE, YIELD), engine).value.sum()

    at = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (100.0, 1.02)]
    slopes = torch.autograd.grad(total(*at), at)
    for i, (x, slope) in enumerate(zip(at, slopes, strict=True)):
        step = 1e-5 * float(x.detach())
        up, down = ([y.detach() + (step * sign if j == i else 0) for j, y in enumerate(at)] for sign in (1, -1))
        assert float(slope) == pytest.approx(float(total(*up) - total(*down)) / (2 * step), rel=2e-3)


def test_contracts_on_returns_have_no_delta() -> None:
    spot = torch.tensor(100.0, dtype=torch.float64, requires_grad=True)
    book = [Cliquet(QUARTERS, -0.02, 0.05), VarianceSwap(0.04, QUARTERS), ForwardStart(0.25, 1.0, pays="return")]
    engine = replace(PLAIN, n_paths=1 << 10)
    (delta,) = torch.autograd.grad(price(HESTON, book, Market(spot, RATE, YIELD), engine).value.sum(), spot)
    assert abs(float(delta)) < 1e-12
    value = price(HESTON, ForwardStart(0.25, 1.0), Market(spot, RATE, YIELD), engine).value
    assert float(torch.autograd.grad(value, spot)[0]) == pytest.approx(float(value.detach()) / 100, rel=1e-10)


@pytest.mark.parametrize(
    "payoff",
    [
        Gap(95.0, 100.0, 1.0),
        Autocallable((0.5, 1.0), 100.0, 0.04),
        PathFunction((1.0,), lambda s: (s[..., 0] > 100).to(s.dtype), jumps=True),
    ],
    ids=lambda p: p.name,
)
def test_pathwise_gradients_through_jumps_are_refused(payoff: Payoff) -> None:
    spot = torch.tensor(100.0, dtype=torch.float64, requires_grad=True)
    with pytest.raises(InputError, match="jumps, so its pathwise gradient is wrong"):
        price(BLACK_SCHOLES, payoff, Market(spot, RATE, YIELD), replace(ENGINE, n_paths=64))
    with torch.no_grad():
        price(BLACK_SCHOLES, payoff, Market(spot, RATE, YIELD), replace(ENGINE, n_paths=64))
