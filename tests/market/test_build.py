import numpy as np
import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from qsde.errors import ParameterError, QsdeError, QuoteError, Reject
from qsde.market.build import build_surface
from qsde.market.cleaning import CleaningRules
from qsde.market.quotes import Quotes
from qsde.market.surface import QUOTE_COLUMNS, SLICE_COLUMNS


def build(frame, **kwargs):
    return build_surface(Quotes.from_frame(frame), **kwargs)


def at_the_money(surface):
    """Vol at the forward of every expiry, interpolated in log moneyness."""
    quotes = surface.quotes.assign(k=np.log(surface.quotes["strike"] / surface.quotes["forward"]))
    return np.array([np.interp(0.0, g["k"], g["iv"]) for _, g in quotes.groupby("slice")])


def counts(surface):
    return {str(k): int(v) for k, v in surface.rejected["reason"].value_counts().items()}


def check(surface, n_rows):
    """What every surface promises."""
    assert len(surface) + len(surface.rejected) == n_rows
    assert tuple(surface.slices.columns) == SLICE_COLUMNS
    assert tuple(surface.quotes.columns) == QUOTE_COLUMNS
    assert surface.slices["t"].is_monotonic_increasing
    assert surface.slices["n_quotes"].sum() == len(surface)
    assert (surface.quotes.groupby("slice")["strike"].diff().dropna() > 0).all()
    assert surface.quotes["slice"].unique().tolist() == list(range(len(surface.slices)))
    assert (surface.quotes[["iv", "mid", "forward", "discount_factor", "t"]] > 0).all().all()
    put = surface.quotes["option_type"] == "P"
    assert (put == (surface.quotes["strike"] < surface.quotes["forward"])).all()
    assert (surface.quotes[["iv_bid", "iv"]].diff(axis=1)["iv"].dropna() >= 0).all()
    assert (surface.quotes[["iv", "iv_ask"]].diff(axis=1)["iv_ask"].dropna() >= 0).all()
    assert surface.rejected["detail"].str.len().min() > 10 or not len(surface.rejected)


def test_known_vols_come_back(chain):
    surface = build(chain(half_spread=0.001))
    check(surface, 246)
    q = surface.quotes
    forward = 100 * np.exp(0.02 * q["t"])
    x = np.log(q["strike"] / forward) / np.sqrt(q["t"])
    exact = 0.2 + 0.06 * (np.sqrt((x - 0.1) ** 2 + 0.05) - 0.9 * x)
    np.testing.assert_allclose(q["iv"], exact, rtol=2e-4)
    assert surface.slices["n_pairs"].tolist() == [41, 41, 41]
    assert surface.warnings == ()


def test_dirty_spx(load):
    quotes = load("spx_dirty", drop=["forward", "mid"])
    surface = build_surface(quotes)
    check(surface, 17193)
    assert len(surface.slices) == 49
    late = surface.slices[surface.slices["t"] > 0.25]
    assert late["rate"].between(0.042, 0.048).all()
    variance = at_the_money(surface) ** 2 * surface.slices["t"]
    assert (np.diff(variance) >= 0).all()
    found = counts(surface)
    assert found["crossed"] == 28
    assert found["zero bid"] == 889
    assert found["stale"] + found["parity"] + found["outside no-arbitrage bounds"] > 1000
    assert 9000 < len(surface) < 10500
    # The quotes that the careful recorder of the file called clean and gave a vol are mostly kept.
    assert surface.slices["n_quotes"].min() >= 20


def test_dirty_spx_vols_agree_with_the_derived_ones(load):
    quotes = load("spx_dirty", drop=["forward", "mid"])
    surface = build_surface(quotes)
    raw = pd.read_parquet("tests/fixtures/spx_eod_yahoo/spx_2026-07-31.parquet")
    theirs = raw[(raw["qc_flag"] == "") & raw["iv_mid_calc"].notna()][
        ["expiry", "strike", "option_type", "iv_mid_calc"]
    ]
    both = surface.quotes.merge(theirs, on=["expiry", "strike", "option_type"])
    assert len(both) > 0.9 * len(theirs)
    # Their clock starts a quarter of an hour later, which only the shortest expiries notice.
    assert (both["iv"] / both["iv_mid_calc"] - 1).abs().median() < 2e-3


def test_spx_2023_given_vols_are_kept(load):
    quotes = load("spx")
    surface = build_surface(quotes)
    check(surface, 7423)
    assert counts(surface)["zero bid"] == 674
    assert counts(surface).get("outlier", 0) < 20
    given_vols = quotes.frame.set_index(["t", "strike"])["implied_vol"]
    ours = surface.quotes.set_index(["t", "strike"])["iv"]
    assert (ours / given_vols.reindex(ours.index) - 1).abs().median() < 1e-3
    assert (np.diff(at_the_money(surface) ** 2 * surface.slices["t"]) >= 0).all()
    assert (surface.slices["discount_source"] == "prices").all()
    assert (surface.slices["discount_factor"] == 1).all()
    assert any("undiscounted" in w for w in surface.warnings)


def test_a_rate_that_contradicts_the_prices_falls_back_to_the_vols(load):
    surface = build_surface(load("spx"), rate=0.045)
    assert any("the vols are used" in w for w in surface.warnings)
    same = build_surface(load("spx"))
    ours, theirs = (s.quotes.set_index(["t", "strike"]) for s in (surface, same))
    common = ours.index.intersection(theirs.index)
    assert len(common) > 6600
    np.testing.assert_allclose(ours.loc[common, "iv"], theirs.loc[common, "iv"], rtol=0.02)
    np.testing.assert_allclose(surface.slices["rate"], 0.045, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "n_surfaces", "most_outliers"),
    [("vix", 1, 5), ("goog", 7, 3), ("btc", 9, 4), ("dax", 1, 0), ("sepp", 3, 5)],
)
def test_the_other_files(load, name, n_surfaces, most_outliers):
    drop = ["forward"] if name == "goog" else []
    parts = list(load(name, drop=drop).surfaces())
    assert len(parts) == n_surfaces
    for part in parts:
        surface = build_surface(part)
        check(surface, len(part))
        assert counts(surface).get("outlier", 0) <= most_outliers
        assert (np.diff(at_the_money(surface) ** 2 * surface.slices["t"]) >= 0).all()
        assert any("American" in w for w in surface.warnings) == (name == "goog")


def test_dax_has_no_bid_and_ask(load):
    surface = build_surface(load("dax"))
    assert len(surface) == 104
    assert surface.quotes[["bid", "ask", "iv_bid", "iv_ask"]].isna().all().all()
    vols = build_surface(load("dax", drop=["mid"]))
    np.testing.assert_allclose(vols.quotes["iv"], surface.quotes["iv"], rtol=2e-4)
    np.testing.assert_allclose(vols.quotes["mid"], surface.quotes["mid"], rtol=1e-3)


def test_bitcoin_with_a_discount_factor_of_one(load):
    for part in load("btc").surfaces():
        quotes = Quotes.from_frame(part.frame.assign(discount_factor=1.0))
        surface = build_surface(quotes)
        assert (surface.slices["discount_source"] == "file").all()
        assert not any("discount" in w for w in surface.warnings)


# What cannot be built, and what the message says.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda q: q.assign(t=-0.1),
            r"all 246 quotes expired before 2024-01-02: check the quote time \(--quote-time\)",
        ),
        (
            lambda q: q[q["option_type"] == "C"],
            r"123 no forward\): supply a rate, a dividend yield and the spot .*--rate 0.03",
        ),
        (lambda q: q[q["option_type"] == "P"], r"123 no forward\): supply a rate"),
        (lambda q: q.assign(bid=np.nan, ask=np.nan), r"246 no quote\): the first of them says: no two-sided market"),
        (lambda q: q.assign(bid=-1.0), r"246 negative price"),
        (lambda q: q.assign(bid=0.0), r"246 zero bid\): supply mid prices"),
        (
            lambda q: q.assign(t=np.nan),
            r"246 unreadable\): the first of them says: no time to expiry: the quote time \(--quote-time\)",
        ),
        (lambda q: q.iloc[:0], "has no quotes"),
        (lambda q: q.assign(ask=np.inf), "246 no quote"),
    ],
)
def test_nothing_usable(chain, change, message):
    with pytest.raises(QuoteError, match=message):
        build(change(chain()))


def test_missing_spot_and_percent_rates(chain):
    calls = chain()[lambda q: q["option_type"] == "C"]
    with pytest.raises(QuoteError, match="needs the spot price"):
        build(calls, rate=0.03, dividend_yield=0.01)
    with pytest.raises(ParameterError, match="not percent"):
        build(chain(), rate=3.0)
    surface = build(calls.assign(spot=100.0), rate=0.03, dividend_yield=0.01)
    assert (surface.slices["forward_source"] == "curve").all()
    assert surface.spot == 100.0


def test_one_surface_at_a_time(chain):
    frame = chain()
    with pytest.raises(QuoteError, match="holds 2 underlyings"):
        build(pd.concat([frame, frame.assign(underlying="Y")]))


def test_one_quote_and_one_expiry_are_fine_with_warnings(chain):
    frame = chain(times=[0.5]).assign(forward=100 * np.exp(0.01), discount_factor=np.exp(-0.015))
    surface = build(frame[(frame["strike"] > 110) & (frame["option_type"] == "C")].iloc[:1])
    assert len(surface) == 1
    assert any("only one expiry" in w for w in surface.warnings)
    assert any("fewer than 5 strikes" in w for w in surface.warnings)
    np.testing.assert_allclose(build(frame).slices["forward"], 100 * np.exp(0.01))


def test_thin_expiries_are_dropped_on_request(chain):
    frame = pd.concat([chain(times=[0.5, 1.0]), chain(times=[2.0], n=5)], ignore_index=True)
    surface = build(frame, min_quotes_per_expiry=10)
    check(surface, len(frame))
    assert surface.slices["t"].tolist() == [0.5, 1.0]
    assert any("no usable quote left at 1 expiries: in 2y" in w for w in surface.warnings)
    assert (
        surface.rejected["detail"].str.contains("only 5 usable quotes at in 2y: min_quotes_per_expiry is 10").sum() == 5
    )


def test_earlier_rejects_travel_along(chain):
    quotes = Quotes.from_frame(chain()).reject(np.arange(246) < 3, Reject.UNREADABLE, "read badly by the reader")
    surface = build_surface(quotes.warn("mind the file"))
    assert len(surface) + len(surface.rejected) == 246
    assert counts(surface)["unreadable"] == 3
    assert surface.warnings[0] == "mind the file"


def test_american_options_without_a_spot_are_named(chain):
    surface = build(chain().assign(exercise_style="A"))
    assert any("early-exercise premium" in w for w in surface.warnings)


def test_a_rate_against_parity_is_noticed(chain):
    surface = build(chain(), rate=0.12)
    assert any("fewer than half of the call/put pairs agree" in w for w in surface.warnings)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_spoilt_chain_conserves_its_rows_or_explains_itself(data):
    n = data.draw(st.integers(1, 12))
    value = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(0.01, 200))
    columns = {c: data.draw(st.lists(value, min_size=n, max_size=n)) for c in ("bid", "ask", "mid", "strike")}
    columns["t"] = data.draw(st.lists(st.sampled_from([0.5, 1.0, -1.0, float("nan")]), min_size=n, max_size=n))
    columns["option_type"] = data.draw(st.lists(st.sampled_from(["C", "P", None, "Q"]), min_size=n, max_size=n))
    columns["forward"] = data.draw(st.lists(st.sampled_from([100.0, float("nan")]), min_size=n, max_size=n))
    columns["spot"] = data.draw(st.lists(st.sampled_from([101.0, float("nan")]), min_size=n, max_size=n))
    columns["exercise_style"] = data.draw(st.lists(st.sampled_from(["A", "E", None]), min_size=n, max_size=n))
    frame = pd.DataFrame(columns)
    try:
        check(build(frame, rules=CleaningRules(fold=data.draw(st.booleans()))), n)
    except QsdeError as error:
        # Refusing is fine, with a reason: anything but a QsdeError fails the test.
        event(str(error)[:12])
