"""`POST /v1/greeks`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from qsde.spec import GreeksRequest
from service import openapi
from service.errors import RESPONSES
from service.examples import GREEKS
from service.schemas import GreeksAnswer
from service.submission import submit_job

router = APIRouter(tags=["prices"])


@router.post(
    "/v1/greeks",
    response_model=GreeksAnswer,
    responses=RESPONSES,
    openapi_extra=openapi.body(GreeksRequest, GREEKS),
    summary="Greeks of contracts under one model in one market",
)
async def greeks(request: Request) -> Response:
    """Each contract has a status of its own, as for prices; a `total` needs every contract of the book."""
    return await submit_job(request, "greeks", GreeksRequest)
