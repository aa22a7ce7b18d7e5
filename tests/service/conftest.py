"""Services on loopback, as clients see them: one with small work limits, one that is short of time and room."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

KEY = "not a secret"


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """In all of these tests."""


@pytest.fixture(scope="session", autouse=True)
def _logs_of_failures() -> Iterator[None]:
    """What services log is shown with tests that fail, and nowhere else."""
    logger = logging.getLogger("qsde.service")
    logger.setLevel(logging.INFO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.log.Stderr.write", lambda self, text: logger.info(text.rstrip()))
        yield


@contextmanager
def serving(**settings: object) -> Iterator[str]:
    """The address of a service while it runs."""
    from service.app import create_app
    from service.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(**{"workers": 1, "job_workers": 0, "data_dir": folder, "auth": "off", **settings}))
        yield from _served(app)


def _served(app: Any) -> Iterator[str]:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), "the service did not shut down"


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A service that refuses large work."""
    pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")
    with serving(max_path_steps=3_000_000, max_contracts=100, max_body_bytes=1 << 16, job_workers=1) as found:
        yield found


@pytest.fixture(scope="session")
def short() -> Iterator[str]:
    """A service with keys that cuts requests off after one and a half seconds."""
    pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    with serving(
        max_seconds=1.5, max_queue=2, max_queue_seconds=300, max_path_steps=1 << 40, auth="keys", api_keys=digest
    ) as found:
        yield found


@pytest.fixture(scope="session")
def tight() -> Iterator[str]:
    """A service that takes small uploads, and few and short jobs."""
    pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")
    limits = {"max_upload_bytes": 1 << 14, "max_unpacked_bytes": 1 << 16, "max_surfaces": 2, "max_event_streams": 1}
    with serving(**limits, max_jobs=2, max_job_seconds=1.5, job_workers=1) as found:
        yield found


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A service that asks for keys, and its data folder."""
    pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")
    folder = tmp_path_factory.mktemp("data")
    with serving(auth="keys", data_dir=folder, job_workers=1) as found:
        yield found, folder
