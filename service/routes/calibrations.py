"""`POST /v1/calibrations`."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic_core import to_json
from sqlalchemy.orm import Session

from service import openapi
from service.errors import CREATES, Problem
from service.examples import CALIBRATIONS
from service.idempotency import Creation, once
from service.kept import Accepted, CalibrationRequest
from service.limits import body_of, exceeded
from service.making import discard, read, rows_of
from service.reading import read as read_body
from service.receiving import written
from service.storage.pages import owned
from service.storage.tables import JobRow, SurfaceRow, now
from service.stored import Stored, owner_of, stored_of

router = APIRouter(tags=["calibrations"])


@router.post(
    "/v1/calibrations",
    status_code=202,
    response_model=Accepted,
    responses=CREATES,
    openapi_extra={**openapi.body(CalibrationRequest, CALIBRATIONS), "parameters": openapi.KEY},
    summary="Calibrate a model to a surface, as a job",
)
async def calibrations(request: Request) -> Response:
    """The job is in the database before the answer; `Location` says where to look for it.

    It ends in a fit or a stated failure, whatever happens to the service.
    """
    stored = stored_of(request)
    body = await body_of(request, stored.settings)
    wanted = read_body(CalibrationRequest, body)
    return await once(request, hashlib.sha256(body).hexdigest(), lambda: _accepted(request, stored, wanted))


async def _accepted(request: Request, stored: Stored, wanted: CalibrationRequest) -> Creation:
    most = stored.settings.max_jobs
    if await asyncio.to_thread(stored.queue.waiting, most) >= most:
        fix = "send the request again later"
        raise exceeded("max_jobs", most, "jobs that are not done", fix, 429, headers={"Retry-After": "30"})
    rows = await _surface(request, stored, wanted)
    job = JobRow(
        id=uuid.uuid4().hex, created=now(), owner=owner_of(request), surface_id=wanted.surface or rows[0].id,
        request=wanted.calibration.model_dump(mode="json"),
    )  # fmt: skip
    answer = Accepted(job=job.id, surface=job.surface_id, created=job.created)
    write, undo = partial(_write, stored, rows, job), partial(discard, stored, rows)
    return Creation(202, f"/v1/jobs/{job.id}", to_json(answer), write, undo)


async def _surface(request: Request, stored: Stored, wanted: CalibrationRequest) -> list[SurfaceRow]:
    """The surface of the quotes of the request; nothing if it names a stored one.

    Raises:
        Problem: none can be made.
    """
    if wanted.surface is not None:
        return []
    with written(stored.settings, to_json(wanted.quotes), "quotes", wanted.options) as upload:
        found = await read(stored, upload)
    rows = rows_of(found, owner_of(request))
    if len(rows) + len(found.failed) > 1:
        discard(stored, rows)
        text = f"quotes: one underlying at one time is fitted at a time, {len(rows) + len(found.failed)} were sent"
        raise Problem(422, f"{text}; POST them to /v1/surfaces, and calibrate each", "quotes")
    return rows


def _write(stored: Stored, rows: list[SurfaceRow], job: JobRow, session: Session) -> None:
    session.add_all(rows)
    session.flush()
    if owned(session, SurfaceRow, job.surface_id, job.owner, keep=True) is None:
        text = f"surface: there is no surface {job.surface_id!r}; GET /v1/surfaces lists them"
        raise Problem(422, text, "surface")
    session.add(job)
    session.flush()
    stored.queue.accept(session, job.id)
