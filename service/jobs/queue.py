"""The durable queue (dbos) as the endpoints see it; its tables are in the database of the service.

A job is accepted in one transaction with its row. What became of it the rows say: a job with a fit succeeded, a job
marked cancelled was cancelled; of all others dbos knows whether they wait, run, or failed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, PortableWorkflowError, WorkflowStatus
from sqlalchemy.orm import Session

from service.storage.database import Database

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
QUEUE = "calibrations"
WORKFLOW = "calibration"
#: Of the workflow, in the database: to be raised if jobs of older versions could not be run any more.
VERSION = "1"
#: Of the application, in the database.
APPLICATION = "qsde"
#: Names of what a job tells on its way: all of it, and the last.
EVENTS, LAST = "events", "last"
_STATES: Mapping[str, State] = {"ENQUEUED": "queued", "DELAYED": "queued", "PENDING": "running"}
#: Attempts of a job whose worker is lost.
ATTEMPTS = 3
#: What dbos calls errors of its own, in our words.
_ERRORS = {"DBOSMaxStepRetriesExceeded": f"the worker ended {ATTEMPTS} times, probably for lack of memory"}
#: Seconds between two looks for news of a job.
_LOOK = 0.25


@dataclass(frozen=True)
class Run:
    """How a job is doing, as dbos knows it.

    Attributes:
        state: "failed" also for what its rows know better.
        started, ended: times, None before.
        error: why it failed.
    """

    state: State
    started: datetime | None
    ended: datetime | None
    error: str | None


class JobQueue:
    """Accepts jobs, cancels them and tells how they are; its methods block but for `events`."""

    def __init__(self, database: Database) -> None:
        url = database.engine.url.render_as_string(hide_password=False)
        DBOS.migrate(url)
        self._client = DBOSClient(
            system_database_engine=database.engine,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            retry_connection_errors=False,
        )

    def accept(self, session: Session, job_id: str) -> None:
        """Puts a job into the queue, if the transaction is committed."""
        self._client.enqueue_in_transaction(
            session,
            {
                "workflow_name": WORKFLOW,
                "queue_name": QUEUE,
                "workflow_id": job_id,
                "app_version": VERSION,
            },
        )

    def runs(self, job_ids: Sequence[str]) -> dict[str, Run]:
        """How jobs are doing."""
        found = self._client.list_workflows(workflow_ids=list(job_ids), load_input=False) if job_ids else []
        return {status.workflow_id: _run(status) for status in found}

    def waiting(self, most: int) -> int:
        """Number of jobs that are not done, counted no further than `most`."""
        return len(self._unfinished(["ENQUEUED", "PENDING"], most))

    def running(self, most: int) -> int:
        """Number of jobs that run, counted no further than `most`."""
        return len(self._unfinished(["PENDING"], most))

    def _unfinished(self, statuses: list[str], most: int) -> list[WorkflowStatus]:
        return self._client.list_workflows(
            status=statuses, queue_name=QUEUE, limit=most, load_input=False, load_output=False
        )

    def cancel(self, job_id: str) -> None:
        """Takes a job out of the queue; if it runs, its worker is ended within a second or two."""
        self._client.cancel_workflow(job_id)

    def last(self, job_id: str) -> dict[str, Any] | None:
        """The last that a job told."""
        found: dict[str, Any] | None = self._client.get_event(job_id, LAST, timeout_seconds=0)
        return found

    def events(self, job_id: str, first: int) -> AsyncGenerator[dict[str, Any]]:
        """All that a job tells, from the number `first` on, until it ends."""
        return self._client.read_stream_async(job_id, EVENTS, offset=first, polling_interval_sec=_LOOK)

    def forget(self, job_ids: Sequence[str]) -> None:
        """Removes all that is known of jobs that have ended."""
        self._client.delete_workflows(list(job_ids))

    def close(self) -> None:
        """Closes what it opened."""
        self._client.destroy()


def _run(status: WorkflowStatus) -> Run:
    return Run(
        _STATES.get(status.status, "failed"), _time(status.dequeued_at), _time(status.completed_at), _error(status)
    )


def _error(status: WorkflowStatus) -> str | None:
    if status.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return "the service ended too many times while the job ran"
    if not isinstance(status.error, PortableWorkflowError):
        return None if status.error is None else str(status.error)
    return _ERRORS.get(status.error.name, status.error.message)


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
