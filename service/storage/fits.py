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
#: Those of a training, where the Jacobian has a column for each weight of a network.
_OF_TRAINING = ("jacobian", "weight", "held_out", "step_bias_bp", "step_bias_error_bp")


def write_fit(database: Database, fit: Fit) -> tuple[dict[str, Any], str]:
    """Writes the numbers by quote of a fit; returns the rest of its record, and the name of the payload."""
    record = FitRecord.of(fit)
    left_out: dict[str, Any] = dict.fromkeys((*_BY_QUOTE, "jacobian", "surface"), True)
    rest = record.model_dump(mode="json", exclude=left_out | {"training": set(_OF_TRAINING)})
    columns = {name: getattr(record, name) for name in _BY_QUOTE}
    slopes = {f"d_{name}": [row[i] for row in record.jacobian] for i, name in enumerate(record.free)}
    tables = {"quotes": columns | slopes}
    if record.training is not None:
        tables["training"] = {name: getattr(record.training, name) for name in _OF_TRAINING}
    return rest, write_payload(database.folder, tables)


def read_fit(database: Database, fit_id: str) -> Fit:
    """The fit of a row that exists."""
    with database.session() as session:
        row = session.get_one(FitRow, fit_id)
    tables = read_payload(database.folder, row.payload)
    columns = tables["quotes"]
    slopes = [columns[f"d_{name}"] for name in row.record["free"]]
    jacobian = [list(values) for values in zip(*slopes, strict=True)] or [[] for _ in columns["weight"]]
    numbers = {name: columns[name] for name in _BY_QUOTE}
    training = {**row.record["training"], **tables["training"]} if "training" in tables else None
    parts = {"jacobian": jacobian, "surface": surface_record(database, row.surface_id), "training": training}
    return FitRecord.model_validate({**row.record, **numbers, **parts}).build()
