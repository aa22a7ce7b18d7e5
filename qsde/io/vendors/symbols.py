"""Option symbols: OCC codes, Deribit instrument names, and the index behind a weekly root."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable

import pandas as pd

from qsde.io.numbers import as_text, map_unique

#: Roots that settle at the close, and their index; the root named like the index settles at the open.
WEEKLY_ROOTS = {"SPXW": "SPX", "SPXPM": "SPX", "NDXP": "NDX", "RUTW": "RUT", "VIXW": "VIX"}

_PARTS = ("root", "expiry", "type", "strike")
_OCC = re.compile(r"([A-Z.^]+\d?)\s*(\d{2})(\d{2})(\d{2})([CP])(\d{8})")
_DERIBIT = re.compile(r"([A-Z0-9_]+)-(\d{1,2})([A-Z]{3})(\d{2})-(\d+(?:[D.]\d+)?)-([CP])")
_MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr)}

Parts = tuple[str | None, str | None, str | None, float | None]


def split_occ(symbols: pd.Series) -> pd.DataFrame:
    """Root, expiry (YYYY-MM-DD), type and strike of OCC codes; None where a code cannot be read.

    Example:
        >>> split_occ(pd.Series(["SPXW240621C05400000"])).values.tolist()
        [['SPXW', '2024-06-21', 'C', 5400.0]]
    """
    return _split(symbols, _occ)


def split_deribit(names: pd.Series) -> pd.DataFrame:
    """Root, expiry (08:00 UTC), type and strike of Deribit instrument names; None where a name cannot be read.

    Example:
        >>> split_deribit(pd.Series(["BTC-3AUG26-60000-C", "XRP_USDC-28JUN24-0d5-P"])).values.tolist()
        [['BTC', '2026-08-03T08:00:00Z', 'C', 60000.0], ['XRP_USDC', '2024-06-28T08:00:00Z', 'P', 0.5]]
    """
    return _split(names, _deribit)


def _split(symbols: pd.Series, parse: Callable[[str], Parts]) -> pd.DataFrame:
    parts = map_unique(symbols, lambda value: parse((as_text(value) or "").upper()))
    return pd.DataFrame(list(parts), columns=list(_PARTS), index=symbols.index, dtype=object)


def _occ(text: str) -> Parts:
    match = _OCC.fullmatch(text)
    if match is None:
        return None, None, None, None
    root, year, month, day, side, strike = match.groups()
    return root.lstrip("^"), f"20{year}-{month}-{day}", side, int(strike) / 1000


def _deribit(text: str) -> Parts:
    match = _DERIBIT.fullmatch(text)
    if match is None:
        return None, None, None, None
    root, day, month, year, strike, side = match.groups()
    # an unknown month stays a text that no date parser takes, so that the row is reported
    expiry = f"20{year}-{_MONTHS.get(month, 0):02d}-{int(day):02d}T08:00:00Z"
    return root, expiry, side, float(strike.replace("D", "."))
