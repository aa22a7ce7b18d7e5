"""What is stored comes back: surfaces and fits to the last digit, rows in pages, tables that migrate."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from qsde.calibration import TrainedFit, calibrate, neural_local_vol, train
from qsde.calibration.fit import Fit
from qsde.errors import InputError
from qsde.io import read_quotes
from qsde.market.surface import Surface
from qsde.pricing.engine import MonteCarlo
from qsde.report import render
from qsde.spec import CalibrationSpec, MarketSpec
from service.storage.database import Database
from service.storage.fits import read_fit, write_fit
from service.storage.pages import page
from service.storage.payloads import read_payload, remove_payload, write_payload
from service.storage.surfaces import read_surface, write_surface
from service.storage.tables import Base, FitRow, JobRow, SurfaceRow, now

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open("", tmp_path)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def fit() -> Fit:
    quotes = next(read_quotes(DATA / "dax_2002-07-05" / "dax_2002-07-05.csv").surfaces())
    spec = CalibrationSpec(model="heston", fixed={"kappa": 2.0}, feller=0.01)
    return calibrate(spec.build_template(), MarketSpec().surface(quotes), **spec.arguments())


def _add_surface(database: Database, payload: str = "", **columns: object) -> str:
    row = SurfaceRow(**{"id": "a" * 32, "name": "DAX", "report": {}, "payload": payload, **columns})
    with database.session() as session:
        session.add(row)
    return row.id


def test_migrations_make_the_tables_of_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _ours})
        assert compare_metadata(context, Base.metadata) == []


def _ours(name: str | None, kind: str, parents: object) -> bool:
    """Not the tables of dbos."""
    return kind != "table" or name in Base.metadata.tables


def test_several_migrate_at_once(tmp_path: Path) -> None:
    failed: list[Exception] = []

    def migrate() -> None:
        opened = Database.open("", tmp_path)
        try:
            opened.migrate()
        except Exception as error:
            failed.append(error)
        opened.close()

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.parametrize(
    "file", ["dax_2002-07-05/dax_2002-07-05.csv", "sepp_multiasset_surfaces/surfaces_btc_spy_gld.csv"]
)
def test_surfaces_come_back_to_the_last_digit(database: Database, file: str) -> None:
    for i, quotes in enumerate(read_quotes(DATA / file).surfaces()):
        surface = MarketSpec().surface(quotes)
        found = read_surface(database, _add_surface(database, write_surface(database, surface), id=f"{i:032x}"))
        for name in ("slices", "quotes"):
            pd.testing.assert_frame_equal(
                getattr(found, name), getattr(surface, name), check_dtype=False, rtol=0, atol=0
            )
        assert len(found.rejected) == len(surface.rejected)
        rest = [f.name for f in fields(surface) if f.name not in ("slices", "quotes", "rejected")]
        assert repr([getattr(found, name) for name in rest]) == repr([getattr(surface, name) for name in rest])


def test_fits_come_back_to_the_last_digit(database: Database, fit: Fit) -> None:
    surface_id = _add_surface(database, write_surface(database, fit.surface))
    record, payload = write_fit(database, fit)
    with database.session() as session:
        session.add(JobRow(id="b" * 32, surface_id=surface_id, request={}))
        session.flush()
        session.add(FitRow(id="b" * 32, surface_id=surface_id, model="heston", record=record, payload=payload))
    found = read_fit(database, "b" * 32)
    assert found.params == fit.params
    assert found.std_errors == fit.std_errors
    assert (found.model_iv == fit.model_iv).all()
    assert (found.weight == fit.weight).all()
    assert (found.jacobian == fit.jacobian).all()
    assert found.penalties == fit.penalties
    assert render(found) == render(fit)


def test_a_trained_fit_keeps_its_jacobian_in_the_payload(database: Database) -> None:
    t, k = np.repeat([0.5, 1.0], 3), np.tile([90.0, 100.0, 110.0], 2)
    surface = Surface.from_vols(t, k, 0.2 - 0.1 * np.log(k / 100), 100.0)
    engine = MonteCarlo(n_paths=1 << 10, max_dt=0.25)
    fit = train(neural_local_vol(surface, width=8), surface, engine=engine, max_steps=1)
    record, payload = write_fit(database, fit)
    assert "jacobian" not in record["training"]
    surface_id = _add_surface(database, write_surface(database, surface))
    with database.session() as session:
        session.add(JobRow(id="b" * 32, surface_id=surface_id, request={}))
        session.flush()
        row = FitRow(id="b" * 32, surface_id=surface_id, model="neural_local_vol", record=record, payload=payload)
        session.add(row)
    found = read_fit(database, "b" * 32)
    assert isinstance(found, TrainedFit)
    assert torch.equal(found.training.jacobian, fit.training.jacobian)
    assert all(torch.equal(found.model.params[name], value) for name, value in fit.model.params.items())


def test_a_payload_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="length"):
        write_payload(tmp_path, {"good": {"x": [1.0]}, "bad": {"x": [1.0], "y": [1.0, 2.0]}})
    assert [path.name for path in (tmp_path / "payloads").iterdir() if not path.name.startswith(".")] == []
    name = write_payload(
        tmp_path, {"good": {"x": [1.0, None], "y": ["a", None], "z": [None, None], "w": [True, False]}}
    )
    assert read_payload(tmp_path, name)["good"] == {
        "x": [1.0, None], "y": ["a", None], "z": [None, None], "w": [True, False]
    }  # fmt: skip
    remove_payload(tmp_path, name)
    assert not (tmp_path / "payloads" / name).exists()


def test_times_keep_their_zone(database: Database) -> None:
    before = now()
    surface_id = _add_surface(database)
    with database.session() as session:
        created = session.get_one(SurfaceRow, surface_id).created
    assert created.tzinfo is UTC
    assert before <= created <= now()


def test_pages_hold_every_row_once_also_if_rows_are_added_meanwhile(database: Database) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    for i in range(7):  # two at each time
        _add_surface(database, id=f"{i:032x}", created=start + timedelta(seconds=i // 2))
    seen: list[str] = []
    cursor = None
    while True:
        with database.session() as session:
            rows, cursor = page(session, SurfaceRow, 2, cursor, "")
        seen += [row.id for row in rows]
        _add_surface(database, id=f"{len(seen):032d}"[::-1].replace("0", "f", 5), created=start + timedelta(days=1))
        if cursor is None:
            break
    assert seen == [f"{i:032x}" for i in reversed(range(7))]


@pytest.mark.parametrize("cursor", ["", "nonsense", "bm9uc2Vuc2U=", "é"])
def test_a_cursor_that_is_none(database: Database, cursor: str) -> None:
    with database.session() as session, pytest.raises(InputError, match="cursor"):
        page(session, SurfaceRow, 2, cursor, "")


def test_databases_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="postgresql://"):
        Database.open("mysql://me@host/qsde", tmp_path)
