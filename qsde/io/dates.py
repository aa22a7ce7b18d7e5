"""Dates and times in the many shapes vendors print them, and the rules that turn them into instants."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import Flag, IntEnum, auto
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from qsde.errors import InputError
from qsde.io.numbers import MISSING, distinct

Instants = npt.NDArray[np.datetime64]

EXCHANGE_ZONE = "America/New_York"
CLOSE = time(16, 0)
OPEN = time(9, 30)


class Kind(IntEnum):
    """How much a printed time says."""

    MISSING = 0
    DATE = 1
    NAIVE = 2
    INSTANT = 3
    BAD = 4


@dataclass(frozen=True)
class Times:
    """A parsed column: `local` wall-clock times (UTC where `kind` is INSTANT) and their `Kind` as int8."""

    local: Instants
    kind: npt.NDArray[np.int8]


_NOTHING = datetime(1970, 1, 1)
_FORMATS = ("%a %b %d %Y", "%b %d %Y", "%B %d, %Y", "%b %d, %Y", "%d%b%y", "%d%b%Y", "%d-%b-%Y", "%d-%b-%y",
            "%d %b %Y", "%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y%m%d %H:%M",
            "%Y%m%d %H:%M:%S")  # fmt: skip
_SLASH = ("{}", "{} %H:%M", "{} %H:%M:%S", "{} %I:%M %p", "{} %I:%M:%S %p")
_SLASHED = re.compile(r"(\d{1,2})[/.](\d{1,2})[/.](\d{2}|\d{4})\b")
#: Number of digits -> microseconds in 1000 units: seconds, milliseconds, microseconds, nanoseconds.
_UNIX_UNITS = {
    **dict.fromkeys((9, 10, 11), 1_000_000_000),
    **dict.fromkeys((12, 13, 14), 1_000_000),
    **dict.fromkeys((15, 16, 17), 1000),
    **dict.fromkeys((18, 19), 1),
}


def parse_time(value: object, day_first: bool = False) -> tuple[datetime, Kind]:
    """One date or time: wall clock (UTC for an instant) and what it says.

    Accepted: ISO 8601, YYYYMMDD, "Fri Dec 19 2025", "28AUG26", m/d/Y (d/m/Y with `day_first`), Unix seconds,
    milliseconds, microseconds and nanoseconds. A wall clock at midnight says no more than its date.

    Example:
        >>> parse_time("Fri Dec 19 2025")
        (datetime.datetime(2025, 12, 19, 0, 0), <Kind.DATE: 1>)
        >>> parse_time("2015-12-23T10:00:00-05:00")
        (datetime.datetime(2015, 12, 23, 15, 0), <Kind.INSTANT: 3>)
    """
    if isinstance(value, datetime):
        return _classified(value)
    if isinstance(value, date):
        return _classified(datetime(value.year, value.month, value.day))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = f"{value:.0f}" if value == value else ""
    text = "" if value is None else str(value).strip()
    if text.lower() in MISSING:
        return _NOTHING, Kind.MISSING
    moment = _from_digits(text) if re.fullmatch(r"\d+(\.0*)?", text) else _from_text(text, day_first)
    return (_NOTHING, Kind.BAD) if moment is None else _classified(moment)


def parse_times(values: pd.Series, day_first: bool = False) -> Times:
    """Parses a column, see `parse_time`."""
    if values.dtype.kind == "M":
        return _from_timestamps(values)
    codes, different = distinct(values)
    parsed = [parse_time(value, day_first) for value in different]
    local = np.array([moment for moment, _ in parsed], dtype="datetime64[us]")
    kind = np.array([kind for _, kind in parsed], dtype=np.int8)
    return Times(local[codes], kind[codes])


class Order(Flag):
    """What slashed dates say of their order: a first number above 12, a second one above 12, neither."""

    NONE = 0
    DAY_FIRST = auto()
    MONTH_FIRST = auto()
    EITHER = auto()


def order_of(columns: Iterable[pd.Series]) -> Order:
    """What the slashed dates of the columns say of their order; dates with dots are day.month.year always."""
    texts = (text.strip() for c in columns if c.dtype.kind == "O" for text in distinct(c)[1] if isinstance(text, str))
    found = Order.NONE
    for match in map(_SLASHED.match, texts):
        if match and match[0][len(match[1])] == "/":
            first, second = int(match[1]), int(match[2])
            found |= Order.DAY_FIRST if first > 12 else Order.MONTH_FIRST if second > 12 else Order.EITHER
    return found


def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name.

    Raises:
        InputError: no such zone.
    """
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(
            f"timezone {name!r} is not known; give an IANA name such as {EXCHANGE_ZONE}, Europe/Berlin or UTC "
            f"(--timezone {EXCHANGE_ZONE})"
        ) from error


def to_utc(local: Instants, zone: ZoneInfo) -> Instants:
    """Wall-clock times of `zone` in UTC; of two equal autumn hours the first is taken."""
    wall = pd.DatetimeIndex(local)
    first = np.ones(len(wall), dtype=bool)
    zoned = wall.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
    utc: Instants = zoned.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[us]")
    return utc


def at_time(local: Instants, clock: time) -> Instants:
    """The same days at `clock`."""
    seconds = 3600 * clock.hour + 60 * clock.minute + clock.second
    days = local.astype("datetime64[D]").astype("datetime64[s]").astype(np.int64)
    moved: Instants = (days + seconds).astype("datetime64[s]").astype("datetime64[us]")
    return moved


def _from_timestamps(values: pd.Series) -> Times:
    index = pd.DatetimeIndex(values)
    zoned = index.tz is not None
    plain = index.tz_convert("UTC").tz_localize(None) if zoned else index
    local = plain.to_numpy().astype("datetime64[us]")
    kind = (
        np.where(plain == plain.normalize(), Kind.DATE, Kind.NAIVE) if not zoned else np.full(len(index), Kind.INSTANT)
    )
    known = (local >= np.datetime64("1900-01-01")) & (local < np.datetime64("2200-01-01"))
    kind = np.where(known, kind, np.where(index.isna(), Kind.MISSING, Kind.BAD)).astype(np.int8)
    return Times(np.where(known, local, np.datetime64(0, "us")), kind)


def _classified(moment: datetime) -> tuple[datetime, Kind]:
    zoned = moment.tzinfo is not None
    if not 1900 <= moment.year < 2200:
        return _NOTHING, Kind.BAD
    plain = moment.astimezone(UTC).replace(tzinfo=None) if zoned else moment
    if zoned:
        return plain, Kind.INSTANT
    return plain, Kind.DATE if plain.time() == time(0) else Kind.NAIVE


def _from_digits(text: str) -> datetime | None:
    digits = text.split(".")[0]
    try:
        if len(digits) == 8:
            return datetime.strptime(digits, "%Y%m%d")
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(digits) * _UNIX_UNITS[len(digits)] // 1000)
    except (ValueError, KeyError, OverflowError):
        return None


def _from_text(text: str, day_first: bool) -> datetime | None:
    try:
        return datetime.fromisoformat(re.sub(r"\s*(UTC|GMT)$", "+00:00", text))
    except ValueError:
        pass
    for pattern in _patterns(text, day_first):
        try:
            return datetime.strptime(text, pattern)
        except ValueError:
            continue
    return None


def _patterns(text: str, day_first: bool) -> tuple[str, ...]:
    slashed = _SLASHED.match(text)
    if slashed is None:
        return _FORMATS
    mark = text[len(slashed[1])]
    year = "%Y" if len(slashed[3]) == 4 else "%y"
    day = mark.join(("%d", "%m", year) if day_first or mark == "." else ("%m", "%d", year))
    return tuple(form.format(day) for form in _SLASH)
