import numpy as np
import pandas as pd
import pytest
import torch

from qsde.errors import Reject
from qsde.market.arbitrage import VIOLATION_COLUMNS, model_arbitrage, quote_arbitrage
from qsde.market.black import black_price
from qsde.market.build import build_surface
from qsde.market.cleaning import CleaningRules
from qsde.market.quotes import Quotes
from qsde.market.surface import Surface


def flat(vol=0.2, t=(0.5, 1.0), forward=100.0, strikes=None, width=0.0):
    strikes = np.linspace(70, 140, 15) if strikes is None else np.asarray(strikes, float)
    t = np.repeat(t, len(strikes))
    vols = np.broadcast_to(vol, (len(t) // len(strikes), len(strikes))).ravel()
    return Surface.from_vols(
        t, np.tile(strikes, len(t) // len(strikes)), vols, forward, 0.97, iv_bid=vols - width, iv_ask=vols + width
    )


def test_black_has_no_arbitrage():
    assert len(quote_arbitrage(flat())) == 0
    assert tuple(quote_arbitrage(flat()).columns) == VIOLATION_COLUMNS


def test_a_bump_in_the_smile_is_a_butterfly_with_its_size():
    vols = np.full(15, 0.2)
    vols[6] = 0.23
    strikes = np.linspace(70, 140, 15)
    found = quote_arbitrage(flat(vols, t=[1.0]))
    assert found["kind"].tolist() == ["butterfly"]
    assert found["strikes"][0] == (95.0, 100.0, 105.0)
    price = lambda k, v: 0.97 * float(black_price(100.0, k, 1.0, v, 1.0, True))  # noqa: E731
    size = price(100.0, 0.23) - 0.5 * price(95.0, 0.2) - 0.5 * price(105.0, 0.2)
    assert found["size"][0] == pytest.approx(size, rel=1e-9)
    vega = 0.97 * 100 * np.exp(-0.5 * 0.115**2) / np.sqrt(2 * np.pi)
    assert found["size_vol_bp"][0] == pytest.approx(1e4 * size / vega, rel=1e-3)
    assert "95/100/105 can be bought for less than nothing" in found["sentence"][0]
    assert strikes[6] == 100.0


def test_the_same_bump_within_bid_and_ask_is_none():
    vols = np.full(15, 0.2)
    vols[6] = 0.23
    assert len(quote_arbitrage(flat(vols, t=[1.0], width=0.03))) == 0


def test_call_and_put_spreads():
    calls = Surface.from_vols(1.0, [110.0, 120.0], [0.1, 0.4], 100.0)
    assert quote_arbitrage(calls)["kind"].tolist() == ["call spread"]
    puts = Surface.from_vols(1.0, [80.0, 90.0], [0.4, 0.1], 100.0)
    found = quote_arbitrage(puts)
    assert found["kind"].tolist() == ["put spread"]
    assert "the put struck 80 sells above the one struck 90" in found["sentence"][0]


def test_spreads_are_found_between_strikes_that_are_not_neighbours():
    surface = Surface.from_vols(1.0, [110.0, 115.0, 120.0], [0.1, 0.3, 0.26], 100.0)
    found = quote_arbitrage(surface)
    assert ((found["kind"] == "call spread") & (found["strikes"] == (110.0, 120.0))).any()


def test_falling_total_variance_is_a_calendar():
    found = quote_arbitrage(flat(np.array([[0.3], [0.2]])))
    assert set(found["kind"]) == {"calendar"}
    # Total variance 0.045 against 0.04: every inner strike violates.
    assert len(found) == 15
    assert found["sentence"].str.contains(r"\(1y\)").all()
    assert (found["size"] > 0).all()
    assert found["size"].is_monotonic_decreasing


def test_calendar_at_different_forwards_compares_equal_moneyness():
    strikes = np.linspace(80, 120, 9)
    surface = Surface.from_vols(
        np.repeat([0.5, 1.0], 9), np.concatenate([strikes, strikes * 1.1]), 0.2, np.repeat([100.0, 110.0], 9)
    )
    assert len(quote_arbitrage(surface)) == 0


def test_mids_count_on_both_sides_and_one_quote_is_fine():
    surface = flat()
    mids = Surface(surface.slices, surface.quotes.assign(bid=np.nan, ask=np.nan))
    assert len(quote_arbitrage(mids)) == 0
    assert len(quote_arbitrage(Surface.from_vols(1.0, 100.0, 0.2, 100.0))) == 0


def test_cleaning_removes_nearly_all_arbitrage_from_the_dirty_chain(load):
    surface = build_surface(load("spx_dirty", drop=["forward", "mid"]))
    found = quote_arbitrage(surface)
    assert len(found) < 40
    assert found["size_vol_bp"].max() < 100


@pytest.mark.parametrize("name", ["spx", "vix"])
def test_good_data_hold_none(load, name):
    assert len(quote_arbitrage(build_surface(load(name)))) == 0


def test_a_planted_arbitrage_in_raw_prices_is_found(chain):
    frame = chain(times=[0.5, 1.0], half_spread=0.001)
    at = 27
    frame.loc[at, ["bid", "ask"]] *= 1.08
    assert Reject.STALE in set(build_surface(Quotes.from_frame(frame)).rejected["reason"])
    lenient = CleaningRules(parity_slack=1.0, outlier_deviations=1e9)
    surface = build_surface(Quotes.from_frame(frame), rules=lenient)
    assert "butterfly" in set(quote_arbitrage(surface)["kind"])


def black(vol):
    return lambda t, f, k: black_price(f[:, None], k, t[:, None], vol(t[:, None], torch.log(k / f[:, None])))


def test_models():
    t, forward = [0.25, 0.5, 1.0], [100.0, 101.0, 103.0]
    assert len(model_arbitrage(black(lambda t, k: 0.2 + 0 * k), t, forward)) == 0
    kinds = lambda vol: set(model_arbitrage(black(vol), t, forward)["kind"])  # noqa: E731
    assert kinds(lambda t, k: 0.2 / t + 0 * k) == {"calendar"}
    # A smile steeper than the moment bound: calls rise with the strike.
    assert "call spread" in kinds(lambda t, k: 0.2 + 1.5 * torch.clamp(k, min=0))
    assert "butterfly" in kinds(lambda t, k: 0.2 + 0.05 * torch.cos(60 * k))


def test_model_sizes_are_discounted_and_nan_prices_are_reported():
    broken = lambda t, f, k: torch.full_like(k, float("nan"))  # noqa: E731
    found = model_arbitrage(broken, [1.0], [100.0], n_strikes=5)
    assert found["kind"].tolist() == ["bounds"] * 5
    high = lambda t, f, k: f[:, None] * 1.01 + 0 * k  # noqa: E731
    found = model_arbitrage(high, [1.0], [100.0], discount_factor=0.5, n_strikes=5)
    np.testing.assert_allclose(found["size"], 0.5)
    assert isinstance(found, pd.DataFrame)
