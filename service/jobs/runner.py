"""The process that runs jobs: it takes them from the queue, hands them to its workers, and records how they end.

A process of its own, for dbos keeps one engine per process, and its threads would take time from the event loop. It
ends with the service, however that ends. Jobs that it leaves behind are taken by the next one, or by another service on
the same database: see `_adopt`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
import uuid
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer

from service.jobs.presence import Presence, presence
from service.jobs.queue import APPLICATION, ATTEMPTS, EVENTS, LAST, QUEUE, VERSION, WORKFLOW
from service.log import log
from service.pool import Pool
from service.settings import Settings
from service.storage.database import Database
from service.workers import Died, Handle, OutOfTime, Progress, Worker

_SPAWN = multiprocessing.get_context("spawn")
#: Seconds between two looks into the queue, and for jobs that nobody runs.
_LOOK, _ADOPT = 0.2, 2.0
#: Seconds before a job whose worker was lost is tried again.
_PAUSE = 0.5
#: Seconds before a runner that ended is started again.
_RESTART = 1.0


class Failed(Exception):
    """A job cannot be done; the message says why."""


class Runner:
    """The process, and a thread that starts it again should it end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="qsde-runner", daemon=True)
        self._process: Any = None

    def start(self) -> None:
        """Starts the process."""
        self._thread.start()

    def _keep(self) -> None:
        while not self._closing.is_set():
            ours, theirs = _SPAWN.Pipe()
            self._process = _SPAWN.Process(target=run, args=(theirs, self._settings))
            self._process.start()
            theirs.close()
            self._process.join()
            ours.close()
            if not self._closing.is_set():
                log.error("the process that runs jobs ended; it is started again", code=self._process.exitcode)
                self._closing.wait(_RESTART)

    def close(self) -> None:
        """Ends the process; its jobs go on where the next one starts."""
        self._closing.set()
        while self._thread.is_alive():
            if self._process is not None and self._process.pid is not None:
                self._process.kill()
            self._thread.join(timeout=0.05)


def run(pipe: Connection, settings: Settings) -> None:
    """The life of the process: it ends with the pipe, and so with the service."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    executor = uuid.uuid4().hex
    database = Database.open(settings.database_url, settings.data_dir)
    locks = presence(database)
    locks.announce(executor)
    _register(settings)
    DBOS(config=_config(database, executor))
    DBOS.listen_queues([QUEUE])
    DBOS.launch()
    DBOS.register_queue(
        QUEUE, worker_concurrency=settings.job_workers, polling_interval_sec=_LOOK, on_conflict="always_update"
    )
    threading.Thread(target=_adopt, args=(locks, executor), daemon=True).start()
    log.info("jobs are run", executor=executor, workers=settings.job_workers)
    try:
        pipe.recv()
    except EOFError:
        os._exit(0)


def _config(database: Database, executor: str) -> DBOSConfig:
    return {
        "name": APPLICATION,
        "system_database_url": database.engine.url.render_as_string(hide_password=False),
        "application_version": VERSION,
        "executor_id": executor,
        "serializer": DBOSPortableJSONSerializer(),
        "log_level": "ERROR",
        "run_migrations": False,
    }


def _adopt(locks: Presence, executor: str) -> None:
    """Puts the jobs of processes that are gone back into the queue, for as long as this process lives."""
    while True:
        try:
            locks.announce(executor)
            running = DBOS.list_workflows(status="PENDING", queue_name=QUEUE, load_input=False, load_output=False)
            others = {status.executor_id for status in running if status.executor_id} - {executor}
            gone = sorted(other for other in others if locks.gone(other))
            if gone:
                log.warning("jobs of a process that ended are taken over", executors=gone)
                DBOS._recover_pending_workflows(gone)
        except Exception:
            log.exception("looking for jobs that nobody runs failed")
        time.sleep(_ADOPT)


def _register(settings: Settings) -> None:
    """Registers the workflow: one step, since a calibration is done wholly or not at all."""
    pool = cache(lambda: _pool(settings))

    @DBOS.step(
        name="fit",
        retries_allowed=True,
        max_attempts=ATTEMPTS,
        interval_seconds=_PAUSE,
        should_retry=lambda error: not isinstance(error, Failed),
        preemptible=True,
    )
    async def fit(job_id: str) -> None:
        await _told({"event": "started"})
        told: asyncio.Queue[Progress] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        telling = asyncio.create_task(_tell(told))
        try:
            problem = await pool().compute(job_id, settings.max_job_seconds, partial(_put, loop, told))
        except OutOfTime:
            limit = f"at most {settings.max_job_seconds:,} seconds for a job (max_job_seconds)"
            raise Failed(f"{limit}: the calibration was ended; send fewer starts, or a smaller surface") from None
        except Died:
            log.warning("worker ended", job=job_id)
            raise
        finally:
            telling.cancel()
        if problem is not None:
            raise Failed(problem)

    @DBOS.workflow(name=WORKFLOW)
    async def calibration() -> None:
        job_id = DBOS.workflow_id
        assert job_id is not None
        await fit(job_id)


def _put(loop: asyncio.AbstractEventLoop, told: asyncio.Queue[Progress], progress: Progress) -> None:
    loop.call_soon_threadsafe(told.put_nowait, progress)


async def _tell(told: asyncio.Queue[Progress]) -> None:
    while True:
        progress = await told.get()
        await _told({"event": "progress", "done": progress.done, "total": progress.total})


async def _told(event: dict[str, Any]) -> None:
    await DBOS.write_stream_async(EVENTS, event)
    await DBOS.set_event_async(LAST, event)


def _pool(settings: Settings) -> Pool:
    workers = [Worker(partial(_prepare, settings), settings.worker_memory_bytes) for _ in range(settings.job_workers)]
    pool = Pool(workers)
    pool.start()
    return pool


def _prepare(settings: Settings) -> Handle:
    from service.jobs.calibration import prepare  # imports torch, which this process has no use for

    return prepare(settings)
