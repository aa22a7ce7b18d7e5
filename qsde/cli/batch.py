"""`qsde batch`: many surfaces of many files into one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qsde.cli import options as o
from qsde.cli.grouped import grouped
from qsde.cli.show import line, number, progress, records, table

if TYPE_CHECKING:
    from qsde.batch import BatchResult, Step

_SHOWN = 40


@grouped
def batch(
    *,
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Option chains: CSV, Parquet or JSON.")],
    model: Annotated[str, typer.Option("--model", "-m", help="As for qsde calibrate.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write or continue.")] = Path("fits.parquet"),
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Work on failed files again.")] = False,
    selection: o.Selection,
    fitting: o.Fitting,
    reading: o.Reading,
) -> None:
    """Fit every surface of every file; one row per surface, failures included, in a parquet file.

    Stop it at any time: a rerun skips files that are done. Exit code 1 if any surface failed.

    [bold]Example:[/bold] qsde batch data/goog_2015_intraday/*.parquet --model heston --out fits.parquet
    """
    spec = fitting.spec(model)
    from qsde.batch import run_batch

    with progress(f"fitting {spec.model}") as tell:

        def step(s: Step) -> None:
            inside = s.done / s.total if s.total else 0.0
            tell(round(1000 * (s.file_number - 1 + inside)), 1000 * s.files)

        result = run_batch(files, spec, out, market=selection.spec(), reading=reading.spec(), retry_failed=retry_failed,
                           progress=step)  # fmt: skip
    _summary(result)
    raise typer.Exit(result.exit_code)


def _summary(result: BatchResult) -> None:
    rows = [
        [Path(str(r.file)).name, f"{r.underlying} {r.quote_time}".strip() or "-", str(r.status),
         number(r.n_quotes, ",.0f"), number(r.rmse_bp, ".1f"), number(100 * r.inside_share, ".1f"),
         number(r.seconds, ".2f")]
        for r in records(result.rows.head(_SHOWN))
    ]  # fmt: skip
    head = ["file", "surface", "status", "quotes", "RMSE, bp of vol", "inside bid/ask, %", "seconds"]
    table("", head, rows, text_columns=3)
    for message, alike in result.failed.groupby("message", sort=False):
        first = next(records(alike))
        name = " ".join(filter(None, (Path(str(first.file)).name, first.underlying, first.quote_time)))
        line(f"{name}{f' and {len(alike) - 1:,} more' if len(alike) > 1 else ''}: {message}")
    count, failed = len(result.rows), len(result.failed)
    earlier = f", {result.skipped} files done earlier" if result.skipped else ""
    line(f"{count} surfaces, {count - failed} converged, {failed} failed{earlier}: {result.path}")
