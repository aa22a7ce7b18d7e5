"""The database: SQLite in the data folder, or PostgreSQL by URL; its tables are brought up to date when it opens."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.orm import Session

from qsde.errors import InputError

_MIGRATIONS = Path(__file__).parent / "migrations"
#: Of the advisory lock that one process holds while it migrates.
_LOCK = 7_361_402
#: Seconds that a writer waits for another one.
_PATIENCE = 30


@dataclass(frozen=True)
class Database:
    """An engine; `session()` is one transaction.

    Attributes:
        engine: the pool of connections.
        folder: where payloads are, and the file of SQLite.
    """

    engine: Engine
    folder: Path

    @classmethod
    def open(cls, url: str, folder: Path) -> Database:
        """Connects; the folder is made.

        Args:
            url: `postgresql://USER:PASSWORD@HOST/NAME`; empty is SQLite in the folder.
            folder: the data folder.

        Raises:
            InputError: the URL is of another kind.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        where = database_url(url, folder)
        if where.get_backend_name() == "sqlite":
            return cls(_sqlite(where), folder)
        return cls(create_engine(where, pool_size=5, max_overflow=15, pool_pre_ping=True), folder)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed at the end, rolled back by an error."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Brings the tables up to date; several processes may try at once."""
        from alembic import command  # takes long to import, and workers have no use for it
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        with self._alone() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        if self.engine.dialect.name != "sqlite":
            with self.engine.begin() as connection:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
                yield connection
            return
        with (self.folder / ".migrating").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self.engine.begin() as connection:
                yield connection

    def close(self) -> None:
        """Closes the connections."""
        self.engine.dispose()


def database_url(url: str, folder: Path) -> URL:
    """The full URL.

    Raises:
        InputError: it is neither SQLite nor PostgreSQL.

    Example:
        >>> database_url("postgresql://me@host/qsde", Path(".")).drivername
        'postgresql+psycopg'
    """
    found = make_url(url or f"sqlite:///{(folder / 'qsde.db').resolve()}")
    if found.get_backend_name() == "sqlite":
        return found
    if found.get_backend_name() != "postgresql":
        raise InputError(f"database_url: {found.drivername} is not known; give postgresql://USER:PASSWORD@HOST/NAME")
    return found.set(drivername="postgresql+psycopg")


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _PATIENCE})

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        # a transaction that reads first and writes later could otherwise fail on another writer, not wait for it
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine
