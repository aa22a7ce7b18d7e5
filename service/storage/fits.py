"""Fits as rows and payloads."""

from __future__ import annotations

from typing import Any

from qsde.calibration.fit import Fit
from qsde.spec import FitRecord
from service.storage.database import Database
from service.storage.payloads import read_payload, write_payload
from service.storage.surfaces import surface_record
from service.storage.tables import FitRow

_BY_QUOTE = ("model_iv", "residual_bp", "weight")


def write_fit(database: Database, fit: Fit) -> tuple[dict[str, Any], str]:
    """Writes the numbers by quote of a fit; returns the rest of its record, and the name of the payload."""
    record = FitRecord.of(fit)
    rest = record.model_dump(mode="json", exclude={*_BY_QUOTE, "jacobian", "surface"})
    columns = {name: getattr(record, name) for name in _BY_QUOTE}
    slopes = {f"d_{name}": [row[i] for row in record.jacobian] for i, name in enumerate(record.free)}
    return rest, write_payload(database.folder, {"quotes": columns | slopes})


def read_fit(database: Database, fit_id: str) -> Fit:
    """The fit of a row that exists."""
    with database.session() as session:
        row = session.get_one(FitRow, fit_id)
    columns = read_payload(database.folder, row.payload)["quotes"]
    slopes = [columns[f"d_{name}"] for name in row.record["free"]]
    jacobian = [list(values) for values in zip(*slopes, strict=True)] or [[] for _ in columns["weight"]]
    numbers = {name: columns[name] for name in _BY_QUOTE}
    surface = surface_record(database, row.surface_id)
    return FitRecord.model_validate({**row.record, **numbers, "jacobian": jacobian, "surface": surface}).build()
