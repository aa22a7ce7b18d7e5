"""The vega ladder: sensitivities to quotes added up by expiry and strike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.market.surface import Surface
from qsde.payoffs.checks import numbers

Edges = Literal["moneyness", "strike"]

#: Inner edges of the strike buckets, as strikes over forwards.
MONEYNESS = (0.8, 0.9, 0.97, 1.03, 1.1, 1.2)


@dataclass(frozen=True)
class Ladder:
    """A table of sensitivities: rows are expiries, columns strikes, and the last of each is the total.

    Attributes:
        value: sensitivities; NaN where a cell has no quotes.
        std_error: their standard errors.
        unit: unit of both, in words.
    """

    value: pd.DataFrame
    std_error: pd.DataFrame
    unit: str

    @classmethod
    def of(cls, rows: Sequence[str], columns: Sequence[str], value: Tensor, std_error: Tensor, unit: str) -> Ladder:
        """Tables from values and errors [rows x columns] in the order of `ladder_groups`."""
        index = pd.Index(rows, name="expiry")
        shape = len(rows), len(columns)
        values, errors = (pd.DataFrame(x.reshape(shape).numpy(), index, list(columns)) for x in (value, std_error))
        return cls(values, errors, unit)

    @property
    def total(self) -> float:
        """The sensitivity to a shift of all quotes."""
        return float(self.value.to_numpy()[-1, -1])


def ladder_groups(
    surface: Surface, expiries: Sequence[float] | None, buckets: Sequence[float], by: Edges
) -> tuple[list[str], list[str], Tensor]:
    """Names of rows and columns, totals last, and which quotes are in each cell: [quotes, rows x columns], 1 or 0.

    Cells without quotes are NaN. Arguments as in `QuoteSensitivities.ladder`.

    Raises:
        InputError: edges that do not increase, or an unknown `by`.

    Example:
        >>> surface = Surface.from_vols([0.5, 0.5, 1.0], [90.0, 100.0, 110.0], 0.2, forward=100.0)
        >>> rows, columns, groups = ladder_groups(surface, None, (0.95, 1.05), "moneyness")
        >>> rows, columns
        (['0.5y', '1y', 'total'], ['below 0.95', '0.95 to 1.05', 'above 1.05', 'total'])
        >>> groups[:, -1]
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    if by not in get_args(Edges):
        raise InputError(f"by must be 'moneyness' or 'strike', got {by!r}")
    row, rows = _expiry_rows(surface, expiries)
    column, columns = _columns(surface, buckets, by)
    in_row, in_column = (
        np.column_stack([np.eye(n)[at], np.ones(len(at))]) for at, n in ((row, len(rows)), (column, len(columns)))
    )
    cells = (in_row[:, :, None] * in_column[:, None, :]).reshape(len(surface), -1)
    groups = torch.tensor(np.where(cells.any(0), cells, np.nan))
    return [*rows, "total"], [*columns, "total"], groups


def buckets_of(surface: Surface, buckets: Sequence[float] = MONEYNESS, by: Edges = "moneyness") -> np.ndarray:
    """Number of the cell of each quote, expiry by expiry, as in `ladder_groups` without the totals."""
    column, columns = _columns(surface, buckets, by)
    cells: np.ndarray = surface.quotes["slice"].to_numpy() * len(columns) + column
    return cells


def _expiry_rows(surface: Surface, edges: Sequence[float] | None) -> tuple[np.ndarray, list[str]]:
    if edges is None:
        return surface.quotes["slice"].to_numpy(), [str(x) for x in surface.slices["expiry"]]
    return _bucketed(surface.quotes["t"].to_numpy(float), edges, "expiries", "y")


def _columns(surface: Surface, buckets: Sequence[float], by: Edges) -> tuple[np.ndarray, list[str]]:
    strike = surface.quotes["strike"].to_numpy(float)
    place = strike / surface.quotes["forward"].to_numpy(float) if by == "moneyness" else strike
    return _bucketed(place, buckets, "strike_buckets")


def _bucketed(x: np.ndarray, edges: Sequence[float], field: str, unit: str = "") -> tuple[np.ndarray, list[str]]:
    """Bucket of each entry, and names of the buckets between inner edges; an entry on an edge is above it."""
    inner = numbers(field, edges)
    if not (np.isfinite(inner).all() and (np.diff(inner) > 0).all()):
        raise InputError(f"{field}: edges must be finite and increase, got {edges}")
    text = [f"{edge:g}{unit}" for edge in inner]
    middle = [f"{low} to {high}" for low, high in pairwise(text)]
    names = [f"below {text[0]}", *middle, f"above {text[-1]}"] if text else ["all"]
    return np.searchsorted(inner, x, side="right"), names
