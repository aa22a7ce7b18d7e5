"""Structured logs: one JSON object per line on stderr."""

from __future__ import annotations

import sys
from typing import Any

import structlog

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ],
    logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
)
#: The logger of the service.
log: Any = structlog.get_logger("qsde.service")
