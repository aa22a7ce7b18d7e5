"""What is older than `retention_days` goes: surfaces, jobs, fits, answers to Idempotency-Keys, and counts of requests.

A job goes when it has ended and its fit, if it has one, is old; a surface when no job needs it any more. What is said
of rows is settled by the database, so several services may do this at once; files go after their rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from service.jobs.queue import JobQueue
from service.log import log
from service.storage.database import Database
from service.storage.payloads import remove_payload
from service.storage.tables import AnsweredRow, FitRow, JobRow, SurfaceRow, UsageRow, now

#: Seconds between two times.
_DAILY = 86_400.0
#: Rows of a transaction.
_AT_ONCE = 500


async def daily(database: Database, queue: JobQueue, days: float) -> None:
    """Now, and once a day for as long as the service lives; does nothing if `days` is 0."""
    while days:
        try:
            count = await asyncio.to_thread(expire, database, queue, now() - timedelta(days=days))
            log.info("what was old is gone", surfaces_and_jobs=count)
        except Exception:  # the database is away, say: tomorrow is another day
            log.exception("what is old could not be removed")
        await asyncio.sleep(_DAILY)


def expire(database: Database, queue: JobQueue, before: datetime) -> int:
    """Removes what is older; the number of jobs and surfaces that were."""
    with database.session() as session:
        session.execute(delete(AnsweredRow).where(AnsweredRow.created < before))
        session.execute(delete(UsageRow).where(UsageRow.day < before.date().isoformat()))
    return _jobs(database, queue, before) + _surfaces(database, before)


def _jobs(database: Database, queue: JobQueue, before: datetime) -> int:
    """Jobs that have ended, and their fits."""
    last, count = "", 0
    while True:
        with database.session() as session:
            young = exists().where(FitRow.id == JobRow.id, FitRow.created >= before)
            old = select(JobRow.id).where(JobRow.created < before, JobRow.id > last, ~young)
            ids = list(session.scalars(old.order_by(JobRow.id).limit(_AT_ONCE)))
        if not ids:
            return count
        last = ids[-1]
        runs = queue.runs(ids)
        ended = [one for one in ids if one not in runs or runs[one].state not in ("queued", "running")]
        with database.session() as session:
            payloads = list(session.scalars(select(FitRow.payload).where(FitRow.id.in_(ended))))
            session.execute(delete(FitRow).where(FitRow.id.in_(ended)))
            session.execute(delete(JobRow).where(JobRow.id.in_(ended)))
        queue.forget(ended)
        _remove(database, payloads)
        count += len(ended)


def _surfaces(database: Database, before: datetime) -> int:
    """Surfaces that no job is about."""
    count = 0
    while True:
        with database.session() as session:
            payloads = _unneeded(session, before)
        if not payloads:
            return count
        _remove(database, payloads)
        count += len(payloads)


def _unneeded(session: Session, before: datetime) -> list[str]:
    needed = exists().where(JobRow.surface_id == SurfaceRow.id)
    old = select(SurfaceRow.id).where(SurfaceRow.created < before, ~needed).limit(_AT_ONCE)
    # looked at again under the lock: a job may have been accepted in the meantime
    ids = list(session.scalars(old.with_for_update(skip_locked=True)))
    rows = list(session.scalars(select(SurfaceRow).where(SurfaceRow.id.in_(ids), ~needed)))
    session.execute(delete(SurfaceRow).where(SurfaceRow.id.in_([row.id for row in rows])))
    return [row.payload for row in rows]


def _remove(database: Database, payloads: Sequence[str]) -> None:
    for payload in payloads:
        remove_payload(database.folder, payload)
