import numpy as np
import pandas as pd
import pytest

from qsde.errors import InputError, QuoteError, Reject
from qsde.market.build import build_surface
from qsde.market.cleaning import QUOTE_RULES, CleaningRules, apply_rules, mark, working_table
from qsde.market.quotes import Quotes
from qsde.market.smile import fit_smile, running_median


def spoiled(frame, at, **values):
    """The chain with some cells changed at one row."""
    frame = frame.copy()
    for column, value in values.items():
        frame[column] = frame[column].astype(object) if column in frame else np.nan
        frame.loc[at, column] = value
        if column != "option_type":
            frame[column] = frame[column].astype(float)
    return frame


def reasons(frame, **options):
    surface = build_surface(Quotes.from_frame(frame), rules=CleaningRules(**options))
    assert len(surface) + len(surface.rejected) == len(frame)
    return surface.rejected[surface.rejected["reason"] != Reject.IN_THE_MONEY].set_index("row")


def test_a_clean_chain_loses_nothing_but_its_in_the_money_half(chain):
    frame = chain()
    surface = build_surface(Quotes.from_frame(frame))
    assert surface.rejected["reason"].unique().tolist() == [Reject.IN_THE_MONEY.value]
    assert len(surface) == len(frame) / 2


@pytest.mark.parametrize(
    ("values", "reason", "sentence"),
    [
        ({"t": -0.5}, Reject.EXPIRED, "t = -0.5 years"),
        ({"t": 1e-300}, Reject.EXPIRED, "t = 1e-300 years"),
        ({"t": np.nan}, Reject.UNREADABLE, "no time to expiry"),
        ({"strike": 0.0}, Reject.BAD_STRIKE, "strike is 0"),
        ({"strike": 1e300}, Reject.BAD_STRIKE, "strike is 1e+300"),
        ({"bid": 1e200, "ask": 1.01e200}, Reject.NO_QUOTE, "bid 1e+200"),
        ({"option_type": "X"}, Reject.BAD_TYPE, "option type is 'X'"),
        ({"bid": -1.0}, Reject.NEGATIVE_PRICE, "bid -1"),
        ({"bid": 50.0, "ask": 1.0}, Reject.CROSSED, "bid 50 is above ask 1"),
        ({"bid": 0.0, "ask": 0.3}, Reject.ZERO_BID, "bid 0, ask 0.3"),
        ({"bid": 0.0, "ask": 0.3, "implied_vol": 0.2}, Reject.ZERO_BID, "bid 0, ask 0.3"),
        ({"bid": 0.0, "ask": 0.0}, Reject.ZERO_BID, "bid 0, ask 0"),
        ({"bid": np.nan, "ask": 0.3}, Reject.ZERO_BID, "bid nan, ask 0.3"),
        ({"bid": np.nan, "ask": np.nan}, Reject.NO_QUOTE, "no two-sided market"),
        ({"bid": 0.5, "ask": np.nan}, Reject.NO_QUOTE, "no two-sided market"),
        ({"bid": 0.5, "ask": 5.0}, Reject.WIDE, "bid 0.5 and ask 5"),
    ],
)
def test_each_rule_on_one_spoiled_quote(chain, values, reason, sentence):
    rejected = reasons(spoiled(chain(), 10, **values))
    assert rejected["reason"].to_dict() == {11: reason.value}
    assert sentence in rejected["detail"][11]


def test_absurd_forwards_are_none(chain):
    with pytest.raises(QuoteError, match="no forward"):
        build_surface(Quotes.from_frame(chain(times=[0.5]).assign(forward=1e300)))


def test_given_vols_are_checked_too(chain):
    frame = chain().assign(forward=lambda q: 100 * np.exp(0.02 * q["t"]), discount_factor=1.0)
    frame = frame[(frame["strike"] < frame["forward"]) == (frame["option_type"] == "P")].reset_index(drop=True)
    k = np.log(frame["strike"] / frame["forward"]) / np.sqrt(frame["t"])
    frame = frame.drop(columns=["bid", "ask"]).assign(iv_bid=0.2 - 0.05 * k, iv_ask=0.21 - 0.05 * k)
    frame.loc[5, "iv_bid"] = np.nan
    frame.loc[7, "iv_bid"] = 0.5
    rejected = reasons(frame)
    assert rejected["reason"].to_dict() == {6: Reject.ZERO_BID.value, 8: Reject.CROSSED.value}


def test_the_tightest_of_duplicates_stays(chain):
    frame = chain()
    twice = pd.concat([frame.assign(bid=frame["bid"] * 0.999), frame], ignore_index=True)
    surface = build_surface(Quotes.from_frame(twice))
    kept = build_surface(Quotes.from_frame(frame))
    pd.testing.assert_frame_equal(surface.quotes, kept.quotes)
    assert surface.rejected["reason"].value_counts()[Reject.DUPLICATE] == len(frame)


def test_prices_outside_the_bounds(chain):
    frame = chain(times=[0.5])
    # A put for more than its strike, a call for less than its intrinsic value.
    rejected = reasons(spoiled(spoiled(frame, 41 + 10, bid=150.0, ask=151.0), 2, bid=1.0, ask=1.01))
    assert set(rejected["reason"]) == {Reject.ARBITRAGE_BOUNDS.value}
    assert rejected.index.tolist() == [3, 52]
    assert "forward 101.0" in rejected["detail"][52]


def test_a_stale_leg_is_told_from_its_good_partner(chain):
    frame = chain(times=[0.5])
    put = 41 + 15
    stale = spoiled(frame, put, bid=frame["bid"][put] * 1.3, ask=frame["ask"][put] * 1.3)
    rejected = reasons(stale)
    assert rejected["reason"].to_dict() == {put + 1: Reject.STALE.value, 16: Reject.PARITY.value}
    assert "neighbouring quotes say" in rejected["detail"][put + 1]
    stale = spoiled(frame, 15, bid=frame["bid"][15] + 2, ask=frame["ask"][15] + 2)
    rejected = reasons(stale)
    assert rejected["reason"].to_dict() == {16: Reject.STALE.value}
    assert "the other leg lies on the smile" in rejected["detail"][16]


def test_both_legs_go_where_no_smile_can_judge(chain):
    frame = chain(times=[0.5], n=5)
    rejected = reasons(spoiled(frame, 0, bid=frame["bid"][0] + 9, ask=frame["ask"][0] + 9))
    assert rejected["reason"].to_dict() == {1: Reject.PARITY.value, 6: Reject.PARITY.value}


@pytest.mark.parametrize("at", [41 + 6, 41 + 15, 27, 33])
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_an_outlier_without_partner_is_found_and_its_neighbours_stay(chain, at, factor):
    frame = chain(times=[0.5])
    frame = frame.assign(forward=100 * np.exp(0.01), discount_factor=np.exp(-0.015))
    frame = frame[(frame["strike"] < frame["forward"]) == (frame["option_type"] == "P")]
    bad = spoiled(frame, at, bid=frame["bid"][at] * factor, ask=frame["ask"][at] * factor)
    bad = bad.assign(row=bad.index)
    rejected = reasons(bad)
    assert rejected["reason"].to_dict() == {at: Reject.OUTLIER.value}


@pytest.mark.parametrize("t", [0.004, 0.1, 2.0])
@pytest.mark.parametrize("n", [7, 15, 60, 200])
def test_steep_wings_and_kinks_are_no_outliers(chain, t, n):
    def wild(k, t):
        x = k / np.sqrt(t)
        return 0.15 + 0.5 * np.abs(x + 0.05) ** 1.3 + 0.2 * np.maximum(-x - 0.4, 0)

    frame = chain(times=[t], n=n, vol=wild, half_spread=0.002)
    assert len(reasons(frame)) == 0


def test_a_market_far_wider_than_its_neighbours_goes(chain):
    frame = chain(times=[0.5], half_spread=0.005)
    at = 41 + 18
    wide = spoiled(frame, at, bid=frame["bid"][at] * 0.7, ask=frame["ask"][at] * 1.3)
    assert reasons(wide)["reason"].to_dict() == {at + 1: Reject.WIDE.value}


def test_no_vega(chain):
    def far(k, t):
        return np.full(len(k), 0.02)

    frame = chain(times=[0.1], vol=far, half_spread=0.3)
    rejected = reasons(frame[(frame["bid"] > 1e-12)].reset_index(drop=True), price_tick=0.05)
    assert (rejected["reason"] == Reject.NO_VEGA).any()
    assert rejected["detail"][rejected["reason"] == Reject.NO_VEGA].str.contains("says nothing").all()


def test_first_broken_rule_gives_the_reason_and_untouched_rows_stand(chain):
    table = working_table(Quotes.from_frame(chain(times=[0.5]).assign(t=lambda q: -q["t"], strike=-1.0)).frame)
    apply_rules(QUOTE_RULES, table, CleaningRules())
    assert set(table["reason"]) == {Reject.EXPIRED.value}
    table = working_table(Quotes.from_frame(chain(times=[0.5])).frame)
    mark(table, pd.Series(False, index=table.index), Reject.STALE, "never")
    assert table["reason"].isna().all()


def test_running_median_leaves_monotone_runs_alone_and_removes_spikes():
    y = np.exp(np.linspace(3, 0, 20))
    np.testing.assert_allclose(running_median(y), y)
    spike = y.copy()
    spike[9] = 50.0
    assert abs(running_median(spike)[9] - y[9]) < 2
    usable = np.arange(20) != 9
    assert abs(running_median(spike, usable)[9] - y[9]) < 2


def test_smile_fit_ignores_the_untrusted():
    x = np.linspace(-1, 1, 31)
    vol = 0.2 + 0.1 * x**2
    spoilt = np.where(np.abs(x) < 0.3, 0.5, vol)
    fit = fit_smile(x, spoilt, np.full(31, 0.01), np.abs(x) >= 0.3)
    assert (fit.distance[np.abs(x) < 0.3] > 6).all()
    assert (fit.gap[np.abs(x) >= 0.3] < 0.02).all()


@pytest.mark.parametrize(
    ("limits", "kept", "sentence"),
    [
        ({"min_days": 100}, [0.5, 2.0], "36.5 days to expiry in 0.1y: selected are 100 to inf"),
        ({"max_days": 365}, [0.1, 0.5], "730 days to expiry in 2y: selected are 0 to 365"),
        ({"min_days": 182.5, "max_days": 182.5}, [0.5], "selected are 182.5 to 182.5"),
    ],
)
def test_expiries_are_selected_by_days(chain, limits, kept, sentence):
    frame = chain()
    surface = build_surface(Quotes.from_frame(frame), rules=CleaningRules(**limits))
    assert surface.slices["t"].tolist() == kept
    assert len(surface) + len(surface.rejected) == len(frame)
    left_out = surface.rejected[surface.rejected["reason"] == Reject.NOT_SELECTED]
    assert len(left_out) == len(frame) * (3 - len(kept)) / 3
    assert left_out["detail"].str.contains(sentence).any()
    assert not any("no usable quote" in w for w in surface.warnings)
    every = build_surface(Quotes.from_frame(frame)).slices.set_index("t")
    np.testing.assert_array_equal(surface.slices["forward"], every.loc[kept, "forward"])


def test_strikes_are_selected_by_deviations(chain):
    frame = chain()
    surface = build_surface(Quotes.from_frame(frame), rules=CleaningRules(max_deviations=1.5))
    assert len(surface) + len(surface.rejected) == len(frame)
    every = build_surface(Quotes.from_frame(frame)).quotes
    moneyness = np.log(every["strike"] / every["forward"]).abs()
    atm = every.assign(m=moneyness).sort_values("m").groupby("t")["iv"].first()
    near = moneyness / (every["t"].map(atm) * np.sqrt(every["t"])) <= 1.5
    pd.testing.assert_frame_equal(surface.quotes, every[near].reset_index(drop=True))
    left_out = surface.rejected[surface.rejected["reason"] == Reject.NOT_SELECTED]
    assert len(left_out) == (~near).sum() > 0
    assert left_out["detail"].str.contains(r"strike .* is \d\.\d standard deviations .*: selected are 1.5").all()


def test_thin_expiries_are_not_selected(chain):
    frame = pd.concat([chain(times=[0.5]), chain(times=[0.1], n=3)], ignore_index=True)
    surface = build_surface(Quotes.from_frame(frame), min_quotes_per_expiry=5)
    assert surface.slices["t"].tolist() == [0.5]
    left_out = surface.rejected[surface.rejected["reason"] == Reject.NOT_SELECTED]
    assert left_out["detail"].tolist() == ["only 3 usable quotes at in 0.1y: min_quotes_per_expiry is 5"] * 3


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"min_days": 7, "max_days": 3}, "min_days = 7 and max_days = 3"),
        ({"min_days": -1}, "0 <= min_days"),
        ({"min_days": np.nan}, "0 <= min_days"),
        ({"max_deviations": 0}, "max_deviations must be positive"),
    ],
)
def test_selections_of_nothing_are_refused(limits, message):
    with pytest.raises(InputError, match=message):
        CleaningRules(**limits)


def test_a_selection_that_leaves_nothing_says_how_to_widen_it(chain):
    with pytest.raises(QuoteError, match=r"246 not selected.*widen the selection \(--min-days"):
        build_surface(Quotes.from_frame(chain()), rules=CleaningRules(min_days=1000))


def noisy_chain(chain):
    """Quotes off their price by up to a half spread of 2 %, at random; the price is their middle."""
    frame = chain(half_spread=0.0)
    noise = np.random.default_rng(1).uniform(-0.02, 0.02, (2, len(frame)))
    return frame.assign(bid=frame["bid"] * (0.98 + noise[0]), ask=frame["ask"] * (1.02 + noise[0])), frame


def test_both_options_of_a_strike_tell_more_than_one(chain):
    frame, exact = noisy_chain(chain)
    one, both, truth = (
        build_surface(Quotes.from_frame(f), 0.03, rules=CleaningRules(fold=fold)).quotes.set_index(["t", "strike"])
        for f, fold in ((frame, False), (frame, True), (exact, False))
    )
    assert one.index.equals(both.index)
    error, folded = ((q["iv"] / truth["iv"] - 1).abs().mean() for q in (one, both))
    assert folded < 0.9 * error
    assert (both["iv_bid"] >= one["iv_bid"] - 1e-12).all()
    assert (both["iv_ask"] <= one["iv_ask"] + 1e-12).all()
    assert (both["iv_bid"] <= both["iv"]).all()
    assert (both["iv"] <= both["iv_ask"]).all()


def test_options_that_disagree_are_not_folded(chain):
    frame = chain(times=[0.5]).assign(forward=100 * np.exp(0.01), discount_factor=np.exp(-0.015))
    strike = frame["strike"].iloc[30]
    stale = (frame["strike"] == strike) & (frame["option_type"] == "P")
    frame.loc[stale, ["bid", "ask"]] += 3.0
    with_fold, without = (
        build_surface(Quotes.from_frame(frame), rules=CleaningRules(fold=fold)).quotes.set_index("strike")
        for fold in (True, False)
    )
    pd.testing.assert_series_equal(with_fold.loc[strike], without.loc[strike])
