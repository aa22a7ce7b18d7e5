"""Workers that take one task each; whoever is cancelled, or waits too long, ends the worker that was at it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.workers import Tell, Worker


class Pool:
    """Processes that are started before they are needed, and waited for when they are."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._threads = ThreadPoolExecutor(2 * len(workers), "qsde-pool")

    def start(self) -> None:
        """Starts the processes, and does not wait for them."""
        for worker in self._workers:
            worker.start()
            self._idle.put_nowait(worker)

    async def compute(
        self, task: Any, seconds: float, tell: Tell = lambda progress: None, patience: float | None = None
    ) -> Any:
        """What a worker makes of a task, once one is free; `tell` is called in another thread.

        Raises:
            TimeoutError: none was free for `patience` seconds.
            OutOfTime: it took longer than `seconds`.
            Died: the process ended.
        """
        worker = await asyncio.wait_for(self._idle.get(), patience)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, worker.wait_until_warm)
            return await loop.run_in_executor(self._threads, worker.compute, task, seconds, tell)
        except BaseException:
            worker.end()
            worker.start()
            raise
        finally:
            self._idle.put_nowait(worker)

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers:
            worker.end()
        self._threads.shutdown(wait=False)
