"""Tables and progress bars: rich on a terminal, plain text where the output is piped."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

Tell = Callable[[int, int], None]
_PIPED_WIDTH = 160


def stdout() -> Console:
    """A console on the present stdout; wide, plain text where it is not a terminal."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False)


def line(text: str = "") -> None:
    """One line on stdout, exactly as given."""
    stdout().print(text, markup=False, soft_wrap=True)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> None:
    """A table on stdout; the first `text_columns` columns are aligned left."""
    shown = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(head):
        shown.add_column(name, justify="left" if i < text_columns else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(_plain(cell) for cell in row))
    stdout().print(shown)


def _plain(cell: str) -> str:
    return cell.replace("[", "\\[")


def number(value: float, pattern: str = ".4g", unit: str = "") -> str:
    """A formatted number with its unit; a dash where it is not finite."""
    if not math.isfinite(value):
        return "-"
    text = f"{value:{pattern}}"
    return (text.removeprefix("-") if not text.strip("-0.,") else text) + unit  # no minus zero


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of a frame as named tuples."""
    return iter(frame.itertuples())


@contextmanager
def progress(what: str) -> Iterator[Tell]:
    """A progress bar on stderr, fed with (done, total); one line that says what is going on where it is no terminal.

    What qsde logs meanwhile, such as the error after each step of a training, stands above it.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
               TimeElapsedColumn())  # fmt: skip
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        print(f"{what} ...", file=sys.stderr, flush=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)
        with _logged(lambda text: print(text, file=sys.stderr, flush=True)):
            yield lambda done, total: bar.update(task, completed=done, total=total or None)


@contextmanager
def _logged(say: Callable[[str], None]) -> Iterator[None]:
    """Says what qsde logs from level INFO on."""
    log, handler = logging.getLogger("qsde"), logging.Handler(logging.INFO)
    handler.emit = lambda record: say(record.getMessage())  # type: ignore[method-assign]
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
