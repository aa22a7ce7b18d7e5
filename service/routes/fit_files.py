"""`GET /v1/fits/{id}/file`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic_core import to_json

from service.errors import FINDS, responses
from service.routes.pages import found
from service.storage.tables import FitRow
from service.submission import submit

router = APIRouter(tags=["fits"])


@router.get(
    "/v1/fits/{fit_id}/file",
    response_class=Response,
    responses={**FINDS, **responses(429, 503, 504), 200: {"content": {"application/json": {"schema": {}}}}},
    summary="A stored fit as the file that `qsde calibrate --out` writes",
)
async def fit_file(request: Request, fit_id: str) -> Response:
    """Everything the fit holds, its quotes too: `qsde.spec.load_fits` and the commands of `qsde` read it."""
    await run_in_threadpool(found, request, FitRow, fit_id, "fit")
    return await submit(request, "fit_file", to_json(fit_id), ("fit_file", fit_id))
