"""`POST /v1/implied-vol`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service import openapi
from service.errors import RESPONSES
from service.examples import IMPLIED_VOL
from service.limits import body_of, check_contracts
from service.reading import read
from service.schemas import ImpliedVolAnswer, ImpliedVolRequest
from service.submission import service_of, submit

router = APIRouter(tags=["prices"])


@router.post(
    "/v1/implied-vol",
    response_model=ImpliedVolAnswer,
    responses=RESPONSES,
    openapi_extra=openapi.body(ImpliedVolRequest, IMPLIED_VOL),
    summary="Black volatilities of European prices",
)
async def implied_vol(request: Request) -> Response:
    """Each price has a status of its own: `ok`, or why no volatility gives it."""
    settings = service_of(request).settings
    body = await body_of(request, settings)
    check_contracts(read(ImpliedVolRequest, body).count, settings, "options")
    return await submit(request, "implied_vol", body, ("price", "quick"))
