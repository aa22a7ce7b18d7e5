"""Which processes that run jobs are alive: each holds a lock that ends with it, however it ends."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO, Protocol

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from service.storage.database import Database


class Presence(Protocol):
    """Locks of executors; each is named by 32 hex digits."""

    def announce(self, executor: str) -> None:
        """Takes the lock of this process, for as long as it lives; does nothing if it is held."""
        ...

    def gone(self, executor: str) -> bool:
        """Whether nobody holds the lock of another one."""
        ...


def presence(database: Database) -> Presence:
    """Locks of the kind that fits the database."""
    return _Files(database.folder / "executors") if database.engine.dialect.name == "sqlite" else _Advisory(database)


class _Files:
    """Locked files: who shares SQLite shares the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: IO[str] | None = None
        folder.mkdir(exist_ok=True)

    def announce(self, executor: str) -> None:
        """Locks the file."""
        if self._own is not None:
            return
        self._own = (self._folder / executor).open("w")
        fcntl.flock(self._own, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def gone(self, executor: str) -> bool:
        """Tries to lock its file, which is of no use afterwards."""
        path = self._folder / executor
        if not path.exists():
            return True
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            path.unlink(missing_ok=True)
            return True


class _Advisory:
    """Advisory locks of PostgreSQL, which end with the connection of their holder."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine
        self._own: Connection | None = None

    def announce(self, executor: str) -> None:
        """Takes the lock, again if the connection was lost."""
        try:
            if self._own is not None:
                self._own.execute(text("SELECT 1"))
                return
        except DBAPIError:
            self._own = None
        own = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        own.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _key(executor)})
        self._own = own

    def gone(self, executor: str) -> bool:
        """Tries to take its lock."""
        with self._engine.begin() as connection:
            # given back at the end of the transaction
            free = connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _key(executor)})
            return bool(free.scalar_one())


def _key(executor: str) -> int:
    return int(executor[:15], 16)
