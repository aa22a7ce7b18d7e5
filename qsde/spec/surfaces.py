"""Surfaces as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from qsde.errors import InputError
from qsde.market.quotes import COLUMNS, TEXT_COLUMNS, TIME_COLUMNS, empty_rejected
from qsde.market.surface import QUOTE_COLUMNS, SLICE_COLUMNS, Surface
from qsde.spec.base import Record
from qsde.spec.columns import Table, frame, known, table

#: Columns of rejected quotes that are worth keeping in a fit file.
REJECTED_COLUMNS = ("row", "expiry", "strike", "option_type", "bid", "ask", "mid", "reason", "detail")


class SurfaceRecord(Record):
    """A `Surface` as columns of JSON values; missing numbers are null."""

    underlying: str
    quote_time: str
    spot: float | None
    source: str
    slices: Table
    quotes: Table
    rejected: Table
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, surface: Surface) -> SurfaceRecord:
        """The record of `surface`."""
        return cls(
            underlying=surface.underlying,
            quote_time=surface.quote_time,
            spot=known(surface.spot),
            source=surface.source,
            slices=table(surface.slices),
            quotes=table(surface.quotes),
            rejected=table(surface.rejected[[c for c in REJECTED_COLUMNS if c in surface.rejected]]),
            warnings=surface.warnings,
        )

    def build(self) -> Surface:
        """The surface.

        Raises:
            InputError: a column is missing, is of another length than the others, or holds what it cannot hold.
        """
        slices = _checked("surface.slices", self.slices, SLICE_COLUMNS)
        quotes = _checked("surface.quotes", self.quotes, QUOTE_COLUMNS)
        if not quotes["slice"].isin(range(len(slices))).all():
            raise InputError(
                f"surface.quotes.slice: must be numbers from 0 to {len(slices) - 1}, rows of surface.slices"
            )
        return Surface(
            slices=slices,
            quotes=quotes,
            underlying=self.underlying,
            quote_time=self.quote_time,
            spot=math.nan if self.spot is None else self.spot,
            rejected=_rejected(self.rejected),
            warnings=self.warnings,
            source=self.source,
        )


def _checked(place: str, given: Table, columns: Sequence[str]) -> pd.DataFrame:
    """A table of a surface, checked."""
    for name in columns:
        if name not in given:
            raise InputError(f"{place}: has no column {name!r}")
    lengths = {len(values) for values in given.values()}
    if len(lengths) > 1 or lengths == {0}:
        raise InputError(f"{place}: columns must be equally long and not empty, got lengths {sorted(lengths)}")
    found = frame(given)
    for name in columns:
        kind, good = _KINDS.get(name, _NUMBERS)
        if not good(found[name]):
            raise InputError(f"{place}.{name}: must be {kind}, got {str(found[name].tolist()[:3])[:60]} ...")
    return found


def _is_text(values: pd.Series) -> bool:
    return all(isinstance(value, str) or pd.isna(value) for value in values)


def _is_numbers(values: pd.Series) -> bool:
    return values.dtype.kind in "if"


def _is_positive(values: pd.Series) -> bool:
    return _is_numbers(values) and bool((np.isfinite(values) & (values > 0)).all())


_NUMBERS = ("numbers", _is_numbers)
#: What the columns of a surface's tables hold, where it is not just any numbers.
_KINDS: dict[str, tuple[str, Callable[[pd.Series], bool]]] = {
    **dict.fromkeys(("expiry", "option_type", "forward_source", "discount_source"), ("text", _is_text)),
    **dict.fromkeys(("t", "forward", "discount_factor", "strike", "iv"), ("positive numbers", _is_positive)),
}


def _rejected(given: Table) -> pd.DataFrame:
    if not given or not next(iter(given.values())):
        return empty_rejected()
    found = frame(given)
    absent = {c: None if c in (*TEXT_COLUMNS, *TIME_COLUMNS) else math.nan for c in COLUMNS if c not in found}
    return found.assign(**absent)[[*COLUMNS, "reason", "detail"]]
