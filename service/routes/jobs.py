"""`/v1/jobs`: how jobs are doing."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import select, update

from service.errors import ENDS, FINDS, LISTS, Problem
from service.jobs.events import MEDIA_TYPE, follow
from service.jobs.state import answer, items
from service.kept import JobAnswer, Jobs
from service.routes.pages import Cursor, Id, Limit, found, listed
from service.storage.tables import FitRow, JobRow, now
from service.stored import Stored, stored_of
from service.submission import json

router = APIRouter(tags=["calibrations"])
LastEvent = Annotated[str | None, Header(max_length=40, description="id of the last event that arrived")]


@router.get("/v1/jobs", response_model=Jobs, responses=LISTS, summary="Jobs")
def jobs(request: Request, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """The newest first."""
    rows, following = listed(request, JobRow, limit, cursor)
    return json(Jobs(jobs=items(stored_of(request), rows), next=following))


@router.get("/v1/jobs/{job_id}", response_model=JobAnswer, responses=FINDS, summary="A job")
def job(request: Request, job_id: Id) -> Response:
    """Its state and progress, and its fit once it has succeeded."""
    return json(answer(stored_of(request), found(request, JobRow, job_id, "job")))


@router.delete("/v1/jobs/{job_id}", response_model=JobAnswer, responses=ENDS, summary="Cancel a job")
def cancel(request: Request, job_id: Id) -> Response:
    """A job that has not ended is cancelled, whether it waits or runs; 409 if it has."""
    stored = stored_of(request)
    before = answer(stored, found(request, JobRow, job_id, "job"))
    if before.state in ("queued", "running") and _cancelled(stored, job_id):
        stored.queue.cancel(job_id)
        return json(answer(stored, found(request, JobRow, job_id, "job")))
    state = answer(stored, found(request, JobRow, job_id, "job")).state
    raise Problem(409, f"the job has ended: {state}; nothing is left to cancel")


def _cancelled(stored: Stored, job_id: Id) -> bool:
    """Whether it was marked in time: before a fit was stored, and by nobody else."""
    fitted = select(FitRow.id).where(FitRow.id == job_id).exists()
    mark = update(JobRow).where(JobRow.id == job_id, JobRow.cancelled.is_(None), ~fitted).values(cancelled=now())
    with stored.database.session() as session:
        session.get(JobRow, job_id, with_for_update=True)  # a fit that is being stored is waited for
        return session.execute(mark).rowcount == 1  # type: ignore[attr-defined, no-any-return]


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={**FINDS, 200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
    summary="What a job tells, as server-sent events",
)
async def events(request: Request, job_id: Id, last_event_id: LastEvent = None) -> Response:
    """`started`, `progress` (`done` of `total`), then `succeeded`, `failed` or `cancelled` with the whole job.

    A client that comes back with `Last-Event-ID` gets what it missed.
    """
    row = await run_in_threadpool(found, request, JobRow, job_id, "job")
    return await follow(stored_of(request), row, last_event_id)
