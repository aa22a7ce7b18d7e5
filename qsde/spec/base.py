"""What all specs share: strict pydantic models whose validation errors become one sentence a user can act on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json

from qsde.errors import InputError

T = TypeVar("T")

#: Longest time to a payment, years: beyond it a date was meant, or days.
LONGEST = 200.0
#: Largest price of an underlying: beyond it squares of prices leave the floating-point numbers.
DEAREST = 1e15


class Record(BaseModel):
    """Base of what is written: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Spec(Record):
    """Base of every spec: NaN and infinity are refused, too."""

    model_config = ConfigDict(allow_inf_nan=False)


def checked(kind: Any, data: Mapping[str, Any]) -> Any:
    """Validates `data` as `kind` (a spec class or a union of them).

    Raises:
        InputError: a field is missing, unknown or has a bad value; the message names each field.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(data))
    except ValidationError as error:
        raise InputError(explain(error, data)) from None


def parsed(kind: type[T], text: str | bytes, source: str = "JSON") -> T:
    """Validates JSON text as `kind`; `source` starts the message of a failure.

    Raises:
        InputError: the text is not JSON, or a field is missing, unknown or has a bad value.
    """
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error, _loaded(text))}") from None


def _loaded(text: str | bytes) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return None


def explain(error: ValidationError, data: Any = None, limit: int = 5) -> str:
    """The errors of a validation as one line: `field: what is wrong (got value)`, at most `limit` of them.

    Args:
        error: what pydantic raised.
        data: what was validated; it tells the user's own keys from pydantic's names for the members of a union.
        limit: errors to name.
    """
    details = _without_echoes(error.errors(include_url=False), data)
    lines = [_sentence(detail) for detail in details[:limit]]
    more = [f"and {len(details) - limit} more"] if len(details) > limit else []
    return "; ".join([*lines, *more])


def _without_echoes(details: list[Any], data: Any) -> list[Any]:
    """One error per field: of a union the first kind that refused, and no complaint about a list of refused items."""
    kept: dict[tuple[Any, ...], Any] = {}
    for detail in details:
        where = _place(detail["loc"], data)
        kept.setdefault(where, {**detail, "loc": where})
    return [detail for where, detail in kept.items() if not any(_is_below(other, where) for other in kept)]


def _is_below(place: tuple[Any, ...], where: tuple[Any, ...]) -> bool:
    return len(place) > len(where) and place[: len(where)] == where


def _place(loc: tuple[Any, ...], data: Any) -> tuple[Any, ...]:
    """The keys and indices of an error as the user wrote them."""
    kept, here, tagged = [], data, False
    for part in loc:
        tagged = not tagged and isinstance(here, Mapping) and part in [here.get(key) for key in _TAGS]
        if tagged or _is_kind(part):
            continue
        kept.append(part)
        here = _inside(here, part)
    return tuple(kept)


def _inside(data: Any, part: Any) -> Any:
    try:
        return data[part]
    except (LookupError, TypeError):
        return None


def _is_kind(part: Any) -> bool:
    """Whether a place in an error is pydantic's name for a member of a union."""
    return isinstance(part, str) and (part in _KINDS or part.startswith(_COMPOUNDS) or part.endswith("Spec"))


#: Fields that tell the members of a union apart.
_TAGS = ("type", "model")
_COMPOUNDS = ("dict[", "tuple[", "list[", "literal[")
_KINDS = ("float", "int", "str", "bool", "date", "[key]")


def _sentence(detail: Any) -> str:
    if detail["type"] in _UNTOLD:
        return _unknown_tag(detail)
    where = "".join(f"{part}: " for part in [".".join(str(part) for part in detail["loc"])] if part)
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] in _LENGTHS:
        message = _LENGTHS[detail["type"]].format(**detail["ctx"])
    value = detail.get("input")
    shown = f" (got {value!r})" if isinstance(value, (str, int, float, bool)) and len(repr(value)) < 60 else ""
    return f"{where}{message[:1].lower()}{message[1:]}{shown}"


#: pydantic counts items of a "tuple after validation"; users write lists.
_LENGTHS = {
    "too_short": "needs at least {min_length}, has {actual_length}",
    "too_long": "has {actual_length} items, at most {max_length} are allowed",
}
_UNTOLD = ("union_tag_invalid", "union_tag_not_found")


def _unknown_tag(detail: Any) -> str:
    """The sentence about a member of a union whose kind is missing or unknown."""
    told = detail["ctx"]
    field = ".".join(str(part) for part in (*detail["loc"], told["discriminator"].strip("'")))
    if detail["type"] == "union_tag_not_found":
        return f"{field}: field required, the name of its kind"
    return f"{field}: {told['tag']!r} is unknown; choose one of {told['expected_tags'].replace(chr(39), '')}"


#: What a message about a field starts with: the field or its place, an index in it, and maybe a colon.
_FIELD = re.compile(r"(?:[A-Z]\w+(?:: |\.))?((?:\d+\.)?[a-z_][\w.]*)(?:\[(\d+)\])?(:?) (.*)", re.DOTALL)


@contextmanager
def at(place: str, fields: Collection[str] = ()) -> Iterator[None]:
    """Puts a place in front of an InputError: `Owner: field must be ...` becomes `place.field: must be ...`.

    Args:
        place: where in the request the error arose.
        fields: words that are fields if a message starts with them.

    Example:
        >>> with at("payoffs.2", fields=["strike"]):
        ...     raise InputError("European: strike must be positive")
        Traceback (most recent call last):
        qsde.errors.InputError: payoffs.2.strike: must be positive
    """
    try:
        yield
    except InputError as error:
        raise InputError(_placed(place, fields, str(error))) from None


def _placed(place: str, fields: Collection[str], text: str) -> str:
    found = _FIELD.fullmatch(text)
    if found is None or not (found[3] or found[1] in fields):
        return f"{place}: {text}" if place else text
    where = ".".join(part for part in (place, found[1], found[2]) if part)
    return f"{where}: {found[4].removeprefix('= ')}"
