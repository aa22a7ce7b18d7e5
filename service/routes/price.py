"""`POST /v1/price`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from qsde.spec import PriceRequest
from service import openapi
from service.errors import RESPONSES
from service.examples import PRICE
from service.schemas import PriceAnswer
from service.submission import submit_job

router = APIRouter(tags=["prices"])


@router.post(
    "/v1/price",
    response_model=PriceAnswer,
    responses=RESPONSES,
    openapi_extra=openapi.body(PriceRequest, PRICE),
    summary="Prices of contracts under one model in one market",
)
async def price(request: Request) -> Response:
    """Each contract has a status of its own: `ok` with its price, or `error` with the field, what is wrong and the fix.

    The same request gives the same digits, whatever else the service prices at the time.
    """
    return await submit_job(request, "price", PriceRequest)
