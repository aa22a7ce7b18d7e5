"""Parquet files as sources."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from qsde.errors import FileFormatError
from qsde.io.files import Limits
from qsde.io.source import BROKEN, ROW, Origin, Source

#: Rows that are read at a time, and bytes of a value in memory.
_ROWS, _NUMBER = 250_000, 8


def open_parquet(path: Path, limits: Limits) -> Source:
    """Reads the schema and prepares reading in batches of rows.

    Raises:
        FileFormatError: the file is larger than the limit, incomplete or damaged.
    """
    size = path.stat().st_size
    limits.check(path, size)
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _incomplete(path, error) from error
    found = tuple(file.schema_arrow.names)
    total = file.metadata.num_rows
    limits.check(path, _NUMBER * total * len(found))  # equal values take next to no room in the file

    def batches(names: Sequence[str], wanted: Collection[str]) -> Iterator[pd.DataFrame]:
        chosen = {n: f for n, f in zip(names, found, strict=True) if n in wanted}
        start = 1
        try:
            for batch in file.iter_batches(batch_size=_ROWS, columns=list(dict.fromkeys(chosen.values()))):
                batch.validate(full=True)
                rows = np.arange(start, start + len(batch))
                start += len(batch)
                columns = {n: batch.column(f).to_pandas().set_axis(rows) for n, f in chosen.items()}
                limits.report(size * (start - 1) // max(total, 1), size)
                yield pd.DataFrame(columns, index=rows).assign(**{ROW: rows, BROKEN: None})
        except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
            raise _incomplete(path, error) from error

    return Source(Origin(str(path), path.name), found, batches)


def _incomplete(path: Path, error: Exception) -> FileFormatError:
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return FileFormatError(
        f"{path}: not a complete Parquet file; copy or download it again, or write it anew ({reason})"
    )
