"""Surfaces as rows and payloads."""

from __future__ import annotations

from qsde.market.surface import Surface
from qsde.spec.surfaces import SurfaceRecord
from service.storage.database import Database
from service.storage.payloads import read_payload, write_payload
from service.storage.tables import SurfaceRow

_TABLES = ("slices", "quotes", "rejected")


def write_surface(database: Database, surface: Surface) -> str:
    """Writes the payload of a surface, and returns its name."""
    record = SurfaceRecord.of(surface)
    rest = record.model_dump(mode="json", exclude=set(_TABLES))
    tables = {name: getattr(record, name) for name in _TABLES} | {"surface": {k: [v] for k, v in rest.items()}}
    return write_payload(database.folder, tables)


def read_surface(database: Database, surface_id: str) -> Surface:
    """The surface of a row that exists."""
    return surface_record(database, surface_id).build()


def surface_record(database: Database, surface_id: str) -> SurfaceRecord:
    """The record of the surface of a row that exists."""
    with database.session() as session:
        row = session.get_one(SurfaceRow, surface_id)
    tables = read_payload(database.folder, row.payload)
    rest = {name: values[0] for name, values in tables.pop("surface").items()}
    return SurfaceRecord.model_validate({**rest, **tables})
