"""`/healthz`, `/readyz`, `/metrics`, and `/`, which leads to the docs."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.exc import OperationalError

from service.jobs.state import counts
from service.schemas import Health
from service.stored import stored_of
from service.submission import json, service_of

router = APIRouter(tags=["operations"])


@router.get("/healthz", response_model=Health, summary="Whether the process runs")
async def healthz() -> Response:
    """200 as long as the event loop answers."""
    return json(Health(status="ok"))


@router.get("/readyz", response_model=Health, responses={503: {"model": Health}}, summary="Whether it takes requests")
async def readyz(request: Request) -> Response:
    """200 if the workers are warm and the service is not shutting down, else 503."""
    state = service_of(request).batcher.state
    return json(Health(status=state), 200 if state == "ready" else 503)  # type: ignore[arg-type]


@router.get("/metrics", response_class=Response, summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """Latency by route, batch sizes, queue, path-steps, workers replaced, jobs by state."""
    found = service_of(request).metrics
    with suppress(OperationalError):  # without the database, all others are there
        for state, number in (await run_in_threadpool(counts, stored_of(request))).items():
            found.jobs.labels(state).set(number)
    return Response(found.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", include_in_schema=False)
async def root() -> Response:
    """Leads to the docs."""
    return RedirectResponse("/docs")
