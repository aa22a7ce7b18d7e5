"""Laws of early exercise: bounds, limits, symmetries, gradients, honest errors, refusals."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch

from qsde.errors import InputError
from qsde.market.dividends import CashDividend
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, JumpDiffusion, KouJumps, Model, MultiAsset, bates, kou, merton
from qsde.noise import Antithetic, Noise, Sobol, Threefry
from qsde.payoffs import (
    American,
    AmericanBarrier,
    Barrier,
    Bermudan,
    BestOf,
    Digital,
    EarlyExercise,
    European,
    Exercisable,
)
from qsde.pricing.american import EarlyEstimate, LeastSquares, price_early
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.06, sigma=0.5, rho=-0.7)
MODELS = [
    BlackScholes(0.2),
    HESTON,
    merton(0.15, 0.5, -0.1, 0.2),
    kou(0.16, 1.0, 0.4, 10.0, 5.0),
    bates(0.04, 1.5, 0.06, 0.5, -0.7, 0.3, -0.2, 0.15),
    JumpDiffusion(HESTON, KouJumps(0.5, 0.3, 20.0, 6.0)),
]
MARKET = Market(spot=100.0, rate=0.06, dividend_yield=0.02)
QUICK = MonteCarlo(n_paths=1 << 12, compile="never", max_dt=1 / 16)
FEW = LeastSquares(outer=256, inner=32)
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)


def quick(model: Model, claim: EarlyExercise, market: Market | Markets = MARKET, **method: Any) -> EarlyEstimate:
    return price_early(model, claim, market, QUICK, dataclasses.replace(FEW, **method))


def european(model: Model, strike: float, kind: str, expiry: float = 1.0) -> float:
    found = price_european(model, strike, expiry, MARKET.forward(expiry), MARKET.discount(expiry), kind == "call")
    return float(found.value)


def low(found: EarlyEstimate) -> float:
    return float(found.value.detach()) - 3.5 * float(found.std_error)


def high(found: EarlyEstimate) -> float:
    return float(found.upper) + 3.5 * float(found.upper_std_error)


@every_model
@pytest.mark.parametrize("kind", ["put", "call"])
def test_one_date_is_the_european(model: Model, kind: Any) -> None:
    found = quick(model, Bermudan(105.0, (1.0,), kind))
    assert low(found) - 0.005 <= european(model, 105.0, kind) <= high(found) + 0.005  # Heston has steps
    assert found.exercise_time == 1.0


@every_model
def test_an_interval_above_the_european_and_the_intrinsic_value(model: Model) -> None:
    found = quick(model, American(110.0, 1.0, "put", dates_per_year=12))
    assert low(found) <= high(found)
    assert high(found) > max(european(model, 110.0, "put"), 10.0)
    assert float(found.upper) < 1.02 * float(found.value) + 3.5 * float(found.std_error)
    assert float(found.value) > max(european(model, 110.0, "put") + 0.1, 10.0)
    assert 0.3 < found.exercise_probability < 1.0
    assert 0.0 < found.exercise_time < 1.0


@pytest.mark.parametrize("model", [MODELS[0], MODELS[3]], ids=lambda m: m.name)
def test_a_call_without_dividends_is_not_exercised_early(model: Model) -> None:
    market = Market(100.0, rate=0.05)
    found = price_early(model, American(100.0, 1.0, "call", dates_per_year=12), market, QUICK, FEW)
    want = float(price_european(model, 100.0, 1.0, market.forward(1.0), market.discount(1.0)).value)
    assert low(found) <= want <= high(found)
    assert abs(float(found.value) - want) < 0.002 * want + 3.5 * float(found.std_error)
    assert found.exercise_time > 0.9


def test_more_dates_are_never_worth_less() -> None:
    counts = (1, 2, 4, 8, 16)
    found = [quick(MODELS[0], Bermudan(105.0, [(i + 1) / n for i in range(n)], "put")) for n in counts]
    for fewer, more in itertools.pairwise(found):
        assert high(more) >= low(fewer)
    assert low(found[-1]) > high(found[0])


@every_model
def test_deep_in_the_money_it_is_exercised_now(model: Model) -> None:
    found = quick(model, American(250.0, 1.0, "put", dates_per_year=8))
    assert float(found.value) == pytest.approx(150.0, abs=1e-10)
    assert float(found.std_error) == pytest.approx(0.0, abs=1e-10)
    assert float(found.upper) == pytest.approx(150.0, abs=0.05)
    assert (found.exercise_probability, found.exercise_time) == (1.0, 0.0)


def test_without_today_it_waits_for_the_first_date() -> None:
    found = quick(MODELS[0], Bermudan(250.0, (0.5, 1.0), "put"))
    want = 250.0 * float(MARKET.discount(0.5)) - 100.0 * math.exp(-0.02 * 0.5)
    assert low(found) - 1e-6 <= want <= high(found) + 1e-6
    assert float(found.value) == pytest.approx(want, rel=1e-3)


def test_out_of_reach_it_is_worth_nothing() -> None:
    found = quick(BlackScholes(0.05), American(10.0, 0.5, "put", dates_per_year=4))
    assert float(found.value) == float(found.upper) == found.exercise_probability == 0.0
    assert math.isnan(found.exercise_time)


def test_put_call_symmetry() -> None:
    """A put on S struck at K under (r, q) is a call on K struck at S under (q, r) (McDonald and Schroder 1998)."""
    put = quick(MODELS[0], American(110.0, 1.0, "put", dates_per_year=16))
    call = quick(MODELS[0], American(100.0, 1.0, "call", dates_per_year=16), Market(110.0, 0.02, 0.06))
    assert max(low(put), low(call)) <= min(high(put), high(call))
    error = math.hypot(float(put.std_error), float(call.std_error))
    assert abs(float(put.value - call.value)) < 3.5 * error + 0.005


def test_a_poor_basis_still_gives_bounds() -> None:
    good = quick(MODELS[0], Bermudan(110.0, (0.0, 0.25, 0.5, 0.75, 1.0), "put"))
    for poor in ({"degree": 1, "hedged": False, "inner": 2}, {"degree": 2, "in_the_money": True}):
        found = quick(MODELS[0], Bermudan(110.0, (0.0, 0.25, 0.5, 0.75, 1.0), "put"), **poor)
        assert low(found) <= high(good)
        assert high(found) >= low(good)
        assert float(found.value) > 0.97 * float(good.value)


def test_bounds_are_honest_from_seed_to_seed() -> None:
    claim = Bermudan(110.0, (0.0, 0.25, 0.5, 0.75, 1.0), "put")
    runs = []
    for seed in range(24):
        engine = MonteCarlo(n_paths=1 << 10, noise=Threefry(seed), compile="never")
        runs.append(price_early(MODELS[0], claim, MARKET, engine, LeastSquares(outer=64, inner=16)))
    for value, error in (("value", "std_error"), ("upper", "upper_std_error")):
        spread = torch.stack([getattr(r, value) for r in runs]).std()
        claimed = torch.stack([getattr(r, error) for r in runs]).mean()
        assert float(spread / claimed) == pytest.approx(1.0, abs=0.45)
    truth = quick(MODELS[0], claim)
    mean = torch.stack([r.value for r in runs])
    assert float(mean.mean()) <= high(truth) + 3 * float(mean.std()) / math.sqrt(24)


@pytest.mark.parametrize("noise", [Antithetic(Threefry(3)), Sobol(3, scrambles=8)], ids=lambda n: type(n).__name__)
def test_other_noise_agrees(noise: Noise) -> None:
    claim = Bermudan(105.0, (0.25, 0.5, 0.75, 1.0), "put")
    found = price_early(HESTON, claim, MARKET, dataclasses.replace(QUICK, noise=noise), FEW)
    plain = quick(HESTON, claim)
    error = math.hypot(float(found.std_error), float(plain.std_error))
    assert abs(float(found.value - plain.value)) < 4 * error
    assert low(found) <= high(plain)


def test_digits_depend_on_the_noise_only() -> None:
    claim = Bermudan(105.0, (0.0, 0.5, 1.0), "put")
    engine = dataclasses.replace(QUICK, n_paths=5000)
    whole = price_early(HESTON, claim, MARKET, engine, FEW)
    again = price_early(HESTON, claim, MARKET, engine, FEW)
    parts = price_early(HESTON, claim, MARKET, dataclasses.replace(engine, memory_budget=1 << 20), FEW)
    assert float(again.value) == float(whole.value)
    assert float(again.upper) == float(whole.upper)
    assert float(parts.value) == pytest.approx(float(whole.value), rel=1e-9)
    assert float(parts.upper) == pytest.approx(float(whole.upper), rel=1e-9)
    half = price_early(HESTON, claim, MARKET, dataclasses.replace(engine, dtype=torch.float32), FEW)
    assert float(half.value) == pytest.approx(float(whole.value), rel=2e-3)


def heston(p: dict[str, torch.Tensor]) -> Heston:
    return Heston(v0=p["v0"], kappa=1.5, theta=0.06, sigma=0.5, rho=-0.7)


BUMPS = {"spot": 1.0, "rate": 0.002, "v0": 0.002, "strike": 1.0}


def test_gradients_are_those_of_bumps() -> None:
    values = {"spot": 100.0, "rate": 0.06, "v0": 0.04, "strike": 105.0}
    engine = MonteCarlo(n_paths=1 << 13, compile="never", max_dt=1 / 16)

    def value(p: dict[str, torch.Tensor]) -> torch.Tensor:
        put = American(p["strike"], 1.0, "put", dates_per_year=12)
        return price_early(heston(p), put, Market(p["spot"], p["rate"]), engine, LeastSquares(outer=0)).value

    p = {name: torch.tensor(x, dtype=torch.float64, requires_grad=True) for name, x in values.items()}
    value(p).backward()  # type: ignore[no-untyped-call]
    for name, size in BUMPS.items():
        up, down = ({**p, name: p[name].detach() + s} for s in (size, -size))
        with torch.no_grad():
            bumped = float(value(up) - value(down)) / (2 * size)
        gradient = p[name].grad
        assert gradient is not None
        assert float(gradient) == pytest.approx(bumped, rel=0.06), name  # noise of decisions near the boundary


@pytest.mark.parametrize("style", ["down-and-out", "down-and-in"])
def test_gradients_of_barrier_options(style: Any) -> None:
    values = {"spot": 100.0, "vol": 0.2, "barrier": 90.0}

    def value(p: dict[str, torch.Tensor]) -> torch.Tensor:
        put = AmericanBarrier(105.0, p["barrier"], 0.5, style, "put", 1.0, dates_per_year=24)
        return price_early(BlackScholes(p["vol"]), put, Market(p["spot"], 0.05), QUICK, LeastSquares(outer=0)).value

    p = {name: torch.tensor(x, dtype=torch.float64, requires_grad=True) for name, x in values.items()}
    value(p).backward()  # type: ignore[no-untyped-call]
    for name, size in {"spot": 0.5, "vol": 0.005, "barrier": 0.5}.items():
        up, down = ({**p, name: p[name].detach() + s} for s in (size, -size))
        with torch.no_grad():
            bumped = float(value(up) - value(down)) / (2 * size)
        gradient = p[name].grad
        assert gradient is not None
        assert float(gradient) == pytest.approx(bumped, rel=0.06, abs=0.02), name


def test_torch_func_gives_the_same_gradient() -> None:
    def value(spot: torch.Tensor) -> torch.Tensor:
        return quick(HESTON, Bermudan(105.0, (0.0, 0.5, 1.0), "put"), Market(spot, 0.06)).value

    spot = torch.tensor(100.0, dtype=torch.float64)
    leaf = spot.clone().requires_grad_()
    value(leaf).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(torch.func.grad(value)(spot), leaf.grad)
    torch.testing.assert_close(torch.func.jvp(value, (spot,), (torch.ones_like(spot),))[1], leaf.grad)


def test_an_option_that_is_exercised_now_moves_with_the_spot() -> None:
    spot = torch.tensor(100.0, dtype=torch.float64, requires_grad=True)
    quick(MODELS[0], American(250.0, 1.0, "put", dates_per_year=8), Market(spot, 0.06)).value.backward()  # type: ignore[no-untyped-call]
    assert float(spot.grad) == pytest.approx(-1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [MODELS[0], MODELS[2]], ids=lambda m: m.name)
def test_barriers_out_of_reach_and_next_to_the_spot(model: Model) -> None:
    plain = quick(model, American(105.0, 0.5, "put", dates_per_year=16))
    far = quick(model, AmericanBarrier(105.0, 1000.0, 0.5, "up-and-out", "put", dates_per_year=16))
    assert max(low(plain), low(far)) <= min(high(plain), high(far))
    never = quick(model, AmericanBarrier(105.0, 1000.0, 0.5, "up-and-in", "put", rebate=3.0, dates_per_year=16))
    assert float(never.value) == pytest.approx(3.0 * float(MARKET.discount(0.5)), rel=2e-3)
    near = quick(model, AmericanBarrier(105.0, 100.1, 0.5, "up-and-in", "put", dates_per_year=16))
    assert float(near.value) < high(plain)
    assert float(near.value) > 0.9 * float(plain.value)
    gone = quick(model, AmericanBarrier(100.0, 100.1, 0.5, "up-and-out", "call", rebate=3.0, dates_per_year=16))
    assert float(gone.value) == pytest.approx(3.0, abs=0.1)


def test_a_knock_out_is_worth_less_than_the_plain_option_and_more_than_the_european() -> None:
    plain = quick(HESTON, American(105.0, 0.5, "put", dates_per_year=16))
    out = quick(HESTON, AmericanBarrier(105.0, 90.0, 0.5, "down-and-out", "put", dates_per_year=16))
    at_expiry = price(HESTON, Barrier(105.0, 90.0, 0.5, "down-and-out", "put"), MARKET, QUICK)
    assert float(at_expiry.value) < low(out)
    assert float(out.value) < high(plain)
    assert float(out.upper) < 1.03 * float(out.value) + 3.5 * float(out.std_error)


def test_a_call_is_exercised_before_a_dividend() -> None:
    """On the ex-date itself the holder may exercise before the price drops, whatever the other dates."""
    market = Market(100.0, 0.03, dividends=[CashDividend(0.37, 10.0)])
    coarse = quick(MODELS[0], American(95.0, 0.5, "call", dates_per_year=2), market)
    fine = quick(MODELS[0], American(95.0, 0.5, "call", dates_per_year=24), market)
    assert max(low(coarse), low(fine)) <= min(high(coarse), high(fine))
    after = quick(MODELS[0], Bermudan(95.0, (0.0, 0.37, 0.5), "call"), market)
    assert high(after) < low(fine)


def test_several_underlyings_in_closed_form_at_one_date() -> None:
    model = MultiAsset([BlackScholes(0.3), HESTON], [[1.0, 0.4], [0.4, 1.0]])
    markets = Markets([Market(100.0, 0.03), Market(90.0, 0.03)])
    payoff = BestOf((1.0, 1.0), 100.0, 1.0)
    once = price_early(model, Exercisable(payoff, (1.0,)), markets, QUICK, FEW)
    plain = price(model, payoff, markets, dataclasses.replace(QUICK, n_paths=1 << 14))
    error = math.hypot(float(once.std_error), float(plain.std_error))
    assert abs(float(once.value - plain.value)) < 4 * error
    often = price_early(model, Exercisable(payoff, (0.25, 0.5, 0.75)), markets, QUICK, FEW)
    assert high(often) > low(once)


def test_a_digital_is_taken_as_soon_as_it_pays() -> None:
    claim = Exercisable(Digital(100.0, 1.0, "call", cash=10.0), (0.0, 0.5))
    found = quick(MODELS[0], claim, Market(100.1, 0.05))
    assert float(found.value) == pytest.approx(10.0)
    spot = torch.tensor(99.0, dtype=torch.float64, requires_grad=True)
    with pytest.raises(InputError, match="jumps"):
        quick(MODELS[0], claim, Market(spot, 0.05))


def test_the_upper_bound_may_be_left_out() -> None:
    found = quick(MODELS[0], Bermudan(100.0, (0.5, 1.0)), outer=0)
    assert math.isnan(float(found.upper))
    assert math.isnan(float(found.upper_std_error))
    assert float(found.std_error) > 0


@pytest.mark.parametrize(
    ("settings", "text"),
    [({"degree": 0}, "degree"), ({"outer": 1}, "outer"), ({"outer": -2}, "outer"), ({"inner": 48}, "power of 2")],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, int], text: str) -> None:
    with pytest.raises(InputError, match=text):
        LeastSquares(**settings)  # type: ignore[arg-type]


def test_what_cannot_be_priced_is_refused() -> None:
    put = American(100.0, 1.0)
    with pytest.raises(InputError, match="batch axes"):
        quick(BlackScholes(torch.tensor([0.1, 0.2])), put)
    with pytest.raises(InputError, match="American is on 1 underlyings"):
        quick(MultiAsset([BlackScholes(0.2)] * 2, [[1.0, 0.0], [0.0, 1.0]]), put)
    with pytest.raises(InputError, match="use n_paths = "):
        price_early(HESTON, put, MARKET, dataclasses.replace(QUICK, n_paths=1 << 20, memory_budget=1 << 28))
    with pytest.raises(InputError, match="already"):
        quick(MODELS[0], AmericanBarrier(100.0, 105.0, 1.0, "down-and-out"))
    intensity = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(InputError, match="intensity"):
        quick(merton(0.15, intensity, -0.1, 0.2), put)
    with pytest.raises(InputError, match="one date"):
        Exercisable(European(100.0, 1.0).times, (0.5,))  # type: ignore[arg-type]
