"""Payoffs as text: the fields of each payoff class are its wire schema, told apart by the field `type`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, fields
from functools import reduce
from inspect import isabstract
from operator import or_
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import pydantic
from pydantic import Strict, create_model
from torch import Tensor

from qsde import payoffs
from qsde.errors import InputError
from qsde.payoffs import Claim
from qsde.spec.base import Spec, at, checked

#: Longest list in a payoff: 40 years of trading days.
MAX_ITEMS = 1 << 14


class NoTextForm(TypeError):
    """The values of a field cannot be written as JSON."""


class PayoffSpec(Spec):
    """The fields of one payoff class, with its name in `type`; the classes are made from `PAYOFFS`.

    Example:
        >>> checked(AnyPayoffSpec, {"type": "european", "strike": 100.0, "expiry": 1.0}).build()
        European(strike=100.0, expiry=1.0, kind='call')
    """

    PAYOFF: ClassVar[type[Claim]]

    def build(self) -> Claim:
        """The payoff.

        Raises:
            InputError: the values make no such contract, such as a negative strike.
        """
        return self.PAYOFF(**{name: _built(name, value) for name, value in self.terms.items()})

    @property
    def terms(self) -> dict[str, Any]:
        """The fields of the payoff, without its type."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "type"}

    @property
    def name(self) -> str:
        """The payoff's name on the wire."""
        return wire_name(self.PAYOFF)


def _built(name: str, value: Any) -> Any:
    if not isinstance(value, PayoffSpec):
        return value
    with at(name, fields=value.terms):
        return value.build()


def wire_name(payoff: type[Claim]) -> str:
    """The class name in snake case.

    Example:
        >>> wire_name(payoffs.AverageStrike)
        'average_strike'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", payoff.__name__).lower()


def wire_type(annotation: Any) -> Any:
    """The type of JSON values that a field annotation stands for: tensors become numbers, sequences become tuples.

    A payoff within a payoff is one of the classes in `PAYOFFS` that the annotation admits. Numbers, texts and booleans
    are taken as they are written: "100" is no number and 1 is no boolean.

    Raises:
        NoTextForm: the annotation is that of a function, say.

    Example:
        >>> wire_type(Literal["call", "put"])
        typing.Literal['call', 'put']
    """
    if annotation in (float, int, str, bool):
        return Annotated[annotation, Strict()]
    if annotation is NoneType or get_origin(annotation) is Literal:
        return annotation
    inside = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return reduce(or_, (wire_type(part) for part in inside if part is not Tensor))
    if get_origin(annotation) is tuple and inside[-1:] != (Ellipsis,):
        return tuple.__class_getitem__(tuple(wire_type(part) for part in inside))
    if get_origin(annotation) in (Sequence, tuple, list):
        items = tuple.__class_getitem__((wire_type(inside[0]), ...))
        return Annotated[items, pydantic.Field(max_length=MAX_ITEMS)]
    if isinstance(annotation, type) and issubclass(annotation, Claim):
        return _any_of([spec for spec in _SPECS.values() if issubclass(spec.PAYOFF, annotation)])
    raise NoTextForm(f"{annotation} has no text form")


def _any_of(specs: Sequence[type[PayoffSpec]]) -> Any:
    return Annotated[reduce(or_, specs), pydantic.Field(discriminator="type")]


def _spec_class(name: str, payoff: type[Claim]) -> type[PayoffSpec]:
    hints = get_type_hints(payoff)
    terms: dict[str, Any] = {"type": (Literal[name], name)}
    terms |= {f.name: (wire_type(hints[f.name]), _default(f)) for f in fields(payoff)}  # type: ignore[arg-type]
    spec = create_model(f"{payoff.__name__}Spec", __base__=PayoffSpec, **terms)
    spec.PAYOFF = payoff
    spec.__doc__ = payoff.__doc__
    return spec


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return pydantic.Field(default_factory=field.default_factory)
    return ... if field.default is MISSING else field.default


def _described() -> dict[str, type[PayoffSpec]]:
    """The payoffs of `qsde.payoffs` whose fields have a text form; those made of other payoffs come last."""
    found = [getattr(payoffs, name) for name in payoffs.__all__]
    public = [c for c in found if isinstance(c, type) and issubclass(c, Claim) and not isabstract(c)]
    for payoff in sorted(public, key=_holds_payoffs):
        with suppress(NoTextForm):
            _SPECS[wire_name(payoff)] = _spec_class(wire_name(payoff), payoff)
    return _SPECS


def _holds_payoffs(payoff: type[Claim]) -> bool:
    return any(isinstance(hint, type) and issubclass(hint, Claim) for hint in get_type_hints(payoff).values())


_SPECS: dict[str, type[PayoffSpec]] = {}

#: The payoffs that have a text form, by their name on the wire: all of `qsde.payoffs` but the user's own functions.
PAYOFFS: dict[str, type[Claim]] = {name: spec.PAYOFF for name, spec in sorted(_described().items())}

if TYPE_CHECKING:
    AnyPayoffSpec = PayoffSpec
else:
    #: Any payoff, told apart by its field `type`.
    AnyPayoffSpec = _any_of([_SPECS[name] for name in PAYOFFS])


def payoff_from(terms: Mapping[str, Any]) -> Claim:
    """The payoff with these terms: its fields, and its name in `type`.

    Raises:
        InputError: the type is unknown, or a field is missing, unknown or has a bad value.

    Example:
        >>> payoff_from({"type": "digital", "strike": 100, "expiry": 1, "kind": "put"})
        Digital(strike=100.0, expiry=1.0, kind='put', cash=1.0)
    """
    spec: PayoffSpec = checked(AnyPayoffSpec, terms)
    return spec.build()


def payoff_spec(payoff: Claim) -> dict[str, Any]:
    """The terms of a payoff as JSON values: what `payoff_from` takes.

    Raises:
        InputError: the payoff has no text form, such as a function of your own.

    Example:
        >>> payoff_spec(payoffs.European(strike=100.0, expiry=1.0))
        {'type': 'european', 'strike': 100.0, 'expiry': 1.0, 'kind': 'call'}
    """
    name = wire_name(type(payoff))
    if PAYOFFS.get(name) is not type(payoff):
        raise InputError(f"{payoff.name} has no text form; {', '.join(PAYOFFS)} have one")
    terms = {f.name: _plain(getattr(payoff, f.name)) for f in fields(payoff)}  # type: ignore[arg-type]
    spec: PayoffSpec = checked(_SPECS[name], terms)
    return {"type": name, **spec.model_dump(mode="json", exclude={"type"})}


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Claim):
        return payoff_spec(value)
    return tuple(_plain(item) for item in value) if isinstance(value, (tuple, list)) else value
