"""One entry point for all engines: exact prices against simulation and closed forms, mixed books, and refusals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from qsde.errors import InputError
from qsde.market.dividends import CashDividend, ProportionalDividend
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, Model, MultiAsset, bates, kou, merton
from qsde.noise import Sobol
from qsde.payoffs import (
    American,
    Asian,
    AssetDigital,
    AverageStrike,
    Bermudan,
    Claim,
    Digital,
    European,
    ForwardStart,
    Gap,
    Spread,
    VarianceSwap,
)
from qsde.pricing import Auto, Fourier, LeastSquares, MonteCarlo, price
from qsde.pricing import montecarlo as mc
from qsde.pricing.american import price_early
from qsde.pricing.exact import why_not_exact
from qsde.pricing.variance import price_variance_swap

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7)
BATES = bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.3, -0.1, 0.15)
KOU = kou(0.2, 1.0, 0.4, 10.0, 5.0)
MARKET = Market(100.0, rate=0.05, dividend_yield=0.01, dividends=[ProportionalDividend(0.6, 0.02)])
QUARTERS = (0.25, 0.5, 0.75, 1.0)
#: Two contracts of every kind that has exact prices.
EXACT: list[Claim] = [
    European(100.0, 1.0),
    Digital(95.0, 1.0, "put", cash=10.0),
    Gap(57.0, 90.0, 0.5),
    AverageStrike(QUARTERS, "put", "geometric"),
    ForwardStart(0.25, 1.0),
    Asian(100.0, QUARTERS, average="geometric"),
    AssetDigital(110.0, 0.5),
    VarianceSwap(0.06, (0.0, *QUARTERS), notional=100.0),
    European(90.0, 0.5, "put"),
    Digital(120.0, 0.25),
    Asian(105.0, QUARTERS[:2], "put", "geometric", expiry=1.0, past=[90.0]),
    ForwardStart(0.5, 0.75, 1.1, "put", "return"),
    AssetDigital(80.0, 1.0, "put"),
    AverageStrike((0.0, 0.5), "call", "geometric", expiry=1.0),
    VarianceSwap(0.0, (0.3, 0.5, 0.55), periods_per_year=252),
    Gap(100.0, 100.0, 1.0, "put"),
]
FEW = MonteCarlo(n_paths=1 << 10, max_dt=0.25)


@pytest.mark.parametrize("model", [BlackScholes(0.3), HESTON, BATES, KOU], ids=lambda m: m.name)
def test_exact_prices_are_those_of_simulation(model: Model) -> None:
    exact = price(model, EXACT, MARKET)
    assert set(exact.methods) == {"fourier"}
    assert exact.n_paths == 0
    assert torch.equal(exact.std_error, torch.zeros_like(exact.value))
    assert float(exact.numerical_error.max()) < 1e-7
    engine = MonteCarlo(n_paths=1 << 13, max_dt=1 / 32, noise=Sobol(5), control_variate=False, conditional=False)
    simulated = price(model, EXACT, MARKET, engine)
    assert set(simulated.methods) == {"monte_carlo"}
    # 16 payoffs and 4 models, and the error of Heston's step
    assert float(((simulated.value - exact.value).abs() / (simulated.std_error + 1e-4)).max()) < 4.5


def test_a_book_is_priced_as_its_parts_are() -> None:
    together = price(HESTON, EXACT, MARKET, Fourier())
    alone = [price(HESTON, payoff, MARKET, Fourier()) for payoff in EXACT]
    assert all(one.value.shape == () for one in alone)
    torch.testing.assert_close(together.value, torch.stack([one.value for one in alone]), rtol=1e-12, atol=1e-13)


def test_batches_of_models_have_an_axis_before_that_of_the_payoffs() -> None:
    vols = torch.tensor([0.1, 0.3, 0.5], dtype=torch.float64)
    found = price(BlackScholes(vols), EXACT, MARKET)
    assert found.value.shape == found.std_error.shape == found.upper.shape == (3, len(EXACT))
    for row, vol in zip(found.value, vols, strict=True):
        one = price(BlackScholes(vol), EXACT, MARKET)
        torch.testing.assert_close(row, one.value, rtol=1e-9, atol=1e-10)
    assert price(BlackScholes(vols), EXACT[0], MARKET).value.shape == (3,)


def test_exact_prices_are_differentiable_in_everything() -> None:
    def value(spot: float, v0: float, strike: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
        leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (spot, v0, strike)]
        book = [European(leaves[2], 1.0), Digital(leaves[2], 0.5), Asian(leaves[2], QUARTERS, average="geometric"),
                VarianceSwap(0.04, QUARTERS, notional=100.0)]  # fmt: skip
        model = Heston(v0=leaves[1], kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7)
        return price(model, book, Market(leaves[0], rate=0.05)).value.sum(), leaves

    point = [100.0, 0.04, 95.0]
    total, leaves = value(*point)
    slopes = torch.autograd.grad(total, leaves)
    for i, slope in enumerate(slopes):
        ends = [value(*(x * (1 + s * (i == j)) for j, x in enumerate(point)))[0].item() for s in (1e-5, -1e-5)]
        assert float(slope) == pytest.approx((ends[0] - ends[1]) / (2e-5 * point[i]), rel=1e-6)


def test_mixed_books_keep_their_order_and_the_digits_of_their_engines() -> None:
    right, asian, call = Bermudan(40.0, (0.5, 1.0), "put"), Asian(36.0, QUARTERS), European(40.0, 1.0, "put")
    market, model = Market(36.0, rate=0.06), BlackScholes(0.2)
    shares: list[float] = []
    found = price(model, [right, asian, call], market, FEW, lambda done, total: shares.append(done / total))
    assert found.methods == ("least_squares", "monte_carlo", "monte_carlo")
    early, simulated = price_early(model, right, market, FEW), mc.price(model, [asian, call], market, FEW)
    assert found.value.tolist() == [float(early.value), *simulated.value.tolist()]
    assert found.std_error.tolist() == [float(early.std_error), *simulated.std_error.tolist()]
    assert float(found.upper[0]) == float(early.upper)
    assert float(found.exercise_probability[0]) == early.exercise_probability
    assert found.upper.isnan().tolist() == found.exercise_time.isnan().tolist() == [False, True, True]
    assert found.variance_ratio.isnan().tolist() == [True, False, False]
    assert found.n_paths == 1 << 10
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_early_exercise_alone_and_its_settings() -> None:
    put = American(40.0, 1.0, "put", dates_per_year=4)
    found = price(BlackScholes(0.2), put, Market(36.0, rate=0.06), FEW, least_squares=LeastSquares(outer=0))
    assert found.value.shape == found.upper.shape == ()
    assert bool(found.upper.isnan())
    assert 4 <= float(found.value) < 4.6


def test_without_an_engine_one_is_chosen_for_each() -> None:
    book = [Asian(100.0, QUARTERS), European(100.0, 1.0), Bermudan(90.0, (0.5, 1.0), "put")]
    found = price(HESTON, book, MARKET, Auto(FEW))
    assert found.methods == ("monte_carlo", "fourier", "least_squares")
    alone = [price(HESTON, payoff, MARKET, engine) for payoff, engine in zip(book, (FEW, None, FEW), strict=True)]
    assert found.value.tolist() == [float(one.value) for one in alone]
    assert found.std_error.tolist() == [float(one.std_error) for one in alone]
    assert found.numerical_error.isnan().tolist() == [True, False, True]
    assert found.n_paths == FEW.n_paths
    assert price(HESTON, book[:2], MARKET).methods == ("monte_carlo", "fourier")
    both = Markets([Market(100.0), Market(95.0)])
    pair = MultiAsset([BlackScholes(0.2), BlackScholes(0.3)], [[1.0, 0.5], [0.5, 1.0]])
    assert price(pair, Spread(0.0, 1.0), both).methods == ("monte_carlo",)


def test_transforms_of_torch_func_are_served_by_simulation() -> None:
    def value(spot: torch.Tensor) -> torch.Tensor:
        return price(BlackScholes(0.2), European(100.0, 1.0), Market(spot)).value

    delta = torch.func.grad(value)(torch.tensor(100.0, dtype=torch.float64))
    assert float(delta) == pytest.approx(0.5398, abs=0.01)


def test_cash_dividends_before_one_date_leave_its_price_exact() -> None:
    market = Market(100.0, rate=0.03, dividends=[CashDividend(0.4, 5.0)])
    book = [European(100.0, 1.0), Digital(95.0, 1.0, cash=10.0), European(100.0, 0.3)]
    exact, simulated = price(HESTON, book, market), price(HESTON, book, market, MonteCarlo(1 << 14, 1 / 16))
    assert set(exact.methods) == {"fourier"}
    assert bool(((simulated.value - exact.value).abs() < 4 * simulated.std_error).all())


@pytest.mark.parametrize(
    ("payoff", "message"),
    [
        (Asian(100.0, QUARTERS), "an arithmetic average has no exact price"),
        (AverageStrike(QUARTERS), "an arithmetic average has no exact price"),
        (American(100.0, 1.0), "American has no exact price"),
        (Asian(100.0, QUARTERS, average="geometric"), "Asian has no exact price with cash dividends"),
        (VarianceSwap(0.04, QUARTERS), "VarianceSwap has no exact price with cash dividends"),
        (ForwardStart(0.25, 1.0), "ForwardStart has no exact price with cash dividends"),
        (AverageStrike((0.1, 0.2), average="geometric", expiry=1.0), "AverageStrike has no exact price with cash"),
    ],
)  # fmt: skip
def test_what_has_no_exact_price_is_named_with_the_engine_to_use(payoff: Claim, message: str) -> None:
    market = Market(100.0, rate=0.03, dividends=[CashDividend(0.4, 5.0)])
    with pytest.raises(InputError, match=rf"payoffs\[1\]: {message}.*; use MonteCarlo\(\)"):
        price(HESTON, [European(100.0, 1.0), payoff], market, Fourier())


def test_dividends_after_the_last_date_do_not_matter() -> None:
    market = Market(100.0, rate=0.03, dividends=[CashDividend(0.8, 5.0)])
    asian = Asian(100.0, (0.25, 0.5), average="geometric", expiry=1.0)
    assert why_not_exact(HESTON, asian, market) is None
    assert float(price(HESTON, asian, market).value) == float(price(HESTON, asian, Market(100.0, rate=0.03)).value)


def test_several_underlyings_and_nothing_at_all_are_refused() -> None:
    both = Markets([Market(100.0), Market(95.0)])
    pair = MultiAsset([BlackScholes(0.2), BlackScholes(0.3)], [[1.0, 0.5], [0.5, 1.0]])
    with pytest.raises(InputError, match=r"payoffs\[0\]: Spread has no exact price; use MonteCarlo"):
        price(pair, Spread(0.0, 1.0), both, Fourier())
    with pytest.raises(InputError, match="no payoffs"):
        price(HESTON, [], MARKET)


def test_an_error_about_a_right_says_which() -> None:
    with pytest.raises(InputError, match=r"payoffs\[1\]: BlackScholes has batch axes"):
        price(BlackScholes(torch.tensor([0.1, 0.2])), [European(100.0, 1.0), American(100.0, 1.0)], MARKET, FEW)


@pytest.mark.parametrize("dates", [(0.0, 1.0), (0.5, 0.75, 2.0), tuple(i / 252 for i in range(253))])
def test_variance_swaps_of_normal_and_poisson_increments_by_hand(dates: tuple[float, ...]) -> None:
    """Independent increments: variance, and the square of the mean, over each interval."""
    vol, intensity, mean, std = 0.2, 0.3, -0.1, 0.15
    market = Market(100.0, rate=0.05)
    steps = [b - a for a, b in itertools.pairwise(dates)]
    compensator = intensity * math.expm1(mean + 0.5 * std**2)
    for model, variance, drift in (
        (BlackScholes(vol), vol**2, 0.05 - vol**2 / 2),
        (merton(vol, intensity, mean, std), vol**2 + intensity * (mean**2 + std**2),
         0.05 - vol**2 / 2 - compensator + intensity * mean),
    ):  # fmt: skip
        swap = VarianceSwap(0.01, dates, notional=1000.0)
        realised = sum(variance * dt + (drift * dt) ** 2 for dt in steps) / sum(steps)
        found = price_variance_swap(model, swap, market)
        wanted = 1000 * math.exp(-0.05 * dates[-1]) * (realised - 0.01)
        assert float(found.value) == pytest.approx(wanted, rel=1e-12)
        assert abs(float(found.value) - wanted) < 10 * float(found.error) + 1e-13


def test_a_variance_swap_under_heston_by_its_moments() -> None:
    """`E[y^2] = E[V] + E[V^2] / 4 - E[V M]` with `V` the integrated variance and `M` the martingale part."""
    k, th, s, rho, v0, t = 1.5, 0.05, 0.4, -0.7, 0.04, 1.0
    e = math.exp(-k * t)
    mean = th * t + (v0 - th) * (1 - e) / k
    # variance of int v: Cairns and others; covariance E[V M] = rho sigma int E[v_s] (1 - exp(-k (t - s))) / k ds
    var = s**2 / k**2 * (
        th * (t - 2 * (1 - e) / k + (1 - e**2) / (2 * k)) + (v0 - th) * ((1 - e) / k - 2 * t * e + (e - e**2) / k)
    )  # fmt: skip
    both = rho * s / k * (th * (t - (1 - e) / k) + (v0 - th) * ((1 - e) / k - t * e))
    wanted = mean + (var + mean**2) / 4 - both
    found = price_variance_swap(HESTON, VarianceSwap(0.0, (0.0, t)), Market(100.0))
    assert float(found.value) == pytest.approx(wanted, rel=1e-12)


def test_variance_swaps_observed_ever_more_often_pay_the_integrated_variance() -> None:
    gaps = []
    for n in (10, 100, 1000):
        swap = VarianceSwap(0.0, [i / n for i in range(n + 1)])
        gaps.append(float(price_variance_swap(HESTON, swap, Market(100.0)).value) - float(HESTON.total_variance(
            torch.tensor(1.0, dtype=torch.float64))))  # fmt: skip
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(10, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "meta"}, "device: choose cpu, cuda"),
        ({"device": "cpu:1"}, "device: choose cpu, cuda"),
        ({"device": "privateuseone"}, "device: choose cpu, cuda"),
        ({"n_paths": 10**12}, r"n_paths must be from 2 to 68,719,476,736 \(2\^36\)"),
        ({"n_paths": 1}, "n_paths must be from 2"),
        ({"n_paths": True}, "n_paths must be an integer, such as 65536, got True"),
        ({"n_paths": 1e5}, r"n_paths must be an integer, such as 65536, got 100000\.0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MonteCarlo(**changes)


def test_an_expiry_too_near_to_be_told_from_now_is_refused_by_simulation_and_priced_exactly() -> None:
    soon = European(90.0, 1e-12)
    assert float(price(BlackScholes(0.2), soon, MARKET, Fourier()).value) == pytest.approx(10.0, rel=1e-8)
    with pytest.raises(InputError, match="give 0 for now, or a later date"):
        price(BlackScholes(0.2), soon, MARKET, FEW)


def test_numbers_are_checked_in_double_precision() -> None:
    assert European(1e300, 1.0).strike == 1e300
    assert European(1e-300, 1.0).strike == 1e-300
    with pytest.raises(InputError, match="strike must be positive and finite"):
        European(math.inf, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((BlackScholes(0.2), "european", Market(100.0)), r"payoffs\[0\] must be one of qsde.payoffs, got 'e'"),
        ((BlackScholes(0.2), None, Market(100.0)), "payoffs must be one of qsde.payoffs or a list of them, got None"),
        ((BlackScholes(0.2), [None], Market(100.0)), r"payoffs\[0\] must be one of qsde.payoffs, got None"),
        ((None, European(100.0, 1.0), Market(100.0)), "model must be of type Model, got None"),
        ((BlackScholes(0.2), European(100.0, 1.0), 100.0), "market must be of type Market or Markets, got 100.0"),
        (
            (BlackScholes(0.2), European(100.0, 1.0), Market(100.0), "fast"),
            "engine must be of type MonteCarlo or Fourier or Auto",
        ),
    ],
)
def test_arguments_of_another_type_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        price(*arguments)
