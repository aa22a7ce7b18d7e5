"""Delimited text of any size, read in blocks; lines that do not fit the header are kept with the reason."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from qsde.errors import FileFormatError
from qsde.io.files import InputFile, Limits
from qsde.io.source import BROKEN, ROW, Origin, Source, normal

_BLOCK = 8 << 20
_LONGEST_LINE = 64 << 20
_HEADER_LINES = 12
_DELIMITERS = ",;\t|"


def open_delimited(path: Path, packing: str, limits: Limits, known: Collection[str]) -> Source:
    """Finds the header (the line among the first with the most `known` names) and prepares reading below it."""
    with InputFile(path, replace(limits, progress=None), packing) as file:
        first = next(_text_blocks(file, 1 << 18, []), b"")
    if not first.strip():
        raise FileFormatError(f"{path}: is empty; give a CSV, Parquet or JSON file with one option per row")
    position, delimiter = _find_header(first, known)
    lines = first.splitlines(keepends=True)
    skip = sum(map(len, lines[: position + 1]))
    found = _split(lines[position], delimiter)
    preamble = tuple(line.decode("utf-8", "replace").strip() for line in lines[:position] if line.strip())
    origin = Origin(str(path), path.name, preamble)

    def batches(names: Sequence[str], wanted: Collection[str]) -> Iterator[pd.DataFrame]:
        start = 1
        with InputFile(path, limits, packing) as file:
            blocks = _text_blocks(file, _BLOCK, origin.warnings)
            head = next(blocks, b"")
            for block in chain((head[skip:],), blocks):
                frame = _parse_block(block, names, wanted, delimiter, start)
                start += len(frame)
                yield frame

    return Source(origin, tuple(found), batches)


def _text_blocks(file: InputFile, size: int, warnings: list[str]) -> Iterator[bytes]:
    """Whole lines as UTF-8, about `size` bytes at a time."""
    rest = file.read(size)
    if rest.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield _from_utf16(file, rest)
        return
    rest = rest.removeprefix(b"\xef\xbb\xbf")
    while data := file.read(size):
        rest += data
        cut = rest.rfind(b"\n" if b"\n" in rest else b"\r") + 1
        if cut == 0 and len(rest) > _LONGEST_LINE:
            raise FileFormatError(f"{file.path}: a line is longer than {_LONGEST_LINE:,} bytes; this is not a CSV file")
        if cut:
            yield _as_utf8(rest[:cut], warnings)
        rest = rest[cut:]
    if rest:
        yield _as_utf8(rest, warnings)


def _as_utf8(block: bytes, warnings: list[str]) -> bytes:
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        warnings.append("the file is not UTF-8 text; it was read as Latin-1")
        return block.decode("latin-1").encode("utf-8")
    return block


def _from_utf16(file: InputFile, start: bytes) -> bytes:
    try:
        return (start + file.read_all()).decode("utf-16").encode("utf-8")
    except UnicodeError as error:
        raise FileFormatError(f"{file.path}: not complete UTF-16 text ({error}); save it as UTF-8 CSV") from error


def _find_header(block: bytes, known: Collection[str]) -> tuple[int, str]:
    """Line number and delimiter of the header: the most known names, then the first line, the most fields."""
    best = (-1, 0, 0)
    place = (0, ",")
    filled = [(i, line) for i, line in enumerate(block.splitlines()) if line.strip()]
    for position, line in filled[:_HEADER_LINES]:
        for delimiter in _DELIMITERS:
            fields = _split(line, delimiter)
            score = (sum(normal(f) in known for f in fields), -position, len(fields))
            if score > best:
                best, place = score, (position, delimiter)
    return place


def _split(line: bytes, delimiter: str) -> list[str]:
    text = line.decode("utf-8", "replace").strip("\r\n")
    try:
        return next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return [text]


def _closed_quotes(block: bytes) -> bytes:
    """Takes the quotes out of lines with an odd number of them, which would swallow the lines that follow."""
    if b'"' not in block:
        return block
    lines = block.splitlines(keepends=True)
    return b"".join(line.replace(b'"', b"") if line.count(b'"') % 2 else line for line in lines)


def _parse_block(
    block: bytes, names: Sequence[str], wanted: Collection[str], delimiter: str, start: int
) -> pd.DataFrame:
    """One block as text columns, with the lines of another width as rows of missing values."""
    broken: dict[int, str] = {}

    def keep(row: pyarrow.csv.InvalidRow) -> str:
        number, width, text = row.number, row.actual_columns, row.text
        broken[number] = f"the line has {width} fields where the header has {len(names)}: {text[:60]!r}"
        return "skip"

    chosen = [n for n in names if n in wanted]
    if not block.strip():
        return pd.DataFrame({n: pd.Series(dtype=object) for n in chosen}).assign(**{ROW: 0, BROKEN: None})
    block = _closed_quotes(block)
    table = pyarrow.csv.read_csv(
        pa.BufferReader(block),
        pyarrow.csv.ReadOptions(column_names=list(names), use_threads=False, block_size=len(block) + 1),
        pyarrow.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=keep),
        pyarrow.csv.ConvertOptions(include_columns=chosen, column_types=dict.fromkeys(chosen, pa.string())),
    )
    rows = np.arange(1, len(table) + len(broken) + 1)
    good = rows[~np.isin(rows, list(broken))]
    frame: pd.DataFrame = table.to_pandas().set_index(good).reindex(rows).reset_index(drop=True)
    frame[ROW] = rows + start - 1
    why = np.full(len(rows), None, dtype=object)
    why[[number - 1 for number in broken]] = list(broken.values())
    frame[BROKEN] = why
    return frame
