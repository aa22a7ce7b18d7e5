"""What lists share: a limit, a cursor, and rows from the database."""

from __future__ import annotations

from typing import Annotated, TypeVar

from fastapi import Path, Query, Request

from qsde.errors import QsdeError
from service.errors import Problem
from service.storage.pages import owned, page
from service.stored import owner_of, stored_of

R = TypeVar("R")
Id = Annotated[str, Path(description="32 hex digits", examples=["0f8fad5bd9cb469fa16570867728950e"])]
Limit = Annotated[int, Query(ge=1, le=200, description="rows of a page")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before")]


def listed(request: Request, table: type[R], limit: int, cursor: str | None) -> tuple[list[R], str | None]:
    """Rows of a table that the owner of the request may see, the newest first, and the cursor of those after them.

    Raises:
        Problem: 422 if the cursor is none.
    """
    try:
        with stored_of(request).database.session() as session:
            return page(session, table, limit, cursor, owner_of(request))
    except QsdeError as error:
        raise Problem.of(str(error)) from None


def found(request: Request, table: type[R], row_id: str, what: str) -> R:
    """The row of an id.

    Raises:
        Problem: 404 if there is none, or it is another owner's.
    """
    with stored_of(request).database.session() as session:
        row = owned(session, table, row_id, owner_of(request))
    if row is None:
        raise Problem(404, f"there is no {what} {row_id[:100]!r}; GET /v1/{what}s lists them")
    return row
