"""`GET /v1/report/{id}`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response
from pydantic_core import to_json

from service.errors import FINDS, responses
from service.routes.pages import Id, found
from service.storage.tables import FitRow
from service.submission import submit

router = APIRouter(tags=["fits"])
Beside = Annotated[list[str] | None, Query(max_length=5, description="ids of more fits of the same surface")]


@router.get(
    "/v1/report/{fit_id}",
    response_class=HTMLResponse,
    responses={**FINDS, **responses(429, 503, 504)},
    summary="The report of a fit, as `qsde calibrate --report` writes it",
)
async def report(request: Request, fit_id: Id, beside: Beside = None) -> Response:
    """One HTML page that needs no other file: smiles, residuals, forwards, parameters, arbitrage checks."""
    ids = [fit_id, *(beside or [])]
    for one in ids:
        await run_in_threadpool(found, request, FitRow, one, "fit")
    return await submit(request, "report", to_json(ids), ("report", fit_id), media_type="text/html")
