"""Every vendor's columns, a few rows each, and the exact quotes that must come out."""

# vendors print long lines
# ruff: noqa: E501

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from qsde.errors import FileFormatError, InputError
from qsde.io import VENDORS, read_quotes
from qsde.market.quotes import COLUMNS

CBOE_EOD = """\
underlying_symbol,quote_date,root,expiration,strike,option_type,open,high,low,close,trade_volume,bid_size_1545,bid_1545,ask_size_1545,ask_1545,underlying_bid_1545,underlying_ask_1545,implied_underlying_price_1545,active_underlying_price_1545,implied_volatility_1545,delta_1545,gamma_1545,theta_1545,vega_1545,rho_1545,bid_size_eod,bid_eod,ask_size_eod,ask_eod,underlying_bid_eod,underlying_ask_eod,vwap,open_interest,delivery_code
^SPX,2023-06-01,SPX,2023-06-16,4200.000,C,0,0,0,0,12,10,52.1,11,52.9,4220.10,4220.30,4221.0,4221.5000,0.1320,0.5,0,0,0,0,10,55.0,10,56.0,4221.0,4221.1,0,345,
^SPX,2023-06-01,SPXW,2023-06-16,4200.000,P,0,0,0,0,3,10,31.2,11,31.8,4220.10,4220.30,4221.0,4221.5000,0.1300,-0.5,0,0,0,0,10,30.0,10,30.9,4221.0,4221.1,0,77,
^SPX,2023-06-02,SPXW,2023-07-21,4300.000,C,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,10,41.0,10,41.6,4282.0,4282.6,0,10,
"""
CBOE_INTERVALS = """\
underlying_symbol,quote_datetime,root,expiration,strike,option_type,open,high,low,close,trade_volume,bid_size,bid,ask_size,ask,underlying_bid,underlying_ask
^SPX,2023-06-01 09:31:00,SPXW,2023-06-01,4200.000,C,0,0,0,0,12,10,12.1,11,12.9,4190.0,4191.0
^SPX,2023-06-01 16:00:00,SPXW,2023-06-01,4200.000,C,0,0,0,0,12,10,0.1,11,0.2,4190.0,4191.0
^SPX,2023-06-01 09:31:00,SPX,2023-06-16,4200.000,P,0,0,0,0,3,10,41.2,11,41.8,4190.0,4191.0
"""
CBOE_QUOTEDATA = """\

S&P 500 INDEX,Last: 5870.6201,Change: -78.5498
"Date: November 15, 2024 at 3:19 PM EST",Bid: 5864.8301,Ask: 5878.0298,Size: 1*1,Volume: 0
Expiration Date,Calls,Last Sale,Net,Bid,Ask,Volume,IV,Delta,Gamma,Open Interest,Strike,Puts,Last Sale,Net,Bid,Ask,Volume,IV,Delta,Gamma,Open Interest
Fri Dec 20 2024,SPX241220C05900000,80,0,78.5,79.3,5,0.1203,0.49,0.002,100,5900.000,SPX241220P05900000,90,0,88.1,88.9,6,0.1189,-0.51,0.002,200
Fri Dec 20 2024,SPXW241220C05900000,80,0,79.5,80.3,7,0.1213,0.49,0.002,300,5900.000,SPXW241220P05900000,90,0,89.1,89.9,8,0.1199,-0.51,0.002,400
"""
OPTIONMETRICS = """\
secid,date,symbol,symbol_flag,exdate,last_date,cp_flag,strike_price,best_bid,best_offer,volume,open_interest,impl_volatility,delta,gamma,vega,theta,optionid
108105,2019-01-02,SPX 190118C2500000,1,2019-01-18,2019-01-02,C,2500000,45.1,45.9,210,1000,0.211,0.5,0,0,0,1
108105,2019-01-02,SPXW 190118P2500000,1,2019-01-18,2019-01-02,P,2500000,41.0,41.7,150,500,-99.99,-0.5,0,0,0,2
108105,2012-01-03,SPX 120218C1300000,1,2012-02-18,2012-01-03,C,1300000,20.0,21.0,5,7,0.2,0.5,0,0,0,3
"""
ORATS = """\
ticker,tradeDate,expirDate,dte,strike,stockPrice,callVolume,callOpenInterest,callBidSize,callAskSize,putVolume,putOpenInterest,putBidSize,putAskSize,callBidPrice,callValue,callAskPrice,putBidPrice,putValue,putAskPrice,callBidIv,callMidIv,callAskIv,smvVol,putBidIv,putMidIv,putAskIv,residualRate,delta,gamma
AAPL,2022-08-08,2022-08-19,12,165,164.87,24541,49125,10,12,8852,21000,5,6,3.25,3.29,3.35,3.3,3.33,3.4,0.28,0.284,0.288,0.285,0.281,0.286,0.29,0.01,0.52,0.03
AAPL,2022-08-08,2022-08-19,12,170,164.87,100,200,10,12,300,400,5,6,1.2,1.22,1.25,6.2,6.25,6.35,0.27,0.272,0.274,0.273,0.271,0.276,0.28,0.01,0.32,0.03
"""
OPTIONSDX = """\
[QUOTE_UNIXTIME], [QUOTE_READTIME], [QUOTE_DATE], [QUOTE_TIME_HOURS], [UNDERLYING_LAST], [EXPIRE_DATE], [EXPIRE_UNIX], [DTE], [C_DELTA], [C_GAMMA], [C_VEGA], [C_THETA], [C_RHO], [C_IV], [C_VOLUME], [C_LAST], [C_SIZE], [C_BID], [C_ASK], [STRIKE], [P_BID], [P_ASK], [P_SIZE], [P_LAST], [P_DELTA], [P_GAMMA], [P_VEGA], [P_THETA], [P_RHO], [P_IV], [P_VOLUME], [STRIKE_DISTANCE], [STRIKE_DISTANCE_PCT]
1672779600, 2023-01-03 16:00, 2023-01-03, 16.000000, 3822.470000, 2023-01-03, 1672779600, 0.0, 1, 0, 0, 0, 0, , , 0, 1 x 1, 21.0, 22.0, 3800.0, 0.0, 0.05, 0 x 1, 0, 0, 0, 0, 0, 0, , , 22.4, 0.006
1672779600, 2023-01-03 16:00, 2023-01-03, 16.000000, 3822.470000, 2023-02-17, 1676667600, 45.0, 0.5, 0, 0, 0, 0, 0.2101, 12.0, 0, 1 x 1, 121.0, 122.0, 3800.0, 90.1, 90.9, 1 x 1, 0, -0.5, 0, 0, 0, 0, 0.2055, 34.0, 22.4, 0.006
"""
YFINANCE = """\
,contractSymbol,lastTradeDate,strike,lastPrice,bid,ask,change,percentChange,volume,openInterest,impliedVolatility,inTheMoney,contractSize,currency
0,AAPL240621C00190000,2024-06-03 19:59:59+00:00,190.0,6.15,6.1,6.25,0.1,1.6,1204.0,5010,0.2211,True,REGULAR,USD
1,AAPL240621P00190000,2024-06-03 19:59:00+00:00,190.0,2.15,2.1,2.2,0.1,1.6,,810,0.2011,False,REGULAR,USD
"""
DERIBIT_SUMMARY = {
    "jsonrpc": "2.0",
    "result": [
        {"instrument_name": "BTC-28JUN24-70000-C", "bid_price": 0.034, "ask_price": 0.0345, "mid_price": 0.03425,
         "mark_price": 0.0342, "mark_iv": 55.5, "underlying_price": 69000.0, "underlying_index": "BTC-28JUN24",
         "interest_rate": 0.0, "open_interest": 410.5, "volume": 12.5, "creation_timestamp": 1717430400000,
         "estimated_delivery_price": 68800.0},
        {"instrument_name": "BTC-28JUN24-70000-P", "bid_price": None, "ask_price": 0.0505, "mid_price": None,
         "mark_price": 0.0487, "mark_iv": 55.5, "underlying_price": 69000.0, "underlying_index": "BTC-28JUN24",
         "interest_rate": 0.0, "open_interest": 99.0, "volume": 0.0, "creation_timestamp": 1717430400012,
         "estimated_delivery_price": 68800.0},
        {"instrument_name": "XRP_USDC-28JUN24-0d5-C", "bid_price": 0.031, "ask_price": 0.033, "mid_price": 0.032,
         "mark_price": 0.0321, "mark_iv": 60.0, "underlying_price": 0.52, "underlying_index": "XRP_USDC-28JUN24",
         "interest_rate": 0.0, "open_interest": 1.0, "volume": 0.0, "creation_timestamp": 1717430400012,
         "estimated_delivery_price": 0.52},
    ],
}  # fmt: skip
TARDIS = """\
exchange,symbol,timestamp,local_timestamp,type,strike_price,expiration,open_interest,last_price,bid_price,bid_amount,bid_iv,ask_price,ask_amount,ask_iv,mark_price,mark_iv,underlying_index,underlying_price,delta,gamma,vega,theta,rho
deribit,BTC-9JUN20-9875-P,1591574399413000,1591574400196008,put,9875,1591689600000000,0.1,0.0295,0.0205,30,50.5,0.0235,30,55.25,0.022038,52.5,BTC-9JUN20,9600.0,-0.8,0.0003,4.2,-30.5,-0.6
deribit,BTC-9JUN20-9875-C,1591574399413000,1591574400196008,call,9875,1591689600000000,,,,,,0.001,30,60.0,0.0005,52.5,BTC-9JUN20,9600.0,0.2,0.0003,4.2,-30.5,0.6
"""
HISTORICAL = """\
UnderlyingSymbol,UnderlyingPrice,Exchange,OptionSymbol,Blank,Type,Expiration,DataDate,Strike,Last,Bid,Ask,Volume,OpenInterest
SPX,1204.42,*,SPX111022P01225000,,put,10/22/2011,09/19/2011,1225,50.1,"1,049.2",1051,55,1200
SPX,1204.42,*,SPXW111021C01225000,,call,10/21/2011,09/19/2011,1225,30.1,29.2,$31.0,5,120
"""
PHILIPP = """\
contract_id,symbol,expiration,strike,type,bid,ask,volume,open_interest,date,implied_volatility,delta,gamma,theta,vega,rho
SPY240119C00470000,SPY,2024-01-19,470.0,call,8.1,8.15,1200,5400,2024-01-02,0.1132,0.6,0.02,-0.1,0.4,0.1
SPY240119P00470000,SPY,2024-01-19,470.0,put,4.5,4.54,800,9400,2024-01-02,0.1234,-0.4,0.02,-0.1,0.4,-0.1
"""
LEAN = """\
#expiry,strike,right,open,high,low,close,volume,open_interest,implied_volatility,delta,gamma,vega,theta,rho
,,,747.93,748.77,747.86,748.40,106129,,,,,,,
20151231,450,C,300.05,301.15,296.75,298.30,3,12,1.7405772,0.99,0.0001,0.02,-0.3,0.07
20160115,750,P,12.1,12.9,11.8,12.4,90,1012,0.2105,-0.5,0.01,0.7,-0.3,-0.2
"""
TIDY = """\
quote_date,underlying,spot,expiry,strike,option_type,bid,ask,mid,settle,implied_vol,iv_bid,iv_ask,forward,volume,open_interest,exercise_style,root,source,qc_flag,discount_factor,t_years,price_basis
2023-02-15,spx,4147.6,2023-03-17,4000,P,20.1,20.5,,20.25,0.2,0.19,0.21,4160.5,5,10,European,SPX,x,parity;,0.99,0.0821,
2023-02-15,spx,4147.6,2023-03-17,4200,call,,,31.5,99,0.18,,,4160.5,,,E,SPX,x,,0.99,,undiscounted_from_iv
"""
TIDY_WIDE = """\
quote_date,underlying,expiry,strike,call_bid,call_ask,put_bid,put_ask
2023-02-15,DAX,2023-03-17,15000,501,505,120,122
"""

#: name, text, options, and columns -> values of the accepted quotes in order.
CASES = {
    "cboe_eod": (CBOE_EOD, {}, {
        "underlying": ["SPX"] * 3,
        "root": ["SPX", "SPXW", "SPXW"],
        "quote_time": ["2023-06-01T19:45Z", "2023-06-01T19:45Z", "2023-06-02T20:00Z"],
        "expiry_time": ["2023-06-16T13:30Z", "2023-06-16T20:00Z", "2023-07-21T20:00Z"],
        "expiry": ["2023-06-16", "2023-06-16", "2023-07-21"],
        "strike": [4200, 4200, 4300],
        "option_type": ["C", "P", "C"],
        "bid": [52.1, 31.2, 41.0], "ask": [52.9, 31.8, 41.6], "spot": [4221.5, 4221.5, 4282.3],
        "implied_vol": [0.132, 0.13, np.nan], "volume": [12, 3, 0], "open_interest": [345, 77, 10],
    }),
    "cboe_intervals": (CBOE_INTERVALS, {}, {
        "quote_time": ["2023-06-01T13:31Z"] * 2,
        "expiry_time": ["2023-06-01T20:00Z", "2023-06-16T13:30Z"],
        "bid": [12.1, 41.2], "spot": [4190.5, 4190.5], "root": ["SPXW", "SPX"],
    }),
    "cboe_quotedata": (CBOE_QUOTEDATA, {}, {
        "row": [1, 1, 2, 2],
        "underlying": ["SPX"] * 4,
        "root": ["SPX", "SPX", "SPXW", "SPXW"],
        "quote_time": ["2024-11-15T20:19Z"] * 4,
        "expiry_time": ["2024-12-20T14:30Z", "2024-12-20T14:30Z", "2024-12-20T21:00Z", "2024-12-20T21:00Z"],
        "option_type": ["C", "P", "C", "P"], "strike": [5900] * 4, "spot": [5870.6201] * 4,
        "bid": [78.5, 88.1, 79.5, 89.1], "ask": [79.3, 88.9, 80.3, 89.9],
        "implied_vol": [0.1203, 0.1189, 0.1213, 0.1199], "volume": [5, 6, 7, 8],
        "open_interest": [100, 200, 300, 400],
    }),
    "optionmetrics": (OPTIONMETRICS, {}, {
        "underlying": ["SPX"] * 3, "root": ["SPX", "SPXW", "SPX"], "strike": [2500, 2500, 1300],
        "option_type": ["C", "P", "C"], "bid": [45.1, 41.0, 20.0], "ask": [45.9, 41.7, 21.0],
        "implied_vol": [0.211, np.nan, 0.2],
        "quote_time": ["2019-01-02T21:00Z", "2019-01-02T21:00Z", "2012-01-03T21:00Z"],
        # the last expires, on paper, on Saturday the 18th
        "expiry_time": ["2019-01-18T14:30Z", "2019-01-18T21:00Z", "2012-02-17T14:30Z"],
        "expiry": ["2019-01-18", "2019-01-18", "2012-02-18"],
    }),
    "orats": (ORATS, {}, {
        "row": [1, 1, 2, 2], "underlying": ["AAPL"] * 4, "option_type": ["C", "P", "C", "P"],
        "strike": [165, 165, 170, 170], "bid": [3.25, 3.3, 1.2, 6.2], "ask": [3.35, 3.4, 1.25, 6.35],
        "iv_bid": [0.28, 0.281, 0.27, 0.271], "implied_vol": [0.284, 0.286, 0.272, 0.276],
        "iv_ask": [0.288, 0.29, 0.274, 0.28], "spot": [164.87] * 4,
        "volume": [24541, 8852, 100, 300], "open_interest": [49125, 21000, 200, 400],
        "quote_time": ["2022-08-08T20:00Z"] * 4, "t": [11 / 365] * 4,
    }),
    "optionsdx": (OPTIONSDX, {"underlying": "spx"}, {
        "row": [2, 2], "underlying": ["SPX"] * 2, "option_type": ["C", "P"], "strike": [3800] * 2,
        "bid": [121.0, 90.1], "ask": [122.0, 90.9], "implied_vol": [0.2101, 0.2055], "volume": [12, 34],
        "quote_time": ["2023-01-03T21:00Z"] * 2, "expiry_time": ["2023-02-17T21:00Z"] * 2, "spot": [3822.47] * 2,
    }),
    "yfinance": (YFINANCE, {"quote_time": "2024-06-03T16:00:00-04:00", "spot": 194.03}, {
        "underlying": ["AAPL"] * 2, "root": ["AAPL"] * 2, "expiry": ["2024-06-21"] * 2, "option_type": ["C", "P"],
        "strike": [190, 190], "bid": [6.1, 2.1], "ask": [6.25, 2.2], "mid": [6.15, 2.15],
        "implied_vol": [0.2211, 0.2011], "volume": [1204, np.nan], "open_interest": [5010, 810],
        "spot": [194.03] * 2, "t": [18 / 365] * 2,
    }),
    "deribit": (json.dumps(DERIBIT_SUMMARY), {}, {
        "underlying": ["BTC", "BTC", "XRP_USDC"], "expiry": ["2024-06-28"] * 3,
        "expiry_time": ["2024-06-28T08:00Z"] * 3, "quote_time": ["2024-06-03T16:00:00.012Z"] * 3,
        "strike": [70000, 70000, 0.5], "option_type": ["C", "P", "C"],
        "bid": [0.034 * 69000, np.nan, 0.031], "ask": [0.0345 * 69000, 0.0505 * 69000, 0.033],
        "mid": [0.0342 * 69000, 0.0487 * 69000, 0.0321], "implied_vol": [0.555, 0.555, 0.6],
        "forward": [69000, 69000, 0.52], "spot": [68800, 68800, 0.52], "discount_factor": [1, 1, 1],
        "volume": [12.5, 0, 0], "open_interest": [410.5, 99, 1], "exercise_style": ["E"] * 3,
    }),
    "tardis": (TARDIS, {}, {
        "underlying": ["BTC"] * 2, "option_type": ["P", "C"], "strike": [9875] * 2,
        "quote_time": ["2020-06-07T23:59:59.413Z"] * 2, "expiry_time": ["2020-06-09T08:00Z"] * 2,
        "bid": [0.0205 * 9600, np.nan], "ask": [0.0235 * 9600, 9.6], "mid": [0.022038 * 9600, 4.8],
        "iv_bid": [0.505, np.nan], "iv_ask": [0.5525, 0.6], "implied_vol": [0.525, 0.525],
        "forward": [9600] * 2, "discount_factor": [1, 1], "open_interest": [0.1, np.nan],
    }),
    "historical_option_data": (HISTORICAL, {}, {
        "underlying": ["SPX"] * 2, "root": ["SPX", "SPXW"], "option_type": ["P", "C"], "strike": [1225] * 2,
        "bid": [1049.2, 29.2], "ask": [1051, 31], "spot": [1204.42] * 2, "quote_time": ["2011-09-19T20:00Z"] * 2,
        "expiry_time": ["2011-10-21T13:30Z", "2011-10-21T20:00Z"], "expiry": ["2011-10-22", "2011-10-21"],
    }),
    "philippdubach": (PHILIPP, {"spot": 472.65}, {
        "underlying": ["SPY"] * 2, "option_type": ["C", "P"], "bid": [8.1, 4.5], "ask": [8.15, 4.54],
        "implied_vol": [0.1132, 0.1234], "t": [17 / 365] * 2, "spot": [472.65] * 2, "volume": [1200, 800],
        "open_interest": [5400, 9400],
    }),
    "lean_universe": (LEAN, {"quote_time": "20151224", "underlying": "GOOG"}, {
        "row": [2, 3], "underlying": ["GOOG"] * 2, "option_type": ["C", "P"], "strike": [450, 750],
        "mid": [298.3, 12.4], "implied_vol": [1.7405772, 0.2105], "spot": [748.4] * 2,
        "quote_time": ["2015-12-24T21:00Z"] * 2, "t": [7 / 365, 22 / 365], "open_interest": [12, 1012],
    }),
    "tidy": (TIDY, {}, {
        "underlying": ["SPX"] * 2, "option_type": ["P", "C"], "bid": [20.1, np.nan], "mid": [20.25, 31.5],
        "t": [0.0821, 30 / 365 - 1 / 24 / 365], "discount_factor": [0.99, 1.0], "exercise_style": ["E", "E"],
        "iv_ask": [0.21, np.nan], "forward": [4160.5] * 2, "spot": [4147.6] * 2,
    }),
    "tidy_wide": (TIDY_WIDE, {}, {
        "option_type": ["C", "P"], "bid": [501, 120], "ask": [505, 122], "strike": [15000] * 2,
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_vendor_is_recognised_and_read_exactly(name, read_text):
    text, options, expected = CASES[name]
    quotes = read_text(text, **options)
    assert quotes.vendor == name
    assert list(quotes.frame.columns) == list(COLUMNS)
    for column, values in expected.items():
        got = quotes.frame[column]
        if column.endswith("_time"):
            assert got.tolist() == [pd.Timestamp(v) for v in values], column
        elif isinstance(values[0], str):
            assert got.tolist() == values, column
        else:
            np.testing.assert_allclose(got, values, rtol=1e-12, err_msg=column)


@pytest.mark.parametrize("name", CASES)
def test_no_row_is_lost(name, read_text):
    text, options, _ = CASES[name]
    quotes = read_text(text, **options)
    vendor = VENDORS[name]
    if name == "deribit":
        rows = len(DERIBIT_SUMMARY["result"])
    else:
        above = {"cboe_quotedata": 4, "lean_universe": 2}.get(name, 1)
        rows = len(text.strip("\n").splitlines()) - above + (name == "cboe_quotedata")
    assert len(quotes) + len(quotes.rejected) == rows * max(len(vendor.legs), 1)


def test_every_vendor_but_the_nested_one_has_a_case():
    assert set(VENDORS) - set(CASES) == {"yahoo"}


@pytest.mark.parametrize("name", [n for n in CASES if n != "deribit"])
def test_format_is_known_by_columns_whatever_the_name_and_column_order(name, read_text):
    if name == "cboe_quotedata":
        pytest.skip("this format goes by position")
    text, options, _ = CASES[name]
    lines = [line.split(",") for line in text.replace('"1,049.2"', "1049.2").splitlines()]
    turned = "\n".join(",".join(reversed(fields)) for fields in lines)
    plain, mirrored = read_text(text, **options), read_text(turned, "deribit_tidy_yahoo.json", **options)
    assert mirrored.vendor == name
    pd.testing.assert_frame_equal(plain.frame, mirrored.frame)


def test_cboe_end_of_day_says_which_quote_it_took(read_text):
    assert read_text(CBOE_EOD).warnings == (
        "Cboe end-of-day file: the 15:45 New York quotes are used",
        "Cboe end-of-day file: days without 15:45 quotes use the end-of-day quotes, as of 16:00",
    )


def test_expired_options_of_intervals_are_counted(read_text):
    quotes = read_text(CBOE_INTERVALS)
    assert quotes.rejected_counts() == {"expired": 1}
    assert quotes.rejected["detail"].tolist() == ["expires at the quote time"]
    assert quotes.frame["t"][0] == pytest.approx((6 * 60 + 29) / 60 / 24 / 365)


def test_quotedata_clock_is_read_in_its_zone_or_new_york(read_text):
    text = CBOE_QUOTEDATA.replace("PM EST", "PM XYZ")
    unknown = read_text(text)
    assert unknown.frame["quote_time"][0] == pd.Timestamp("2024-11-15T20:19Z")
    assert "the time zone XYZ above the header is not known" in unknown.warnings[0]
    assert read_text(CBOE_QUOTEDATA).warnings == ()
    assert read_text(CBOE_QUOTEDATA.replace("PM EST", "PM GMT+1")).frame["quote_time"][0] == pd.Timestamp(
        "2024-11-15T14:19Z"
    )


def test_lean_takes_its_date_from_the_file_name(read_text):
    assert read_text(LEAN, "20151224.csv").frame["quote_time"][0] == pd.Timestamp("2015-12-24T21:00Z")


@pytest.mark.parametrize(("text", "title"), [(LEAN, "Lean universe"), (YFINANCE, "yfinance")])
def test_a_file_without_any_quote_time_asks_for_one(text, title, read_text):
    with pytest.raises(InputError, match=rf"{title}.* does not say when the quotes were taken.*--quote-time 2024"):
        read_text(text)


def test_coin_price_without_forward_is_rejected_with_the_reason(read_text):
    rows = [{"instrument_name": "BTC-28JUN24-70000-C", "bid_price": 0.03, "ask_price": 0.04,
             "creation_timestamp": 1717430400000}]  # fmt: skip
    quotes = read_text(json.dumps(rows))
    assert quotes.rejected_counts() == {"no forward": 1}
    assert "neither a future of this expiry nor underlying_price" in quotes.rejected["detail"][0]


def test_vendor_can_be_named(read_text):
    assert read_text(ORATS, vendor="orats").vendor == "orats"
    with pytest.raises(InputError, match=r"vendor 'oratz' is not known; choose one of cboe_eod, .*orats"):
        read_text(ORATS, vendor="oratz")
    with pytest.raises(FileFormatError, match=r"lacks contractsymbol.*which yfinance option_chain has; found 'ticker'"):
        read_text(ORATS, vendor="yfinance")


def test_deribit_bundle(fixtures):
    quotes = read_quotes(fixtures / "vendor_raw" / "deribit_btc_bundle_2026-08-01.json.gz")
    assert (quotes.vendor, len(quotes), len(quotes.rejected)) == ("deribit", 868, 0)
    row = quotes.frame.iloc[0]
    forward = quotes.frame.loc[quotes.frame["expiry"] == "2026-08-03", "forward"].unique()
    assert forward.tolist() == [(62667.5 + 62697.5) / 2]
    assert row["quote_time"] == pd.Timestamp("2026-08-01T17:58:04.320127Z")
    assert row["expiry_time"] == pd.Timestamp("2026-08-28T08:00Z")
    assert (row["strike"], row["option_type"], row["spot"]) == (110000, "P", 62687.75)
    assert row["bid"] == 0.7175 * row["forward"]
    assert row["ask"] == 0.7985 * row["forward"]
    assert (quotes.frame["discount_factor"] == 1).all()


def test_yahoo_payload(fixtures):
    quotes = read_quotes(fixtures / "vendor_raw" / "yahoo_option_chain_spx_2026-07-31.json.gz")
    assert (quotes.vendor, len(quotes), len(quotes.rejected)) == ("yahoo", 17193, 0)
    row = quotes.frame.iloc[0]
    assert row[["underlying", "option_type", "expiry"]].tolist() == ["SPX", "C", "2026-08-03"]
    assert row[["strike", "bid", "ask", "open_interest", "volume", "spot"]].tolist() == [
        4800.0, 2656.3, 2691.8, 2, 1, 7489.72,
    ]  # fmt: skip
    assert row["quote_time"] == pd.Timestamp(1785532932, unit="s", tz="UTC")
    assert row["expiry_time"] == pd.Timestamp("2026-08-03T20:00Z")


def test_yahoo_answer_in_its_envelope_tells_settlement_by_the_contract_symbol(read_text):
    chain = {
        "underlyingSymbol": "^SPX",
        "quote": {"regularMarketPrice": 5400.0, "regularMarketTime": 1718913600},
        "options": [
            {
                "expirationDate": 1721347200,
                "calls": [{"contractSymbol": "SPX240719C05400000", "strike": 5400.0, "bid": 90.0, "ask": 91.0}],
                "puts": [{"contractSymbol": "SPXW240719P05400000", "strike": 5400.0, "bid": 60.0, "ask": 61.0}],
            }
        ],
    }
    quotes = read_text(json.dumps({"optionChain": {"result": [chain], "error": None}}))
    assert quotes.frame["root"].tolist() == ["SPX", "SPXW"]
    assert quotes.frame["expiry_time"].tolist() == [
        pd.Timestamp("2024-07-19T13:30Z"),
        pd.Timestamp("2024-07-19T20:00Z"),
    ]


def test_lean_universe_file(fixtures):
    quotes = read_quotes(fixtures / "vendor_raw" / "lean_universe_goog_20151224.csv")
    assert (quotes.vendor, len(quotes), len(quotes.rejected)) == ("lean_universe", 2016, 0)
    assert quotes.frame["spot"].unique().tolist() == [748.4]
    assert quotes.frame["row"].tolist() == list(range(2, 2018))
