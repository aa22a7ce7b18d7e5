"""The queue between the event loop and the workers.

A worker that is free takes the oldest request and its share of those like it that wait (the same kind of work, so that
one simulation may serve them all): batches form while workers are busy, and nobody waits for a batch to fill.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, TypeVarTuple

from service import pricer
from service.answers import Reply
from service.errors import Problem
from service.limits import exceeded
from service.log import log
from service.metrics import Metrics
from service.settings import Settings
from service.workers import Died, OutOfTime, Worker

X = TypeVar("X")
Gone = Callable[[], Awaitable[None]]
#: Status of a reply that nobody reads; the log does.
GONE = 499
#: Seconds after which a request that still waits is watched for its client to leave: most are answered before.
_PATIENCE = 0.1
#: Seconds before a worker that did not start is started again.
_PAUSE = 1.0
Arguments = TypeVarTuple("Arguments")


@dataclass(eq=False)
class Ticket:
    """One request that waits.

    Attributes:
        endpoint, body: what is to be computed.
        key: equal for requests that may go to a worker together.
        path_steps: estimated work.
        reply: will be set.
        again: whether a worker was lost with it before; then it goes alone.
        watched: waits for its client to leave.
        late: tells it when it has waited too long.
    """

    endpoint: str
    body: bytes
    key: Hashable
    path_steps: float
    reply: asyncio.Future[Reply]
    again: bool = False
    watched: asyncio.Future[None] | None = None
    late: asyncio.TimerHandle | None = None

    def answer(self, reply: Reply) -> None:
        """Sets the reply, unless there is one."""
        if not self.reply.done():
            self.reply.set_result(reply)


class Batcher:
    """A bounded queue and the workers that empty it."""

    def __init__(self, settings: Settings, metrics: Metrics, workers: Sequence[Worker] | None = None) -> None:
        self._settings, self._metrics = settings, metrics
        self._waiting: deque[Ticket] = deque()
        self._arrived = asyncio.Event()
        self._workers = workers or [
            Worker(partial(pricer.prepare, settings), settings.worker_memory_bytes) for _ in range(settings.workers)
        ]
        self._threads = ThreadPoolExecutor(len(self._workers), "qsde-worker")
        self._tasks: list[asyncio.Task[None]] = []
        self._at_work: Counter[Hashable] = Counter()
        self.state = "starting"

    async def start(self) -> None:
        """Starts the workers, and returns when they are warm."""
        for worker in self._workers:
            worker.start()
        await asyncio.gather(*(self._in_thread(worker.wait_until_warm) for worker in self._workers))
        self._tasks = [asyncio.create_task(self._serve(worker)) for worker in self._workers]
        self.state = "ready"

    async def close(self) -> None:
        """Finishes what waits, refuses what comes, and ends the workers."""
        self.state = "closing"
        replies = [ticket.reply for ticket in self._waiting]
        if replies:
            await asyncio.wait(replies, timeout=self._settings.max_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self._workers:
            worker.end()
        self._threads.shutdown(wait=True)

    async def reply(
        self, endpoint: str, body: bytes, key: Hashable, path_steps: float, gone: Gone | None = None
    ) -> Reply:
        """Waits for the reply; whoever cancels it, or is gone, leaves the queue.

        Args:
            endpoint: what is to be computed.
            body: of the request.
            key: equal for requests that may go to a worker together.
            path_steps: estimated work.
            gone: returns when nobody waits for the reply any more; the reply has then the status `GONE`.

        Raises:
            Problem: 429 if too many wait, 503 if the service is closing or the wait was too long, 504 if it took too
                long.
        """
        if self.state != "ready":
            raise Problem(503, f"the service is {self.state}; send the request again", headers={"Retry-After": "5"})
        if len(self._waiting) >= self._settings.max_queue:
            self._metrics.refused.inc()
            fix = "send the request again later"
            raise exceeded(
                "max_queue", self._settings.max_queue, "requests wait", fix, 429, headers={"Retry-After": "1"}
            )
        ticket = Ticket(endpoint, body, key, path_steps, asyncio.get_running_loop().create_future())
        self._put([ticket])
        watch = asyncio.get_running_loop().call_later(_PATIENCE, self._watch, ticket, gone) if gone else None
        try:
            return await ticket.reply
        finally:
            if watch:
                watch.cancel()
            if ticket.watched:
                ticket.watched.cancel()
            if ticket in self._waiting:
                self._take(ticket)

    def _put(self, tickets: Sequence[Ticket], first: bool = False) -> None:
        """Tickets into the queue, where they wait no longer than they may."""
        for ticket in tickets:
            seconds = self._settings.max_queue_seconds
            ticket.late = asyncio.get_running_loop().call_later(seconds, self._late, ticket)
        if first:
            self._waiting.extendleft(reversed(tickets))
        else:
            self._waiting.extend(tickets)
        self._metrics.queue.set(len(self._waiting))
        self._arrived.set()

    def _take(self, ticket: Ticket) -> None:
        """A ticket out of the queue."""
        self._waiting.remove(ticket)
        self._metrics.queue.set(len(self._waiting))
        if ticket.late:
            ticket.late.cancel()

    def _late(self, ticket: Ticket) -> None:
        self._take(ticket)
        fix = "no worker was free; send the request again later"
        problem = exceeded("max_queue_seconds", self._settings.max_queue_seconds, "seconds in the queue", fix, 503)
        ticket.answer((problem.status, problem.body()))

    def _watch(self, ticket: Ticket, gone: Gone) -> None:
        async def drop() -> None:
            await gone()
            if not ticket.reply.done():
                self._metrics.dropped.inc()
            ticket.answer((GONE, b""))

        ticket.watched = asyncio.ensure_future(drop())

    async def _serve(self, worker: Worker) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            batch = self._next()
            if batch:
                key = batch[0].key
                self._at_work[key] += len(batch)
                await self._computed(worker, batch)
                self._at_work.subtract({key: len(batch)})
                self._at_work += Counter()  # forgets keys of which none is at work

    def _next(self) -> list[Ticket]:
        """The oldest ticket and its share of those like it, no more work than one request may be.

        Those alike, at work or waiting, are shared among the workers: one that took them all would leave the others
        idle, and small shares would simulate the same draws again.
        """
        key, limits = self._waiting[0].key, self._settings
        alike = [ticket for ticket in self._waiting if ticket.key == key]
        share = -(-(len(alike) + self._at_work[key]) // len(self._workers))
        most = min(limits.max_batch, share)
        batch: list[Ticket] = []
        work = 0.0
        for ticket in alike:
            if batch and work + ticket.path_steps > limits.max_path_steps:
                continue
            self._take(ticket)
            if not ticket.reply.done():
                batch.append(ticket)
                work += ticket.path_steps
            if len(batch) == most:
                break
        return batch

    async def _computed(self, worker: Worker, batch: list[Ticket]) -> None:
        began = time.monotonic()
        tasks = [(ticket.endpoint, ticket.body) for ticket in batch]
        try:
            replies = await self._in_thread(worker.compute, tasks, self._settings.max_seconds)
        except (OutOfTime, Died) as loss:
            self._lost(batch, loss)
            await self._replaced(worker)
            return
        self._metrics.computed(len(batch), sum(t.path_steps for t in batch), time.monotonic() - began)
        for ticket, reply in zip(batch, replies, strict=True):
            ticket.answer(reply)

    def _lost(self, batch: list[Ticket], loss: Exception) -> None:
        """Each request is tried again, alone, unless it is to blame: alone too long, or lost twice."""
        reason = type(loss).__name__
        log.warning("worker ended", reason=reason, requests=len(batch))
        self._metrics.restarts.labels(reason).inc()
        if len(batch) > 1 or (isinstance(loss, Died) and not batch[0].again):
            for ticket in batch:
                ticket.again, ticket.key = True, ticket
            self._put([ticket for ticket in batch if not ticket.reply.done()], first=True)
            return
        problem = self._out_of_time() if isinstance(loss, OutOfTime) else _died()
        batch[0].answer((problem.status, problem.body()))

    async def _replaced(self, worker: Worker) -> None:
        """A new process for a worker, however often that takes; the others go on meanwhile."""
        while True:
            try:
                await self._in_thread(worker.restart)
                return
            except RuntimeError:
                log.error("a worker did not start; it is started again")
                await asyncio.sleep(_PAUSE)

    def _out_of_time(self) -> Problem:
        fix = "the computation was ended; lower engine.paths, raise engine.max_dt, or send fewer payoffs"
        return exceeded("max_seconds", self._settings.max_seconds, "seconds for a request", fix, 504)

    async def _in_thread(self, call: Callable[[*Arguments], X], *args: *Arguments) -> X:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)


def _died() -> Problem:
    return Problem(503, "the worker ended, probably for lack of memory; lower engine.paths or send fewer payoffs")
