"""`POST /v1/scenarios`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service import openapi
from service.errors import RESPONSES
from service.examples import SCENARIOS
from service.scenarios import ScenariosAnswer, ScenariosRequest
from service.submission import submit_job

router = APIRouter(tags=["prices"])


@router.post(
    "/v1/scenarios",
    response_model=ScenariosAnswer,
    responses=RESPONSES,
    openapi_extra=openapi.body(ScenariosRequest, SCENARIOS),
    summary="Prices and Greeks on a ladder of spots times a ladder of vols",
)
async def scenarios(request: Request) -> Response:
    """Each contract has a status of its own, as for prices; all scenarios share their random numbers."""
    return await submit_job(request, "scenarios", ScenariosRequest)
