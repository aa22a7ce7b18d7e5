"""American prices against published values and laws; volatilities implied by them; quotes made European."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qsde.errors import InputError, Reject, VolStatus
from qsde.market.american import american_error, american_price, american_vol
from qsde.market.black import black_price
from qsde.market.build import build_surface
from qsde.market.cleaning import CleaningRules
from qsde.market.early_exercise import dividend_yields
from qsde.market.quotes import Quotes

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
RATES = st.floats(-0.03, 0.15)


def european(spot, strike, t, vol, rate, dividend, is_call=False):
    carry, discount = (torch.exp(torch.as_tensor(x, dtype=torch.float64)) for x in ((rate - dividend) * t, -rate * t))
    return black_price(spot * carry, strike, t, vol, discount, is_call)


def vol_of(price, spot, strike, t, rate, dividend, is_call):
    values = (torch.tensor([x], dtype=torch.float64) for x in (price, spot, strike, t, rate, dividend))
    found = american_vol(*values, torch.tensor([is_call]))
    return float(found.vol), VolStatus(int(found.status))


@pytest.mark.parametrize(("rate", "premium"), [(0.05, 0.106952703), (0.075, 0.367111231)])
def test_premiums_of_andersen_lake_and_offengenden(rate, premium):
    # their high-precision example: S = K = 100, one year, vol 25 %, yield 5 %
    option = (100.0, 100.0, 1.0, 0.25, rate, 0.05)
    assert float(american_price(*option) - european(*option)) == pytest.approx(premium, abs=1e-6)


def test_longstaff_and_schwartz_table_1():
    table = pd.read_csv(REFERENCE / "american_longstaff_schwartz_table1.csv")
    spot, strike, rate, dividend, vol, t = (torch.tensor(table[c].to_numpy(float)) for c in table.columns[:6])
    above = american_price(spot, strike, t, vol, rate, dividend) - torch.tensor(table["fd_american_put"].to_numpy())
    # their finite differences have 50 exercise dates a year, which costs up to a cent
    assert float(above.min()) > -5e-4
    assert float(above.max()) < 1e-2


def read(name):
    table = pd.read_csv(REFERENCE / name)
    numbers = [torch.tensor(table[c].to_numpy(float)) for c in ("spot", "strike", "t", "vol", "r", "q")]
    return table, numbers, torch.tensor((table["type"] == "call").to_numpy())


def test_published_approximations():
    table, option, is_call = read("american_approximations.csv")
    above = pd.Series((american_price(*option, is_call) - torch.tensor(table["price"].to_numpy())).numpy())
    for name, worst in (("barone-adesi-whaley", 0.04), ("ju", 0.08)):
        assert above[table["approximation"] == name].abs().max() < worst
    # exercise at a flat boundary is a policy, so worth no more than the best; printed to 5e-5
    assert above[table["approximation"] == "bjerksund-stensland"].min() > -5e-5


def test_prices_and_greeks_of_quantlib():
    table, option, is_call = read("american_quantlib144.csv")
    spot, _, t, vol, rate, dividend = leaves = [x.requires_grad_() for x in option]
    price = american_price(*leaves, is_call)
    slopes = torch.autograd.grad(price.sum(), [spot, vol, rate, dividend, t], create_graph=True)
    (gamma,) = torch.autograd.grad(slopes[0].sum(), spot)
    found = dict(zip(("delta", "vega", "rho", "dividend_rho"), slopes, strict=False), price=price, gamma=gamma)
    found["theta"] = -slopes[-1]
    for name, worst in {"price": 2e-6, "delta": 1e-6, "gamma": 2e-7, "vega": 1e-4, "theta": 3e-5,
                        "rho": 3e-4, "dividend_rho": 3e-4}.items():  # fmt: skip
        error = found[name].detach() - torch.tensor(table[name].to_numpy())
        assert float(error.abs().max()) < worst, name
    bound = american_error(*(x.detach() for x in leaves), is_call)
    assert bool(((price - torch.tensor(table["price"].to_numpy())).abs() < bound + 1e-6).all())
    assert float(bound.max()) < 2e-3


@pytest.mark.parametrize(("rate", "dividend"), [(0.05, 0.0), (0.05, 0.03), (0.03, 0.07)])
def test_delta_and_gamma_at_the_boundary(rate, dividend):
    def slopes(spot):
        at = torch.as_tensor(spot, dtype=torch.float64).requires_grad_()
        (delta,) = torch.autograd.grad(
            american_price(at, 100.0, 1.0, 0.25, rate, dividend).sum(), at, create_graph=True
        )
        return delta.detach(), torch.autograd.grad(delta.sum(), at)[0]

    low, high = 20.0, 100.0
    for _ in range(60):  # the lowest spot at which the put is not exercised
        middle = 0.5 * (low + high)
        low, high = (middle, high) if float(slopes(middle)[1]) < 1e-12 else (low, middle)
    delta, gamma = slopes(high * (1 + torch.tensor([-1e-3, 1e-5, 1e-3], dtype=torch.float64)))
    assert float(delta[0]) == pytest.approx(-1.0, abs=1e-12)
    assert float(delta[1]) == pytest.approx(-1.0, abs=3e-5)
    # what is left of the equation of Black and Scholes where the price stays that of exercise: gain from exercise
    jump = 2 * (rate * 100 - dividend * high) / (0.25 * high) ** 2
    assert float(gamma[0]) == pytest.approx(0.0, abs=1e-12)
    assert float(gamma[1]) == pytest.approx(jump, rel=1e-2)
    assert float(delta[2] - delta[1]) == pytest.approx(jump * 1e-3 * high, rel=2e-2)


def test_above_the_boundary_the_equation_of_black_and_scholes_holds():
    spot = torch.linspace(75.0, 160.0, 60, dtype=torch.float64).requires_grad_()
    t = torch.ones_like(spot).requires_grad_()
    vol, rate, dividend = 0.25, 0.05, 0.03
    price = american_price(spot, 100.0, t, vol, rate, dividend)
    delta, slope = torch.autograd.grad(price.sum(), [spot, t], create_graph=True)
    (gamma,) = torch.autograd.grad(delta.sum(), spot)
    left = 0.5 * vol**2 * spot**2 * gamma + (rate - dividend) * spot * delta - rate * price - slope
    assert float(price.detach()[0]) > 25.0  # not exercised
    assert float(left.detach().abs().max()) < 2e-4


def test_extremes_have_finite_prices_and_derivatives():
    grid = torch.cartesian_prod(
        *(torch.tensor(x, dtype=torch.float64) for x in (
            [50.0, 100.0, 200.0], [1e-6, 1.0, 100.0], [1e-4, 0.2, 10.0], [-0.5, 0.0, 1e-8, 1.0], [-0.5, 0.0, 1.0]))
    )  # fmt: skip
    strike, t, vol, rate, dividend = grid[~((grid[:, 3] < 0) & (grid[:, 4] < grid[:, 3]))].T
    leaves = [x.clone().requires_grad_() for x in (torch.full_like(t, 100.0), t, vol, rate, dividend)]
    price = american_price(leaves[0], strike, *leaves[1:])
    slopes = torch.autograd.grad(price.sum(), leaves)
    assert bool(torch.isfinite(torch.stack([price, *slopes])).all())
    # where the price is wrong its bound says so
    sure = american_error(torch.full_like(t, 100.0), strike, t, vol, rate, dividend) < 1e-4 * strike
    intrinsic = torch.relu(strike - 100.0)
    assert bool((price >= intrinsic - 1e-4 * strike)[sure].all())
    assert bool((price <= strike * torch.exp(torch.relu(-rate * t)) + 1e-4 * strike)[sure].all())
    assert float(sure.double().mean()) > 0.7


def test_perpetual_put():
    rate, vol, spot, strike = 0.05, 0.3, 110.0, 100.0
    gamma = 2 * rate / vol**2
    boundary = strike * gamma / (1 + gamma)
    exact = (strike - boundary) * (spot / boundary) ** -gamma
    assert float(american_price(spot, strike, 200.0, vol, rate)) == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize(
    ("rate", "dividend", "is_call"),
    [(0.05, 0.0, True), (0.0, 0.05, False), (-0.02, 0.01, False), (0.03, -0.01, True), (-0.01, -0.01, True)],
)
def test_without_a_reason_to_exercise_it_is_european(rate, dividend, is_call):
    strike = torch.linspace(50.0, 150.0, 11, dtype=torch.float64)
    option = (100.0, strike, 2.0, 0.3, rate, dividend, is_call)
    torch.testing.assert_close(american_price(*option), european(*option), rtol=1e-12, atol=1e-12)


@given(st.floats(0.5, 2.0), st.floats(0.01, 3.0), st.floats(0.05, 1.0), RATES, RATES, st.booleans())
@settings(max_examples=60, deadline=None)
def test_laws(moneyness, t, vol, rate, dividend, is_call):
    mine, other = (dividend, rate) if is_call else (rate, dividend)
    assume(not other < mine < 0)
    spot, strike = 100.0, 100.0 * moneyness
    price = american_price(spot, strike, t, vol, rate, dividend, is_call)
    scale = spot if is_call else strike
    exercise = max(spot - strike if is_call else strike - spot, 0.0)
    assert price >= european(spot, strike, t, vol, rate, dividend, is_call) - 1e-10
    assert price >= exercise - 1e-5 * scale
    assert price <= scale * np.exp(max(-mine, 0.0) * t) * (1 + 1e-9)
    assert price <= american_price(spot, strike, 1.1 * t, 1.05 * vol, rate, dividend, is_call) + 1e-5 * scale
    swapped = american_price(strike, spot, t, vol, dividend, rate, not is_call)
    torch.testing.assert_close(price, swapped, rtol=1e-10, atol=1e-10)
    # scaling of money and of time
    torch.testing.assert_close(
        2 * price, american_price(2 * spot, 2 * strike, 4 * t, vol / 2, rate / 4, dividend / 4, is_call)
    )


@given(st.floats(-2.5, 2.5), st.floats(0.003, 3.0), st.floats(0.05, 1.0), RATES, RATES, st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_volatility_comes_back_or_the_price_is_that_of_exercise(deviations, t, vol, rate, dividend, is_call):
    mine, other = (dividend, rate) if is_call else (rate, dividend)
    assume(not other < mine < 0)
    spot, strike = 100.0, 100.0 * float(np.exp(deviations * vol * np.sqrt(t)))
    price = float(american_price(spot, strike, t, vol, rate, dividend, is_call))
    found, status = vol_of(price, spot, strike, t, rate, dividend, is_call)
    if status == VolStatus.OK:
        again = float(american_price(spot, strike, t, found, rate, dividend, is_call))
        assert again == pytest.approx(price, abs=2e-8 * max(spot, strike))
    else:
        exercise = spot - strike if is_call else strike - spot
        assert price == pytest.approx(max(exercise, 0.0), abs=1e-4 * max(spot, strike))


@pytest.mark.parametrize(
    ("price", "status"),
    [
        (20.0, VolStatus.AT_INTRINSIC),
        (19.0, VolStatus.BELOW_INTRINSIC),
        (120.0, VolStatus.ABOVE_MAXIMUM),
        (float("nan"), VolStatus.BAD_INPUT),
    ],
)
def test_prices_without_a_volatility(price, status):
    assert vol_of(price, 100.0, 120.0, 1.0, 0.05, 0.0, False) == (0.0, status)


def test_a_put_dearer_than_its_discounted_strike_has_a_volatility():
    # a European put is worth at most 100 exp(-1) = 36.8
    price = float(american_price(60.0, 100.0, 10.0, 0.9, 0.1))
    assert price > 36.8
    assert vol_of(price, 60.0, 100.0, 10.0, 0.1, 0.0, False)[0] == pytest.approx(0.9, rel=1e-6)


def test_what_is_refused():
    with pytest.raises(InputError, match=r"vol must be positive, got -0\.2"):
        american_price(100.0, 100.0, 1.0, -0.2, 0.05)
    with pytest.raises(InputError, match="between two boundaries"):
        american_price(100.0, 100.0, 1.0, 0.2, -0.01, -0.02)
    assert vol_of(8.0, 100.0, 100.0, 1.0, -0.01, -0.02, False)[1] == VolStatus.BAD_INPUT


def test_gradients_agree_with_differences():
    at = torch.tensor([100.0, 105.0, 1.0, 0.25, 0.04, 0.02], dtype=torch.float64)
    gradient = torch.func.jacrev(lambda x: american_price(*x))(at)
    steps = torch.diag(1e-4 * at)
    differences = [(american_price(*(at + h)) - american_price(*(at - h))) / (2 * h.sum()) for h in steps]
    torch.testing.assert_close(gradient, torch.stack(differences), rtol=1e-5, atol=0.0)


def test_blocks_do_not_matter():
    strike = torch.linspace(60.0, 140.0, 5000, dtype=torch.float64)
    price = american_price(100.0, strike, 0.7, 0.2, 0.05, 0.03)
    assert price.shape == (5000,)
    torch.testing.assert_close(price[::700], american_price(100.0, strike[::700], 0.7, 0.2, 0.05, 0.03))
    assert american_price(100.0, strike[:0], 0.7, 0.2, 0.05).shape == (0,)


# Chains


def american_chain(times=(0.1, 0.5, 2.0), rate=0.05, dividend=0.02, spot=100.0, half_spread=0.002, n=25):
    """Calls and puts of a steep smile, American, with every strike on both sides."""
    parts = []
    for t in times:
        forward = spot * np.exp((rate - dividend) * t)
        strike = np.round(forward * np.exp(np.linspace(-2.0, 1.5, n) * 0.25 * np.sqrt(t)), 2)
        for kind in "CP":
            vol = torch.tensor(smile(strike, forward, t))
            price = american_price(spot, torch.tensor(strike), t, vol, rate, dividend, kind == "C").numpy()
            part = pd.DataFrame({"strike": strike, "option_type": kind, "t": t, "expiry": f"in {t:g}y", "mid": price})
            parts.append(part.assign(bid=price * (1 - half_spread), ask=price * (1 + half_spread)))
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(underlying="X", quote_time=pd.Timestamp("2024-01-02", tz="UTC"), spot=spot, exercise_style="A")


def smile(strike, forward, t):
    return 0.25 - 0.1 * np.log(strike / forward) / np.sqrt(t)


def build(frame, **kwargs):
    surface = build_surface(Quotes.from_frame(frame), **kwargs)
    assert len(surface) + len(surface.rejected) == len(frame)
    return surface


def test_vols_forwards_and_rates_of_an_american_chain_come_back():
    surface = build(american_chain())
    slices, q = surface.slices, surface.quotes
    np.testing.assert_allclose(slices["forward"], 100 * np.exp(0.03 * slices["t"]), rtol=1e-4)
    # five weeks show the rate to 20 bp
    np.testing.assert_allclose(slices["rate"], 0.05, atol=3e-3)
    np.testing.assert_allclose(slices["rate"][1:], 0.05, atol=2e-4)
    exact = smile(q["strike"], 100 * np.exp(0.03 * q["t"]), q["t"])
    np.testing.assert_allclose(q["iv"], exact, atol=2e-4)
    assert (q["iv_bid"] < q["iv"]).all()
    assert (q["iv"] < q["iv_ask"]).all()
    assert any("early-exercise premium removed, up to" in w for w in surface.warnings)
    # prices of the surface are European
    price = black_price(*(torch.tensor(q[c].to_numpy()) for c in ("forward", "strike", "t", "iv", "discount_factor")),
                        torch.tensor((q["option_type"] == "C").to_numpy()))  # fmt: skip
    np.testing.assert_allclose(q["mid"], price, rtol=1e-6)


def test_taken_as_european_they_are_tens_of_basis_points_off():
    surface = build(american_chain(), rules=CleaningRules(early_exercise=False))
    q = surface.quotes
    assert (q["iv"] - smile(q["strike"], 100 * np.exp(0.03 * q["t"]), q["t"])).abs().max() > 30e-4
    assert any("taken as European" in w for w in surface.warnings)


def test_with_curves_nothing_is_left_to_find():
    surface = build(american_chain(), rate=0.05, dividend_yield=0.02)
    q = surface.quotes
    np.testing.assert_allclose(q["iv"], smile(q["strike"], q["forward"], q["t"]), atol=5e-6)


def test_no_rates_no_premium():
    chain = american_chain(rate=0.0, dividend=0.0)
    on, off = (build(chain, rate=0.0, dividend_yield=0.0, rules=CleaningRules(early_exercise=x)) for x in (True, False))
    pd.testing.assert_frame_equal(on.quotes, off.quotes, rtol=1e-9)


@pytest.mark.parametrize("spot", [np.nan, 10_000.0])
def test_without_a_spot_they_stay_american_with_a_hint(spot):
    surface = build(american_chain().assign(spot=spot))
    assert any("--spot" in w for w in surface.warnings)


def test_prices_at_exercise_are_set_aside_as_quoted():
    chain = american_chain(times=[0.5])
    deep = (chain["option_type"] == "P") & (chain["strike"] == chain["strike"].max())
    worth = float(chain.loc[deep, "strike"].iloc[0]) - 100.0
    chain.loc[deep, ["bid", "ask"]] = [worth - 0.2, worth + 0.1]
    below = (chain["option_type"] == "P") & (chain["strike"] == chain["strike"].nlargest(3).iloc[-1])
    chain.loc[below, ["bid", "ask"]] = [1.0, 1.1]
    rejected = build(chain).rejected.set_index(["strike", "option_type"])
    row = rejected.loc[(chain.loc[deep, "strike"].iloc[0], "P")]
    assert row["reason"] == Reject.NO_VEGA
    assert row["bid"] == pytest.approx(worth - 0.2)
    assert "no more than exercise at once" in row["detail"]
    row = rejected.loc[(chain.loc[below, "strike"].iloc[0], "P")]
    assert row["reason"] == Reject.ARBITRAGE_BOUNDS
    assert row["ask"] == 1.1


def test_a_stale_spot_does_not_make_a_yield():
    slices = pd.DataFrame({"t": [0.01, 0.1, 1.0, 2.0]}).assign(
        spot=100.1, discount_factor=1.0, forward_se=0.0, forward_source="parity"
    )
    slices["forward"] = 100 * np.exp(-0.01 * slices["t"])
    # by itself the first expiry says 11 %
    np.testing.assert_allclose(dividend_yields(slices), 0.01, atol=4e-3)


def test_real_quotes_call_and_put_agree_better_without_the_premium(load):
    part = list(load("goog").surfaces())[-1]
    before, after = (
        build_surface(part, rules=CleaningRules(early_exercise=on)).slices.iloc[-2:] for on in (False, True)
    )
    assert (after["share_in_spread"] >= before["share_in_spread"]).all()
    # Treasury yields of that day: 0.65 % for one year, 1.01 % for two; as European options they say 0.67 % for both
    assert before["rate"].iloc[-1] < 0.007
    assert after["rate"].iloc[-1] == pytest.approx(0.01, abs=1e-3)
