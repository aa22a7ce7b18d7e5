"""How often and how much each key may ask."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from service.errors import Problem
from service.limits import exceeded
from service.security.keys import Key
from service.settings import Settings
from service.storage.database import Database
from service.storage.tables import UsageRow


@dataclass
class _Bucket:
    """Requests that may come at once; it fills up again at the rate of its key."""

    left: float
    since: float


class Rates:
    """Requests a second of each key, in this process; a second's worth of them may come at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def wait(self, name: str, rate: float) -> float:
        """Takes one request of a key; the seconds to wait if there is none left, else 0."""
        now, most = self._clock(), max(1.0, rate)
        bucket = self._buckets.setdefault(name, _Bucket(most, now))
        bucket.left = min(most, bucket.left + (now - bucket.since) * rate)
        bucket.since = now
        if bucket.left >= 1:
            bucket.left -= 1
            return 0.0
        return (1 - bucket.left) / rate


class Quotas:
    """Requests a day of each key, over all services of a database.

    They are counted here and written by `flush` every few seconds, so that a key may go beyond its quota by what
    several services take in these seconds, and what a killed service counted last is lost.
    """

    def __init__(self, today: Callable[[], str] = lambda: datetime.now(UTC).date().isoformat()) -> None:
        self._today = today
        self._day = ""
        self._stored: dict[str, int] = {}
        self._new: dict[str, int] = {}

    def take(self, name: str, quota: int) -> bool:
        """Takes one request of a key; False if there is none left today."""
        day = self._today()
        if day != self._day:
            self._day, self._stored, self._new = day, {}, {}
        if self._stored.get(name, 0) + self._new.get(name, 0) >= quota:
            return False
        self._new[name] = self._new.get(name, 0) + 1
        return True

    def flush(self, database: Database) -> None:
        """Writes what was counted, and reads what others counted."""
        day, new, self._new = self._day, self._new, {}
        try:
            stored = self._added(database, day, new)
        except SQLAlchemyError:  # the database is away, or another service began the day at the same time
            for name, count in new.items():
                self._new[name] = self._new.get(name, 0) + count
            raise
        if self._day in (day, ""):
            self._day, self._stored = self._today(), stored

    def _added(self, database: Database, day: str, new: dict[str, int]) -> dict[str, int]:
        with database.session() as session:
            for name, count in sorted(new.items()):
                own = UsageRow.name == name, UsageRow.day == day
                added = update(UsageRow).where(*own).values(requests=UsageRow.requests + count)
                if not session.execute(added).rowcount:  # type: ignore[attr-defined]
                    session.add(UsageRow(name=name, day=day, requests=count))
            rows = session.scalars(select(UsageRow).where(UsageRow.day == self._today()))
            return {row.name: row.requests for row in rows}


def check_rates(key: Key, settings: Settings, rates: Rates, quotas: Quotas) -> None:
    """Takes one request of a key.

    Raises:
        Problem: 429, it has none left this second, or today.
    """
    rate = settings.key_rate if key.rate is None else key.rate
    quota = settings.key_quota if key.quota is None else key.quota
    seconds = rates.wait(key.name, rate) if rate else 0.0
    if seconds:
        raise _none_left("key_rate", rate, "requests a second with this key", seconds)
    if quota and not quotas.take(key.name, quota):
        raise _none_left("key_quota", quota, "requests a day with this key", _to_midnight())


def _none_left(name: str, limit: float, what: str, seconds: float) -> Problem:
    whole = str(max(1, round(seconds + 0.5)))
    return exceeded(name, limit, what, f"come again in {whole} s", 429, headers={"Retry-After": whole})


def _to_midnight() -> float:
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds()
