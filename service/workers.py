"""Worker processes: each computes on one thread, and is ended where it takes too long.

Processes and not threads: torch gives up the interpreter lock only inside its operations, so a thread that prices small
requests would hold up the event loop; a request that runs too long, or takes too much memory, can be ended only with
its process; and a crash in native code ends one worker, not the service.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection

import torch
from pydantic_core import to_json

from service.answers import Reply, Task, alone, answer, check_machine
from service.examples import GREEKS, IMPLIED_VOL, PRICE

_SPAWN = multiprocessing.get_context("spawn")
#: Seconds that a worker may take to start.
_START = 120.0


class OutOfTime(Exception):
    """The worker took longer than allowed and was ended."""


class Died(Exception):
    """The worker ended by itself, for lack of memory, say."""


class Worker:
    """One process; its methods block, and are called from one thread at a time."""

    def __init__(self, memory: int) -> None:
        self._memory = memory

    def start(self) -> None:
        """Starts the process; it warms up while others start."""
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, self._memory), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_warm(self) -> None:
        """Returns when the first request would not be slow.

        Raises:
            RuntimeError: the process did not come up.
        """
        try:
            warm = self._pipe.poll(_START) and self._pipe.recv()
        except EOFError:
            warm = False
        if not warm:
            self.end()
            raise RuntimeError("a worker process did not start; its error is above")

    def compute(self, tasks: Sequence[Task], seconds: float) -> list[Reply]:
        """The replies to some tasks.

        Raises:
            OutOfTime: they took longer than `seconds`.
            Died: the process ended.
        """
        try:
            self._pipe.send(list(tasks))
            if not self._pipe.poll(seconds):
                raise OutOfTime
            replies: list[Reply] = self._pipe.recv()
        except (EOFError, OSError):
            raise Died from None
        return replies

    def restart(self) -> None:
        """A new process in the place of this one."""
        self.end()
        self.start()
        self.wait_until_warm()

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()


def _serve(pipe: Connection, memory: int) -> None:
    """The life of a worker: it ends with the pipe, and so with the service, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the service ends its workers itself
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # the digits of shared simulations depend on it
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    _warm_up()
    try:
        pipe.send(True)
        while True:
            pipe.send(answer(pipe.recv()))
    except (EOFError, BrokenPipeError):
        return


def _warm_up() -> None:
    check_machine()
    for endpoint, examples in (("price", PRICE), ("greeks", GREEKS), ("implied_vol", IMPLIED_VOL)):
        for example in examples.values():
            status, body = alone(endpoint, to_json(example))
            assert status == 200, body
