"""Reading a chain for a command: the file with a progress bar, and the one surface that is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qsde.cli.show import progress
from qsde.errors import InputError

if TYPE_CHECKING:
    from qsde.market.quotes import Quotes
    from qsde.spec import ReadingSpec

CHOOSING = "Choosing a surface"
_SHOWN = 12


@dataclass(frozen=True)
class Choice:
    """Which surface of the file is wanted."""

    date: Annotated[
        str | None, typer.Option(help="Quote time, or its beginning: 2023-02-15.", rich_help_panel=CHOOSING)
    ] = None
    symbol: Annotated[str | None, typer.Option(help="Underlying to take.", rich_help_panel=CHOOSING)] = None
    surface: Annotated[
        int | None, typer.Option(help="Number in the list of `qsde inspect`.", rich_help_panel=CHOOSING)
    ] = None

    def of(self, parts: list[Quotes]) -> list[tuple[int, Quotes]]:
        """The parts that match, with their numbers from 1; see `choose`."""
        return choose(parts, self.date, self.symbol, self.surface)

    def one(self, parts: list[Quotes]) -> Quotes:
        """The one part that matches.

        Raises:
            InputError: none or several match; the message lists them and says how to choose.
        """
        found = self.of(parts)
        if len(found) > 1:
            raise InputError(
                f"the file holds {len(found)} surfaces: {listing([p for _, p in found])}. Choose one with --date, "
                "--symbol or --surface NUMBER (numbers: qsde inspect), or fit them all with qsde batch"
            )
        return found[0][1]


def read_parts(path: Path, reading: ReadingSpec) -> list[Quotes]:
    """The quotes of the file, one part per underlying and quote time."""
    from qsde.io import read_quotes

    with progress(f"reading {path.name}") as tell:
        quotes = read_quotes(path, **reading.arguments(), progress=tell)
    return list(quotes.surfaces())


def label(part: Quotes) -> str:
    """Underlying and quote time of a part."""
    first = (part.frame if len(part) else part.rejected).iloc[0]
    return f"{_text(first['underlying'])} {_text(first['quote_time'])}"


def _text(value: object) -> str:
    import pandas as pd

    return "?" if pd.isna(value) else str(value).replace("+00:00", "Z")  # type: ignore[call-overload]


def choose(parts: list[Quotes], date: str | None, symbol: str | None, number: int | None) -> list[tuple[int, Quotes]]:
    """The parts that match, with their numbers from 1.

    Raises:
        InputError: nothing matches; the message lists what there is.
    """
    numbered = list(enumerate(parts, start=1))
    if number is not None:
        numbered = [(i, p) for i, p in numbered if i == number]
    if symbol is not None:
        numbered = [(i, p) for i, p in numbered if label(p).split(" ")[0].upper() == symbol.upper()]
    if date is not None:
        wanted = date.replace("T", " ")
        numbered = [(i, p) for i, p in numbered if label(p).partition(" ")[2].startswith(wanted)]
    if not numbered:
        raise InputError(f"no surface matches; the file holds {listing(parts)}")
    return numbered


def listing(parts: list[Quotes]) -> str:
    """Labels of the parts in one line."""
    more = f", and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return ", ".join(label(p) for p in parts[:_SHOWN]) + more
