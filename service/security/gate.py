"""The gate: it knows the keys, lets their owners in, and counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from service.errors import Problem
from service.log import log
from service.security.keys import Key, Keys, digest_of
from service.security.rates import Quotas, Rates, check_rates
from service.settings import Settings
from service.storage.database import Database

#: What needs no key: whether the service lives, and its documentation.
_OPEN = frozenset(("/", "/docs", "/openapi.json", "/healthz", "/readyz"))
#: Seconds between two looks at the keys of the database, and the least before a key that is not known.
_REFRESH, _AT_ONCE = 5.0, 0.5
#: Digits of its digest that name a key of the setting `api_keys`.
_DIGITS = 16


class Gate:
    """One for each application; `open` before the first request."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fixed = {key: Key(f"environment-{key[:_DIGITS]}") for key in settings.api_keys.split(",") if key}
        self._known: dict[str, Key] = dict(self._fixed)
        self._read = -_REFRESH
        self._rates, self._quotas = Rates(), Quotas()
        self._reading = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def open(self, database: Database) -> None:
        """Reads the keys, and goes on reading them."""
        if self._settings.auth == "off":
            return
        self._database, self._keys = database, Keys(database)
        await self._refresh(0.0)
        if not self._known:
            log.warning("no API keys", fix="make one with `qsde keys create NAME`, or set QSDE_AUTH=off for local use")
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Writes what was counted."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.to_thread(self._quotas.flush, self._database)

    async def owner(self, path: str, headers: Mapping[bytes, bytes]) -> str:
        """The owner of a request; "" where no key is needed.

        Raises:
            Problem: 401 without a valid key, 429 beyond its rate or quota.
        """
        if self._settings.auth == "off" or path in _OPEN:
            return ""
        secret = headers.get(b"x-api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        digest = digest_of(secret)
        if secret and digest not in self._known:
            await self._refresh(_AT_ONCE)
        key = self._known.get(digest)
        if key is None:
            fix = "send an API key in the header X-API-Key, or as Authorization: Bearer KEY"
            raise Problem(401, fix, headers={"WWW-Authenticate": "Bearer"})
        check_rates(key, self._settings, self._rates, self._quotas)
        return key.name

    async def _refresh(self, least: float) -> None:
        """Reads the keys again unless that was done `least` seconds ago."""
        async with self._reading:
            if time.monotonic() - self._read < least:
                return
            self._known = {**await asyncio.to_thread(self._keys.in_use), **self._fixed}
            self._read = time.monotonic()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH)
            try:
                await self._refresh(0.0)
                await asyncio.to_thread(self._quotas.flush, self._database)
            except Exception:  # the database is away: keys stay as they were, and what was counted is lost
                log.exception("keys not read")
