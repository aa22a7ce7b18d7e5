"""The application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from qsde import __version__
from service import errors, openapi, retention
from service.batching import Batcher
from service.edge import Edge
from service.heap import settle
from service.log import log
from service.metrics import Metrics
from service.routes import (
    calibrations,
    fit_files,
    fits,
    greeks,
    health,
    implied_vol,
    jobs,
    models,
    price,
    reports,
    scenarios,
    surfaces,
)
from service.security.gate import Gate
from service.settings import Settings
from service.stored import Stored
from service.submission import Service

_ROUTES = (
    price, greeks, scenarios, implied_vol, surfaces, calibrations, jobs, fits, fit_files, reports, models, health,
)  # fmt: skip


def create_app(settings: Settings | None = None) -> FastAPI:
    """The pricing service; its workers start with the lifespan of the application.

    Args:
        settings: None reads them from the environment.
    """
    settings = settings or Settings()
    metrics, gate = Metrics(), Gate(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stored = app.state.stored
        await asyncio.to_thread(stored.open)
        await gate.open(stored.database)
        await app.state.service.batcher.start()
        stored.start()  # later: what is started first is ready first
        expiring = asyncio.create_task(retention.daily(stored.database, stored.queue, settings.retention_days))
        settle()
        log.info("ready", workers=settings.workers)
        yield
        expiring.cancel()
        await app.state.service.batcher.close()
        await gate.close()
        await asyncio.to_thread(stored.close)
        log.info("closed")

    app = FastAPI(
        title="qsde",
        version=__version__,
        description="Prices, Greeks and implied volatilities. Times are years, rates and vols annualised decimals.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.service = Service(settings, metrics, Batcher(settings, metrics))
    app.state.stored = Stored(settings)
    app.add_middleware(Edge, metrics=metrics, gate=gate)
    if settings.cors_origins:  # outermost: browsers ask without a key whether they may ask
        origins = settings.cors_origins.split(",")
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    errors.install(app)
    for module in _ROUTES:
        app.include_router(module.router)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    return app
