"""The last look before quotes leave the reader: units, names, and rows that can be no quotes."""

from __future__ import annotations

from dataclasses import replace

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


def screen(frame: pd.DataFrame) -> pd.DataFrame:
    """Marks bad types, bad strikes, negative prices, expired options and duplicates, in this order."""
    kind = frame["type_text"].map(lambda text: f"option type is {text!r}; C, P, call and put are known")
    _mark(frame, frame["option_type"].isna(), Reject.BAD_TYPE, kind)
    strike = frame["strike"].map(lambda k: f"strike is {k:g}" if k == k else "strike is missing")
    _mark(frame, ~(frame["strike"] > 0), Reject.BAD_STRIKE, strike)
    for column in _PRICES:
        said = frame[column].map(lambda x, name=column: f"{name} is {x:g}")
        _mark(frame, frame[column] < 0, Reject.NEGATIVE_PRICE, said)
    _mark(frame, frame["t"] <= 0, Reject.EXPIRED, _expired(frame))
    keys = frame.assign(t_key=frame["t"].where(frame["expiry_time"].isna()))
    good = frame["reason"].isna()
    first = keys[good].groupby(list(_KEY), dropna=False, sort=False)["row"].transform("first").reindex(frame.index)
    repeated = keys[good].duplicated(list(_KEY)).reindex(frame.index, fill_value=False)
    _mark(frame, repeated, Reject.DUPLICATE, first.map(lambda r: f"the same option is in row {r:.0f}"))
    return frame


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
    return root.map(lambda name: WEEKLY_ROOTS.get(name, name), na_action="ignore").astype(object)


def _expired(frame: pd.DataFrame) -> pd.Series:
    return frame["expiry_time"].map(lambda moment: f"expired at {moment:%Y-%m-%d %H:%M} UTC, before the quote time")


def _mark(frame: pd.DataFrame, bad: pd.Series, reason: Reject, detail: pd.Series) -> None:
    new = bad & frame["reason"].isna()
    if new.any():
        frame.loc[new, "detail"] = detail[new].astype(object)
        frame.loc[new, "reason"] = reason.value
