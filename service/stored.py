"""What the service keeps, opened with it: database, queue, the process that runs jobs, and the reader of uploads."""

from __future__ import annotations

import asyncio
import shutil
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import Request

from service import uploads
from service.jobs.queue import JobQueue
from service.jobs.runner import Runner
from service.limits import exceeded
from service.pool import Pool
from service.settings import Settings
from service.storage.database import Database
from service.workers import Worker


class Stored:
    """All of it, for one application."""

    database: Database
    queue: JobQueue

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.readers = Pool([Worker(partial(uploads.prepare, settings), settings.worker_memory_bytes)])
        self.streams = asyncio.Semaphore(settings.max_event_streams)
        #: set when the service is told to end, so that clients that follow events do not hold it up
        self.closing = asyncio.Event()
        self._uploads = asyncio.Semaphore(settings.max_uploads)
        self._runner = Runner(settings) if settings.job_workers else None

    @asynccontextmanager
    async def uploading(self) -> AsyncIterator[None]:
        """Room for one upload.

        Raises:
            Problem: 429 if there is none.
        """
        if self._uploads.locked():
            most = self.settings.max_uploads
            raise exceeded(
                "max_uploads", most, "uploads at a time", "send the file again later", 429, headers={"Retry-After": "5"}
            )
        async with self._uploads:
            yield

    def open(self) -> None:
        """Opens the database, brings its tables up to date, and removes what a service that was killed left."""
        self.database = Database.open(self.settings.database_url, self.settings.data_dir)
        self.database.migrate()
        self.queue = JobQueue(self.database)
        _sweep(self.settings.data_dir)

    def start(self) -> None:
        """Starts the processes, and does not wait for them; listens to what ends the service."""
        _when_told_to_end(asyncio.get_running_loop(), self.closing.set)
        self.readers.start()
        if self._runner is not None:
            self._runner.start()

    def close(self) -> None:
        """Ends the processes, whatever they do; jobs go on with the next start."""
        if self._runner is not None:
            self._runner.close()
        self.readers.close()
        self.queue.close()
        self.database.close()


def _sweep(folder: Path) -> None:
    """Removes uploads and unfinished payloads of an earlier day; younger ones may be at work in another process."""
    before = time.time() - 86_400
    for left in [*folder.glob("uploads/*"), *folder.glob("payloads/.*.tmp")]:
        with suppress(OSError):
            if left.stat().st_mtime < before:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _when_told_to_end(loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> None:
    """Listens to SIGTERM and SIGINT, and passes them on to the server."""
    if threading.current_thread() is not threading.main_thread():
        return  # of a test, say: whoever ends it closes its connections
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def told(number: int, frame: FrameType | None, before: Any = before) -> None:
            loop.call_soon_threadsafe(tell)
            if callable(before):
                before(number, frame)

        signal.signal(number, told)


def stored_of(request: Request) -> Stored:
    """What the service behind a request keeps."""
    stored: Stored = request.app.state.stored
    return stored


def owner_of(request: Request) -> str:
    """Name of the API key of a request; "" without keys."""
    owner: str = getattr(request.state, "owner", "")
    return owner
