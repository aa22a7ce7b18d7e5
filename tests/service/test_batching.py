"""The queue: who goes together, who is refused, and what happens when a worker is lost."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")

from service.answers import Reply, Task
from service.batching import GONE, Batcher
from service.errors import Problem
from service.metrics import Metrics
from service.settings import Settings
from service.workers import Died, OutOfTime, Worker


class Scripted(Worker):
    """A worker without a process: it echoes, waits until told, and is lost to certain bodies."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.restarts = self.false_starts = 0
        self.dead = False
        self.go_on, self.ready = threading.Event(), threading.Event()
        self.go_on.set()
        self.ready.set()

    def start(self) -> None: ...

    def wait_until_warm(self) -> None: ...

    def end(self) -> None: ...

    def restart(self) -> None:
        self.restarts += 1
        if self.restarts <= self.false_starts:
            raise RuntimeError
        assert self.ready.wait(10)
        self.dead = False

    def compute(self, tasks: Sequence[Task], seconds: float) -> list[Reply]:
        self.batches.append([body for _, body in tasks])
        assert self.go_on.wait(10)
        if self.dead:
            raise Died
        for _, body in tasks:
            if body.startswith(b"slow"):
                raise OutOfTime
            if body.startswith(b"fatal"):
                raise Died
        return [(200, body) for _, body in tasks]


async def _queue(*workers: Scripted, **settings: Any) -> Batcher:
    batcher = Batcher(Settings(**settings), Metrics(), workers)
    await batcher.start()
    return batcher


def _ask(batcher: Batcher, body: bytes, key: str = "a", work: float = 1.0) -> asyncio.Task[Reply]:
    return asyncio.create_task(batcher.reply("price", body, key, work))


async def _blocked(batcher: Batcher, worker: Scripted) -> asyncio.Task[Reply]:
    """A request that keeps the worker busy until it may go on."""
    worker.go_on.clear()
    first = _ask(batcher, b"first")
    while not worker.batches:
        await asyncio.sleep(0.001)
    return first


def test_those_alike_that_wait_go_together() -> None:
    async def scenario() -> None:
        worker = Scripted()
        batcher = await _queue(worker, max_batch=3)
        first = await _blocked(batcher, worker)
        keys = "abaaab"
        asked = [_ask(batcher, b"%d" % i, key) for i, key in enumerate(keys)]
        await asyncio.sleep(0)
        worker.go_on.set()
        replies = await asyncio.gather(first, *asked)
        assert [body for _, body in replies] == [b"first", *(b"%d" % i for i in range(6))]
        assert worker.batches == [[b"first"], [b"0", b"2", b"3"], [b"1", b"5"], [b"4"]]
        await batcher.close()

    asyncio.run(scenario())


def test_those_alike_are_shared_among_the_workers() -> None:
    async def scenario() -> None:
        workers = Scripted(), Scripted()
        for worker in workers:
            worker.go_on.clear()
        batcher = await _queue(*workers)
        asked = [_ask(batcher, b"first"), _ask(batcher, b"second")]
        while not all(worker.batches for worker in workers):
            await asyncio.sleep(0.001)
        asked += [_ask(batcher, b"%d" % i) for i in range(5)]
        await asyncio.sleep(0)
        for worker in workers:
            worker.go_on.set()
        await asyncio.gather(*asked)
        assert sorted(len(batch) for worker in workers for batch in worker.batches[1:]) == [2, 3]
        await batcher.close()

    asyncio.run(scenario())


def test_who_leaves_a_long_queue_is_dropped() -> None:
    async def scenario() -> None:
        worker = Scripted()
        batcher = await _queue(worker)
        first = await _blocked(batcher, worker)

        async def gone() -> None:
            return None

        assert await batcher.reply("price", b"leaves", "a", 1.0, gone) == (GONE, b"")
        worker.go_on.set()
        await first
        assert worker.batches == [[b"first"]]
        await batcher.close()

    asyncio.run(scenario())


def test_together_they_are_no_more_work_than_one_may_be() -> None:
    async def scenario() -> None:
        worker = Scripted()
        batcher = await _queue(worker, max_path_steps=10)
        first = await _blocked(batcher, worker)
        asked = [_ask(batcher, b"%d" % i, work=4.0) for i in range(3)]
        await asyncio.sleep(0)
        worker.go_on.set()
        await asyncio.gather(first, *asked)
        assert worker.batches[1:] == [[b"0", b"1"], [b"2"]]
        await batcher.close()

    asyncio.run(scenario())


def test_full_queue_refuses_and_says_when_to_come_again() -> None:
    async def scenario() -> None:
        worker = Scripted()
        batcher = await _queue(worker, max_queue=2)
        first = await _blocked(batcher, worker)
        asked = [_ask(batcher, b"0"), _ask(batcher, b"1")]
        await asyncio.sleep(0)
        with pytest.raises(Problem) as refused:
            await batcher.reply("price", b"2", "a", 1.0)
        assert refused.value.status == 429
        assert refused.value.headers == {"Retry-After": "1"}
        assert refused.value.document.limit == {"max_queue": 2}
        worker.go_on.set()
        await asyncio.gather(first, *asked)
        await batcher.close()

    asyncio.run(scenario())


def test_who_leaves_is_not_computed() -> None:
    async def scenario() -> None:
        worker = Scripted()
        batcher = await _queue(worker)
        first = await _blocked(batcher, worker)
        leaves, stays = _ask(batcher, b"leaves"), _ask(batcher, b"stays")
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.sleep(0)
        worker.go_on.set()
        await asyncio.gather(first, stays)
        assert worker.batches == [[b"first"], [b"stays"]]
        await batcher.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("body", "status"), [(b"slow", 504), (b"fatal", 503)])
def test_a_lost_worker_costs_only_the_request_that_lost_it(body: bytes, status: int) -> None:
    async def scenario() -> None:
        worker = Scripted()
        batcher = await _queue(worker)
        first = await _blocked(batcher, worker)
        asked = [_ask(batcher, b"0"), _ask(batcher, body), _ask(batcher, b"2")]
        await asyncio.sleep(0)
        worker.go_on.set()
        _, *replies = await asyncio.gather(first, *asked)
        assert [found for found, _ in replies] == [200, status, 200]
        assert json.loads(replies[1][1])["status"] == status
        assert worker.restarts == 2
        await batcher.close()

    asyncio.run(scenario())


def test_a_worker_that_died_before_is_not_the_fault_of_the_next_request() -> None:
    async def scenario() -> None:
        worker = Scripted()
        batcher = await _queue(worker)
        worker.dead = True
        assert await batcher.reply("price", b"next", "a", 1.0) == (200, b"next")
        assert worker.restarts == 1
        await batcher.close()

    asyncio.run(scenario())


def test_who_is_to_blame_does_not_wait_for_the_next_worker() -> None:
    async def scenario() -> None:
        worker = Scripted()
        batcher = await _queue(worker)
        worker.ready.clear()
        assert (await _ask(batcher, b"slow"))[0] == 504
        worker.ready.set()
        await batcher.close()

    asyncio.run(scenario())


def test_a_worker_that_does_not_start_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.batching._PAUSE", 0.01)

    async def scenario() -> None:
        worker = Scripted()
        worker.dead, worker.false_starts = True, 2
        batcher = await _queue(worker)
        assert await batcher.reply("price", b"next", "a", 1.0) == (200, b"next")
        assert worker.restarts == 3
        await batcher.close()

    asyncio.run(scenario())


def test_those_who_lost_a_worker_together_are_shared_among_the_workers() -> None:
    async def scenario() -> None:
        workers = Scripted(), Scripted()
        batcher = await _queue(*workers)
        for worker in workers:
            worker.go_on.clear()
        asked = [_ask(batcher, b"first"), _ask(batcher, b"second"), *(_ask(batcher, b"slow %d" % i) for i in range(4))]
        await asyncio.sleep(0.01)
        for worker in workers:
            worker.go_on.set()
        assert [status for status, _ in await asyncio.gather(*asked)] == [200, 200, 504, 504, 504, 504]
        assert all(len(batch) == 1 for worker in workers for batch in worker.batches[2:])
        await batcher.close()

    asyncio.run(scenario())


def test_who_waited_too_long_is_told_although_no_worker_is_free() -> None:
    async def scenario() -> None:
        worker = Scripted()
        batcher = await _queue(worker, max_queue_seconds=0.01)
        first = await _blocked(batcher, worker)
        status, body = await _ask(batcher, b"late")
        assert status == 503
        assert json.loads(body)["limit"] == {"max_queue_seconds": 0.01}
        worker.go_on.set()
        assert (await first)[0] == 200
        assert worker.batches == [[b"first"]]
        await batcher.close()

    asyncio.run(scenario())


def test_closing_finishes_what_waits_and_refuses_what_comes() -> None:
    async def scenario() -> None:
        worker = Scripted()
        batcher = await _queue(worker)
        first = await _blocked(batcher, worker)
        waits = _ask(batcher, b"waits", "b")
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Problem) as refused:
            await batcher.reply("price", b"comes", "a", 1.0)
        assert refused.value.status == 503
        worker.go_on.set()
        assert [body for _, body in await asyncio.gather(first, waits)] == [b"first", b"waits"]
        await closing

    asyncio.run(scenario())
