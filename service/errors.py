"""Errors as RFC 9457 problem documents: the field, what is wrong, and the fix."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from pydantic_core import to_json
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from service.log import log

MEDIA_TYPE = "application/problem+json"
#: Longest text of an error: messages quote what was sent.
_LONGEST = 2_000
_FIELD = re.compile(r"([a-z_]\w*(?:\.\w+)*): ")

_TITLES = {
    400: "bad request",
    401: "no valid API key",
    404: "not found",
    405: "method not allowed",
    408: "the request did not arrive",
    409: "in conflict with what is there",
    413: "request too large",
    422: "the request cannot be used",
    429: "too many requests",
    500: "internal error",
    503: "not available",
    504: "out of time",
}


class ProblemDetail(BaseModel):
    """What the service answers instead of a result (RFC 9457).

    Attributes:
        type: kind of problem, `about:blank` if the status says it all.
        title: the status in words.
        status: HTTP status.
        detail: what is wrong and what to do.
        field: where in the request, such as `model.rho`; null if it is about no one field.
        limit: the limit of the service that was met, by the name of its setting, and its value.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    field: str | None = None
    limit: dict[str, float] | None = None


class Problem(Exception):
    """An answer other than a result."""

    def __init__(
        self,
        status: int,
        detail: str,
        field: str | None = None,
        limit: dict[str, float] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.headers = status, headers
        self.document = ProblemDetail(
            title=_TITLES.get(status, "error"), status=status, detail=shortened(detail), field=field, limit=limit
        )

    @classmethod
    def of(cls, message: str, status: int = 422) -> Problem:
        """From the message of a library error, whose start may be a field."""
        return cls(status, message, field_of(message))

    @classmethod
    def again(cls, document: ProblemDetail) -> Problem:
        """From the document of another process."""
        return cls(document.status, document.detail, document.field, document.limit)

    def body(self) -> bytes:
        """The document."""
        return to_json(self.document)

    def response(self) -> Response:
        """The HTTP response."""
        return Response(self.body(), self.status, self.headers, MEDIA_TYPE)


def field_of(message: str) -> str | None:
    """The field that a library message starts with.

    Example:
        >>> field_of("payoffs.2.strike: must be positive"), field_of("no such thing: here")
        ('payoffs.2.strike', None)
    """
    found = _FIELD.match(message)
    return found[1] if found else None


def shortened(message: str) -> str:
    """The message, cut where a request made it very long."""
    return message if len(message) <= _LONGEST else message[:_LONGEST] + " ..."


def internal() -> Problem:
    """The problem of an error that should not be there."""
    return Problem(500, "an error inside the service; please report it with the X-Request-ID of this answer")


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that there is no memory left; torch raises RuntimeError."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "alloc" in str(error))


def database_away(error: OperationalError) -> Problem:
    """The problem of a database that does not answer."""
    log.error("the database does not answer", error=shortened(str(error)))
    text = "the database does not answer; send the request again later"
    return Problem(503, text, headers={"Retry-After": "10"})


def install(app: FastAPI) -> None:
    """Makes every error of the application a problem document."""

    async def problem(request: Request, error: Problem) -> Response:
        return error.response()

    async def http(request: Request, error: HTTPException) -> Response:
        detail = f"{request.method} {request.url.path}: {str(error.detail).lower()}; the endpoints are listed at /docs"
        return Problem(error.status_code, detail, headers=dict(error.headers or {})).response()

    async def parameter(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = str(first["loc"][-1])
        return Problem(422, f"{name}: {str(first['msg']).lower()}", name).response()

    async def database(request: Request, error: OperationalError) -> Response:
        return database_away(error).response()

    handlers: dict[Any, Any] = {
        Problem: problem,
        HTTPException: http,
        RequestValidationError: parameter,
        OperationalError: database,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


_TEXTS = {
    401: "API keys are in use, and this is none",
    404: "there is nothing of this id",
    408: "the body took longer than `max_seconds` to arrive",
    409: "in conflict with what is there; `detail` says with what",
    413: "the body is larger than `max_body_bytes`, or an upload than `max_upload_bytes`",
    422: "the request cannot be read, or goes beyond a limit; `field`, `detail` and `limit` say which",
    429: "too many wait, as `limit` says; come again after Retry-After seconds",
    503: "the service is shutting down, or the request waited longer than `max_queue_seconds`",
    504: "the request took longer than `max_seconds`, or the reading of an upload than `max_upload_seconds`",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: what an operation answers besides results."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetail"}}}
    return {status: {"description": _TEXTS[status], "content": content} for status in statuses}


#: Of operations that compute.
RESPONSES = responses(401, 408, 413, 422, 429, 503, 504)
#: Of operations that create.
CREATES = responses(401, 409, 413, 422, 429, 503, 504)
#: Of lists, and of operations on one thing.
LISTS, FINDS, ENDS = responses(401, 422), responses(401, 404, 422), responses(401, 404, 409, 422)
