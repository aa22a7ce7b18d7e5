"""From an HTTP request to a worker and back."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_json

from qsde.errors import QsdeError
from qsde.spec import JobRequest, PricingModelSpec
from service.batching import Batcher
from service.errors import MEDIA_TYPE, Problem
from service.limits import Work, body_of, check_contracts, check_scenarios, check_work, work_of
from service.metrics import Metrics
from service.reading import read_job
from service.settings import Settings
from service.storage.pages import owned
from service.storage.tables import FitRow
from service.stored import owner_of, stored_of

_MODEL: TypeAdapter[PricingModelSpec] = TypeAdapter(PricingModelSpec)


@dataclass(frozen=True)
class Service:
    """What the routes of one application share."""

    settings: Settings
    metrics: Metrics
    batcher: Batcher


async def submit_job(request: Request, endpoint: str, kind: type[JobRequest]) -> Response:
    """Answers a request of several payoffs.

    Raises:
        Problem: it cannot be read, or goes beyond a limit.
    """
    settings = service_of(request).settings
    body = await body_of(request, settings)
    reading = read_job(kind, body)
    check_contracts(len(reading.types), settings)
    check_scenarios(reading.request, len(reading.types), settings)
    model = await _model(request, reading.request)
    try:
        work = work_of(reading, model)
    except QsdeError as error:
        raise Problem.of(str(error)) from None
    check_work(work, settings)
    return await submit(request, endpoint, body, _key(endpoint, model.model, reading.request, work), work.path_steps)


async def _model(request: Request, job: JobRequest) -> PricingModelSpec:
    """The model, also of a fit.

    Raises:
        Problem: 422 if there is no such fit, or it is another owner's.
    """
    if job.fit is None:
        assert job.model is not None
        return job.model
    row = await run_in_threadpool(_fit, request, job.fit.file)
    if row is None:
        raise Problem(422, f"fit: {job.fit.file[:100]!r} is no fit of this service; GET /v1/fits lists them", "fit")
    found: PricingModelSpec = _MODEL.validate_python(row.record["model"])
    return found


def _fit(request: Request, fit_id: str) -> FitRow | None:
    with stored_of(request).database.session() as session:
        return owned(session, FitRow, fit_id, owner_of(request))


def _key(endpoint: str, model: str, request: JobRequest, work: Work) -> Hashable:
    """Equal for requests that may share a simulation, and for all quick ones, which share the way to the worker."""
    return (endpoint, model, request.engine) if work.paths else (endpoint, "quick")


async def submit(
    request: Request, endpoint: str, body: bytes, key: Hashable, path_steps: float = 0.0,
    media_type: str = "application/json",
) -> Response:  # fmt: skip
    """Sends a body to a worker; a client that leaves is dropped from the queue.

    Raises:
        Problem: there is no room, or no time.
    """
    batcher = service_of(request).batcher
    status, answer = await batcher.reply(endpoint, body, key, path_steps, partial(_disconnected, request))
    return Response(answer, status, media_type=media_type if status == 200 else MEDIA_TYPE)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def service_of(request: Request) -> Service:
    """The service behind a request."""
    service: Service = request.app.state.service
    return service


def json(answer: BaseModel, status: int = 200) -> Response:
    """An answer as JSON."""
    return Response(to_json(answer), status, media_type="application/json")
