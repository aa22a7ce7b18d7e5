"""Bodies of requests as specs; payoffs that cannot be read are set aside, with what is wrong, for their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from qsde.spec import AnyPayoffSpec, JobRequest
from qsde.spec.base import explain
from qsde.spec.request import MAX_PAYOFFS
from service.errors import Problem

R = TypeVar("R", bound=JobRequest)
T = TypeVar("T")

_PAYOFF: TypeAdapter[Any] = TypeAdapter(AnyPayoffSpec)
#: Stands for the payoffs of a request that has no readable one, so that the rest of it can be checked.
_PLACEHOLDER = {"type": "european", "strike": 1.0, "expiry": 1.0}
_TOO_SHORT = ("payoffs",), "too_short"


@dataclass(frozen=True)
class Reading(Generic[R]):
    """A request of several payoffs, as far as it can be used.

    Attributes:
        request: with the payoffs that are in use; a placeholder if there are none.
        places: for each of them, its index in the request that was sent.
        bad: messages about the others, by their index.
        types: what each payoff sent calls itself.
    """

    request: R
    places: tuple[int, ...]
    bad: dict[int, str]
    types: tuple[str | None, ...]

    def without(self, bad: dict[int, str]) -> Reading[R]:
        """Less these payoffs, by their index in the request that was sent."""
        kept = [(i, spec) for i, spec in zip(self.places, self.request.payoffs, strict=False) if i not in bad]
        specs = tuple(spec for _, spec in kept) or (_PAYOFF.validate_python(_PLACEHOLDER),)
        request = self.request.model_copy(update={"payoffs": specs})
        return Reading(request, tuple(i for i, _ in kept), {**self.bad, **bad}, self.types)


def read(kind: type[T], body: bytes) -> T:
    """The body as a spec.

    Raises:
        Problem: 422 if it is none.
    """
    try:
        return TypeAdapter(kind).validate_json(body)
    except ValidationError as error:
        raise Problem.of(explain(error, _loaded(body))) from None


def read_job(kind: type[R], body: bytes) -> Reading[R]:
    """The body as a request of several payoffs.

    Raises:
        Problem: 422 if anything but a payoff cannot be read.
    """
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        return _partly(kind, body, error)
    types = tuple(spec.name for spec in request.payoffs)
    return Reading(request, tuple(range(len(types))), {}, types)


def _partly(kind: type[R], body: bytes, error: ValidationError) -> Reading[R]:
    data = _loaded(body)
    details = error.errors(include_url=False, include_input=False)
    # a list whose items are all refused is called too short as well
    places = [_payoff_at(detail["loc"]) for detail in details if (detail["loc"], detail["type"]) != _TOO_SHORT]
    wrong = sorted({i for i in places if i is not None})
    if not isinstance(data, dict) or not wrong or None in places or len(data["payoffs"]) > MAX_PAYOFFS:
        raise Problem.of(explain(error, data))
    items = data["payoffs"]
    bad = {i: _message(i, items[i]) for i in wrong}
    good = [i for i in range(len(items)) if i not in bad]
    rest = {**data, "payoffs": [items[i] for i in good] or [_PLACEHOLDER]}
    request = read(kind, to_json(rest, inf_nan_mode="constants"))
    return Reading(request, tuple(good), bad, tuple(_type(item) for item in items))


def _payoff_at(loc: tuple[int | str, ...]) -> int | None:
    """The index of the payoff that an error is about; None if it is about something else."""
    return loc[1] if len(loc) > 1 and loc[0] == "payoffs" and isinstance(loc[1], int) else None


def _message(index: int, item: Any) -> str:
    try:
        _PAYOFF.validate_json(to_json(item, inf_nan_mode="constants"))
    except ValidationError as error:
        text = explain(error, item)
        return placed(f"payoffs.{index}", text)
    return f"payoffs.{index}: cannot be read beside the others"


def placed(place: str, text: str) -> str:
    """The message with the place of a payoff before its field.

    Example:
        >>> placed("payoffs.3", "strike: field required"), placed("payoffs.3", "input should be an object")
        ('payoffs.3.strike: field required', 'payoffs.3: input should be an object')
    """
    head, colon, _ = text.partition(": ")
    return f"{place}.{text}" if colon and head.replace(".", "_").isidentifier() else f"{place}: {text}"


def _type(item: Any) -> str | None:
    name = item.get("type") if isinstance(item, dict) else None
    return name[:100] if isinstance(name, str) else None


def _loaded(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:
        return None
