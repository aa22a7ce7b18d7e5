"""Worker processes: each computes on one thread, and is ended where it takes too long.

Processes and not threads: torch gives up the interpreter lock only inside its operations, so a thread that prices small
requests would hold up the event loop; a request that runs too long, or takes too much memory, can be ended only with
its process; and a crash in native code ends one worker, not the service.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from service.heap import settle

_SPAWN = multiprocessing.get_context("spawn")
#: Seconds that a worker may take to start.
_START = 120.0


class OutOfTime(Exception):
    """The worker took longer than allowed and was ended."""


class Died(Exception):
    """The worker ended by itself, for lack of memory, say."""


@dataclass(frozen=True)
class Progress:
    """How far a worker is with its task."""

    done: int
    total: int


Tell = Callable[[Progress], None]
#: What a worker does with a task; made in its process, by a function that may be sent there.
Handle = Callable[[Any, Tell], Any]


class Worker:
    """One process; its methods block, and are called from one thread at a time."""

    def __init__(self, prepare: Callable[[], Handle], memory: int) -> None:
        self._prepare, self._memory = prepare, memory

    def start(self) -> None:
        """Starts the process; it warms up while others start."""
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, self._prepare, self._memory), daemon=True)
        self._process.start()
        self._warm = False
        theirs.close()

    def wait_until_warm(self) -> None:
        """Returns when the first request would not be slow.

        Raises:
            RuntimeError: the process did not come up.
        """
        if self._warm:
            return
        try:
            self._warm = self._pipe.poll(_START) and self._pipe.recv()
        except EOFError:
            self._warm = False
        if not self._warm:
            raise RuntimeError("a worker process did not start; its error is above")

    def compute(self, task: Any, seconds: float, tell: Tell = lambda progress: None) -> Any:
        """What the worker makes of a task.

        Raises:
            OutOfTime: it took longer than `seconds`.
            Died: the process ended.
        """
        until = time.monotonic() + seconds
        try:
            self._pipe.send(task)
            while self._pipe.poll(max(0.0, until - time.monotonic())):
                found = self._pipe.recv()
                if not isinstance(found, Progress):
                    return found
                tell(found)
        except (EOFError, OSError):
            raise Died from None
        raise OutOfTime

    def restart(self) -> None:
        """A new process in the place of this one."""
        self.end()
        self.start()
        self.wait_until_warm()

    def end(self) -> None:
        """Ends the process, whatever it does; nothing if it was ended."""
        with suppress(ValueError):  # it is closed
            self._process.kill()
            self._process.join()
            self._process.close()
        self._pipe.close()


def _serve(pipe: Connection, prepare: Callable[[], Handle], memory: int) -> None:
    """The life of a worker: it ends with the pipe, and so with the service, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the service ends its workers itself
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    handle = prepare()
    settle()
    try:
        pipe.send(True)
        while True:
            pipe.send(handle(pipe.recv(), pipe.send))
    except (EOFError, BrokenPipeError):
        return
