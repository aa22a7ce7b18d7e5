"""Jobs as they are answered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from qsde.spec import CalibrationSpec
from service.jobs.queue import Run, State
from service.kept import JobAnswer, JobItem, JobProgress
from service.storage.tables import FitRow, JobRow
from service.stored import Stored


def answer(stored: Stored, row: JobRow) -> JobAnswer:
    """A job and its progress."""
    (item,) = items(stored, [row])
    last = stored.queue.last(row.id) or {}
    progress = JobProgress(done=last["done"], total=last["total"]) if "done" in last else None
    return JobAnswer(**item.model_dump(), progress=progress)


def items(stored: Stored, rows: Sequence[JobRow]) -> list[JobItem]:
    """Jobs of a list."""
    # the queue is asked first: what it says has ended has left its fit by then
    runs = stored.queue.runs([row.id for row in rows])
    with stored.database.session() as session:
        query = select(FitRow.id, FitRow.created).where(FitRow.id.in_([row.id for row in rows]))
        fitted = {fit.id: fit.created for fit in session.execute(query)}
    return [_item(row, runs[row.id], fitted.get(row.id)) for row in rows]


def _item(row: JobRow, run: Run, fitted: datetime | None) -> JobItem:
    outcome: dict[str, Any] = {"state": run.state, "ended": run.ended, "fit": None, "error": run.error}
    if row.cancelled is not None:
        outcome = {"state": "cancelled", "ended": row.cancelled, "fit": None, "error": None}
    elif fitted is not None:
        outcome = {"state": "succeeded", "ended": fitted, "fit": row.id, "error": None}
    spec = CalibrationSpec.model_validate(row.request)
    return JobItem(
        id=row.id, created=row.created, started=run.started, surface=row.surface_id, calibration=spec, **outcome
    )


def counts(stored: Stored) -> dict[State, int]:
    """Number of jobs in each state."""
    with stored.database.session() as session:
        # of a column, count leaves out what is null
        total, succeeded, cancelled = (
            session.scalar(select(func.count(column))) or 0 for column in (JobRow.id, FitRow.id, JobRow.cancelled)
        )
    running = stored.queue.running(stored.settings.max_jobs)
    queued = max(0, stored.queue.waiting(stored.settings.max_jobs) - running)
    failed = max(0, total - succeeded - cancelled - queued - running)  # a job may move between two counts
    return {"queued": queued, "running": running, "succeeded": succeeded, "failed": failed, "cancelled": cancelled}
