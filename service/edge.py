"""What every answer passes: request id, log line, latency, secure headers, keys, and no traceback to clients."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import uuid

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Problem, internal
from service.log import log
from service.metrics import Metrics

_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
_OPEN = ("/healthz", "/readyz")
_DOCS = "default-src 'self'; script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; \
style-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; img-src 'self' data: https://fastapi.tiangolo.com; \
frame-ancestors 'none'"
_SECURE = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}


class Edge:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, metrics: Metrics, api_keys: str) -> None:
        self._app, self._metrics = app, metrics
        self._digests = [key for key in api_keys.split(",") if key]

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
            if self._may_enter(scope["path"], headers):
                await self._app(scope, receive, answered)
            else:
                await _no_key().response()(scope, receive, answered)
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

    def _may_enter(self, path: str, headers: dict[bytes, bytes]) -> bool:
        if not self._digests or path in _OPEN:
            return True
        key = headers.get(b"x-api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        digest = hashlib.sha256(key).hexdigest()
        return any(hmac.compare_digest(digest, known) for known in self._digests)


def _policy(path: str) -> bytes:
    return (_DOCS if path == "/docs" else "default-src 'none'; frame-ancestors 'none'").encode()


def _no_key() -> Problem:
    fix = "send an API key in the header X-API-Key, or as Authorization: Bearer KEY"
    return Problem(401, fix, headers={"WWW-Authenticate": "Bearer"})
