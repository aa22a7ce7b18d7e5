"""What is old goes with its files, but for what a job still needs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")

from sqlalchemy import select

from service import retention
from service.jobs.queue import JobQueue
from service.retention import daily, expire
from service.storage.database import Database
from service.storage.payloads import write_payload
from service.storage.tables import AnsweredRow, FitRow, JobRow, SurfaceRow, UsageRow, now

YOUNG, OLD = now() - timedelta(days=1), now() - timedelta(days=40)
BEFORE = now() - timedelta(days=30)


class Kept:
    """A database, its queue, and rows with payloads in it."""

    def __init__(self, database: Database) -> None:
        self.database, self.queue = database, JobQueue(database)

    def surface(self, name: str, created: datetime) -> None:
        self._add(SurfaceRow(id=name, created=created, name=name, report={}, payload=self._payload()))

    def job(self, name: str, surface: str, created: datetime, state: str, fitted: datetime | None = None) -> None:
        with self.database.session() as session:
            session.add(JobRow(id=name, created=created, surface_id=surface, request={}))
            session.flush()
            if state != "unknown":
                self.queue.accept(session, name)
            if fitted is not None:
                session.add(
                    FitRow(id=name, created=fitted, surface_id=surface, model="", record={}, payload=self._payload())
                )
        if state == "ended":
            self.queue.cancel(name)

    def answered(self, name: str, created: datetime) -> None:
        rest = {"owner": "", "operation": "", "digest": "", "status": 201, "location": "", "body": b""}
        self._add(AnsweredRow(key=name, created=created, **rest))

    def _add(self, row: Any) -> None:
        with self.database.session() as session:
            session.add(row)

    def _payload(self) -> str:
        return write_payload(self.database.folder, {"table": {"x": [1.0]}})

    def names(self, column: Any) -> set[str]:
        with self.database.session() as session:
            return set(session.scalars(select(column)))

    def check(self) -> None:
        """Rows and files belong together."""
        payloads = {path.name for path in (self.database.folder / "payloads").iterdir()}
        assert payloads == self.names(SurfaceRow.payload) | self.names(FitRow.payload)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    database = Database.open("", tmp_path)
    database.migrate()
    found = Kept(database)
    yield found
    found.queue.close()
    database.close()


def test_what_is_old_and_needed_by_nobody_goes(kept: Kept) -> None:
    for name, created in (("old", OLD), ("of old jobs", OLD), ("young", YOUNG)):
        kept.surface(name, created)
    kept.job("fitted", "of old jobs", OLD, "ended", fitted=OLD)
    kept.job("failed", "of old jobs", OLD, "ended")
    kept.job("lost", "of old jobs", OLD, "unknown")
    kept.job("young", "young", YOUNG, "ended", fitted=YOUNG)
    kept.answered("old", OLD)
    kept.answered("young", YOUNG)
    assert expire(kept.database, kept.queue, BEFORE) == 5
    assert kept.names(SurfaceRow.name) == kept.names(JobRow.id) == kept.names(FitRow.id) == {"young"}
    assert kept.names(AnsweredRow.key) == {"young"}
    assert kept.queue.runs(["fitted", "failed"]) == {}
    assert set(kept.queue.runs(["young"])) == {"young"}
    kept.check()
    assert expire(kept.database, kept.queue, BEFORE) == 0


def test_live_jobs_and_young_fits_keep_their_surface(kept: Kept) -> None:
    for name in ("waits", "fitted"):
        kept.surface(name, OLD)
    kept.job("waits", "waits", OLD, "queued")
    kept.job("fitted", "fitted", OLD, "ended", fitted=YOUNG)
    assert expire(kept.database, kept.queue, BEFORE) == 0
    assert kept.names(SurfaceRow.id) == kept.names(JobRow.id) == {"waits", "fitted"}
    assert kept.queue.runs(["waits"])["waits"].state == "queued"
    kept.check()


def test_more_than_fit_one_transaction(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_AT_ONCE", 2)
    for i in range(5):
        kept.surface(f"s{i}", OLD)
        kept.job(f"j{i}", f"s{i}", OLD, "queued" if i == 1 else "unknown", fitted=OLD)
    assert expire(kept.database, kept.queue, BEFORE) == 8
    assert kept.names(SurfaceRow.id) == {"s1"}
    kept.check()


def test_counts_of_requests_go_but_for_those_of_late(kept: Kept) -> None:
    for day in (OLD, YOUNG):
        kept._add(UsageRow(name="desk", day=day.date().isoformat(), requests=1))
    expire(kept.database, kept.queue, BEFORE)
    assert kept.names(UsageRow.day) == {YOUNG.date().isoformat()}


@pytest.mark.parametrize(("days", "left"), [(30.0, set()), (50.0, {"old"}), (0.0, {"old"})])
def test_it_runs_at_the_start_unless_all_is_kept(kept: Kept, days: float, left: set[str]) -> None:
    kept.surface("old", OLD)

    async def start() -> None:
        with pytest.raises(TimeoutError) if days else pytest.MonkeyPatch.context():
            await asyncio.wait_for(daily(kept.database, kept.queue, days), 2.0)

    asyncio.run(start())
    assert kept.names(SurfaceRow.id) == left


def test_it_runs_again_also_after_an_error(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_DAILY", 0.01)
    calls: list[int] = []

    def broken(*_: Any) -> int:
        calls.append(1)
        raise OSError

    monkeypatch.setattr(retention, "expire", broken)

    async def start() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(daily(kept.database, kept.queue, 30.0), 0.5)

    asyncio.run(start())
    assert len(calls) > 1
