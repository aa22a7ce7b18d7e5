"""Memory of a service and all its processes, looked at while something else happens."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from processes import Service

_UNIT = 1 << 10


def resident(pids: list[int]) -> int:
    """Bytes that processes hold, shared ones divided among those that share them."""
    return sum(_proportional(pid) for pid in pids)


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) * _UNIT for line in lines if line.startswith("Pss:")), 0)


class Watch:
    """Looks at the memory of a service while it is entered."""

    def __init__(self, service: Service, every: float = 0.5) -> None:
        self._service, self._every = service, every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        process = self._service.process
        assert process is not None
        while not self._done.wait(self._every):
            self.seen.append(resident([process.pid, *self._service.children()]))
