"""What the workers of jobs do: the calibration of `qsde calibrate`, from a stored surface to a stored fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError, OperationalError

from qsde.errors import QsdeError
from qsde.spec import CalibrationSpec
from service.errors import out_of_memory
from service.log import log
from service.settings import Settings
from service.storage.database import Database
from service.storage.fits import write_fit
from service.storage.payloads import remove_payload
from service.storage.surfaces import read_surface
from service.storage.tables import FitRow, JobRow
from service.workers import Handle, Progress, Tell

#: Seconds between two messages about the progress of a fit.
_BETWEEN = 0.5


def prepare(settings: Settings) -> Handle:
    """Opens the database."""
    torch.set_num_threads(1)  # the digits of a fit do not depend on how many workers there are
    return partial(_fitted, Database.open(settings.database_url, settings.data_dir))


def _fitted(database: Database, job_id: str, tell: Tell) -> str | None:
    """Stores the fit of a job unless it is there; returns why there can be none, or None."""
    with database.session() as session:
        job = session.get_one(JobRow, job_id)
        if session.get(FitRow, job_id) or job.cancelled:
            return None
    spec = CalibrationSpec.model_validate(job.request)
    try:
        surface = read_surface(database, job.surface_id)
        fit = spec.fit(surface, _sparing(tell))
        record, payload = write_fit(database, fit)
    except QsdeError as error:
        return str(error)
    except OperationalError:
        raise  # the database is away: it is tried again
    except Exception as error:
        if out_of_memory(error):
            return "the calibration needs more memory than a worker has; send fewer starts, or a smaller surface"
        log.exception("failed", job=job_id)
        return "an error inside the service; please report it with the id of this job"
    row = FitRow(id=job_id, surface_id=job.surface_id, model=spec.model, record=record, payload=payload)
    if not _stored(database, row):
        remove_payload(database.folder, payload)
    return None


def _stored(database: Database, row: FitRow) -> bool:
    """Whether the fit was stored: not if the job has one, or was cancelled in the meantime."""
    try:
        with database.session() as session:
            # a write takes the lock that decides who comes first, this fit or whoever cancels its job
            mine = update(JobRow).where(JobRow.id == row.id, JobRow.cancelled.is_(None)).values(cancelled=None)
            if session.execute(mine).rowcount == 0:  # type: ignore[attr-defined]
                return False
            session.add(row)
    except IntegrityError:
        log.info("fitted twice, the first fit stays", job=row.id)
        return False
    return True


def _sparing(tell: Tell) -> Callable[[int, int], None]:
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _BETWEEN:
            last = time.monotonic()
            tell(Progress(done, total))

    return progress
