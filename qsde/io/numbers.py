"""Columns of text or mixed values to float64, option types and exercise styles; what cannot be read is reported."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

#: Spellings of "no value", compared in lower case.
MISSING = frozenset({"", "-", "--", "na", "n/a", "#n/a", "nan", "null", "none", "<na>", "nat"})
OPTION_TYPES = {
    **dict.fromkeys(("c", "call", "calls", "ce", "1", "+1"), "C"),
    **dict.fromkeys(("p", "put", "puts", "pe", "-1", "0"), "P"),
}
EXERCISE_STYLES = {**dict.fromkeys(("e", "european"), "E"), **dict.fromkeys(("a", "american"), "A")}

#: "12,5": a decimal comma for certain. "1,234" may be either.
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,(\d{1,2}|\d{4,})%?|[+-]?0,\d+%?|[+-]?\d{4,},\d+%?")
_NUMBER = re.compile(r"[+-]?[$€£]?[+-]?(\d+|\d{1,3}(,\d{3})+)?(\.\d*)?([eE][+-]?\d+)?%?")


def parse_number(value: object) -> float | None:
    """One number: NaN where the value means "missing", None where it is not a finite number.

    Thousands separators and currency signs are accepted; a percent sign divides by 100. A decimal comma is not:
    "12,5" is None, never 125.

    Example:
        >>> parse_number("$1,234.5"), parse_number("12%"), parse_number("12,5")
        (1234.5, 0.12, None)
    """
    if value is None:
        return math.nan
    if isinstance(value, (int, float)):
        return _finite(value)
    text = str(value).strip()
    if text.lower() in MISSING:
        return math.nan
    if not _NUMBER.fullmatch(text):
        return None
    number = _finite(re.sub("[,$€£%]", "", text))
    return number / 100 if number is not None and text.endswith("%") else number


def is_decimal_comma(value: object) -> bool:
    """Whether a text is a number with a decimal comma and nothing else.

    Example:
        >>> is_decimal_comma("12,5"), is_decimal_comma("1,234"), is_decimal_comma("0,125")
        (True, False, True)
    """
    return isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()) is not None


def to_numbers(values: pd.Series) -> tuple[Floats, Flags]:
    """Parses a column; the second array is true where a value is there but is no finite number."""
    if values.dtype.kind in "iuf" and isinstance(values.dtype, np.dtype):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isinf(numbers), np.nan, numbers), np.isinf(numbers)
    codes, different = distinct(values)
    parsed = [parse_number(value) for value in different]
    if any(map(is_decimal_comma, different)):  # then "1,234" in the same column is no thousand
        parsed = [None if isinstance(v, str) and "," in v else x for v, x in zip(different, parsed, strict=True)]
    numbers = np.array([math.nan if x is None else x for x in parsed], dtype=np.float64)
    bad = np.array([x is None for x in parsed], dtype=bool)
    return numbers[codes], bad[codes]


def to_choices(values: pd.Series, choices: dict[str, str]) -> npt.NDArray[np.object_]:
    """Maps spellings to labels, None where the spelling is unknown.

    Example:
        >>> to_choices(pd.Series(["Call", "p", 1.0, "x"]), OPTION_TYPES).tolist()
        ['C', 'P', 'C', None]
    """
    return map_unique(values, lambda v: choices.get((as_text(v) or "").lower()))


def to_texts(values: pd.Series) -> npt.NDArray[np.object_]:
    """Stripped text, None where missing."""
    return map_unique(values, as_text)


def as_text(value: object) -> str | None:
    """One value as stripped text; 1.0 becomes "1", missing spellings become None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else str(value).strip()
    return None if text.lower() in MISSING else text


def map_unique(values: pd.Series, function: Callable[[Any], Any]) -> npt.NDArray[np.object_]:
    """Applies `function` once per distinct value; missing values are passed as None."""
    codes, different = distinct(values)
    results = np.empty(len(different), dtype=object)
    # one by one: numpy would make one array out of results that are sequences
    for i, value in enumerate(different):
        results[i] = function(value)
    mapped: npt.NDArray[np.object_] = results[codes]
    return mapped


def distinct(values: pd.Series) -> tuple[npt.NDArray[np.intp], list[Any]]:
    """The place of every value among the distinct values; the last of these, place -1, is None for missing values."""
    mixed = isinstance(values.dtype, np.dtype) and values.dtype == object
    codes, different = pd.factorize(values.map(_hashable) if mixed else values.astype(object))
    return codes, [*different, None]


def _hashable(value: object) -> Hashable:
    # True and 1 hash alike; the text keeps them apart
    return value if isinstance(value, Hashable) and not isinstance(value, (bool, tuple)) else str(value)


def _finite(value: int | float | str) -> float | None:
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isinf(number) else number
