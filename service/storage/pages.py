"""What an owner may see: rows, and lists of them in pages, the newest first.

The owner "" sees all: nobody has this name where keys are in use. Cursors stay where they are when rows are added.
"""

from __future__ import annotations

import base64
import uuid
from datetime import datetime
from typing import Protocol, TypeVar

from sqlalchemy import literal, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from qsde.errors import InputError
from service.storage.tables import Utc


class Listed(Protocol):
    """Rows that are listed."""

    id: InstrumentedAttribute[str]
    created: InstrumentedAttribute[datetime]
    owner: InstrumentedAttribute[str]


R = TypeVar("R")


def owned(session: Session, table: type[R], row_id: str, owner: str, keep: bool = False) -> R | None:
    """The row of an id, if there is one that the owner may see; `keep` has whoever would delete it wait."""
    if len(row_id) != 32 or not row_id.isalnum():
        return None
    row = session.get(table, row_id, with_for_update={"read": True} if keep else None)
    return row if row is not None and owner in ("", row.owner) else None  # type: ignore[attr-defined]


def page(session: Session, table: type[R], limit: int, cursor: str | None, owner: str) -> tuple[list[R], str | None]:
    """Rows after the cursor that the owner may see, and the cursor of those after them; None at the end.

    Raises:
        InputError: the cursor is none of ours.
    """
    listed: type[Listed] = table  # type: ignore[assignment]
    query = select(table).order_by(listed.created.desc(), listed.id.desc()).limit(limit + 1)
    if owner:
        query = query.where(listed.owner == owner)
    if cursor is not None:
        created, row_id = _place(cursor)
        query = query.where(tuple_(listed.created, listed.id) < tuple_(literal(created, Utc), literal(row_id)))
    rows = list(session.scalars(query))
    last = rows[limit - 1] if len(rows) > limit else None
    return rows[:limit], None if last is None else _cursor(last.created, last.id)  # type: ignore[attr-defined]


def _cursor(created: datetime, row_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created.isoformat()} {row_id}".encode()).decode()


def _place(cursor: str) -> tuple[datetime, str]:
    try:
        created, _, row_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        return datetime.fromisoformat(created), uuid.UUID(row_id).hex
    except ValueError:
        raise InputError("cursor: give the `next` of the page before, as it is") from None
