"""Every surface of the shipped chains through `run_batch`: each must converge, or say why it did not.

GOOG (hourly snapshots, and another vendor's end-of-day file of last trades and mids), nine BTC snapshots, and three
SPX chains, with the default settings and every quote. One row per surface: its error, and in the note its status and
its share of the seconds of its file's fit. The seconds at the end include reading and cleaning.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pandas as pd
from harness import Row, arguments, report, seconds

from qsde.batch import run_batch

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    "data/goog_2015_intraday/goog_hourly_2015-12-23.parquet",
    "data/deribit_btc_eth/btc_2023-07.parquet",
    "tests/fixtures/vendor_raw/lean_universe_goog_20151224.csv",
    "data/spx_vix_2023-02-15/spx_2023-02-15.parquet",
    "tests/fixtures/spx_eod_yahoo/spx_2026-07-31.parquet",
    "tests/fixtures/vendor_raw/yahoo_option_chain_spx_2026-07-31.json.gz",
)
QUICK = 2


def fits(model: str, files: tuple[str, ...]) -> tuple[pd.DataFrame, float]:
    """The rows of the batch, and its seconds in all."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "fits.parquet"
        elapsed = seconds(lambda: found.append(run_batch([ROOT / f for f in files], model, out)))
    return found[0].rows, elapsed


def surface_row(r: pd.Series) -> Row:
    """One surface: its RMSE, and its status, quotes and seconds in the note."""
    name = f"{r.underlying or Path(r.file).name} {r.quote_time[:16].replace('T', ' ')}"
    note = f"{r.status}, {r.n_quotes:,.0f} quotes, {r.seconds:.2f} s" if r.seconds > 0 else r.status
    why = "" if r.status == "converged" else f"; {r.message}"
    return Row(f"{r.model} {name}", r.rmse_bp, None, unit="bp", note=note + why)


def explained(rows: pd.DataFrame) -> pd.Series:
    """Whether each surface converged, or failed for a reason that a user can read."""
    said = (rows["message"] != "") & ~rows["message"].str.startswith("unexpected")
    return (rows["status"] == "converged") | said


def main() -> int:
    """Prints one row per surface and the totals; exit code 1 if one neither converged nor is explained."""
    options = arguments(__doc__)
    rows, good = [], True
    for model in ("heston",) if options.quick else ("heston", "bates"):
        table, elapsed = fits(model, FILES[:QUICK] if options.quick else FILES)
        rows += [surface_row(r) for _, r in table.iterrows()]
        converged = int((table["status"] == "converged").sum())
        silent = len(table) - int(explained(table).sum())
        good = good and silent == 0
        note = f"{len(table)} surfaces, {converged} converged, {len(table) - converged - silent} explained"
        rows.append(Row(f"{model} all", elapsed, None, note=f"{note}, {silent} neither"))
    return 0 if report(rows, options.json) and good else 1


if __name__ == "__main__":
    sys.exit(main())
