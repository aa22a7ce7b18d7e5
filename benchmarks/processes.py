"""Services and a PostgreSQL server as processes that can be killed; for benchmarks and tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[1]
_DEBIAN = Path("/usr/lib/postgresql")
_SERVE = "import sys; from qsde.cli import main; sys.argv = ['qsde', 'serve']; main()"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
        return port


class Service:
    """`qsde serve` as a process; its settings are those of the environment."""

    def __init__(self, log: Path, **settings: object) -> None:
        self.port = free_port()
        self.address = f"http://{HOST}:{self.port}"
        self._log = log
        self._environment = {**os.environ, "QSDE_HOST": HOST, "QSDE_PORT": str(self.port), "QSDE_AUTH": "off"}
        self._environment |= {f"QSDE_{name.upper()}": str(value) for name, value in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 180) -> None:
        """Starts it, and waits until it is ready."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE], env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError, urllib.error.URLError):
                if urllib.request.urlopen(f"{self.address}/readyz", timeout=5).status == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"the service did not start:\n{self._log.read_text()[-3000:]}")

    def kill(self) -> None:
        """Ends it as the power would; its own processes find out by themselves."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it as an operator would."""
        self._end(signal.SIGTERM)

    def _end(self, how: int) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=60)
            self.process = None

    def children(self) -> list[int]:
        """Its processes, and theirs."""
        assert self.process is not None
        return descendants(self.process.pid)


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, directly or not, the nearest first; without the keepers of resources."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one and _spawned(child)]
    return found[1:]


def _spawned(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def postgres_missing() -> str | None:
    """Why there is no PostgreSQL to start; None if there is one."""
    if _binaries() is None:
        return f"PostgreSQL is not installed in {_DEBIAN}: apt-get install postgresql"
    if os.getuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL does not run as root, and there is no setpriv"
    return None


def _binaries() -> Path | None:
    found = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of its own, on a free port; its data is removed at the end."""
    binaries = _binaries()
    assert binaries is not None
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="qsde-postgres-"))
    as_user = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data = folder / "data"
    try:
        made = [str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "qsde", "-E", "UTF8", "--no-locale"]
        subprocess.run([*as_user, *made], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        run = [str(binaries / "postgres"), "-D", str(data), "-h", HOST, "-p", str(port), "-k", str(folder)]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen([*as_user, *run], stdout=log, stderr=log, cwd=folder)
        try:
            ready = [str(binaries / "pg_isready"), "-q", "-h", HOST, "-p", str(port), "-U", "qsde"]
            until = time.monotonic() + 60
            while subprocess.run(ready, check=False).returncode:
                if time.monotonic() > until or server.poll() is not None:
                    raise RuntimeError(f"PostgreSQL did not start:\n{(folder / 'log').read_text()[-3000:]}")
                time.sleep(0.1)
            yield f"postgresql://qsde@{HOST}:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # the fast shutdown
            server.wait(timeout=60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
