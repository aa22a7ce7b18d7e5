"""The one door through which option-chain files come in."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path

import pandas as pd

from qsde.errors import FileFormatError, InputError
from qsde.io.clock import Clock, set_times
from qsde.io.dates import Order
from qsde.io.delimited import open_delimited
from qsde.io.documents import open_json
from qsde.io.files import MAX_BYTES, Limits, Progress, sniff
from qsde.io.parquet import open_parquet
from qsde.io.parse import parse_batch
from qsde.io.screening import complete, screen, to_quotes
from qsde.io.source import Source, normal, unique_names
from qsde.io.vendors import CANONICAL, choose_vendor, known_columns
from qsde.market.quotes import Quotes


def read_quotes(
    path: str | os.PathLike[str],
    *,
    column_map: Mapping[str, str] | None = None,
    timezone: str | None = None,
    quote_time: str | None = None,
    underlying: str | None = None,
    spot: float | None = None,
    vendor: str | None = None,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> Quotes:
    """Reads an option-chain file of any known vendor.

    The format is recognised by the columns or JSON keys, never by the name of the file; CSV and JSON may be gzipped.
    Every row of the file (every leg, in formats with call and put in one row) is either accepted or rejected with a
    reason. Prices come out in the currency of the strike, vols as annualised decimals, times in UTC and `t` in years
    ACT/365F, unless the file gives its own `t_years`.

    A bare quote date means 16:00 in New York and so does a bare expiry, or 09:30 where the root settles at the open.

    Args:
        path: the file.
        column_map: tidy name -> name in the file, such as {"strike": "K"}.
        timezone: zone of dates and times printed without one, such as "America/New_York".
        quote_time: when the quotes were taken, for files that do not say, or that give only the date; a time of day
            such as "15:45" replaces 16:00 for bare dates.
        underlying: name, where the file gives none.
        spot: price of the underlying, where the file gives none.
        vendor: name of the format, instead of recognising it; see `qsde.io.VENDORS`.
        max_bytes: largest size read, after decompression.
        progress: called with (bytes done, bytes in all) while reading.

    Raises:
        FileFormatError: no such file, damaged, too large, or with columns of no known format.
        InputError: an option is needed (a time zone, a quote time) or cannot be used.

    Example:
        >>> import tempfile
        >>> rows = "quote_date,underlying,expiry,strike,option_type,bid,ask\\n2024-01-02,SPX,2024-02-16,4800,C,51,52\\n"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "chain.csv"
        ...     _ = file.write_text(rows)
        ...     quotes = read_quotes(file)
        >>> quotes.vendor, len(quotes), round(float(quotes.frame["t"][0]) * 365, 6)
        ('tidy', 1, 45.0)
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"read_quotes reads a file, got {type(path).__name__}; a DataFrame with the columns of qsde.market.quotes "
            "becomes Quotes by Quotes.from_frame(frame)"
        )
    limits = Limits(max_bytes, progress)
    columns = _column_map(column_map)
    clock = Clock.of(str(path), timezone, quote_time)
    if spot is not None and not 0 < spot < float("inf"):
        raise InputError(f"spot {spot} cannot be used: it must be positive and finite (--spot 4500)")
    source = _open(Path(path), limits, columns)
    names = _map_columns(source, columns)
    chosen = choose_vendor(names, source.found, str(path), vendor, bool(columns))
    printed = dict(zip(names, source.found, strict=True))
    wanted = chosen.used()
    source.origin.warnings.extend(_repeated(names, wanted, printed))
    parts = [parse_batch(batch, chosen, source.origin, printed) for batch in source.batches(names, wanted)]
    if _changed_its_mind(source.origin.orders):  # one order of day and month for the whole file
        parts = [parse_batch(batch, chosen, source.origin, printed) for batch in source.batches(names, wanted)]
    source.origin.warnings.extend(_about_order(source.origin.orders))
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if frame.empty:
        raise FileFormatError(f"{path}: has the columns of {chosen.title} but no rows; give a file with quotes in it")
    frame = chosen.finish(frame, source.origin) if chosen.finish else frame
    frame = set_times(frame.reset_index(drop=True), chosen, clock)
    frame, warnings = complete(frame, chosen, underlying, spot)
    frame, doubts = screen(frame)
    quotes = to_quotes(frame, str(path), chosen.name, [*source.origin.warnings, *warnings, *doubts])
    return quotes.warn(*_about_times(quotes))


def _open(path: Path, limits: Limits, columns: Mapping[str, str]) -> Source:
    packing, kind = sniff(path)
    if kind == "parquet":
        return open_parquet(path, limits)
    if kind == "json":
        return open_json(path, packing, limits)
    return open_delimited(path, packing, limits, known_columns() | {normal(found) for found in columns.values()})


def _column_map(given: Mapping[str, str] | None) -> dict[str, str]:
    columns = {normal(canonical): found for canonical, found in (given or {}).items()}
    unknown = [name for name in columns if name not in CANONICAL]
    if unknown:
        raise InputError(
            f"column map: {', '.join(map(repr, unknown))} is no column of the tidy format; write canonical=found, with "
            f"canonical one of {', '.join(CANONICAL)}"
        )
    return columns


def _map_columns(source: Source, columns: Mapping[str, str]) -> list[str]:
    """Unique normal names of the file's columns after the user's map; what a mapped name hides is set aside."""
    names = unique_names(source.found)
    for canonical, found in columns.items():
        at = source.found.index(found) if found in source.found else -1
        if at < 0 and normal(found) in names:
            at = names.index(normal(found))
        if at < 0:
            raise FileFormatError(
                f"{source.origin.path}: the column map names {found!r}, which the file does not have; found "
                f"{', '.join(map(repr, source.found[:40]))}"
            )
        names = [f"{name}.unused" if name == canonical and i != at else name for i, name in enumerate(names)]
        names[at] = canonical
    return names


def _repeated(names: list[str], wanted: Collection[str], printed: Mapping[str, str]) -> list[str]:
    """Warns of columns that occur again where the format has them once."""
    again = {name.rpartition(".")[0] for name in names if name not in wanted and name.rpartition(".")[2].isdigit()}
    return [
        f"column {printed[name]!r} occurs more than once: the first is used; delete or rename the others"
        for name in sorted(again & set(wanted))
    ]


def _changed_its_mind(orders: Sequence[Order]) -> bool:
    """Whether slashed dates were read as month/day before one came that must be day/month."""
    first = next((i for i, order in enumerate(orders) if Order.DAY_FIRST in order), 0)
    return any(orders[:first])


def _about_order(orders: Sequence[Order]) -> list[str]:
    seen = reduce(or_, orders, Order.NONE)
    if seen != Order.EITHER:
        return []
    return [
        "dates with slashes are read as month/day/year, and none of them can tell: if they are day/month/year, write "
        "them as 2024-12-31"
    ]


def _about_times(quotes: Quotes) -> list[str]:
    count = len(quotes.frame[["underlying", "quote_time"]].drop_duplicates())
    if count < 20 or 4 * count < len(quotes):
        return []
    return [
        f"{len(quotes)} quotes have {count} different times, each of which is a surface of its own: "
        "take snapshots first, such as the last quote of every minute"
    ]
