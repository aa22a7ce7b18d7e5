"""Large tables as Parquet: a folder for each payload, which appears under its name in one piece."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

#: Columns by name; missing values are None.
Table = Mapping[str, Sequence[Any]]


def write_payload(folder: Path, tables: Mapping[str, Table]) -> str:
    """Writes tables of a new payload, and returns its name.

    The files are on the disk before the folder gets its name, so a row may point to it.
    """
    name = uuid.uuid4().hex
    unfinished = folder / "payloads" / f".{name}.tmp"
    unfinished.mkdir(parents=True)
    for table, columns in tables.items():
        with (unfinished / f"{table}.parquet").open("wb") as file:
            pyarrow.parquet.write_table(pa.table(dict(columns)), file)
            file.flush()
            os.fsync(file.fileno())
    _sync(unfinished)
    unfinished.rename(folder / "payloads" / name)
    _sync(folder / "payloads")
    return name


def read_payload(folder: Path, name: str) -> dict[str, dict[str, list[Any]]]:
    """The tables of a payload."""
    files = sorted((folder / "payloads" / name).glob("*.parquet"))
    return {file.stem: pyarrow.parquet.read_table(file, partitioning=None).to_pydict() for file in files}


def remove_payload(folder: Path, name: str) -> None:
    """Removes a payload that no row points to."""
    shutil.rmtree(folder / "payloads" / name, ignore_errors=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
