"""What every kind of file is turned into before its vendor is known: named columns in batches of rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd

from qsde.io.dates import Order

#: Batches carry the 1-based row of the file here, and why a line could not be split into fields (None where it could).
ROW, BROKEN = "_row", "_broken"


@dataclass(frozen=True)
class Origin:
    """Where rows come from: path, lines above the header, and what is collected on the way.

    Attributes:
        path: the file.
        file_name: its name.
        preamble: lines above the header.
        warnings: sentences for the user.
        orders: what the slashed dates of each batch so far say of their order.
    """

    path: str
    file_name: str
    preamble: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """A file opened as a table.

    Attributes:
        origin: where the rows come from.
        found: column names as printed in the file, in order.
        batches: given one unique name per column and the names wanted, yields frames of the wanted columns with `ROW`
            and `BROKEN`.
    """

    origin: Origin
    found: tuple[str, ...]
    batches: Callable[[Sequence[str], Collection[str]], Iterator[pd.DataFrame]]


def normal(name: object) -> str:
    """A column name without case, brackets, marks and blanks, by which columns are recognised.

    Example:
        >>> normal(" [QUOTE_DATE]"), normal("Open Interest"), normal("#expiry")
        ('quote_date', 'open_interest', 'expiry')
    """
    return "_".join(str(name).strip("\ufeff \t\"'[]#").lower().split())


def unique_names(found: Sequence[str]) -> list[str]:
    """Normal names made unique by position: the second "bid" becomes "bid.1".

    Example:
        >>> unique_names(["Strike", "Bid", "Bid"])
        ['strike', 'bid', 'bid.1']
    """
    seen: dict[str, int] = {}
    names = []
    for name in map(normal, found):
        count = seen.get(name, 0)
        seen[name] = count + 1
        names.append(f"{name}.{count}" if count else name)
    return names
