"""What the worker that reads uploads does: a file in, stored surfaces and what is wrong with the others out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from qsde.cli.chains import choose, label
from qsde.errors import QsdeError
from qsde.io import read_quotes
from qsde.market.quotes import Quotes
from qsde.market.surface import Surface
from service.answers import Reply
from service.errors import Problem, internal, shortened
from service.kept import Expiry, SurfaceOptions, SurfaceReport
from service.limits import exceeded
from service.log import log
from service.settings import Settings
from service.storage.database import Database
from service.storage.payloads import remove_payload
from service.storage.surfaces import write_surface
from service.workers import Handle, Tell


@dataclass(frozen=True)
class Upload:
    """A file that was received.

    Attributes:
        path: where it is.
        name: what its sender calls it.
        options: how to read it.
    """

    path: Path
    name: str
    options: SurfaceOptions


@dataclass(frozen=True)
class Written:
    """A surface whose payload is written."""

    report: SurfaceReport
    payload: str


@dataclass(frozen=True)
class Read:
    """What was found in a file: surfaces, and names and messages of those that could not be built."""

    stored: tuple[Written, ...]
    failed: tuple[tuple[str, str], ...]


def prepare(settings: Settings) -> Handle:
    """Opens the database."""
    torch.set_num_threads(1)
    return partial(_read, settings, Database.open(settings.database_url, settings.data_dir))


def _read(settings: Settings, database: Database, upload: Upload, tell: Tell) -> Read | Reply:
    stored: list[Written] = []
    try:
        failed = _stored(settings, database, upload, stored)
    except Exception as error:
        for one in stored:
            remove_payload(database.folder, one.payload)
        problem = _problem(error, upload)
        return problem.status, problem.body()
    return Read(tuple(stored), tuple(failed))


def _problem(error: Exception, upload: Upload) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, QsdeError):
        return Problem.of(_without(upload, str(error)))
    if isinstance(error, MemoryError):
        return Problem(422, f"{upload.name}: reading it needs more memory than a worker has; split the file")
    if isinstance(error, UnicodeError):
        return Problem(422, f"{upload.name}: holds text that is no Unicode; save the file as UTF-8")
    log.exception("an upload could not be read")
    return internal()


def _stored(settings: Settings, database: Database, upload: Upload, stored: list[Written]) -> list[tuple[str, str]]:
    """Adds what can be built to `stored`; returns what cannot be."""
    options = upload.options
    quotes = read_quotes(upload.path, **options.reading().arguments(), max_bytes=settings.max_unpacked_bytes)
    quotes = replace(quotes, source=upload.name)
    parts = choose(list(quotes.surfaces()), options.date, options.symbol, options.surface)
    if len(parts) > settings.max_surfaces:
        fix = f"{len(parts)} were sent; choose with date, symbol or surface, or send fewer"
        raise exceeded("max_surfaces", settings.max_surfaces, "surfaces in a file", fix)
    failed = []
    for _, part in parts:
        try:
            surface = options.market().surface(part)
        except QsdeError as error:
            failed.append((label(part), _without(upload, str(error))))
            continue
        stored.append(Written(_report(part, surface), write_surface(database, surface)))
    if not stored:
        name, message = failed[0]
        more = f"; and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise Problem(422, f"{name}: {message}{more}")
    return failed


def _without(upload: Upload, message: str) -> str:
    """A message without the place of the file on the server."""
    return shortened(message.replace(str(upload.path), upload.name))


def _report(part: Quotes, surface: Surface) -> SurfaceReport:
    counts = surface.rejected["reason"].value_counts()
    return SurfaceReport(
        name=surface.name.replace("\0", ""),  # which PostgreSQL does not store
        underlying=surface.underlying,
        quote_time=surface.quote_time,
        spot=_number(surface.spot),
        read=len(part) + len(part.rejected),
        quotes=len(surface),
        set_aside={str(reason): int(count) for reason, count in counts.items()},
        expiries=[_expiry(row) for row in surface.slices.to_dict("records")],
        warnings=list(surface.warnings),
    )


def _expiry(row: dict[Any, Any]) -> Expiry:
    numbers = ("t", "forward", "discount_factor", "rate", "share_in_spread")
    return Expiry(
        expiry=str(row["expiry"]),
        forward_source=str(row["forward_source"]),
        pairs=int(row["n_pairs"]),
        quotes=int(row["n_quotes"]),
        **{name: _number(row[name]) for name in numbers},
    )


def _number(value: float) -> float | None:
    return float(value) if pd.notna(value) else None
