"""Dates and times in the many shapes vendors print them, and the rules that turn them into instants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from enum import IntEnum
from functools import partial
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from qsde.errors import InputError
from qsde.io.numbers import MISSING, map_unique

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
            "%d %b %Y", "%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y%m%d %H:%M", "%Y%m%d %H:%M:%S")  # fmt: skip
_SLASH = ("{}", "{} %H:%M", "{} %H:%M:%S", "{} %I:%M %p", "{} %I:%M:%S %p")
_SLASHED = re.compile(r"(\d{1,2})[/.](\d{1,2})[/.](\d{2}|\d{4})\b")
_UNIX_UNITS = {9: 1.0, 10: 1.0, 11: 1.0, 12: 1e-3, 13: 1e-3, 14: 1e-3, 15: 1e-6, 16: 1e-6, 17: 1e-6, 18: 1e-9,
               19: 1e-9}  # fmt: skip


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
    parsed = map_unique(values, partial(parse_time, day_first=day_first))
    count = len(parsed)
    kind = np.fromiter((p[1] for p in parsed), dtype=np.int8, count=count)
    local = np.array([p[0] for p in parsed], dtype="datetime64[us]") if count else np.empty(0, "datetime64[us]")
    return Times(local, kind)


def is_day_first(*columns: pd.Series) -> bool:
    """Whether slashed dates must be day/month/year, because some first number exceeds 12."""
    firsts = (_SLASHED.match(str(text)) for column in columns for text in column.dropna().unique())
    return any(int(match[1]) > 12 for match in firsts if match)


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


def localize(local: Instants, zone: ZoneInfo) -> pd.Series:
    """Wall-clock times of `zone` as UTC timestamps; the first of two equal autumn hours is taken."""
    wall = pd.Series(local)
    first = np.ones(len(wall), dtype=bool)
    return wall.dt.tz_localize(zone, ambiguous=first, nonexistent="shift_forward").dt.tz_convert("UTC")


def at_time(local: Instants, clock: time) -> Instants:
    """The same days at `clock`."""
    shift = np.timedelta64(timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second))
    moved: Instants = local.astype("datetime64[D]").astype("datetime64[us]") + shift
    return moved


def _classified(moment: datetime) -> tuple[datetime, Kind]:
    zoned = moment.tzinfo is not None
    if not 1900 <= moment.year < 2200:
        return _NOTHING, Kind.BAD
    plain = moment.astimezone(timezone.utc).replace(tzinfo=None) if zoned else moment
    if zoned:
        return plain, Kind.INSTANT
    return plain, Kind.DATE if plain.time() == time(0) else Kind.NAIVE


def _from_digits(text: str) -> datetime | None:
    digits = text.split(".")[0]
    try:
        if len(digits) == 8:
            return datetime.strptime(digits, "%Y%m%d")
        return datetime.fromtimestamp(int(digits) * _UNIX_UNITS[len(digits)], timezone.utc)
    except (ValueError, KeyError, OverflowError, OSError):
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
