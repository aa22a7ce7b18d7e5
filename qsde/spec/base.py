"""What all specs share: strict pydantic models whose validation errors become one sentence a user can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from qsde.errors import InputError

T = TypeVar("T")


class Spec(BaseModel):
    """Base of every spec: frozen, unknown fields refused, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def checked(kind: Any, data: Mapping[str, Any]) -> Any:
    """Validates `data` as `kind` (a spec class or a union of them).

    Raises:
        InputError: a field is missing, unknown or has a bad value; the message names each field.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(data))
    except ValidationError as error:
        raise InputError(explain(error)) from None


def parsed(kind: type[T], text: str | bytes, source: str = "JSON") -> T:
    """Validates JSON text as `kind`; `source` starts the message of a failure.

    Raises:
        InputError: the text is not JSON, or a field is missing, unknown or has a bad value.
    """
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error)}") from None


def explain(error: ValidationError, limit: int = 5) -> str:
    """The errors of a validation as one line: `field: what is wrong (got value)`, at most `limit` of them."""
    details = _without_echoes(error.errors(include_url=False, include_context=False))
    lines = [_sentence(detail) for detail in details[:limit]]
    more = [f"and {len(details) - limit} more"] if len(details) > limit else []
    return "; ".join([*lines, *more])


def _without_echoes(details: list[Any]) -> list[Any]:
    """One error per field: of a union the first kind that refused, and no complaint about a list of refused items."""
    kept: dict[tuple[Any, ...], Any] = {}
    for detail in details:
        where = tuple(part for part in detail["loc"] if not _is_kind(part))
        if detail["type"] == "too_short" and any(other[: len(where)] == where for other in kept):
            continue
        kept.setdefault(where, {**detail, "loc": where})
    return list(kept.values())


def _is_kind(part: Any) -> bool:
    """Whether a place in an error is pydantic's name for a member of a union."""
    return part in ("float", "date") or (isinstance(part, str) and part.startswith("dict["))


def _sentence(detail: Any) -> str:
    where = "".join(f"{part}: " for part in [".".join(str(part) for part in detail["loc"])] if part)
    message = str(detail["msg"]).removeprefix("Value error, ")
    value = detail.get("input")
    shown = f" (got {value!r})" if isinstance(value, (str, int, float, bool)) and len(repr(value)) < 60 else ""
    return f"{where}{message[:1].lower()}{message[1:]}{shown}"
