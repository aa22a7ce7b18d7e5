"""API keys: made once and shown once; the database holds their digests."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update

from qsde.errors import InputError
from service.settings import Settings
from service.storage.database import Database
from service.storage.tables import KeyRow, now

#: Bytes of chance in a key. With so many a fast digest is as good as a slow one: there is nothing to guess.
_BYTES = 32
_LONGEST = 100


@dataclass(frozen=True)
class Key:
    """A key, without what makes it one.

    Attributes:
        name: what it is called, and the owner of what is created with it.
        rate: requests a second; None is the service's `key_rate`.
        quota: requests a day; None is the service's `key_quota`.
        created: when it was made.
        revoked: when it was revoked.
    """

    name: str
    rate: float | None = None
    quota: int | None = None
    created: datetime | None = None
    revoked: datetime | None = None


def digest_of(secret: bytes) -> str:
    """What is stored of a key."""
    return hashlib.sha256(secret).hexdigest()


class Keys:
    """The keys of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        """Those of the service with these settings; its tables are brought up to date."""
        database = Database.open(settings.database_url, settings.data_dir)
        database.migrate()
        return cls(database)

    def create(self, name: str, rate: float | None = None, quota: int | None = None) -> str:
        """A new key, which can be read here and never again.

        Raises:
            InputError: the name is taken, or is none.
        """
        if not (0 < len(name) <= _LONGEST and name.isprintable() and name == name.strip()):
            raise InputError(f"name: give 1 to {_LONGEST} characters that print, without spaces around them")
        secret = f"qsde_{secrets.token_urlsafe(_BYTES)}"
        with self._database.session() as session:
            if session.get(KeyRow, name) is not None:
                raise InputError(f"name: there is a key {name!r} already, maybe a revoked one; take another name")
            session.add(KeyRow(name=name, digest=digest_of(secret.encode()), rate=rate, quota=quota))
        return secret

    def revoke(self, name: str) -> None:
        """Ends a key; the services notice within seconds.

        Raises:
            InputError: no key in use has this name.
        """
        with self._database.session() as session:
            ended = update(KeyRow).where(KeyRow.name == name, KeyRow.revoked.is_(None)).values(revoked=now())
            if not session.execute(ended).rowcount:  # type: ignore[attr-defined]
                raise InputError(f"name: there is no key {name!r} in use; qsde keys list shows them")

    def all(self) -> list[Key]:
        """All keys, also revoked ones, in the order of their making."""
        with self._database.session() as session:
            rows = session.scalars(select(KeyRow).order_by(KeyRow.created, KeyRow.name))
            return [Key(row.name, row.rate, row.quota, row.created, row.revoked) for row in rows]

    def in_use(self) -> dict[str, Key]:
        """Keys that are not revoked, by their digests."""
        with self._database.session() as session:
            rows = session.scalars(select(KeyRow).where(KeyRow.revoked.is_(None)))
            return {row.digest: Key(row.name, row.rate, row.quota, row.created) for row in rows}
