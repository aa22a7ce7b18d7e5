"""`qsde serve`: the pricing service."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from qsde.errors import InputError


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (QSDE_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (QSDE_PORT).")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that compute (QSDE_WORKERS).")] = None,
) -> None:
    """Answer pricing requests over HTTP; settings come from the environment (QSDE_*), docs are at /docs.

    [bold]Example:[/bold] qsde serve --port 8000
    """
    try:
        import uvicorn
        from pydantic import ValidationError

        from service.app import create_app
        from service.settings import Settings
    except ModuleNotFoundError as missing:
        raise InputError(f"{missing.name} is not installed: pip install 'qsde[service]'") from missing
    from qsde.spec.base import explain

    given: dict[str, Any] = {"host": host, "port": port, "workers": workers}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise InputError(f"settings (QSDE_*): {explain(error)}") from None
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=math.ceil(settings.max_seconds),
    )
