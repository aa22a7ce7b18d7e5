"""Greeks of rights to exercise early: against integrals from date to date, European limits and finite differences."""

from __future__ import annotations

import functools
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.greeks import Greeks, greeks
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, Model, MultiAsset, merton
from qsde.noise import Antithetic, Sobol, Threefry
from qsde.payoffs import American, AmericanBarrier, Barrier, Basket, Bermudan, Digital, European, Exercisable, Spread
from qsde.pricing.american import LeastSquares
from qsde.pricing.montecarlo import MonteCarlo

MARKET = Market(36.0, 0.06, 0.01)
QUARTERS = (0.25, 0.5, 0.75, 1.0)
FEW = MonteCarlo(n_paths=1 << 14, max_dt=0.25, noise=Threefry(4))


def bermudan_put(spot: Tensor, vol: Tensor, rate: Tensor, dividend: Tensor, elapsed: Tensor) -> Tensor:
    """A Bermudan put struck at 40 under Black-Scholes: integrals over the normal law from date to date.

    The last of them is differentiable in spot and time elapsed; the boundary is found on a grid of 0.25 % of the spot.
    """
    x = torch.linspace(-1.5, 1.5, 1201, dtype=torch.float64)
    prices = 36.0 * torch.exp(x)
    dates = torch.tensor([*QUARTERS], dtype=torch.float64)
    value = torch.relu(40.0 - prices)
    for step in dates.diff().flip(0):
        value = torch.maximum(torch.relu(40.0 - prices), _held(x, x, value, vol, rate, dividend, step))
    return _held(torch.log(spot / 36.0).reshape(1), x, value, vol, rate, dividend, dates[0] - elapsed)[0]


def _held(here: Tensor, x: Tensor, value: Tensor, vol: Tensor, rate: Tensor, dividend: Tensor, step: Tensor) -> Tensor:
    width = vol * torch.sqrt(step)
    z = (x - here.unsqueeze(-1) - (rate - dividend - 0.5 * vol * vol) * step) / width
    density = torch.exp(-0.5 * z * z) / (width * math.sqrt(2 * math.pi))
    return torch.exp(-rate * step) * (density * value).sum(-1) * (x[1] - x[0])


@functools.cache
def exact() -> dict[str, float]:
    """Raw Greeks of the Bermudan put; of first order by the envelope theorem of automatic differentiation."""
    point = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (36.0, 0.2, 0.06, 0.01, 0.0)]
    value = bermudan_put(*point)
    delta, vega, rho, dividend, theta = torch.autograd.grad(value, point, create_graph=True)
    gamma, vanna, *_, charm = torch.autograd.grad(delta, point)
    found = {"price": value, "delta": delta, "vega": vega, "rho": rho, "dividend_rho": dividend}
    found |= {"gamma": gamma, "vanna": vanna, "theta": theta, "charm": charm}
    return {name: float(v.detach()) for name, v in found.items()}


def check(got: Greeks, want: dict[str, float], slack: float = 0.0, row: int = 0) -> None:
    for name, value in want.items():
        gap = abs(float(got[name][row]) - value)
        room = 4 * float(got.error(name)[row]) + slack * abs(value) + 1e-9
        assert gap < room, (name, float(got[name][row]), float(got.error(name)[row]), value)


@pytest.mark.parametrize("noise", [Threefry(4), Antithetic(Threefry(5)), Sobol(6)], ids=lambda n: type(n).__name__)
def test_a_bermudan_put_against_integrals_from_date_to_date(noise: object) -> None:
    """A policy a little off the best makes first derivatives wrong by 1 % at most here."""
    engine = MonteCarlo(n_paths=1 << 15, noise=noise)  # type: ignore[arg-type]
    want = exact()
    got = greeks(BlackScholes(0.2), Bermudan(40.0, QUARTERS), MARKET, engine, list(want), units="raw")
    check(got, want, slack=0.01)
    assert got.methods == ("pathwise, frozen policy (second derivatives: differences)",)


@pytest.mark.parametrize(
    "model", [BlackScholes(0.2), merton(0.2, 0.5, -0.1, 0.15), Heston(0.04, 1.5, 0.05, 0.4, -0.7)], ids=lambda m: m.name
)
def test_with_one_date_they_are_european(model: Model) -> None:
    """Derivatives to jump intensities, which come from one more jump, among them."""
    engine = MonteCarlo(n_paths=1 << 15, max_dt=1 / 16, noise=Threefry(9))
    got = greeks(model, [Bermudan(40.0, (1.0,)), European(40.0, 1.0, "put")], MARKET, engine)
    want = greeks(model, European(40.0, 1.0, "put"), MARKET)
    check(got, {g.name: float(want[g.name]) for g in got.greeks}, slack=0.01)
    assert "volga" not in [g.name for g in got.greeks]


def test_a_call_without_dividends_is_never_exercised_early() -> None:
    market = Market(36.0, 0.06)
    names = ["price", "delta", "gamma", "vega", "rho"]
    got = greeks(BlackScholes(0.2), American(40.0, 1.0, "call", dates_per_year=6), market, FEW, names)
    want = greeks(BlackScholes(0.2), European(40.0, 1.0), market, which=names)
    check(got, {name: float(want[name]) for name in names}, slack=0.005)


def test_what_is_exercised_now_moves_with_the_spot_alone() -> None:
    """Deep in the money: today's decision is held."""
    got = greeks(BlackScholes(0.2), American(60.0, 1.0, dates_per_year=6), MARKET, FEW, units="raw")
    want = {"price": 24.0, "delta": -1.0, "gamma": 0.0, "vega": 0.0, "rho": 0.0, "theta": 0.0, "vanna": 0.0}
    for name, value in want.items():
        assert float(got[name]) == pytest.approx(value, abs=1e-9), name


@pytest.mark.slow  # the regressions of fifty dates, 32 parts of the paths at each of them
def test_american_against_finite_differences() -> None:
    """Against QuantLib 1.44, FdBlackScholesVanillaEngine(2000, 2000); fifty dates leave out 0.2 % of the price."""
    names = ["price", "delta", "gamma", "vega", "rho"]
    engine = MonteCarlo(n_paths=1 << 15, noise=Threefry(3))
    got = greeks(BlackScholes(0.2), American(40.0, 1.0), Market(36.0, 0.06), engine, names)
    want = {"price": 4.486452, "delta": -0.696782, "gamma": 0.086724, "vega": 0.109360, "rho": -0.103369}
    check(got, want, slack=0.005)


@pytest.mark.slow  # the regressions of fifty dates under a stochastic variance
def test_american_under_heston_against_finite_differences() -> None:
    reference = json.loads((Path(__file__).parents[1] / "reference" / "heston_american.json").read_text())[1]
    r = reference
    model = Heston(r["v0"], r["kappa"], r["theta"], r["sigma"], r["rho"])
    engine = MonteCarlo(n_paths=1 << 15, noise=Threefry(3))
    got = greeks(model, American(r["K"], r["T"]), Market(r["S"], r["r"], r["q"]), engine, ["price", "delta", "gamma"])
    check(got, {name: r[name] for name in ("price", "delta", "gamma")}, slack=0.01)


def test_beside_other_payoffs_and_in_total() -> None:
    book = [European(40.0, 1.0, "put"), Bermudan(40.0, (0.5, 1.0)), Barrier(40.0, 30.0, 1.0, "down-and-out")]
    told: list[tuple[int, int]] = []
    names = ["price", "delta", "gamma", "theta"]
    each = greeks(BlackScholes(0.2), book, MARKET, FEW, names, progress=lambda done, parts: told.append((done, parts)))
    total = greeks(BlackScholes(0.2), book, MARKET, FEW, names, total=True)
    torch.testing.assert_close(total.value[0], each.value.sum(0), rtol=1e-9, atol=1e-10)
    alone = greeks(BlackScholes(0.2), book[1], MARKET, FEW, names)
    torch.testing.assert_close(alone.value[0], each.value[1], rtol=1e-12, atol=1e-12)
    assert told[-1][0] == told[-1][1]
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(told))


def test_a_barrier_never_reached_does_not_matter() -> None:
    names = ["price", "delta", "vega"]
    far = AmericanBarrier(40.0, 400.0, 1.0, "up-and-out", "put", dates_per_year=4)
    got = greeks(BlackScholes(0.2), [far, American(40.0, 1.0, dates_per_year=4)], MARKET, FEW, names)
    for name in names:
        assert abs(float(got[name].diff())) < 4 * float(got.error(name).sum()), name


def test_several_underlyings() -> None:
    """With the second of no weight, the first alone; with one date, the European exchange."""
    model = MultiAsset([BlackScholes(0.2), BlackScholes(0.3)], [[1.0, 0.4], [0.4, 1.0]])
    markets = Markets([MARKET, Market(30.0, 0.06)])
    want = exact()
    right = Exercisable(Basket((1.0, 0.0), 40.0, 1.0, "put"), QUARTERS)
    names = ["price", "delta_1", "gamma_1_1", "vega_1", "delta_2", "gamma_1_2"]
    got = greeks(model, right, markets, FEW, names, units="raw")
    known = {"price": want["price"], "delta_1": want["delta"], "gamma_1_1": want["gamma"], "vega_1": want["vega"]}
    check(got, known | {"delta_2": 0.0, "gamma_1_2": 0.0}, slack=0.02)
    names = ["delta_1", "delta_2", "gamma_1_1", "gamma_1_2", "d_correlation_1_2"]
    both = [Exercisable(Spread(0.0, 1.0), (1.0,)), Spread(0.0, 1.0)]
    got = greeks(model, both, markets, FEW, names, units="raw")
    for name in names:
        assert abs(float(got[name].diff())) < 4 * float(got.error(name).sum()), name


def test_settings_of_the_regression_reach_it() -> None:
    """A constant for a policy is worth less, and so is a poor one."""
    put = Bermudan(40.0, QUARTERS)
    good, poor = (
        greeks(BlackScholes(0.2), put, MARKET, FEW, ["price"], least_squares=method)["price"]
        for method in (None, LeastSquares(degree=1, in_the_money=True))
    )
    assert float(poor) < float(good)


def test_refusals() -> None:
    put = Bermudan(40.0, QUARTERS)
    with pytest.raises(InputError, match="volga"):
        greeks(BlackScholes(0.2), put, MARKET, FEW, ["volga"])
    with pytest.raises(InputError, match="method='auto'"):
        greeks(BlackScholes(0.2), put, MARKET, FEW, ["delta"], method="likelihood")
    with pytest.raises(InputError, match="jumps"):
        greeks(BlackScholes(0.2), Exercisable(Digital(40.0, 1.0, "put"), (0.5,)), MARKET, FEW, ["delta"])
