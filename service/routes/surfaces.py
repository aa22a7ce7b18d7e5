"""`/v1/surfaces`: quotes in, stored surfaces and their quality reports out."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service import openapi
from service.errors import CREATES, FINDS, LISTS
from service.examples import UPLOADS
from service.idempotency import once
from service.kept import SurfaceAnswer, SurfaceOptions, Surfaces, Uploaded
from service.making import made, surface_answer
from service.receiving import received
from service.routes.pages import Cursor, Id, Limit, found, listed
from service.storage.tables import SurfaceRow
from service.stored import stored_of
from service.submission import json

router = APIRouter(tags=["surfaces"])


@router.post(
    "/v1/surfaces",
    status_code=201,
    response_model=Uploaded,
    responses=CREATES,
    openapi_extra=openapi.upload(SurfaceOptions, UPLOADS),
    summary="Quotes of options in; clean surfaces, with a quality report, out",
)
async def upload(request: Request) -> Response:
    """CSV, Parquet or JSON, plain or packed with gzip, as the body or as the field `file` of a form.

    Any format that `qsde inspect` reads will do. One surface is stored for each underlying and quote time in the file.
    Options, such as `rate=0.03`, `symbol=SPX` or `column_map={"strike": "K"}`, are query parameters or fields of the
    form.
    """
    stored = stored_of(request)
    async with stored.uploading(), received(request, stored.settings) as given:
        return await once(request, given.digest, lambda: made(request, given.upload))


@router.get("/v1/surfaces", response_model=Surfaces, responses=LISTS, summary="Stored surfaces")
def surfaces(request: Request, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """The newest first."""
    rows, following = listed(request, SurfaceRow, limit, cursor)
    return json(Surfaces(surfaces=[surface_answer(row) for row in rows], next=following))


@router.get("/v1/surfaces/{surface_id}", response_model=SurfaceAnswer, responses=FINDS, summary="A stored surface")
def surface(request: Request, surface_id: Id) -> Response:
    """Its quality report."""
    return json(surface_answer(found(request, SurfaceRow, surface_id, "surface")))
