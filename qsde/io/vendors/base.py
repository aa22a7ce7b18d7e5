"""What a vendor's format is: the columns that give it away and where each canonical column is found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from qsde.io.source import Origin

#: Canonical columns that hold numbers; spot_bid, spot_ask and am_settlement serve only while reading.
NUMERIC = ("strike", "bid", "ask", "mid", "implied_vol", "iv_bid", "iv_ask", "spot", "spot_bid", "spot_ask", "forward",
           "discount_factor", "volume", "open_interest", "t", "am_settlement")  # fmt: skip
TEXT = ("underlying", "option_type", "exercise_style", "root")
TIMES = ("quote_time", "expiry_time")

Prepare = Callable[[pd.DataFrame, Origin], pd.DataFrame]


@dataclass(frozen=True)
class Vendor:
    """One format.

    Column names are in their `normal` form; "a|b" means the first of them that the file has.

    Attributes:
        name: short name, as in `Quotes.vendor`.
        title: how messages call it.
        needs: blank-separated columns that a file must have.
        columns: canonical column -> where it is found.
        legs: for wide formats, option type -> the columns of that leg.
        reads: further columns that `prepare` uses.
        zone: documented time zone of times printed without one.
        splits_roots: whether SPX and SPXW are told apart, so that root SPX means settlement at the open.
        percent_vols: whether the vendor documents vols in percent.
        prepare: decodes columns of a raw batch before they are renamed.
        finish: works on the typed table of the whole file (units, coin prices, rows that are no options).
    """

    name: str
    title: str
    needs: str
    columns: Mapping[str, str]
    legs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reads: str = ""
    zone: str | None = None
    splits_roots: bool = False
    percent_vols: bool = False
    prepare: Prepare | None = None
    finish: Prepare | None = None

    def missing(self, names: Collection[str]) -> list[str]:
        """The needed columns that are not among `names`; empty when the format fits."""
        return [group for group in self.needs.split() if not any(n in names for n in group.split("|"))]

    def used(self) -> frozenset[str]:
        """Every column name the format may read."""
        mappings = (self.columns, *self.legs.values())
        listed = [self.needs, self.reads, *(found for mapping in mappings for found in mapping.values())]
        return frozenset(name for text in listed for group in text.split() for name in group.split("|"))

    def rename(self, batch: pd.DataFrame) -> Iterator[tuple[dict[str, str], str | None]]:
        """For each leg: canonical -> column of the batch, and the option type of the leg (None for long formats)."""
        shared = _present(self.columns, batch)
        if not self.legs:
            yield shared, None
        for leg, mapping in self.legs.items():
            yield {**shared, **_present(mapping, batch)}, leg


def _present(mapping: Mapping[str, str], batch: pd.DataFrame) -> dict[str, str]:
    chosen = {}
    for canonical, choices in mapping.items():
        name = next((n for n in choices.split("|") if n in batch.columns), None)
        if name is not None:
            chosen[canonical] = name
    return chosen
