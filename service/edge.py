"""What every answer passes: request id, log line, latency, secure headers, keys, and no traceback to clients."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from sqlalchemy.exc import OperationalError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Problem, database_away, internal
from service.log import log
from service.metrics import Metrics
from service.security.gate import Gate

_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
_DOCS = "default-src 'self'; script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; \
style-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; img-src 'self' data: https://fastapi.tiangolo.com; \
frame-ancestors 'none'"
# a report is one page with its own scripts, which may reach nothing else, nor this service
_REPORT = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; \
frame-ancestors 'none'; sandbox allow-scripts allow-downloads"
_POLICIES = {"/docs": _DOCS, "/v1/report/": _REPORT}
_SECURE = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}


class Edge:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, metrics: Metrics, gate: Gate) -> None:
        self._app, self._metrics, self._gate = app, metrics, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex.encode()
        structlog.contextvars.bind_contextvars(request_id=request_id.decode())

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {**_SECURE, b"x-request-id": request_id, b"content-security-policy": _policy(scope["path"])}
                message = {**message, "headers": [*message.get("headers", []), *own.items()]}
            await send(message)

        try:
            scope.setdefault("state", {})["owner"] = await self._gate.owner(scope["path"], headers)
            await self._app(scope, receive, answered)
        except Problem as problem:
            await problem.response()(scope, receive, answered)
        except OperationalError as error:  # of the keys; the application answers its own
            await database_away(error).response()(scope, receive, answered)
        except Exception:
            log.exception("failed", path=scope["path"])
            if not status:
                await internal().response()(scope, receive, answered)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.latency.labels(route, str(status)).observe(seconds)
            log.info("request", method=scope["method"], path=scope["path"], status=status, seconds=round(seconds, 6))
            structlog.contextvars.unbind_contextvars("request_id")


def _policy(path: str) -> bytes:
    found = next((policy for start, policy in _POLICIES.items() if path.startswith(start)), None)
    return (found or "default-src 'none'; frame-ancestors 'none'").encode()
