import numpy as np
import pandas as pd
import pytest

from qsde.errors import QuoteError, Reject
from qsde.market.quotes import COLUMNS, Quotes
from qsde.market.surface import QUOTE_COLUMNS, SLICE_COLUMNS, Surface


def test_from_vols_fills_every_column():
    s = Surface.from_vols([1.0, 0.5, 0.5], [100, 110, 90], 0.2, [103, 101, 101], 0.95, iv_bid=0.19, iv_ask=0.21)
    assert tuple(s.slices.columns) == SLICE_COLUMNS
    assert tuple(s.quotes.columns) == QUOTE_COLUMNS
    assert s.quotes["option_type"].tolist() == ["P", "C", "P"]
    assert s.quotes["slice"].tolist() == [0, 0, 1]
    assert (s.quotes["bid"] < s.quotes["mid"]).all()
    assert (s.quotes["mid"] < s.quotes["ask"]).all()
    np.testing.assert_allclose(s.slices["rate"], -np.log(0.95) / np.array([0.5, 1.0]))
    assert s.slices[["forward_source", "discount_source"]].to_numpy().ravel().tolist() == ["given"] * 4


@pytest.mark.parametrize("name", ["t", "strike", "iv", "forward", "discount_factor"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_from_vols_names_the_bad_entry(name, value):
    good = {"t": [0.5, 1.0], "strike": [90, 100], "iv": [0.2, 0.2], "forward": [100, 100], "discount_factor": [1, 1]}
    with pytest.raises(QuoteError, match=rf"{name}\[1\] is {value}"):
        Surface.from_vols(**(good | {name: [good[name][0], value]}))


def test_select_drops_empty_slices_and_renumbers():
    s = Surface.from_vols([0.5, 1.0, 2.0, 2.0], [90, 100, 95, 105], 0.2, 100.0)
    kept = s.select(s.quotes["t"] != 1.0)
    assert kept.slices["t"].tolist() == [0.5, 2.0]
    assert kept.slices["n_quotes"].tolist() == [1, 2]
    assert kept.quotes["slice"].tolist() == [0, 1, 1]
    assert len(s) == 4


def test_name():
    assert Surface.from_vols(1.0, 100, 0.2, 100, underlying="SPX", quote_time="2024").name == "SPX 2024"
    assert Surface.from_vols(1.0, 100, 0.2, 100).name == "memory"


@pytest.mark.parametrize("name", ["forward", "discount_factor"])
def test_one_expiry_has_one_forward_and_one_discount_factor(name):
    values = {"forward": 100.0, "discount_factor": 0.9, name: [0.95, 0.95, 0.96]}
    with pytest.raises(QuoteError, match=rf"{name}\[2\] is 0.96 where quotes of the same t = 1 have 0.95"):
        Surface.from_vols([1.0, 1.0, 1.0], [90.0, 100.0, 110.0], 0.2, **values)
    Surface.from_vols([1.0, 1.0, 2.0], [90.0, 100.0, 110.0], 0.2, **values)


def test_quotes_refuse_unknown_columns_and_fill_the_rest():
    with pytest.raises(QuoteError, match="unknown columns"):
        Quotes.from_frame(pd.DataFrame({"price": [1.0]}))
    quotes = Quotes.from_frame(pd.DataFrame({"strike": [1, 2]}))
    assert tuple(quotes.frame.columns) == tuple(COLUMNS)
    assert quotes.frame["row"].tolist() == [1, 2]
    assert quotes.frame["t"].isna().all()


def test_quotes_tell_time_from_the_timestamps():
    frame = pd.DataFrame({"quote_time": ["2024-01-01T12:00Z"] * 2, "expiry_time": ["2024-12-31T12:00Z"] * 2})
    assert Quotes.from_frame(frame).frame["t"].tolist() == [1.0, 1.0]
    assert Quotes.from_frame(frame.assign(t=[0.9, np.nan])).frame["t"].tolist() == [0.9, 1.0]


def test_rejected_rows_keep_their_own_sentences_and_are_counted():
    quotes = Quotes.from_frame(pd.DataFrame({"strike": [1.0, 2.0, 3.0], "underlying": ["A", "B", "B"]}))
    quotes = quotes.reject([True, False, True], Reject.WIDE, ["first", "third"])
    quotes = quotes.reject([True], Reject.STALE, "second")
    assert quotes.rejected["detail"].tolist() == ["first", "third", "second"]
    assert quotes.rejected_counts() == {"wide": 2, "stale": 1}
    assert quotes.reject(np.zeros(0, dtype=bool), Reject.STALE, "none") is quotes
    parts = list(quotes.surfaces())
    assert [len(p.rejected) for p in parts] == [1, 2]
    assert [len(p) for p in parts] == [0, 0]


def test_warnings_are_kept_once():
    quotes = Quotes.from_frame(pd.DataFrame({"strike": [1.0]})).warn("a", "b").warn("a")
    assert quotes.warnings == ("a", "b")


def test_crossed_quotes_are_refused() -> None:
    with pytest.raises(QuoteError, match=r"iv_bid\[1\] is 0.21, above iv_ask\[1\] = 0.19: leave out"):
        Surface.from_vols([0.5, 1.0], [100.0, 100.0], 0.2, 100.0, 1.0, [0.19, 0.21], [0.21, 0.19])
