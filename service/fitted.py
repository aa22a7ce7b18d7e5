"""The fits that requests name, and their reports, as workers see them."""

from __future__ import annotations

from functools import lru_cache

from qsde.calibration.fit import Fit
from qsde.errors import InputError
from qsde.report import render
from service.settings import Settings
from service.storage.database import Database
from service.storage.fits import read_fit
from service.storage.tables import FitRow

#: Fits that a worker remembers; they never change.
_REMEMBERED = 64
_database: Database | None = None


def open_library(settings: Settings) -> None:
    """Says where the fits are."""
    global _database
    _database = Database.open(settings.database_url, settings.data_dir)
    _fit.cache_clear()


def library(fit_id: str) -> list[Fit]:
    """The fit of an id, as `qsde.spec.JobRequest.build` asks for it.

    Raises:
        InputError: there is none.
    """
    return [_fit(fit_id)]


def report(fit_ids: list[str]) -> str:
    """The HTML report of fits of one surface.

    Raises:
        InputError: one is unknown, or of another surface.
    """
    return render([_fit(fit_id) for fit_id in fit_ids])


@lru_cache(_REMEMBERED)
def _fit(fit_id: str) -> Fit:
    if _database is None:
        raise InputError("fit: this service keeps no fits")
    with _database.session() as session:
        known = session.get(FitRow, fit_id) if fit_id.isalnum() else None
    if known is None:
        raise InputError(f"{fit_id[:100]!r} is gone")
    return read_fit(_database, fit_id)
