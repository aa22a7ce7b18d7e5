"""Surfaces out of uploads: read by a worker, within its limits of time and memory."""

from __future__ import annotations

import uuid
from functools import partial

from fastapi import Request
from pydantic_core import from_json, to_json
from sqlalchemy.orm import Session

from service.errors import Problem, ProblemDetail
from service.idempotency import Creation
from service.kept import SurfaceAnswer, SurfaceReport, Unusable, Uploaded
from service.limits import exceeded
from service.storage.payloads import remove_payload
from service.storage.tables import SurfaceRow, now
from service.stored import Stored, owner_of, stored_of
from service.uploads import Read, Upload
from service.workers import Died, OutOfTime


async def made(request: Request, upload: Upload) -> Creation:
    """The surfaces of an upload, ready to be stored.

    Raises:
        Problem: it cannot be read, or not within the limits.
    """
    stored = stored_of(request)
    return creation(stored, await read(stored, upload), owner_of(request))


async def read(stored: Stored, upload: Upload) -> Read:
    """What a worker finds in an upload.

    Raises:
        Problem: it cannot be read, or not within the limits.
    """
    limit, patience = stored.settings.max_upload_seconds, stored.settings.max_queue_seconds
    try:
        answered: Read | tuple[int, bytes] = await stored.readers.compute(upload, limit, patience=patience)
    except TimeoutError:
        fix = "other uploads were being read; send the file again later"
        raise exceeded("max_queue_seconds", patience, "seconds in the queue", fix, 503) from None
    except OutOfTime:
        fix = "reading the file was ended; split it"
        raise exceeded("max_upload_seconds", limit, "seconds for reading an upload", fix, 504) from None
    except Died:
        raise Problem(422, "the worker that read the file ended, probably for lack of memory; split the file") from None
    if isinstance(answered, Read):
        return answered
    _, body = answered
    raise Problem.again(ProblemDetail.model_validate(from_json(body)))


def rows_of(read: Read, owner: str) -> list[SurfaceRow]:
    """Rows of surfaces whose payloads are written."""
    return [
        SurfaceRow(
            id=uuid.uuid4().hex, created=now(), owner=owner, name=one.report.name,
            report=one.report.model_dump(mode="json"), payload=one.payload,
        )
        for one in read.stored
    ]  # fmt: skip


def creation(stored: Stored, read: Read, owner: str) -> Creation:
    """The answer to an upload, and what is to be stored."""
    rows = rows_of(read, owner)
    answer = Uploaded(
        surfaces=[surface_answer(row) for row in rows],
        unusable=[Unusable(name=name, message=message) for name, message in read.failed],
    )
    location = f"/v1/surfaces/{rows[0].id}" if len(rows) == 1 else "/v1/surfaces"
    return Creation(201, location, to_json(answer), partial(_write, rows), partial(discard, stored, rows))


def _write(rows: list[SurfaceRow], session: Session) -> None:
    session.add_all(rows)


def discard(stored: Stored, rows: list[SurfaceRow]) -> None:
    """Removes the payloads of rows that were not stored."""
    for row in rows:
        remove_payload(stored.database.folder, row.payload)


def surface_answer(row: SurfaceRow) -> SurfaceAnswer:
    """A stored surface as it is answered."""
    report = SurfaceReport.model_validate(row.report)
    return SurfaceAnswer(id=row.id, created=row.created, **report.model_dump())
