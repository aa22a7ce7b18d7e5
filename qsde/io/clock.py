"""From printed times to instants and years: exchange closes, morning settlement, documented zones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import time

import numpy as np
import pandas as pd

from qsde.errors import InputError, Reject
from qsde.io.dates import CLOSE, EXCHANGE_ZONE, OPEN, Kind, at_time, parse_time, to_utc, zone_of
from qsde.io.vendors.base import Vendor
from qsde.io.vendors.symbols import WEEKLY_ROOTS

#: Roots whose options always settle at the open, and those that do where weekly roots are told apart.
ALWAYS_AM = frozenset({"VIX", "VIXW"})
SPLIT_AM = frozenset({"SPX", "NDX", "RUT"})

_YEAR = 365 * 86_400_000_000
#: Until then monthly options in the United States expired, on paper, on a Saturday.
_LAST_SATURDAY_EXPIRY = np.datetime64("2015-12-31")


@dataclass(frozen=True)
class Clock:
    """The time options of the user.

    Attributes:
        path: file, for messages.
        timezone: zone of times and dates printed without one; None for the vendor's or the exchange's.
        close: time of day that a bare quote date means.
        moment: quote time for rows whose file gives none, or only its date; naive in `timezone`, or an instant.
        moment_kind: what `moment` says.
    """

    path: str
    timezone: str | None = None
    close: time = CLOSE
    moment: np.datetime64 | None = None
    moment_kind: Kind = Kind.MISSING

    @classmethod
    def of(cls, path: str, timezone: str | None, quote_time: str | None) -> Clock:
        """Reads the options as typed.

        Raises:
            InputError: an unknown zone or an unreadable time.
        """
        if timezone is not None:
            zone_of(timezone)
        if quote_time is None:
            return cls(path, timezone)
        clock = re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", quote_time.strip())
        if clock and int(clock[1]) < 24 and int(clock[2]) < 60 and int(clock[3] or 0) < 60:
            return cls(path, timezone, time(int(clock[1]), int(clock[2]), int(clock[3] or 0)))
        moment, kind = parse_time(quote_time)
        if kind in (Kind.BAD, Kind.MISSING):
            raise InputError(
                f"quote time {quote_time!r} is no time; give one such as 2024-06-21T16:00:00-04:00, a date, or a time "
                "of day such as 15:45 (--quote-time, quote_time=...)"
            )
        if kind is Kind.NAIVE and timezone is None:
            raise InputError(
                f"quote time {quote_time!r} has no time zone; write it as {moment:%Y-%m-%dT%H:%M}-05:00 or add "
                f"--timezone {EXCHANGE_ZONE}"
            )
        return cls(path, timezone, moment=np.datetime64(moment, "us"), moment_kind=kind)


def set_times(frame: pd.DataFrame, vendor: Vendor, clock: Clock) -> pd.DataFrame:
    """Adds quote_time, expiry_time (UTC), expiry and t, and marks rows whose times are missing or past.

    Raises:
        InputError: no quote time anywhere, or times without a zone; the message names the option that helps.
    """
    frame = _given_moment(frame, clock)
    _demand_quote_time(frame, vendor, clock)
    quote = _instants(frame["quote_local"], frame["quote_kind"], clock.close, vendor, clock, "quote")
    # an instant at midnight UTC is how a bare expiry date comes out of Unix time and JSON
    bare = (frame["expiry_kind"] == Kind.DATE) | (
        (frame["expiry_kind"] == Kind.INSTANT) & (frame["expiry_local"].dt.normalize() == frame["expiry_local"])
    )
    kind = frame["expiry_kind"].mask(bare, int(Kind.DATE))
    day = _friday(frame["expiry_local"].to_numpy(), bare.to_numpy())
    expiry = _instants(pd.Series(day), kind, CLOSE, vendor, clock, "expiry")
    morning = bare & _settles_at_open(frame, vendor)
    if morning.any():
        expiry = expiry.where(~morning, _instants(pd.Series(day), kind, OPEN, vendor, clock, "expiry"))
    return _years(frame, quote, expiry)


def _given_moment(frame: pd.DataFrame, clock: Clock) -> pd.DataFrame:
    if clock.moment is None:
        return frame
    dates = frame.loc[frame["quote_kind"] == Kind.DATE, "quote_local"].unique()
    if len(dates) > 1:
        raise InputError(
            f"{clock.path}: has {len(dates)} quote dates, so one quote time cannot serve all; give a time of day only, "
            "such as --quote-time 15:45"
        )
    open_ = frame["quote_kind"].isin([Kind.DATE, Kind.MISSING])
    return frame.assign(
        quote_local=frame["quote_local"].mask(open_, clock.moment),
        quote_kind=frame["quote_kind"].mask(open_, int(clock.moment_kind)).astype(np.int8),
    )


def _demand_quote_time(frame: pd.DataFrame, vendor: Vendor, clock: Clock) -> None:
    silent = (frame["quote_kind"] == Kind.MISSING) & frame["reason"].isna()
    if len(frame) and silent.sum() == frame["reason"].isna().sum() > 0 and frame["t"].isna().all():
        raise InputError(
            f"{clock.path}: {vendor.title} does not say when the quotes were taken; give the time, for example "
            "--quote-time 2024-06-21T16:00:00-04:00 (quote_time='2024-06-21T16:00:00-04:00')"
        )


def _instants(
    local: pd.Series, kind: pd.Series, clock_time: time, vendor: Vendor, clock: Clock, what: str
) -> pd.Series:
    """UTC timestamps, NaT where the time is missing or unreadable."""
    stamps = local.to_numpy().astype("datetime64[us]")
    naive = (kind == Kind.NAIVE).to_numpy()
    name = clock.timezone or vendor.zone
    if naive.any() and name is None:
        example = str(stamps[naive][0].astype("datetime64[s]"))
        raise InputError(
            f"{clock.path}: {what} times such as {example} have no time zone; say which it is, for example "
            f"--timezone {EXCHANGE_ZONE} (timezone={EXCHANGE_ZONE!r})"
        )
    home = zone_of(name or EXCHANGE_ZONE)
    bare_zone = zone_of(clock.timezone or EXCHANGE_ZONE)
    bare = (kind == Kind.DATE).to_numpy()
    result = stamps.copy()
    result[naive] = to_utc(stamps[naive], home)
    result[bare] = to_utc(at_time(stamps[bare], clock_time), bare_zone)
    result[kind.isin([Kind.MISSING, Kind.BAD]).to_numpy()] = np.datetime64("NaT")
    return pd.Series(result).dt.tz_localize("UTC")


def _friday(local: np.ndarray, bare: np.ndarray) -> np.ndarray:
    days = local.astype("datetime64[D]")
    # 1970-01-01 was a Thursday
    saturday = bare & (days.astype(np.int64) % 7 == 2) & (days <= _LAST_SATURDAY_EXPIRY)
    return np.where(saturday, local - np.timedelta64(1, "D"), local).astype("datetime64[us]")


def _settles_at_open(frame: pd.DataFrame, vendor: Vendor) -> pd.Series:
    root = frame["root"]
    split = vendor.splits_roots or root.isin(list(WEEKLY_ROOTS)).any()
    by_root = root.isin(list(ALWAYS_AM | SPLIT_AM if split else ALWAYS_AM))
    return by_root.where(frame["am_settlement"].isna(), frame["am_settlement"] == 1)


def _years(frame: pd.DataFrame, quote: pd.Series, expiry: pd.Series) -> pd.DataFrame:
    given = frame["t"]
    elapsed = (expiry - quote).dt.total_seconds() * 1e6 / _YEAR
    t = given.where(given.notna(), elapsed)
    derived = quote + pd.to_timedelta((given * 365).clip(-36500, 36500), unit="D").dt.round("s")
    label = frame["expiry_local"].where(~frame["expiry_kind"].isin([Kind.MISSING, Kind.BAD]).to_numpy())
    expiry_time = expiry.where(expiry.notna(), derived)
    label = label.where(label.notna(), expiry_time.dt.tz_localize(None))
    out = frame.assign(
        quote_time=quote, expiry_time=expiry_time, t=t, expiry=_date_text(label),
    )  # fmt: skip
    missing = out["t"].isna() & out["reason"].isna()
    detail = np.where(quote.isna(), "the quote time is missing", "the expiry is missing")
    out["detail"] = out["detail"].mask(missing, pd.Series(detail, dtype=object))
    out["reason"] = out["reason"].mask(missing, Reject.UNREADABLE.value)
    return out


def _date_text(label: pd.Series) -> pd.Series:
    codes, days = pd.factorize(label.dt.normalize())
    texts = np.array([*(pd.Timestamp(d).strftime("%Y-%m-%d") for d in days), None], dtype=object)
    return pd.Series(texts[codes], dtype=object)
