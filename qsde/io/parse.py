"""One raw batch to typed columns: numbers, option types and times, with the first trouble of each row noted."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from qsde.errors import Reject
from qsde.io.dates import Kind, Order, order_of, parse_times
from qsde.io.numbers import EXERCISE_STYLES, OPTION_TYPES, as_text, map_unique, to_choices, to_numbers, to_texts
from qsde.io.source import BROKEN, ROW, Origin
from qsde.io.vendors.base import NUMERIC, TEXT, TIMES, Vendor

NO_NUMBER = "is no number"
_LABELS = {"option_type": OPTION_TYPES, "exercise_style": EXERCISE_STYLES}


def parse_batch(batch: pd.DataFrame, vendor: Vendor, origin: Origin, printed: Mapping[str, str]) -> pd.DataFrame:
    """Types one batch in the long format.

    Args:
        batch: raw columns under their normal names, with `ROW` and `BROKEN`.
        vendor: the format of the file.
        origin: where the batch comes from.
        printed: normal name -> name as printed in the file, for messages.

    Returns:
        `row`, the columns of `NUMERIC` and `TEXT`, `quote_local`, `quote_kind`, `expiry_local`, `expiry_kind` (see
        `qsde.io.dates.Times`), `type_text` (option type as printed), `reason` and `detail` (None on good rows).
    """
    prepared = vendor.prepare(batch, origin) if vendor.prepare else batch
    renamed = list(vendor.rename(prepared))
    origin.orders.append(order_of(prepared[n] for n in {names[c] for names, _ in renamed for c in TIMES if c in names}))
    day_first = any(Order.DAY_FIRST in order for order in origin.orders)
    legs = [_typed(prepared, names, leg, printed, day_first) for names, leg in renamed]
    if len(legs) == 1:
        return legs[0]
    return pd.concat(legs, ignore_index=True).sort_values("row", kind="stable", ignore_index=True)


def _typed(
    batch: pd.DataFrame, names: Mapping[str, str], leg: str | None, printed: Mapping[str, str], day_first: bool
) -> pd.DataFrame:
    columns: dict[str, object] = {"row": batch[ROW].to_numpy(dtype=np.int64)}
    trouble = _Trouble(batch[BROKEN].astype(object).to_numpy())
    for canonical in NUMERIC:
        columns[canonical] = np.full(len(batch), np.nan)
        if canonical in names:
            raw = batch[names[canonical]]
            columns[canonical], bad = to_numbers(raw)
            trouble.note(bad, raw, printed.get(names[canonical], canonical), NO_NUMBER)
    for canonical in TEXT:
        columns[canonical] = _texts(batch, names, canonical)
    columns["type_text"] = to_texts(batch[names["option_type"]]) if "option_type" in names else None
    if leg is not None:
        columns["option_type"] = columns["type_text"] = leg
    for canonical in TIMES:
        prefix = canonical.removesuffix("_time")
        if canonical not in names:
            columns |= {f"{prefix}_local": np.datetime64(0, "us"), f"{prefix}_kind": np.int8(Kind.MISSING)}
            continue
        raw = batch[names[canonical]]
        times = parse_times(raw, day_first)
        columns |= {f"{prefix}_local": times.local, f"{prefix}_kind": times.kind}
        trouble.note(times.kind == Kind.BAD, raw, printed.get(names[canonical], canonical), "is no date or time")
    frame = pd.DataFrame(columns, index=pd.RangeIndex(len(batch)))
    return trouble.onto(frame)


def _texts(batch: pd.DataFrame, names: Mapping[str, str], canonical: str) -> np.ndarray:
    if canonical not in names:
        return np.full(len(batch), None, dtype=object)
    raw = batch[names[canonical]]
    if canonical in _LABELS:
        return to_choices(raw, _LABELS[canonical])
    if canonical == "underlying":
        return map_unique(raw, lambda value: (as_text(value) or "").lstrip("^").upper() or None)
    return to_texts(raw)


def _hint(value: object, verdict: str) -> str:
    """What to do about a value that cannot be read, where that is known."""
    text = str(value).strip()
    if verdict == NO_NUMBER:
        return ": write decimals with a point (80.5), not a comma" if re.fullmatch(r"[+-]?\d+,\d+%?", text) else ""
    if re.fullmatch(r"[2-7]\d{4}(\.\d*)?", text):
        return ": it looks like an Excel day number; format the column as a date and save again"
    if re.fullmatch(r"\d{1,4}(\.\d*)?", text):
        return ": for times to expiry give years in a column t_years (days / 365)"
    if re.search(r"\d\s*[A-Z]{2,4}$", text):
        return ": names of time zones are not read; write an offset (-05:00), or leave it out and give --timezone"
    return ": years 1900 to 2199 are read" if re.match(r"\d{4}-\d\d-\d\d", text) else ""


class _Trouble:
    """The first sentence of trouble of every row."""

    def __init__(self, broken: np.ndarray) -> None:
        self._detail = broken.copy()
        self._detail[pd.isna(broken)] = None

    def note(self, bad: np.ndarray, raw: pd.Series, name: str, verdict: str) -> None:
        at = np.flatnonzero(bad)
        for place, value in zip(at, raw.iloc[at].astype(object), strict=True):
            if self._detail[place] is None:
                self._detail[place] = f"{name} is {str(value)[:60]!r}, which {verdict}{_hint(value, verdict)}"

    def onto(self, frame: pd.DataFrame) -> pd.DataFrame:
        bad = ~pd.isna(self._detail)
        reason = pd.Series(Reject.UNREADABLE.value, index=frame.index, dtype=object).where(bad, None)
        return frame.assign(reason=reason, detail=pd.Series(self._detail, dtype=object))
