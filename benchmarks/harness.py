"""What every benchmark shares: alternating rounds, rows with a floor, the printed table and its JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("qsde", "torch", "numpy", "scipy", "QuantLib", "torchsde", "diffrax", "arch", "py_lets_be_rational")


@dataclass(frozen=True)
class Row:
    """One figure: ours against the peer's, `ratio` so that larger is better for us, and the floor it must reach."""

    figure: str
    ours: float
    peer: float | None
    floor: float | None = None
    unit: str = "s"
    larger_is_better: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better we are; None without a peer."""
        if self.peer is None:
            return None
        better, worse = (self.ours, self.peer) if self.larger_is_better else (self.peer, self.ours)
        return better / worse if worse else float("inf")

    @property
    def holds(self) -> bool | None:
        """Whether the ratio reaches the floor; None where there is nothing to compare."""
        if self.ratio is None or self.floor is None:
            return None
        return self.ratio >= self.floor


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(ours: Callable[[], object], peer: Callable[[], object], rounds: int = 7) -> tuple[float, float]:
    """Median seconds of each, run in turn so that both see the same machine, after one warm-up call each."""
    ours()
    peer()
    pairs = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The two options of every benchmark, `--quick` and `--json FILE`; a script may add its own."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="end within a minute")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    return options


def arguments(description: str | None) -> argparse.Namespace:
    """The options that the script was given."""
    return parser(description).parse_args()


def machine() -> dict[str, object]:
    """Processor, cores, system and the versions of what is compared."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES if _version(name)},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def report(rows: Sequence[Row], json_path: Path | None = None, merge: bool = False) -> bool:
    """Print the table, write the JSON if asked to; True when no row misses its floor.

    Rows of other figures that are in the file already stay if they are to be merged.
    """
    header = ("figure", "ours", "peer", "ratio", "floor", "holds")
    table = [header, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    for n, line in enumerate(table):
        print(" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if n == 0:
            print("-|-".join("-" * width for width in widths))
    for row in rows:
        if row.note:
            print(f"  {row.figure}: {row.note}")
    if json_path is not None:
        lines = [{**asdict(row), "ratio": row.ratio, "holds": row.holds} for row in rows]
        if merge and json_path.exists():
            old = json.loads(json_path.read_text())["rows"]
            new = {line["figure"]: line for line in lines}
            lines = [new.pop(line["figure"], line) for line in old] + list(new.values())
        json_path.write_text(json.dumps({"machine": machine(), "rows": lines}, indent=2) + "\n")
    return all(row.holds is not False for row in rows)


def _cells(row: Row) -> tuple[str, ...]:
    def number(value: float | None, unit: str = "") -> str:
        return "-" if value is None else f"{value:.3g} {unit}".strip()

    holds = {True: "yes", False: "NO", None: "-"}[row.holds]
    missing = "not installed" if row.floor is not None else "-"
    peer = number(row.peer, row.unit) if row.peer is not None else missing
    return (row.figure, number(row.ours, row.unit), peer, number(row.ratio), number(row.floor), holds)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
