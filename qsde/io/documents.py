"""JSON as sources: records, JSON lines, columns, and the nested chains of Yahoo and Deribit made flat."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qsde.errors import FileFormatError
from qsde.io.files import InputFile, Limits
from qsde.io.source import BROKEN, ROW, Origin, Source

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Shape:
    """A known form of a JSON document: how to tell it and how to make records of it."""

    title: str
    matches: Callable[[Any], bool]
    flatten: Callable[[Any, Origin], Records]


def open_json(path: Path, packing: str, limits: Limits) -> Source:
    """Parses the document and makes it flat.

    Raises:
        FileFormatError: not valid JSON, or none of the `SHAPES`.
    """
    with InputFile(path, limits, packing) as file:
        data = file.read_all()
    origin = Origin(str(path), path.name)
    records = _records(_unwrapped(_load(data, path)), origin, path)
    frame = pd.DataFrame.from_records(records) if records else pd.DataFrame()
    frame.columns = pd.Index([str(c) for c in frame.columns])

    def batches(names: Sequence[str], wanted: Collection[str]) -> Iterator[pd.DataFrame]:
        rows = np.arange(1, len(frame) + 1)
        chosen = {n: frame.iloc[:, i].set_axis(rows) for i, n in enumerate(names) if n in wanted}
        yield pd.DataFrame(chosen, index=rows).assign(**{ROW: rows, BROKEN: None})

    return Source(origin, tuple(frame.columns), batches)


def _load(data: bytes, path: Path) -> Any:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = _load_lines(text)
        if lines is not None:
            return lines
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise FileFormatError(f"{path}: not complete JSON ({reason}); copy or download the file again") from error


def _load_lines(text: str) -> Records | None:
    try:
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None
    return lines if len(lines) > 1 and all(isinstance(x, dict) for x in lines) else None


def _unwrapped(payload: Any) -> Any:
    """Takes the answer out of the envelopes of the Yahoo and Deribit interfaces."""
    for key in ("optionChain", "result", "data"):
        if isinstance(payload, dict) and isinstance(payload.get(key), (dict, list)) and "columns" not in payload:
            payload = payload[key]
        if key == "result" and isinstance(payload, list) and len(payload) == 1 and _is_yahoo(payload[0]):
            payload = payload[0]
    return payload


def _records(payload: Any, origin: Origin, path: Path) -> Records:
    for shape in SHAPES:
        if shape.matches(payload):
            try:
                return shape.flatten(payload, origin)
            except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
                raise FileFormatError(
                    f"{path}: looks like {shape.title}, but a part is missing or of another kind ({error!r})"
                ) from error
    raise FileFormatError(
        f"{path}: this JSON is no option chain that is known. Known: {'; '.join(s.title for s in SHAPES)}. "
        "Give one of these, or a list of records with strike, option_type, expiry and prices or vols"
    )


def _is_yahoo(payload: Any) -> bool:
    return (
        isinstance(payload, dict)
        and isinstance(payload.get("options"), list)
        and ("underlyingSymbol" in payload or "quote" in payload)
    )


def _is_bundle(payload: Any) -> bool:
    return isinstance(payload, dict) and {"options", "futures"} <= payload.keys()


def _is_records(payload: Any) -> bool:
    return isinstance(payload, list) and bool(payload) and all(isinstance(x, dict) for x in payload)


def _is_columns(payload: Any) -> bool:
    return (
        isinstance(payload, dict)
        and bool(payload)
        and (all(isinstance(x, list) for x in payload.values()) or all(isinstance(x, dict) for x in payload.values()))
    )


def _flatten_yahoo(payload: Any, origin: Origin) -> Records:
    quote = payload.get("quote") or {}
    shared = {
        "underlyingSymbol": payload.get("underlyingSymbol") or quote.get("symbol"),
        "regularMarketPrice": quote.get("regularMarketPrice"),
        "regularMarketTime": quote.get("regularMarketTime"),
    }
    return [
        # Yahoo stamps an expiry at midnight UTC of its date, which is a date and no instant
        {**contract, **shared, "expirationDate": _utc(chain["expirationDate"]).strftime("%Y-%m-%d"), "optionType": leg}
        for chain in payload["options"]
        for leg, side in (("C", "calls"), ("P", "puts"))
        for contract in chain.get(side) or ()
    ]


def _flatten_bundle(payload: Any, origin: Origin) -> Records:
    mids = {str(f["instrument_name"]): _mid(f) for f in payload["futures"]}
    as_of = payload.get("as_of")
    records = []
    for option in payload["options"]:
        name = str(option["instrument_name"])
        currency, _, rest = name.partition("-")
        future = mids.get(f"{currency}-{rest.split('-')[0]}")
        forward = option.get("underlying_price") if future is None else future
        spot = mids.get(f"{currency}-PERPETUAL")
        records.append({**option, "underlying_price": forward, "index_price": spot, "as_of": as_of})
    return records


def _is_split(payload: Any) -> bool:
    return isinstance(payload, dict) and all(isinstance(payload.get(key), list) for key in ("columns", "data"))


def _flatten_split(payload: Any, origin: Origin) -> Records:
    names = [str(name) for name in payload["columns"]]
    return [dict(zip(names, row, strict=True)) for row in payload["data"]]


def _flatten_columns(payload: Any, origin: Origin) -> Records:
    labels = {tuple(v) for v in payload.values() if isinstance(v, dict)}
    if len(labels) > 1:
        raise ValueError("columns whose rows have different labels, or are in another order")
    columns = {k: list(v.values()) if isinstance(v, dict) else v for k, v in payload.items()}
    lengths = {len(v) for v in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"columns of different lengths {sorted(lengths)}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _utc(seconds: Any) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _mid(future: dict[str, Any]) -> float | None:
    sides = [float(future[s]) for s in ("bid_price", "ask_price") if future.get(s)]
    return sum(sides) / len(sides) if sides else future.get("mark_price")


#: Known forms, the first match decides.
SHAPES = (
    Shape("a Deribit bundle {as_of, futures, options, instruments}", _is_bundle, _flatten_bundle),
    Shape("a Yahoo option chain {underlyingSymbol, quote, options: [{expirationDate, calls, puts}]}", _is_yahoo,
          _flatten_yahoo),
    Shape("a list of records or JSON lines (tidy rows, or a Deribit book summary)", _is_records,
          lambda payload, origin: list(payload)),
    Shape("a table {columns: [names], data: [[values]]}", _is_split, _flatten_split),
    Shape("columns {name: [values]}", _is_columns, _flatten_columns),
)  # fmt: skip
