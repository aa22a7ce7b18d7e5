"""What the service keeps, opened with it: database, queue, the process that runs jobs, and the reader of uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

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
        """Opens the database, and brings its tables up to date."""
        self.database = Database.open(self.settings.database_url, self.settings.data_dir)
        self.database.migrate()
        self.queue = JobQueue(self.database)

    def start(self) -> None:
        """Starts the processes, and does not wait for them."""
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


def stored_of(request: Request) -> Stored:
    """What the service behind a request keeps."""
    stored: Stored = request.app.state.stored
    return stored


def owner_of(request: Request) -> str:
    """Name of the API key of a request; "" without keys."""
    owner: str = getattr(request.state, "owner", "")
    return owner
