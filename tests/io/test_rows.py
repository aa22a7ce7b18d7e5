"""Values of all spellings, and the reasons rows are set aside for."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from qsde.errors import InputError
from qsde.io import read_quotes

HEAD = "quote_date,underlying,expiry,strike,option_type,bid,ask\n"


def rejects(quotes):
    return dict(
        zip(quotes.rejected["row"], zip(quotes.rejected["reason"], quotes.rejected["detail"], strict=True), strict=True)
    )


def test_every_bad_row_is_kept_with_its_reason(read_text):
    rows = [
        "2024-01-02,SPX,2024-02-16,4800,C,51,52",
        "2024-01-02,SPX,2024-02-16,4800,C,51,53",
        "2024-01-02,SPX,2024-02-16,,C,51,52",
        "2024-01-02,SPX,2024-02-16,-5,C,51,52",
        "2024-01-02,SPX,2024-02-16,4810,X,51,52",
        "2024-01-02,SPX,2024-02-16,4810,,51,52",
        "2024-01-02,SPX,2024-02-16,4820,C,oops,52",
        "2024-01-02,SPX,2024-02-16,4830,C,-1,52",
        "2024-01-02,SPX,2023-12-15,4840,C,51,52",
        "2024-01-02,SPX,soon,4850,C,51,52",
        "2024-01-02,SPX,2024-02-16,4860,C,51",
        "2024-01-02,SPX,2024-02-16,4870,C,51,52,53",
        "2024-01-02,SPX,,4880,C,51,52",
        ",SPX,2024-02-16,4890,C,51,52",
        "2024-01-02,SPX,2024-02-16,4900,C,inf,52",
        "2024-01-02,SPX,2024-02-16,4910,P,,52",
    ]
    quotes = read_text(HEAD + "\n".join(rows))
    assert quotes.frame["row"].tolist() == [1, 16]
    assert rejects(quotes) == {
        2: ("duplicate", "the same option is in row 1, whose other prices are used"),
        3: ("bad strike", "strike is missing"),
        4: ("bad strike", "strike is -5; it must be positive"),
        5: ("bad option type", "option type is 'X'; C, P, call and put are known"),
        6: ("bad option type", "option type is missing; C, P, call and put are known"),
        7: ("unreadable", "bid is 'oops', which is no number"),
        8: ("negative price", "bid is -1"),
        9: ("expired", "expired 18 days before the quote time"),
        10: ("unreadable", "expiry is 'soon', which is no date or time"),
        11: (
            "unreadable",
            "the line has 6 fields where the header has 7: '2024-01-02,SPX,2024-02-16,4860,C,51'",
        ),
        12: (
            "unreadable",
            "the line has 8 fields where the header has 7: '2024-01-02,SPX,2024-02-16,4870,C,51,52,53'",
        ),
        13: ("unreadable", "the expiry is missing"),
        14: ("unreadable", "the quote time is missing"),
        15: ("unreadable", "bid is 'inf', which is no number"),
    }


def test_rejected_rows_go_with_their_surface(read_text):
    quotes = read_text(HEAD + "2024-01-02,SPX,2024-02-16,4800,C,51,52\nrubbish\nnever,,,,,,\n")
    assert [len(s.rejected) for s in quotes.surfaces()] == [2]


def test_stray_quote_costs_no_other_row(read_text):
    rows = '2024-01-02,"SPX,2024-02-16,4800,C,51,52\n2024-01-02,"SP\nX",2024-02-16,4801,C,51,52\n'
    quotes = read_text(HEAD + rows + '2024-01-02,"SPX",2024-02-16,4802,C,"1,051",52\n')
    assert quotes.frame[["row", "strike", "bid"]].to_numpy().tolist() == [[1, 4800, 51], [4, 4802, 1051]]
    assert rejects(quotes)[2][1] == "the line has 2 fields where the header has 7: '2024-01-02,SP'"
    assert quotes.rejected["row"].tolist() == [2, 3]


def test_same_strike_of_another_root_is_no_duplicate(read_text):
    head = "quote_date,underlying,root,expiry,strike,option_type,bid,ask\n"
    rows = "2024-01-02,SPX,SPX,2024-02-16,4800,C,51,52\n2024-01-02,SPX,SPXW,2024-02-16,4800,C,51,52\n"
    quotes = read_text(head + rows)
    assert len(quotes) == 2
    # SPXW in the file says that SPX means the series settled at the open
    assert quotes.frame["expiry_time"].tolist() == [
        pd.Timestamp("2024-02-16T14:30Z"),
        pd.Timestamp("2024-02-16T21:00Z"),
    ]


@pytest.mark.parametrize("root", ["SPX", "SPX/SPXW"])
def test_spx_alone_settles_at_the_close(root, read_text):
    head = "quote_date,underlying,root,expiry,strike,option_type,bid,ask\n"
    quotes = read_text(head + f"2024-01-02,SPX,{root},2024-02-16,4800,C,51,52\n")
    assert quotes.frame["expiry_time"][0] == pd.Timestamp("2024-02-16T21:00Z")


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [("C", "C"), ("c", "C"), ("Call", "C"), ("CALLS", "C"), ("1", "C"), ("p", "P"), ("PUT", "P"), ("-1", "P")],
)
def test_option_type_spellings(spelling, expected, read_text):
    quotes = read_text(HEAD + f"2024-01-02,SPX,2024-02-16,4800,{spelling},51,52\n")
    assert quotes.frame["option_type"].tolist() == [expected]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"$1,234.5"', 1234.5),
        ("1e3", 1000.0),
        (" 7 ", 7.0),
        ("NA", np.nan),
        ("--", np.nan),
        ("NaN", np.nan),
        (".5", 0.5),
    ],
)
def test_number_spellings(text, value, read_text):
    quotes = read_text(HEAD + f"2024-01-02,SPX,2024-02-16,4800,C,51,52\n2024-01-02,SPX,2024-02-16,4801,C,{text},\n")
    np.testing.assert_equal(quotes.frame["bid"][1], value)


def test_decimal_comma_is_refused_rather_than_read_a_thousand_times_too_large(read_text):
    quotes = read_text((HEAD + "2024-01-02,SPX,2024-02-16,4800,C,12*5,52\n").replace(",", ";").replace("*", ","))
    assert quotes.rejected["detail"].tolist() == [
        "bid is '12,5', which is no number: write decimals with a point (80.5), not a comma"
    ]


@pytest.mark.parametrize(
    "date",
    ["2024-02-16", "20240216", "2024/02/16", "02/16/2024", "2/16/24", "16/02/2024", "Fri Feb 16 2024", "16FEB24",
     "16-Feb-2024", "16.02.2024", "February 16, 2024", "2024-02-16 00:00:00", "1708041600", "1708041600000",
     "2024-02-16T00:00:00Z"],
)  # fmt: skip
def test_date_spellings(date, read_text):
    quotes = read_text(HEAD + f'2024-01-02,SPX,"{date}",4800,C,51,52\n')
    assert quotes.frame["expiry"].tolist() == ["2024-02-16"]
    assert quotes.frame["expiry_time"].tolist() == [pd.Timestamp("2024-02-16T21:00Z")]
    assert quotes.frame["t"][0] == 45 / 365


@pytest.mark.parametrize(
    ("stamp", "instant"),
    [
        ("2024-01-02T10:30:00-05:00", "2024-01-02T15:30Z"),
        ("2024-01-02 15:30:00+00:00", "2024-01-02T15:30Z"),
        ("2024-01-02 15:30:00 UTC", "2024-01-02T15:30Z"),
        ("1704209400", "2024-01-02T15:30Z"),
        ("1704209400000", "2024-01-02T15:30Z"),
        ("1704209400123456", "2024-01-02T15:30:00.123456Z"),
        ("2024-01-02", "2024-01-02T21:00Z"),
        ("2024-07-02", "2024-07-02T20:00Z"),
    ],
)
def test_quote_time_spellings(stamp, instant, read_text):
    quotes = read_text(HEAD + f"{stamp},SPX,2025-02-16,4800,C,51,52\n")
    assert quotes.frame["quote_time"].tolist() == [pd.Timestamp(instant)]


DAYS = "02/01/2024,SPX,05/04/2024,4800,C,51,52\n"


def test_slashes_that_could_be_either_come_with_a_warning(read_text):
    quotes = read_text(HEAD + DAYS)
    assert quotes.frame["expiry"].tolist() == ["2024-05-04"]
    assert any("read as month/day/year, and none of them can tell" in said for said in quotes.warnings)
    for text in (DAYS.replace("05/04", "05/24"), DAYS.replace("05/04", "24/05"), DAYS.replace("/", ".")):
        assert not read_text(HEAD + text).warnings


def test_slashes_mean_the_same_in_every_block_of_a_file(read_text, monkeypatch):
    monkeypatch.setattr("qsde.io.delimited._BLOCK", 100)
    rows = [DAYS.replace("4800", str(strike)) for strike in range(4000, 4100)]
    quotes = read_text(HEAD + "".join(rows) + DAYS.replace("05/04", "24/05"))
    assert quotes.frame["expiry"].unique().tolist() == ["2024-04-05", "2024-05-24"]
    assert len(quotes) == 101


def test_repeated_options_whose_prices_differ_come_with_a_warning(read_text):
    row = "2024-01-02,SPX,2024-02-16,4800,C,51,52\n"
    assert not read_text(HEAD + row + row).warnings
    quotes = read_text(HEAD + row + row.replace("51", "50"))
    assert quotes.frame["bid"].tolist() == [51]
    assert quotes.warnings[0].startswith("1 quotes repeat an option of a row above with other prices: the first")


@pytest.mark.parametrize(
    ("expiry", "hint"),
    [
        ("45", "give years in a column t_years"),
        ("2024-02-16 16:00 EST", "write an offset (-05:00)"),
        ("45338", "an Excel day number"),
    ],
)
def test_times_that_cannot_be_read_come_with_what_to_do(expiry, hint, read_text):
    quotes = read_text(HEAD + f"2024-01-02,SPX,{expiry},4800,C,51,52\n")
    assert hint in quotes.rejected["detail"][0]


def test_ambiguous_slashes_follow_the_column_they_stand_in(read_text):
    quotes = read_text(HEAD + "02/01/2024,SPX,16/02/2024,4800,C,51,52\n02/01/2024,SPX,05/04/2024,4800,C,51,52\n")
    assert quotes.frame["expiry"].tolist() == ["2024-02-16", "2024-04-05"]
    assert quotes.frame["quote_time"][0] == pd.Timestamp("2024-01-02T21:00Z")


def test_naive_quote_time_asks_for_the_zone(read_text):
    text = HEAD + "2024-01-02 10:30,SPX,2024-02-16,4800,C,51,52\n"
    with pytest.raises(
        InputError, match=r"quote times such as 2024-01-02T10:30.* no time zone.*--timezone America/New_York"
    ):
        read_text(text)
    berlin = read_text(text, timezone="Europe/Berlin")
    assert berlin.frame["quote_time"][0] == pd.Timestamp("2024-01-02T09:30Z")
    assert berlin.frame["expiry_time"][0] == pd.Timestamp("2024-02-16T15:00Z")
    with pytest.raises(InputError, match="timezone 'Mars/Base' is not known; give an IANA name"):
        read_text(text, timezone="Mars/Base")


def test_quote_time_option(read_text):
    text = HEAD + "2024-01-02,SPX,2024-02-16,4800,C,51,52\n"
    assert read_text(text, quote_time="15:45").frame["quote_time"][0] == pd.Timestamp("2024-01-02T20:45Z")
    exact = read_text(text, quote_time="2024-01-02T10:00:00-05:00")
    assert exact.frame["quote_time"][0] == pd.Timestamp("2024-01-02T15:00Z")
    with pytest.raises(InputError, match="quote time 'noon' is no time; give one such as 2024"):
        read_text(text, quote_time="noon")
    with pytest.raises(InputError, match="has no time zone; write it as 2024-01-02T10:00-05:00 or add --timezone"):
        read_text(text, quote_time="2024-01-02 10:00")
    two_days = text + "2024-01-03,SPX,2024-02-16,4800,C,51,52\n"
    with pytest.raises(InputError, match=r"has 2 quote dates.*give a time of day only"):
        read_text(two_days, quote_time="2024-01-02T10:00:00-05:00")


def test_option_expiring_later_today_stays(read_text):
    quotes = read_text(HEAD + "2024-01-02T10:00:00-05:00,SPX,2024-01-02,4800,C,5,6\n")
    assert quotes.frame["t"].tolist() == [pytest.approx(6 / 24 / 365)]


def test_years_of_the_file_win_and_dates_are_made_from_them(read_text):
    head = "quote_date,underlying,t_years,strike,option_type,mid\n"
    quotes = read_text(head + "2024-01-02,SPX,0.5,4800,C,51\n2024-01-02,SPX,-1,4800,C,51\n")
    assert quotes.frame["t"].tolist() == [0.5]
    assert quotes.frame["expiry"].tolist() == ["2024-07-03"]
    assert quotes.rejected_counts() == {"expired": 1}


def test_years_alone_need_no_dates(read_text):
    quotes = read_text("t_years,strike,option_type,implied_vol\n0.5,100,C,0.2\n")
    assert quotes.frame["t"].tolist() == [0.5]
    assert quotes.frame["quote_time"].isna().all()


def test_percent_vols_become_decimals_with_a_warning(read_text):
    head = "quote_date,underlying,expiry,strike,option_type,implied_vol\n"
    rows = "".join(f"2024-01-02,SPX,2024-02-16,{k},C,{v}\n" for k, v in ((4800, 14.5), (4900, 12.5), (5000, 13)))
    quotes = read_text(head + rows)
    assert quotes.frame["implied_vol"].tolist() == [0.145, 0.125, 0.13]
    assert quotes.warnings == ("implied_vol has a median of 13: taken as percent and divided by 100",)


def test_spot_and_underlying_fill_only_gaps(read_text):
    head = "quote_date,underlying,spot,expiry,strike,option_type,bid\n"
    quotes = read_text(head + "2024-01-02,SPX,4750,2024-02-16,4800,C,5\n2024-01-02,,,2024-02-16,4900,C,4\n",
                       underlying="ndx", spot=1.0)  # fmt: skip
    assert quotes.frame["underlying"].tolist() == ["SPX", "NDX"]
    assert quotes.frame["spot"].tolist() == [4750, 1]
    with pytest.raises(InputError, match="spot -3 cannot be used: it must be positive"):
        read_text(head, spot=-3)


def test_tidy_records_lines_columns_and_parquet_agree_with_csv(read_text, tmp_path):
    rows = [
        {"quote_date": "2024-01-02", "underlying": "SPX", "expiry": "2024-02-16", "strike": 4800.0 + k,
         "option_type": "C", "bid": 5.5, "ask": 6.25, "volume": None}
        for k in range(3)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    csv = read_text(frame.to_csv(index=False))
    texts = [
        json.dumps(rows),
        "\n".join(map(json.dumps, rows)),
        json.dumps(frame.astype(object).where(frame.notna(), None).to_dict("list")),
        frame.to_json(),
        frame.to_json(orient="split"),
    ]
    typed = frame.assign(quote_date=pd.to_datetime(frame["quote_date"]), expiry=pd.to_datetime(frame["expiry"]).dt.date)
    typed.to_parquet(tmp_path / "typed")
    for quotes in [*(read_text(t) for t in texts), read_quotes(tmp_path / "typed")]:
        pd.testing.assert_frame_equal(quotes.frame, csv.frame)
        assert quotes.vendor == "tidy"


def test_accepted_quotes_written_to_parquet_read_back_equal(data, tmp_path):
    quotes = read_quotes(data / "goog_2015_intraday" / "goog_hourly_2015-12-23.parquet")
    quotes.frame.to_parquet(tmp_path / "again.parquet")
    again = read_quotes(tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(again.frame, quotes.frame)


def test_many_times_are_pointed_out(read_text):
    rows = "".join(f"2024-01-02T10:00:{s:02d}-05:00,SPX,2024-02-16,4800,C,51,52\n" for s in range(40))
    assert "40 quotes have 40 different times" in read_text(HEAD + rows).warnings[0]


@pytest.mark.parametrize(
    ("name", "rows", "underlyings", "surfaces"),
    [
        ("spx_vix_2023-02-15/spx_2023-02-15.parquet", 7423, ["SPX"], 1),
        ("spx_vix_2023-02-15/vix_2023-02-15.parquet", 637, ["VIX"], 1),
        ("dax_2002-07-05/dax_2002-07-05.csv", 104, ["DAX"], 1),
        ("goog_2015_intraday/goog_hourly_2015-12-23.parquet", 14388, ["GOOG"], 7),
        ("deribit_btc_eth/btc_2023-07.parquet", 2288, ["BTC"], 9),
        ("sepp_multiasset_surfaces/surfaces_btc_spy_gld.csv", 628, ["BTC", "GLD", "SPY"], 3),
    ],
)
def test_shipped_data_is_read_whole(name, rows, underlyings, surfaces, data):
    quotes = read_quotes(data / name)
    assert (quotes.vendor, len(quotes), len(quotes.rejected), quotes.warnings) == ("tidy", rows, 0, ())
    assert sorted(quotes.frame["underlying"].unique()) == underlyings
    assert sum(1 for _ in quotes.surfaces()) == surfaces


def test_spx_2023_keeps_years_wing_vols_and_undiscounted_prices(data):
    frame = read_quotes(data / "spx_vix_2023-02-15" / "spx_2023-02-15.parquet").frame
    raw = pd.read_parquet(data / "spx_vix_2023-02-15" / "spx_2023-02-15.parquet")
    for ours, theirs in (("t", "t_years"), ("iv_ask", "iv_ask"), ("bid", "bid"), ("forward", "forward")):
        np.testing.assert_array_equal(frame[ours], raw[theirs])
    assert frame["iv_ask"].max() > 2.5
    assert (frame["discount_factor"] == 1).all()
    assert frame["spot"].isna().all()


def test_deribit_dollar_prices_are_undiscounted(data):
    frame = read_quotes(data / "deribit_btc_eth" / "btc_2023-07.parquet").frame
    assert (frame["discount_factor"] == 1).all()
    assert (frame["expiry_time"].dt.hour == 8).all()


def test_dax_settlements(data):
    frame = read_quotes(data / "dax_2002-07-05" / "dax_2002-07-05.csv").frame
    assert frame["mid"].notna().all()
    assert frame[["bid", "ask"]].isna().all(axis=None)
    assert frame["discount_factor"].between(0.9, 1).all()


def test_dirty_spx_chain_is_read_whole(fixtures):
    quotes = read_quotes(fixtures / "spx_eod_yahoo" / "spx_2026-07-31.parquet")
    assert (len(quotes), len(quotes.rejected)) == (17193, 0)
    assert quotes.frame["expiry_time"].dt.tz_convert("America/New_York").dt.hour.eq(16).all()
