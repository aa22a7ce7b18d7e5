"""Vendors of options listed in the United States."""

from __future__ import annotations

import re
from datetime import datetime

import numpy as np
import pandas as pd

from qsde.io.dates import EXCHANGE_ZONE, Kind
from qsde.io.numbers import to_numbers
from qsde.io.source import Origin
from qsde.io.vendors.base import Prepare, Vendor
from qsde.io.vendors.symbols import split_occ

_PREAMBLE_TIME = re.compile(r"([A-Z][a-z]+ \d{1,2}, \d{4}) at (\d{1,2}:\d{2} [AP]M) ?([A-Z]*[+-]?\d*)")
_PREAMBLE_LAST = re.compile(r"Last: *\$?([\d,]+\.?\d*)")
_CLOCKS = {
    "": "",
    "ET": "",
    "EDT": "-0400",
    "EST": "-0500",
    "CDT": "-0500",
    "CST": "-0600",
    "MDT": "-0600",
    "MST": "-0700",
    "PDT": "-0700",
    "PST": "-0800",
    "GMT": "+0000",
    "UTC": "+0000",
    "BST": "+0100",
    "CET": "+0100",
    "CEST": "+0200",
}


def _datashop(batch: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Takes the 15:45 quotes of a day, or the end-of-day quotes on days that have none (half days)."""
    early = pd.Series(False, index=batch.index)
    if "ask_1545" in batch.columns:
        quoted = pd.Series(np.nan_to_num(to_numbers(batch["ask_1545"])[0]) > 0, index=batch.index)
        early = quoted.groupby(batch["quote_date"].astype(str)).transform("any")
    picked = {name: _pick(batch, name, early) for name in ("bid", "ask", "underlying_bid", "underlying_ask")}
    for name in ("active_underlying_price", "implied_volatility"):
        picked[name] = _pick(batch, name, early)
    dates = batch["quote_date"].astype(object)
    picked["quote_time"] = dates.where(~early | dates.isna(), dates.astype(str).str.slice(0, 10) + " 15:45")
    if early.any():
        origin.warnings.append("Cboe end-of-day file: the 15:45 New York quotes are used")
    if not early.all():
        origin.warnings.append("Cboe end-of-day file: days without 15:45 quotes use the end-of-day quotes, as of 16:00")
    return batch.assign(**picked)


def _pick(batch: pd.DataFrame, name: str, early: pd.Series) -> pd.Series:
    nothing = pd.Series(None, index=batch.index, dtype=object)
    sides = [batch[c].astype(object) if c in batch.columns else nothing for c in (f"{name}_1545", f"{name}_eod")]
    return sides[0].where(early, sides[1])


def _quotedata(batch: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Spot, name and time stand above the header: "Last: 5870.62" and "Date: ... at 3:19 PM EDT"."""
    above = "\n".join(origin.preamble)
    last = _PREAMBLE_LAST.search(above)
    calls = split_occ(batch["calls"]) if "calls" in batch.columns else None
    return batch.assign(
        spot=last[1] if last else None,
        quote_time=_preamble_time(above, origin),
        root=None if calls is None else calls["root"],
    )


def _preamble_time(text: str, origin: Origin) -> str | None:
    match = _PREAMBLE_TIME.search(text)
    if match is None:
        return None
    moment = datetime.strptime(f"{match[1]} {match[2]}", "%B %d, %Y %I:%M %p")
    shifted = re.fullmatch(r"(?:GMT|UTC)([+-])(\d{1,2})", match[3])
    offset = f"{shifted[1]}{int(shifted[2]):02d}00" if shifted else _CLOCKS.get(match[3])
    if offset is None:
        origin.warnings.append(
            f"the time zone {match[3]} above the header is not known; the time is read as New York's"
        )
    return f"{moment:%Y-%m-%dT%H:%M}{offset or ''}"


def _optionmetrics(batch: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    if "symbol" not in batch.columns:
        return batch
    root = batch["symbol"].astype(object).map(lambda s: str(s).split(" ")[0].split(".")[0], na_action="ignore")
    return batch.assign(root=root)


def _thousandths(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Strikes are printed x 1000; vols of -99.99 are missing, and screening removes all that are not positive."""
    return frame.assign(strike=frame["strike"] / 1000)


def _occ_root(column: str) -> Prepare:
    def prepare(batch: pd.DataFrame, origin: Origin) -> pd.DataFrame:
        return batch.assign(root=split_occ(batch[column])["root"]) if column in batch.columns else batch

    return prepare


def _yfinance(batch: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    parts = split_occ(batch["contractsymbol"])
    return batch.assign(root=parts["root"], expiry=parts["expiry"], option_type=parts["type"])


def _lean_date(batch: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    digits = re.search(r"(?<!\d)(\d{8})(?!\d)", origin.file_name)
    return batch.assign(quote_time=digits[1] if digits else None)


def _lean_underlying(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """The row without expiry and strike is the underlying: its close is the spot, and it is no option."""
    above = (frame["expiry_kind"] == Kind.MISSING) & frame["strike"].isna() & frame["option_type"].isna()
    above &= frame["reason"].isna()
    close = frame.loc[above, "mid"]
    return frame[~above].assign(spot=float(close.iloc[0]) if len(close) else np.nan)


LISTED = (
    Vendor(
        name="cboe_eod",
        title="Cboe DataShop end of day",
        needs="underlying_symbol quote_date root expiration strike option_type bid_1545|bid_eod ask_1545|ask_eod",
        columns={
            "underlying": "underlying_symbol", "quote_time": "quote_time", "root": "root", "expiry_time": "expiration",
            "strike": "strike", "option_type": "option_type", "bid": "bid", "ask": "ask",
            "implied_vol": "implied_volatility", "spot": "active_underlying_price", "spot_bid": "underlying_bid",
            "spot_ask": "underlying_ask", "volume": "trade_volume", "open_interest": "open_interest",
        },
        reads="bid_1545 ask_1545 underlying_bid_1545 underlying_ask_1545 active_underlying_price_1545 "
        "implied_volatility_1545 bid_eod ask_eod underlying_bid_eod underlying_ask_eod",
        zone=EXCHANGE_ZONE,
        splits_roots=True,
        prepare=_datashop,
    ),
    Vendor(
        name="cboe_intervals",
        title="Cboe DataShop quote intervals",
        needs="underlying_symbol quote_datetime root expiration strike option_type bid ask",
        columns={
            "underlying": "underlying_symbol", "quote_time": "quote_datetime", "root": "root",
            "expiry_time": "expiration", "strike": "strike", "option_type": "option_type", "bid": "bid", "ask": "ask",
            "implied_vol": "implied_volatility", "spot": "active_underlying_price", "spot_bid": "underlying_bid",
            "spot_ask": "underlying_ask", "volume": "trade_volume", "open_interest": "open_interest",
        },
        zone=EXCHANGE_ZONE,
        splits_roots=True,
    ),
    Vendor(
        name="cboe_quotedata",
        title="Cboe web quotedata.csv",
        needs="expiration_date calls bid ask strike puts bid.1 ask.1",
        columns={"quote_time": "quote_time", "expiry_time": "expiration_date", "strike": "strike", "spot": "spot",
                 "root": "root"},
        legs={
            "C": {"bid": "bid", "ask": "ask", "implied_vol": "iv", "volume": "volume|vol",
                  "open_interest": "open_interest|open_int"},
            "P": {"bid": "bid.1", "ask": "ask.1", "implied_vol": "iv.1", "volume": "volume.1|vol.1",
                  "open_interest": "open_interest.1|open_int.1"},
        },
        zone=EXCHANGE_ZONE,
        splits_roots=True,
        prepare=_quotedata,
    ),
    Vendor(
        name="optionmetrics",
        title="OptionMetrics IvyDB",
        needs="date exdate cp_flag strike_price best_bid best_offer",
        columns={
            "underlying": "ticker", "quote_time": "date", "expiry_time": "exdate", "strike": "strike_price",
            "option_type": "cp_flag", "bid": "best_bid", "ask": "best_offer", "implied_vol": "impl_volatility",
            "forward": "forward_price", "volume": "volume", "open_interest": "open_interest", "root": "root",
            "exercise_style": "exercise_style", "am_settlement": "am_settlement|am_set_flag",
        },
        reads="secid optionid symbol",
        zone=EXCHANGE_ZONE,
        splits_roots=True,
        prepare=_optionmetrics,
        finish=_thousandths,
    ),
    Vendor(
        name="orats",
        title="ORATS",
        needs="ticker tradedate expirdate strike stockprice callbidprice callaskprice putbidprice putaskprice",
        columns={"underlying": "ticker", "quote_time": "tradedate", "expiry_time": "expirdate", "strike": "strike",
                 "spot": "spotprice|stockprice"},
        legs={
            "C": {"bid": "callbidprice", "ask": "callaskprice", "iv_bid": "callbidiv", "implied_vol": "callmidiv",
                  "iv_ask": "callaskiv", "volume": "callvolume", "open_interest": "callopeninterest"},
            "P": {"bid": "putbidprice", "ask": "putaskprice", "iv_bid": "putbidiv", "implied_vol": "putmidiv",
                  "iv_ask": "putaskiv", "volume": "putvolume", "open_interest": "putopeninterest"},
        },
        zone=EXCHANGE_ZONE,
    ),
    Vendor(
        name="optionsdx",
        title="OptionsDX",
        needs="quote_unixtime quote_readtime underlying_last expire_date strike c_bid c_ask p_bid p_ask",
        columns={"quote_time": "quote_readtime", "expiry_time": "expire_date", "strike": "strike",
                 "spot": "underlying_last"},
        legs={leg: {"bid": f"{p}_bid", "ask": f"{p}_ask", "implied_vol": f"{p}_iv", "volume": f"{p}_volume"}
              for leg, p in (("C", "c"), ("P", "p"))},
        zone=EXCHANGE_ZONE,
    ),
    Vendor(
        name="yfinance",
        title="yfinance option_chain",
        needs="contractsymbol lasttradedate strike bid ask impliedvolatility",
        columns={"quote_time": "quote_time", "expiry_time": "expiry", "strike": "strike", "option_type": "option_type",
                 "bid": "bid", "ask": "ask", "mid": "lastprice", "implied_vol": "impliedvolatility",
                 "volume": "volume", "open_interest": "openinterest", "root": "root"},
        zone=EXCHANGE_ZONE,
        splits_roots=True,
        prepare=_yfinance,
    ),
    Vendor(
        name="yahoo",
        title="Yahoo option chain (JSON)",
        needs="underlyingsymbol regularmarkettime expirationdate optiontype strike bid ask",
        columns={"underlying": "underlyingsymbol", "quote_time": "regularmarkettime", "expiry_time": "expirationdate",
                 "strike": "strike", "option_type": "optiontype", "bid": "bid", "ask": "ask",
                 "implied_vol": "impliedvolatility", "volume": "volume", "open_interest": "openinterest",
                 "spot": "regularmarketprice", "root": "root"},
        reads="contractsymbol",
        splits_roots=True,
        prepare=_occ_root("contractsymbol"),
    ),
    Vendor(
        name="historical_option_data",
        title="Historical Option Data",
        needs="underlyingsymbol underlyingprice type expiration datadate strike bid ask",
        columns={"underlying": "underlyingsymbol", "quote_time": "datadate", "expiry_time": "expiration",
                 "strike": "strike", "option_type": "type", "bid": "bid", "ask": "ask", "spot": "underlyingprice",
                 "volume": "volume", "open_interest": "openinterest", "implied_vol": "iv|impliedvolatility",
                 "root": "root"},
        reads="optionsymbol",
        zone=EXCHANGE_ZONE,
        splits_roots=True,
        prepare=_occ_root("optionsymbol"),
    ),
    Vendor(
        name="philippdubach",
        title="philippdubach options-dataset-hist",
        needs="contract_id symbol expiration strike type bid ask date",
        columns={"underlying": "symbol", "quote_time": "date", "expiry_time": "expiration", "strike": "strike",
                 "option_type": "type", "bid": "bid", "ask": "ask", "implied_vol": "implied_volatility",
                 "volume": "volume", "open_interest": "open_interest", "root": "root"},
        zone=EXCHANGE_ZONE,
        splits_roots=True,
        prepare=_occ_root("contract_id"),
    ),
    Vendor(
        name="lean_universe",
        title="QuantConnect Lean universe",
        needs="expiry strike right open high low close implied_volatility",
        columns={"quote_time": "quote_time", "expiry_time": "expiry", "strike": "strike", "option_type": "right",
                 "mid": "close", "implied_vol": "implied_volatility", "volume": "volume",
                 "open_interest": "open_interest"},
        zone=EXCHANGE_ZONE,
        prepare=_lean_date,
        finish=_lean_underlying,
    ),
)  # fmt: skip
