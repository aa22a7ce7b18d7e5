"""Numbers, matrices and tables as JSON values; null stands for what is missing or not finite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import torch

Cell = str | float | int | bool | None
Table = dict[str, list[Cell]]
Numbers = list[float | None]


def known(value: float | torch.Tensor) -> float | None:
    """A number; None if it is not finite."""
    return float(value) if math.isfinite(value) else None


def numbers(values: np.ndarray) -> Numbers:
    """The list of an array."""
    return [known(x) for x in values.tolist()]


def array(values: Numbers) -> np.ndarray:
    """The array of a list."""
    return np.array([math.nan if x is None else x for x in values], dtype=float)


def matrix(values: torch.Tensor) -> list[Numbers]:
    """The rows of a tensor."""
    return [numbers(row) for row in values.detach().numpy()]


def tensor(rows: list[Numbers], columns: int) -> torch.Tensor:
    """The tensor of rows of so many numbers."""
    return torch.tensor([array(row).tolist() for row in rows], dtype=torch.float64).reshape(len(rows), columns)


def table(frame: pd.DataFrame) -> Table:
    """The columns of a frame."""
    return {str(name): [_cell(x) for x in frame[name].tolist()] for name in frame.columns}


def frame(columns: Table) -> pd.DataFrame:
    """The frame of columns."""
    return pd.DataFrame({name: _series(values) for name, values in columns.items()})


def _cell(x: Any) -> Cell:
    if x is None or x is pd.NA or x is pd.NaT:
        return None
    if isinstance(x, float):
        return known(x)
    return x if isinstance(x, (bool, int, str)) else str(x)


def _series(values: list[Cell]) -> pd.Series:
    kinds = {type(x) for x in values if x is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int} and None not in values:
        return pd.Series(values, dtype="int64")
    if kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    return pd.Series(values, dtype="object")
