"""Published prices of American and Bermudan options, each inside the interval that the simulation gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from qsde.market.dividends import CashDividend
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, MultiAsset
from qsde.payoffs import American, Basket, Bermudan, BestOf, Exercisable
from qsde.pricing.american import EarlyEstimate, LeastSquares, price_early
from qsde.pricing.american.lower import worth
from qsde.pricing.american.policy import fit
from qsde.pricing.american.stages import Sample, Stages
from qsde.pricing.engine import MonteCarlo

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
TABLE_1 = pd.read_csv(REFERENCE / "american_longstaff_schwartz_table1.csv")
MISC = json.loads((REFERENCE / "american_lsm_misc.json").read_text())
IKONEN, GREEKS = json.loads((REFERENCE / "heston_american.json").read_text())

ENGINE = MonteCarlo(n_paths=1 << 12, compile="never")
METHOD = LeastSquares(outer=256, inner=32)


def check(found: EarlyEstimate, value: float, dates: float, rounding: float, errors: float = 3.0) -> None:
    """The value lies in the interval, widened by three errors, the rounding, and what exercise at any time adds."""
    below = float(found.value.detach()) - errors * float(found.std_error) - rounding
    above = float(found.upper) + errors * float(found.upper_std_error) + rounding + dates
    assert below <= value <= above, (below, value, above)


class InPrices(Bermudan):
    """Regressed on prices, as the paper does."""

    def signals(self, prices: torch.Tensor) -> torch.Tensor:
        return prices.unsqueeze(0)


def test_the_eight_paths_of_longstaff_and_schwartz() -> None:
    toy = MISC["ls_toy"]
    market = Market(spot=1.0, rate=toy["rate"])
    stages = Stages.of(BlackScholes(0.2), InPrices(toy["strike"], (1.0, 2.0, 3.0), "put"), market, ENGINE)
    prices = torch.tensor(toy["paths"], dtype=torch.float64).T
    sample = Sample((torch.log(prices / market.forward(torch.arange(4.0)).unsqueeze(-1)),), (None,) * 3)
    policy = fit(stages, sample, LeastSquares(degree=2, in_the_money=True), hedged=False)
    found = worth(stages, sample, policy)
    assert float(found.value.mean()) == pytest.approx(toy["american_put"], abs=5e-5)
    payoff = torch.relu(toy["strike"] - prices[-1]) * market.discount(3.0)
    assert float(payoff.mean()) == pytest.approx(toy["european_put"], abs=5e-5)
    # section 1 of the paper: exercised on paths 4, 6, 7, 8 at t = 1 and on path 3 at t = 3
    assert found.time.tolist() == [0, 0, 3, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("row", list(TABLE_1.itertuples()), ids=lambda r: f"{r.spot}-{r.vol}-{r.T}")
def test_finite_differences_of_longstaff_and_schwartz(row: Any) -> None:
    put = American(float(row.strike), float(row.T), "put")
    found = price_early(BlackScholes(row.vol), put, Market(float(row.spot), row.r, float(row.q)), ENGINE, METHOD)
    check(found, row.fd_american_put, dates=0.0, rounding=5e-4)
    assert float(found.upper) < 1.005 * float(found.value)
    assert abs(float(found.value) - row.fd_american_put) < 0.01 + 3 * float(found.std_error)


@pytest.mark.parametrize("strike", [36, 40])
@pytest.mark.parametrize("vol", [0.2, 0.3, 0.4])
def test_exercise_probabilities(strike: int, vol: float) -> None:
    case = MISC["exercise_probability"]
    i, j = case["strikes"].index(strike), case["vols"].index(vol)
    put = American(float(strike), float(case["T"]), "put")
    found = price_early(BlackScholes(vol), put, Market(float(case["S"]), case["r"]), ENGINE, METHOD)
    assert found.exercise_probability == pytest.approx(case["prob"][i][j], abs=0.02)
    assert float(found.value) == pytest.approx(case["price"][i][j], abs=0.06)  # which is up to 0.03 too high


@pytest.mark.parametrize("i", range(3))
def test_the_better_of_two(i: int) -> None:
    case = MISC["max_call_two_assets"]
    model = MultiAsset([BlackScholes(case["vol"])] * 2, [[1.0, case["corr"]], [case["corr"], 1.0]])
    claim = Exercisable(BestOf((1.0, 1.0), float(case["strike"]), 3.0), [k / 3 for k in range(10)])
    market = Markets([Market(float(case["spots"][i]), case["r"], case["q"])] * 2)
    found = price_early(model, claim, market, MonteCarlo(n_paths=1 << 15, compile="never"))
    check(found, case["price"][i], dates=0.0, rounding=0.01)  # 8.08 is printed for 8.075
    assert float(found.upper) < 1.005 * float(found.value) + 3 * float(found.std_error)


def test_the_best_of_three_at_any_time() -> None:
    case = MISC["three_asset_max_american"]
    model = MultiAsset([BlackScholes(case["vol"])] * 3, case["corr"])
    claim = Exercisable(BestOf((1.0, 1.0, 1.0), float(case["strike"]), case["T"]), [k / 8 for k in range(25)])
    market = Markets([Market(float(s), case["r"], case["q"]) for s in case["S"]])
    found = price_early(model, claim, market, MonteCarlo(n_paths=1 << 13, compile="never"), METHOD)
    check(found, case["american_call"], dates=0.05, rounding=5e-4)
    assert float(found.upper) < 1.015 * float(found.value)


def test_a_spread_of_three_at_any_time() -> None:
    case = MISC["american_spread_basket"]
    model = MultiAsset([BlackScholes(v) for v in case["vol"]], case["corr"])
    expiry = 273 / 365
    basket = Basket(tuple(map(float, case["weights"])), float(case["strike"]), expiry, "put")
    market = Markets([Market(float(s), case["r"], q) for s, q in zip(case["S"], case["q"], strict=True)])
    claim = Exercisable(basket, [expiry * k / 37 for k in range(38)])
    found = price_early(model, claim, market, MonteCarlo(n_paths=1 << 13, compile="never"), METHOD)
    check(found, case["price"], dates=0.01, rounding=case["tol"])
    assert float(found.upper) < 1.01 * float(found.value)


def heston(case: dict[str, Any]) -> Heston:
    return Heston(**{name: float(case[name]) for name in ("v0", "kappa", "theta", "sigma", "rho")})


@pytest.mark.parametrize("i", range(5))
def test_ikonen_and_toivanen(i: int) -> None:
    put = American(float(IKONEN["K"]), IKONEN["T"], "put", dates_per_year=100)
    market = Market(float(IKONEN["spots"][i]), IKONEN["r"])
    found = price_early(heston(IKONEN), put, market, MonteCarlo(n_paths=1 << 13, compile="never"))
    check(found, IKONEN["price"][i], dates=0.001, rounding=IKONEN["tol"])
    assert float(found.upper - found.value) < 0.01 * IKONEN["price"][i] + 0.002


def test_an_american_put_and_its_delta_under_heston() -> None:
    spot = torch.tensor(GREEKS["S"], dtype=torch.float64, requires_grad=True)
    put = American(float(GREEKS["K"]), GREEKS["T"], "put")
    found = price_early(heston(GREEKS), put, Market(spot, GREEKS["r"]), MonteCarlo(n_paths=1 << 14, compile="never"))
    found.value.backward()  # type: ignore[no-untyped-call]
    check(found, GREEKS["price"], dates=0.01, rounding=GREEKS["tol"])
    assert spot.grad is not None
    assert float(spot.grad) == pytest.approx(GREEKS["delta"], abs=0.01)
    assert float(found.upper) < 1.01 * float(found.value.detach())


def test_one_dividend_in_closed_form() -> None:
    """Roll, Geske and Whaley: Haug (1998) p. 20, 4.3860; its model is the escrowed one."""
    call = American(82.0, 0.3333, "call", dates_per_year=24)
    market = Market(80.0, 0.06, dividends=[CashDividend(0.25, 4.0)])
    found = price_early(BlackScholes(0.3), call, market, ENGINE)
    check(found, 4.3860, dates=0.0, rounding=5e-5)
    assert float(found.upper - found.value) < 0.005
