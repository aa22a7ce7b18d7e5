"""Many files, many surfaces: one row per surface in a parquet file that survives interruptions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from qsde import __version__
from qsde.calibration import calibrate_many
from qsde.calibration.fit import Fit
from qsde.errors import InputError, QsdeError
from qsde.io import read_quotes
from qsde.market.quotes import Quotes
from qsde.market.surface import Surface
from qsde.spec import LEVERAGED, CalibrationSpec, MarketSpec, ReadingSpec
from qsde.writing import reserve, write_atomic

Row = dict[str, Any]
#: Columns every row has; parameters follow by name and their standard errors as `<name>_se`.
COLUMNS = ("file", "underlying", "quote_time", "model", "status", "message", "n_quotes", "n_rejected", "n_expiries",
           "rmse_bp", "weighted_rmse_bp", "inside_share", "seconds", "iterations", "starts_agreeing", "at_bounds",
           "warnings", "file_hash", "settings_hash", "qsde_version")  # fmt: skip
#: Status of a row whose file could not be read, cleaned or fitted at all.
ERROR = "error"


@dataclass(frozen=True)
class Step:
    """Where a batch stands: the file in work, and how much of its work is done."""

    file: str
    file_number: int
    files: int
    done: int
    total: int


@dataclass(frozen=True)
class BatchResult:
    """What a batch left behind.

    Attributes:
        rows: all rows of the requested files, one per surface, columns `COLUMNS` and the parameters.
        skipped: files taken from an earlier run.
        path: the parquet file.
    """

    rows: pd.DataFrame
    skipped: int
    path: Path

    @property
    def failed(self) -> pd.DataFrame:
        """The rows that are not converged fits."""
        return self.rows[self.rows["status"] != "converged"]

    @property
    def exit_code(self) -> int:
        """1 if any row failed, else 0."""
        return int(len(self.failed) > 0)


@dataclass(frozen=True)
class _Settings:
    calibration: CalibrationSpec
    market: MarketSpec
    reading: ReadingSpec

    @property
    def hash(self) -> str:
        parts = [spec.model_dump(mode="json") for spec in (self.calibration, self.market, self.reading)]
        rates = _file_hash(Path(self.market.treasury)) if self.market.treasury else ""
        return hashlib.sha256(json.dumps([*parts, rates], sort_keys=True).encode()).hexdigest()[:16]


def run_batch(
    files: Iterable[str | Path],
    model: str | CalibrationSpec,
    out: str | Path,
    *,
    market: MarketSpec | None = None,
    reading: ReadingSpec | None = None,
    retry_failed: bool = False,
    progress: Callable[[Step], None] | None = None,
) -> BatchResult:
    """Fits every surface of every file and writes one row per surface to the parquet file `out`.

    The surfaces of a file are fitted together. A file, surface or fit that fails becomes a row with its message. `out`
    is rewritten in one piece after each file, so an interruption loses at most the file in work, and several runs may
    write to it at once (an empty `.NAME.lock` stays beside it); a rerun skips files whose content and settings are
    unchanged.

    Args:
        files: paths of option chains.
        model: model name, or how to calibrate.
        out: parquet file to write or to continue.
        market: rates and dividend yields, by default from the quotes.
        reading: how to read the files.
        retry_failed: work again on files with failed rows, although nothing changed.
        progress: called before each file and while its surfaces are fitted.

    Raises:
        InputError: there is no file, or `out` cannot be written or is something else than a table of fits.
    """
    calibration = CalibrationSpec(model=model) if isinstance(model, str) else model
    settings = _Settings(calibration, market or MarketSpec(), reading or ReadingSpec())
    names = list(dict.fromkeys(str(f) for f in files))
    if not names:
        raise InputError("no files to fit: give at least one option chain")
    path = Path(out)
    table = _earlier(path)
    skipped = 0
    for number, name in enumerate(names, start=1):
        tell = _teller(progress, name, number, len(names))
        tell(0, 0)
        digest = _file_hash(Path(name))
        if _is_done(table, name, digest, settings.hash, retry_failed):
            skipped += 1
            continue
        stamp = {"file": name, "model": calibration.model, "file_hash": digest, "settings_hash": settings.hash,
                 "qsde_version": __version__}  # fmt: skip
        rows = [{**row, **stamp} for row in _file_rows(Path(name), settings, tell)]
        table = _added(path, name, calibration.model, rows)
    mine = table["file"].isin(names) & (table["model"] == calibration.model)
    return BatchResult(table[mine].reset_index(drop=True), skipped, path)


Tell = Callable[[int, int], None]


def _teller(progress: Callable[[Step], None] | None, name: str, number: int, files: int) -> Tell:
    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(Step(name, number, files, done, total))

    return tell


def _file_rows(path: Path, settings: _Settings, tell: Tell) -> list[Row]:
    """Rows of one file; whatever goes wrong becomes a row, so that the other files are still fitted."""
    try:
        parts = list(read_quotes(path, **settings.reading.arguments()).surfaces())
        surfaces = [_surface(part, settings.market) for part in parts]
    except Exception as error:
        return [{"status": ERROR, "message": _message(error)}]
    ready = [s for s in surfaces if isinstance(s, Surface)]
    fits = iter(_fit(ready, settings.calibration, tell))
    return [
        _row(s, next(fits)) if isinstance(s, Surface) else {**_identity(part), **s}
        for part, s in zip(parts, surfaces, strict=True)
    ] or [{"status": ERROR, "message": "the file holds no quotes"}]


def _surface(part: Quotes, market: MarketSpec) -> Surface | Row:
    try:
        return market.surface(part)
    except Exception as error:
        return {"status": ERROR, "message": _message(error), "n_quotes": 0,
                "n_rejected": len(part) + len(part.rejected)}  # fmt: skip


def _fit(surfaces: Sequence[Surface], spec: CalibrationSpec, tell: Tell) -> list[Fit | Exception]:
    """Fits all surfaces together; if that raises, one by one, to tell the guilty from the others.

    Models with a leverage, whose fits take long, are fitted one by one at once: nothing is done twice.
    """
    if not surfaces:
        return []
    leveraged, alone = spec.model in LEVERAGED, len(surfaces) == 1
    if alone or not leveraged:
        try:
            if leveraged:
                return [spec.fit(surfaces[0], tell)]
            return list(calibrate_many(spec.build_template(), list(surfaces), **spec.arguments(), progress=tell))
        except Exception as error:
            if alone:
                return [error]
    silent: Tell = _teller(None, "", 0, 0)
    return [outcome for s in surfaces for outcome in _fit([s], spec, silent)]


def _row(surface: Surface, outcome: Fit | Exception) -> Row:
    base = {"underlying": surface.underlying, "quote_time": surface.quote_time, "n_quotes": len(surface),
            "n_rejected": len(surface.rejected), "n_expiries": len(surface.slices)}  # fmt: skip
    if isinstance(outcome, Exception):
        return {**base, "status": ERROR, "message": _message(outcome)}
    return {**base, **_fit_columns(outcome)}


def _fit_columns(fit: Fit) -> Row:
    return {
        "status": fit.status.name.lower(),
        "message": fit.status.value,
        "rmse_bp": fit.rmse_bp,
        "weighted_rmse_bp": fit.weighted_rmse_bp,
        "inside_share": fit.inside_share,
        "seconds": fit.seconds,
        "iterations": fit.iterations,
        "starts_agreeing": fit.starts_agreeing,
        "at_bounds": ", ".join(fit.at_bounds),
        "warnings": " | ".join((*fit.surface.warnings, *fit.warnings)),
        **fit.params,
        **{f"{name}_se": value for name, value in fit.std_errors.items()},
    }


def _identity(part: Quotes) -> Row:
    first = (part.frame if len(part) else part.rejected).iloc[0]
    name, moment = first["underlying"], first["quote_time"]
    return {"underlying": "" if pd.isna(name) else name, "quote_time": "" if pd.isna(moment) else moment.isoformat()}


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, QsdeError) else f"unexpected {type(error).__name__}: {error}"


def _file_hash(path: Path) -> str:
    """SHA-256 of the file, "" where it cannot be read: such a file is never taken as done."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _earlier(path: Path) -> pd.DataFrame:
    reserve(path)
    if path.suffix != ".parquet":
        raise InputError(f"the output of a batch is a parquet file: name it {path.with_suffix('.parquet')}")
    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        table = pd.read_parquet(path)
    except Exception as error:
        raise InputError(f"{path} exists but cannot be read as parquet ({error}): move it or choose another") from None
    if not set(COLUMNS) <= set(table.columns):
        raise InputError(f"{path} exists but is not a table of fits: choose another output file")
    return table


def _is_done(table: pd.DataFrame, name: str, digest: str, settings: str, retry_failed: bool) -> bool:
    same = (table["file"] == name) & (table["file_hash"] == digest) & (table["settings_hash"] == settings)
    failed = retry_failed and bool((table["status"][same] != "converged").any())
    return digest != "" and bool(same.any()) and not failed


def _added(path: Path, name: str, model: str, rows: list[Row]) -> pd.DataFrame:
    """The table in the file with the rows of one more, written; what another run wrote meanwhile stays."""
    with FileLock(path.with_name(f".{path.name}.lock")):
        table = _merged(_earlier(path), name, model, rows)
        _write(table, path)
    return table


def _merged(table: pd.DataFrame, name: str, model: str, rows: list[Row]) -> pd.DataFrame:
    kept = table[(table["file"] != name) | (table["model"] != model)]
    records = [{str(k): v for k, v in r.items()} for r in kept.to_dict("records")] + rows
    merged = pd.DataFrame.from_records(records)
    numeric = [c for c in merged.columns if c not in _TEXT]
    merged[numeric] = merged[numeric].apply(pd.to_numeric)
    rest = [c for c in merged.columns if c not in COLUMNS]
    full = merged.reindex(columns=[*COLUMNS, *rest])
    return full.assign(**{c: full[c].astype(object).where(full[c].notna(), "").astype(str) for c in _TEXT})


_TEXT = ("file", "underlying", "quote_time", "model", "status", "message", "at_bounds", "warnings", "file_hash",
         "settings_hash", "qsde_version")  # fmt: skip


def _write(table: pd.DataFrame, path: Path) -> None:
    with write_atomic(path, binary=True) as file:
        table.to_parquet(file, index=False)
