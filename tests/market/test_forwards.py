import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsde.errors import ParameterError, QuoteError
from qsde.market.curves import FlatCurve, PillarCurve
from qsde.market.forwards import discount_from_prices, find_forwards
from qsde.market.parity import RATE_BAND, call_put_pairs, fit_all, fit_parity, pool_rates, weighted_median
from qsde.market.quotes import Quotes


def tidy(frame):
    return Quotes.from_frame(frame).frame


@pytest.mark.parametrize("rate", [-0.01, 0.0, 0.03, 0.09])
def test_forward_and_rate_of_a_clean_chain(chain, rate):
    frame = chain(rate=rate, dividend=0.01, spot=4000.0)
    found = find_forwards(tidy(frame)).slices
    exact = 4000.0 * np.exp((rate - 0.01) * found["t"])
    np.testing.assert_allclose(found["forward"], exact, rtol=1e-6)
    np.testing.assert_allclose(found["rate"], rate, atol=2e-4)
    assert (found["forward_source"] == "parity").all()
    assert (found["n_pairs"] == 41).all()
    assert (found["share_in_spread"] == 1).all()


def test_a_steep_curve_is_not_flattened(chain):
    zero = {0.05: 0.06, 0.25: 0.05, 1.0: 0.03, 2.0: 0.02}
    frame = pd.concat([chain(times=[t], rate=z, dividend=0.01, half_spread=0.003) for t, z in zero.items()])
    found = find_forwards(tidy(frame)).slices
    np.testing.assert_allclose(found["rate"], list(zero.values()), atol=2.5e-3)
    np.testing.assert_allclose(found["rate"][1:], list(zero.values())[1:], atol=3e-4)
    np.testing.assert_allclose(found["forward"], [100 * np.exp((z - 0.01) * t) for t, z in zero.items()], rtol=2e-6)


def corrupted(share, seed, offset):
    """One expiry of 80 strikes, half a year out, a share of the pairs off by roughly `offset`."""
    rng = np.random.default_rng(seed)
    strike = np.linspace(3000.0, 5000.0, 81)
    difference = np.exp(-0.04 * 0.5) * (4100.0 - strike) + rng.normal(0, 0.2, 81)
    bad = rng.permutation(81)[: int(share * 81)]
    difference[bad] += offset * rng.uniform(0.5, 1.5, len(bad))
    return strike, difference, np.full(81, 1.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(-100, 100).filter(lambda x: abs(x) > 3))
def test_forty_percent_stale_pairs_do_not_matter(seed, offset):
    fit = fit_parity(*corrupted(0.4, seed, offset), t=0.5)
    assert abs(fit.forward - 4100) < 2.0
    assert abs(fit.rate - 0.04) < 0.004
    assert fit.n_pairs == 81
    assert fit.share_in_spread < 0.75


@pytest.mark.parametrize("offset", [5.0, -20.0, 80.0])
@pytest.mark.parametrize("first", [0, 20, 45])
def test_nor_do_they_when_they_bunch(first, offset):
    strike, difference, half_spread = corrupted(0.0, seed=3, offset=0.0)
    difference[first : first + 36] += offset
    fit = fit_parity(strike, difference, half_spread, t=0.5)
    assert abs(fit.forward - 4100) < 0.3
    assert abs(fit.rate - 0.04) < 0.001


def test_least_squares_would_have_failed():
    strike, difference, _ = corrupted(0.4, seed=1, offset=80.0)
    slope, level = np.polyfit(strike, difference, 1)
    assert abs(level / -slope - 4100) > 20


def test_errors_of_a_fit_are_honest():
    miss = []
    for seed in range(40):
        fit = fit_parity(*corrupted(0.0, seed, 0.0), t=0.5, rate=0.04)
        miss.append((fit.forward - 4100) / fit.forward_se)
    assert 0.4 < np.std(miss) < 1.6


def test_rates_stay_in_the_band_whatever_the_pairs_say():
    strike = np.linspace(90.0, 110.0, 11)
    for slope in (-2.0, 0.1, 0.5, 3.0):
        fit = fit_parity(strike, slope * (100 - strike), np.full(11, 0.1), t=0.25)
        assert RATE_BAND[0] <= fit.rate <= RATE_BAND[1]
        assert np.isfinite(fit.forward)


def test_short_expiries_borrow_the_rate():
    pooled = pool_rates([0.01, 0.02, 1.0, 2.0], [0.15, -0.05, 0.04, 0.045], [0.5, 0.3, 1e-4, 1e-4])
    np.testing.assert_allclose(pooled, [0.04, 0.04, 0.04, 0.045], atol=1e-3)
    # Without any information the prior decides, and an empty list is fine.
    np.testing.assert_allclose(pool_rates([1.0], [0.1], [np.inf]), [0.02])
    assert pool_rates([], [], []).shape == (0,)
    # One wild rate among good ones is outvoted.
    wild = pool_rates([0.5, 1.0, 1.5, 2.0, 2.5, 3.0], [0.04, 0.04, 0.12, 0.04, 0.04, 0.04], [5e-4] * 6)
    assert abs(wild[2] - 0.04) < 0.01


def test_one_pair_gives_a_forward_but_no_rate(chain):
    frame = chain(times=[1.0], n=41)
    near = (frame["strike"] - 102.02).abs().sort_values().index[:2]
    found = find_forwards(tidy(frame.loc[near]))
    row = found.slices.iloc[0]
    assert row["n_pairs"] == 1
    assert np.isinf(row["rate_se"])
    assert abs(row["forward"] - 102.02) < 0.05
    assert "no expiry has two pairs" in found.warnings[0]


def test_known_discount_factors_are_kept(chain):
    pairs = call_put_pairs(tidy(chain()))
    fits = fit_all(pairs, {0.5: 0.9})
    assert fits[0.5].discount_factor == pytest.approx(0.9, abs=1e-12)
    assert fits[2.0].discount_factor == pytest.approx(np.exp(-0.06), abs=1e-4)


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.1, 5)), min_size=1, max_size=12))
def test_weighted_median_minimises_the_absolute_deviation(points):
    x, w = (np.array(c) for c in zip(*points, strict=True))
    m = weighted_median(x, w)
    loss = w @ np.abs(x - m)
    assert loss <= min(w @ np.abs(x - c) for c in x) + 1e-9


def test_sources_in_their_order(chain):
    frame = chain(spot=100.0)
    exact = {0.1: 100 * np.exp(0.002), 0.5: 100 * np.exp(0.01), 2.0: 100 * np.exp(0.04)}
    frame = frame.assign(forward=frame["t"].map(exact) * 1.001, discount_factor=0.99, spot=100.0)
    found = find_forwards(tidy(frame)).slices
    assert found[["forward_source", "discount_source"]].to_numpy().tolist() == [["file", "file"]] * 3
    assert (found["discount_factor"] == 0.99).all()
    found = find_forwards(tidy(frame), rate=FlatCurve(0.03)).slices
    assert found[["forward_source", "discount_source"]].to_numpy().tolist() == [["file", "curve"]] * 3
    found = find_forwards(tidy(frame), rate=PillarCurve([1.0], [0.03]), dividend_yield=0.01).slices
    assert (found["forward_source"] == "curve").all()
    np.testing.assert_allclose(found["forward"], list(exact.values()), rtol=1e-12)
    found = find_forwards(tidy(frame.drop(columns=["forward", "discount_factor"])), rate=0.03).slices
    assert (found["forward_source"] == "parity").all()
    np.testing.assert_allclose(found["forward"], list(exact.values()), rtol=1e-6)


def test_a_file_forward_takes_the_discount_from_parity_then_vols_then_one(chain):
    frame = chain().assign(forward=lambda q: 100 * np.exp(0.02 * q["t"]))
    found = find_forwards(tidy(frame)).slices
    assert (found["discount_source"] == "parity").all()
    np.testing.assert_allclose(found["rate"], 0.03, atol=1e-4)
    calls = frame[frame["option_type"] == "C"]
    found = find_forwards(tidy(calls))
    assert (found.slices["discount_source"] == "assumed").all()
    assert "no discount factor for 3 of 3 expiries: 1 is assumed" in found.warnings[0]
    vols = calls.assign(implied_vol=lambda q: _smile(np.log(q["strike"] / q["forward"]), q["t"]))
    found = find_forwards(tidy(vols)).slices
    assert (found["discount_source"] == "prices").all()
    np.testing.assert_allclose(found["rate"], 0.03, atol=1e-9)
    assert discount_from_prices(tidy(vols.assign(implied_vol=0.1 + 0.4 * np.arange(len(vols)) / len(vols)))) == {}


def _smile(k, t):
    return 0.2 + 0.06 * (np.sqrt((k / np.sqrt(t) - 0.1) ** 2 + 0.05) - 0.9 * k / np.sqrt(t))


def test_a_forward_against_parity_is_reported(chain):
    frame = chain().assign(forward=120.0)
    warnings = find_forwards(tidy(frame)).warnings
    assert len(warnings) == 3
    assert "the forward from the file is 120, put-call parity says 100.2" in warnings[0]


def test_nothing_to_go_by_is_nan(chain):
    frame = chain()
    found = find_forwards(tidy(frame[frame["option_type"] == "P"])).slices
    assert found["forward"].isna().all()
    assert (found["forward_source"] == "none").all()
    assert len(find_forwards(tidy(frame.iloc[:0])).slices) == 0


def test_bad_curves_are_refused(chain):
    with pytest.raises(QuoteError, match="needs the spot price"):
        find_forwards(tidy(chain()), rate=0.03, dividend_yield=0.01)
    with pytest.raises(ParameterError, match="dividend_yield is 2"):
        find_forwards(tidy(chain(half_spread=0.02).assign(spot=100.0)), dividend_yield=2.0)


def usable(quotes):
    frame = quotes.frame
    return frame[(frame["bid"] > 0) & (frame["ask"] >= frame["bid"])].assign(forward=np.nan)


def test_dirty_spx_rates_lie_between_4_2_and_4_8_percent_beyond_three_months(load):
    found = find_forwards(usable(load("spx_dirty")))
    assert len(found.slices) == 49
    late = found.slices[found.slices["t"] > 0.25]
    assert len(late) == 21
    assert late["rate"].between(0.042, 0.048).all()
    assert found.slices["rate"].between(0.02, 0.048).all()
    assert found.warnings == ()
    derived = pd.read_csv("tests/fixtures/spx_eod_yahoo/forwards_derived.csv")["forward"].to_numpy()
    distance = np.abs(found.slices["forward"].to_numpy() / derived - 1)
    assert np.median(distance) < 1e-5
    # The three longest expiries are quoted hundreds of points wide.
    assert distance[:-3].max() < 2e-4
    assert distance.max() < 1e-3


def test_goog_forwards_agree_with_the_derived_ones(load):
    derived = pd.read_csv("data/goog_2015_intraday/forwards_derived.csv")
    times = pd.to_datetime(derived["quote_ts"], utc=True)
    for part in load("goog").surfaces():
        found = find_forwards(usable(part)).slices
        expected = derived[times == part.frame["quote_time"].iloc[0]]["forward"].to_numpy()
        distance = np.abs(found["forward"].to_numpy() / expected - 1)
        assert len(found) == len(expected)
        assert np.median(distance) < 1e-4
        assert distance.max() < 2e-3
        assert found["rate"].between(-0.01, 0.02).all()
