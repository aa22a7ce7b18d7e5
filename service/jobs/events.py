"""What a job tells, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from fastapi.responses import Response, StreamingResponse
from pydantic_core import to_json

from service.jobs.state import answer
from service.limits import exceeded
from service.storage.tables import JobRow
from service.stored import Stored

MEDIA_TYPE = "text/event-stream"
#: Seconds without news after which a comment says that the connection lives.
_HEARTBEAT = 5.0
#: Id of the last event, and a number that none has.
_END, _BEYOND = "end", (1 << 31) - 1


async def follow(stored: Stored, row: JobRow, last_id: str | None) -> Response:
    """The events of a job after the one that the client saw last, until the job ends.

    Raises:
        Problem: 429 if too many clients follow jobs.
    """
    if last_id == _END:
        return Response(status_code=204)  # tells the client not to come back
    if stored.streams.locked():
        most = stored.settings.max_event_streams
        fix = "GET the job now and then, or come again later"
        raise exceeded("max_event_streams", most, "clients that follow jobs", fix, 429, headers={"Retry-After": "10"})
    first = min(int(last_id) + 1, _BEYOND) if last_id is not None and last_id.isdecimal() else 0
    return StreamingResponse(_events(stored, row, first), media_type=MEDIA_TYPE)


async def _events(stored: Stored, row: JobRow, first: int) -> AsyncIterator[bytes]:
    async with stored.streams, aclosing(stored.queue.events(row.id, first)) as values:
        closing = asyncio.ensure_future(stored.closing.wait())
        try:
            number = first
            while True:
                coming = asyncio.ensure_future(anext(values, None))
                while not coming.done():
                    await asyncio.wait({coming, closing}, timeout=_HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
                    if closing.done():  # the client comes back, to the next service
                        return
                    if not coming.done():
                        yield b": still here\n\n"
                value = coming.result()
                if value is None:
                    break
                yield _event(str(number), value.pop("event"), to_json(value))
                number += 1
        finally:
            closing.cancel()
            coming.cancel()
            await asyncio.wait({coming})
        state, job = await asyncio.to_thread(_ended, stored, row.id)
        yield _event(_END, state, job)


def _ended(stored: Stored, job_id: str) -> tuple[str, bytes]:
    with stored.database.session() as session:
        job = answer(stored, session.get_one(JobRow, job_id))
    return job.state, to_json(job)


def _event(event_id: str, name: str, data: bytes) -> bytes:
    return f"id: {event_id}\nevent: {name}\ndata: ".encode() + data + b"\n\n"
