"""Fit files: JSON, or safetensors with that JSON and its long lists of numbers as tensors. Neither can hold code."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from qsde.calibration.fit import Fit
from qsde.errors import FileFormatError
from qsde.spec import dump_fits, fits_as_data, fits_from_data, load_fits
from qsde.writing import write_atomic

#: Ending of the binary form.
SUFFIX = ".safetensors"
#: Largest fit file, bytes.
MAX_FIT_BYTES = 1 << 28
#: Lists of fewer numbers stay in the JSON.
_SHORT = 16
_KIND = "qsde fits 1"
_KEY = "tensor"
#: Deepest nesting of the JSON: that of a fit is 7.
_DEEPEST = 32


def write_fits(fits: list[Fit], path: str | Path) -> Path:
    """Writes fits in one piece: as safetensors if the name ends so, else as JSON.

    Raises:
        InputError: a model has no text form.
    """
    target = Path(path)
    if target.suffix == SUFFIX:
        with write_atomic(target, binary=True) as file:
            file.write(packed(fits))
    else:
        with write_atomic(target) as file:
            file.write(dump_fits(fits))
    return target


def read_fits(path: str | Path) -> list[Fit]:
    """The fits of a file written by `write_fits` or `qsde calibrate --out`; its content says in which form it is.

    Raises:
        FileFormatError: it is too large, damaged, or no fit file.
        InputError: a field or a table makes no sense; the message names it.
    """
    source = Path(path)
    size = source.stat().st_size
    if size > MAX_FIT_BYTES:
        raise FileFormatError(f"{source}: {size:,} bytes; a fit file has at most {MAX_FIT_BYTES:,}")
    return unpacked(source.read_bytes(), str(source))


def packed(fits: list[Fit]) -> bytes:
    """Fits as safetensors: float64 tensors, and the rest as JSON in the metadata."""
    tensors: dict[str, np.ndarray] = {}
    text = json.dumps(_without_numbers(fits_as_data(fits), "", tensors), allow_nan=False)
    data: bytes = safetensors.numpy.save(tensors, {"kind": _KIND, "json": text})
    return data


def unpacked(data: bytes, source: str = "fit file") -> list[Fit]:
    """The fits of `packed`, or of JSON.

    Raises:
        FileFormatError: the bytes are no such file, or damaged.
        InputError: a field or a table makes no sense; the message names it.
    """
    if data[:1] == b"{" or data[8:9] != b"{":  # lengths of headers are multiples of 8, which "{" is not
        if data.lstrip()[:1] not in (b"{", b"["):
            raise FileFormatError(
                f"{source}: neither JSON nor safetensors; give a file that qsde calibrate --out wrote"
            )
        return load_fits(data, source)
    try:
        tensors = safetensors.numpy.load(data)  # checks lengths, offsets and types against the bytes
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = header.get("__metadata__", {})
        if about.get("kind") != _KIND:
            raise ValueError("it does not say that it holds fits of qsde")
        rest = json.loads(about["json"])
        content = _with_numbers(rest, tensors, _DEEPEST)
        if tensors:
            raise ValueError(f"nothing refers to the tensor {min(tensors)!r}")
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError) as reason:
        raise FileFormatError(
            f"{source}: no fit file, or damaged: {reason}; give one that qsde calibrate --out wrote"
        ) from None
    return fits_from_data(content, source)


def _without_numbers(value: Any, place: str, tensors: dict[str, np.ndarray]) -> Any:
    """The value with its long lists of floats moved to `tensors`."""
    if isinstance(value, dict):
        return {k: _without_numbers(v, f"{place}.{k}".strip("."), tensors) for k, v in value.items()}
    if not isinstance(value, list):
        return value
    array = _array(value)
    if array is not None:
        tensors[place] = array
        return {_KEY: place}
    return [_without_numbers(v, f"{place}.{i}".strip("."), tensors) for i, v in enumerate(value)]


def _array(values: list[Any]) -> np.ndarray | None:
    """A list, or list of equal lists, of floats and None as an array; None where it is something else, or short."""
    rows = values if values and isinstance(values[0], list) else [values]
    if not all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows):
        return None
    if len(rows) * len(rows[0]) < _SHORT or not all(x is None or type(x) is float for row in rows for x in row):
        return None
    array = np.array([[math.nan if x is None else x for x in row] for row in rows])
    return array if rows is values else array[0]


def _with_numbers(value: Any, tensors: dict[str, np.ndarray], depth: int) -> Any:
    """Puts the tensors, each once, where the JSON refers to them."""
    if depth == 0:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        if value.keys() == {_KEY}:
            return _lists(tensors.pop(value[_KEY]), value[_KEY])
        return {k: _with_numbers(v, tensors, depth - 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_numbers(v, tensors, depth - 1) for v in value]
    return value


def _lists(array: np.ndarray, name: str) -> list[Any]:
    if array.dtype != np.float64 or array.ndim not in (1, 2):
        raise ValueError(f"{name} must be float64 of one or two axes, not {array.dtype} {list(array.shape)}")
    if np.isinf(array).any():
        raise ValueError(f"{name} has infinite numbers")
    known = np.where(np.isnan(array), None, array)  # type: ignore[call-overload]
    found: list[Any] = known.tolist()
    return found
