"""Structured logs: one JSON object per line on stderr."""

from __future__ import annotations

import sys
from typing import Any

import structlog
from pydantic_core import to_json


class Stderr:
    """The present stderr: loggers are kept, and tests replace it."""

    def write(self, text: str) -> None:
        """Writes there."""
        sys.stderr.write(text)

    def flush(self) -> None:
        """Flushes it."""
        sys.stderr.flush()


def _json(event: Any, **_: Any) -> str:
    return to_json(event, fallback=str).decode()


structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(_json),
    ],
    logger_factory=lambda *_: structlog.WriteLogger(Stderr()),  # type: ignore[arg-type]
    cache_logger_on_first_use=True,
)
#: The logger of the service.
log: Any = structlog.get_logger("qsde.service")
