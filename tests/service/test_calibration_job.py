"""What a job says where its calibration fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")

from sqlalchemy.exc import OperationalError

from qsde.errors import InputError
from service.jobs import calibration
from service.settings import Settings
from service.storage.database import Database
from service.storage.tables import JobRow, SurfaceRow


@pytest.fixture
def work(tmp_path: Path) -> Any:
    """What a worker does with the job "job"."""
    database = Database.open("", tmp_path)
    database.migrate()
    with database.session() as session:
        session.add(SurfaceRow(id="surface", name="", report={}, payload=""))
        session.flush()
        session.add(JobRow(id="job", surface_id="surface", request={"model": "heston"}))
    return lambda: calibration.prepare(Settings(data_dir=tmp_path))("job", lambda progress: None)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (InputError("quotes: too few"), "quotes: too few"),
        (MemoryError(), "needs more memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "needs more memory"),
        (ValueError("a mistake of ours"), "please report it"),
    ],
)
def test_a_failure_is_said_at_once(work: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str) -> None:
    monkeypatch.setattr(calibration, "read_surface", _raises(error))
    assert says in work()


def test_a_database_that_is_away_ends_the_attempt_only(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "read_surface", _raises(OperationalError("SELECT", {}, ConnectionError())))
    with pytest.raises(OperationalError):
        work()


def _raises(error: Exception) -> Any:
    def read(*args: Any) -> Any:
        raise error

    return read
