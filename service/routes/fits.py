"""`/v1/fits`: stored fits."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.errors import FINDS, LISTS
from service.kept import FitAnswer, FitItem, Fits
from service.routes.pages import Cursor, Id, Limit, found, listed
from service.storage.tables import FitRow
from service.submission import json

router = APIRouter(tags=["fits"])
_LISTED = ("status", "rmse_bp")
_FULL = tuple(FitAnswer.model_fields.keys() - {"id", "created", "surface", "family"})


@router.get("/v1/fits", response_model=Fits, responses=LISTS, summary="Stored fits")
def fits(request: Request, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """The newest first."""
    rows, following = listed(request, FitRow, limit, cursor)
    return json(Fits(fits=[FitItem(**_answer(row, _LISTED)) for row in rows], next=following))


@router.get("/v1/fits/{fit_id}", response_model=FitAnswer, responses=FINDS, summary="A stored fit")
def fit(request: Request, fit_id: Id) -> Response:
    """Parameters, errors and status; a pricing request names it as `"fit": "ID"` instead of a model."""
    return json(FitAnswer(**_answer(found(request, FitRow, fit_id, "fit"), _FULL)))


def _answer(row: FitRow, names: tuple[str, ...]) -> dict[str, Any]:
    own = {"id": row.id, "created": row.created, "surface": row.surface_id, "family": row.model}
    return own | {name: row.record[name] for name in names}
