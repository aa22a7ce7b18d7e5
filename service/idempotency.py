"""Idempotency-Key: the same key and request create nothing twice; the answer is stored with what it created."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import Response
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.errors import Problem
from service.storage.database import Database
from service.storage.tables import AnsweredRow
from service.stored import owner_of, stored_of

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_HEADER = "Idempotency-Key"


@dataclass(frozen=True)
class Creation:
    """Something that is ready to be stored.

    Attributes:
        status, location, body: of the answer.
        write: stores it, in the transaction that it is given.
        discard: removes what was prepared, if it is not needed.
    """

    status: int
    location: str
    body: bytes
    write: Callable[[Session], None]
    discard: Callable[[], None] = lambda: None


async def once(request: Request, digest: str, prepare: Callable[[], Awaitable[Creation]]) -> Response:
    """The answer to a request that creates; what was created before by the same request is answered again.

    Args:
        request: it may carry an Idempotency-Key.
        digest: equal for equal requests.
        prepare: prepares what is to be stored.

    Raises:
        Problem: 409 if the key was used for another request, 422 if it is none, and those of `prepare`.
    """
    database = stored_of(request).database
    asked = _asked(request, digest)
    if asked is not None and (earlier := await asyncio.to_thread(_earlier, database, asked)):
        return earlier
    creation = await prepare()
    try:
        await asyncio.to_thread(_write, database, creation, asked)
    except BaseException as error:
        await asyncio.to_thread(creation.discard)
        if asked is None or not isinstance(error, IntegrityError):
            raise
        if earlier := await asyncio.to_thread(_earlier, database, asked):  # the same request came at the same time
            return earlier
        raise
    return _response(creation.status, creation.location, creation.body)


@dataclass(frozen=True)
class _Asked:
    place: tuple[str, str, str]
    digest: str


def _asked(request: Request, digest: str) -> _Asked | None:
    key = request.headers.get(_HEADER)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise Problem(422, f"{_HEADER}: give 1 to 255 printable ASCII characters without blanks", _HEADER)
    return _Asked((owner_of(request), f"{request.method} {request.url.path}", key), digest)


def _earlier(database: Database, asked: _Asked) -> Response | None:
    with database.session() as session:
        row = session.get(AnsweredRow, asked.place)
    if row is None:
        return None
    if row.digest != asked.digest:
        raise Problem(409, f"{_HEADER}: was used for another request; send a new key with a new request", _HEADER)
    return _response(row.status, row.location, row.body)


def _write(database: Database, creation: Creation, asked: _Asked | None) -> None:
    with database.session() as session:
        if asked is not None:
            owner, operation, key = asked.place
            session.add(
                AnsweredRow(
                    owner=owner, operation=operation, key=key, digest=asked.digest, status=creation.status,
                    location=creation.location, body=creation.body,
                )
            )  # fmt: skip
            session.flush()
        creation.write(session)


def _response(status: int, location: str, body: bytes) -> Response:
    return Response(body, status, {"Location": location}, "application/json")
