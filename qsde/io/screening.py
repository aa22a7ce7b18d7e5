"""The last look before quotes leave the reader: units, names, and rows that can be no quotes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from qsde.errors import Reject
from qsde.io.vendors.base import Vendor
from qsde.io.vendors.symbols import WEEKLY_ROOTS
from qsde.market.quotes import COLUMNS, Quotes

#: A median vol above this is taken for percent: no market has a median vol of 250 %.
PERCENT_MEDIAN = 2.5

_VOLS = ("implied_vol", "iv_bid", "iv_ask")
_PRICES = ("bid", "ask", "mid")
_KEY = ("underlying", "quote_time", "expiry_time", "t_key", "strike", "option_type", "root")


def complete(
    frame: pd.DataFrame, vendor: Vendor, underlying: str | None, spot: float | None
) -> tuple[pd.DataFrame, list[str]]:
    """Fills in underlying and spot, brings vols to decimals; sentences for the user come second."""
    frame, warnings = _decimal_vols(frame, vendor)
    middle = (frame["spot_bid"] + frame["spot_ask"]) / 2
    price = frame["spot"].where(frame["spot"] > 0, middle.where(middle > 0))
    name = frame["underlying"].where(frame["underlying"].notna(), _index_of(frame["root"]))
    name = name if underlying is None else name.where(name.notna(), underlying.upper())
    price = price if spot is None else price.fillna(spot)
    worthless = {c: frame[c].where(frame[c] > 0) for c in ("forward", "discount_factor")}
    return frame.assign(underlying=name.astype(object), spot=price, **worthless), warnings


def screen(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Marks bad types, bad strikes, negative prices, expired options and duplicates, in this order.

    Sentences for the user come second.
    """
    unknown = frame["option_type"].isna()
    _mark(frame, unknown, Reject.BAD_TYPE, "type_text", _say_type)
    _mark(frame, ~(frame["strike"] > 0), Reject.BAD_STRIKE, "strike", _say_strike)
    for price in _PRICES:
        _mark(frame, frame[price] < 0, Reject.NEGATIVE_PRICE, price, partial(_say_price, price))
    _mark(frame, frame["t"] <= 0, Reject.EXPIRED, "t", _say_expired)
    keys = frame[frame["reason"].isna()].assign(t_key=frame["t"].where(frame["expiry_time"].isna()))
    same = keys[keys.duplicated(list(_KEY), keep=False)]
    first = same.groupby(list(_KEY), dropna=False, sort=False)["row"].transform("first")
    repeated = same.duplicated(list(_KEY))
    differs = repeated & ~same.duplicated([*_KEY, *_PRICES, *_VOLS])
    twins = [
        f"the same option is in row {row:.0f}{', whose other prices are used' if other else ''}"
        for row, other in zip(first, differs, strict=True)
    ]
    frame["twin"] = pd.Series(twins, index=same.index, dtype=object).reindex(frame.index)
    _mark(frame, repeated.reindex(frame.index, fill_value=False), Reject.DUPLICATE, "twin", str)
    return frame.drop(columns="twin"), _about_twins(int(differs.sum()))


def _about_twins(count: int) -> list[str]:
    if not count:
        return []
    return [
        f"{count:,} quotes repeat an option of a row above with other prices: the first of them is used; if the last "
        "is newer, or the rows are of different times or roots, say so in the file (quote_time, root)"
    ]


def to_quotes(frame: pd.DataFrame, source: str, vendor: str, warnings: list[str]) -> Quotes:
    """Splits the marked table into accepted and rejected quotes.

    A rejected row without a readable underlying or time takes those of the row above it, so that it is counted with
    the surface it stands in.
    """
    frame = frame.sort_values("row", kind="stable", ignore_index=True)
    bad = frame["reason"].notna().to_numpy()
    for column in ("underlying", "quote_time"):
        filled = frame[column].where(~bad | frame[column].notna(), frame[column].ffill().bfill())
        frame[column] = filled.astype(frame[column].dtype)
    table = Quotes.from_frame(frame[list(COLUMNS)], source, vendor)
    rejected = table.frame[bad].assign(reason=frame.loc[bad, "reason"], detail=frame.loc[bad, "detail"])
    accepted = table.frame[~bad].reset_index(drop=True)
    return replace(table, frame=accepted, rejected=rejected.reset_index(drop=True)).warn(*warnings)


def _decimal_vols(frame: pd.DataFrame, vendor: Vendor) -> tuple[pd.DataFrame, list[str]]:
    warnings = []
    for column in _VOLS:
        vols = frame[column].where(frame[column] > 0)
        median = float(np.nanmedian(vols)) if vols.notna().any() else 0.0
        if median > PERCENT_MEDIAN:
            vols = vols / 100
            if not vendor.percent_vols:
                warnings.append(f"{column} has a median of {median:.4g}: taken as percent and divided by 100")
        frame = frame.assign(**{column: vols})
    return frame, warnings


def _index_of(root: pd.Series) -> pd.Series:
    index: pd.Series = root.replace(WEEKLY_ROOTS).astype(object)
    return index


def _say_type(text: object) -> str:
    said = f"is {text!r}" if isinstance(text, str) else "is missing"
    return f"option type {said}; C, P, call and put are known"


def _say_strike(strike: float) -> str:
    return "strike is missing" if strike != strike else f"strike is {strike:g}; it must be positive"


def _say_expired(t: float) -> str:
    return f"expired {-365 * t:.4g} days before the quote time" if t < 0 else "expires at the quote time"


def _say_price(name: str, price: float) -> str:
    return f"{name} is {price:g}"


def _mark(frame: pd.DataFrame, bad: pd.Series, reason: Reject, column: str, say: Callable[[Any], str]) -> None:
    new = (bad & frame["reason"].isna()).to_numpy(dtype=bool)
    if new.any():
        frame.loc[new, "detail"] = pd.Series(
            [say(x) for x in frame.loc[new, column]], index=frame.index[new], dtype=object
        )
        frame.loc[new, "reason"] = reason.value
