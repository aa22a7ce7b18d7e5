"""What payoffs check of their constants."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from qsde.errors import InputError
from qsde.numerics import holds
from qsde.payoffs.base import Claim

AnyClaim = TypeVar("AnyClaim", bound=Claim)
Average = Literal["arithmetic", "geometric"]
#: One constant, or one for each date.
Levels = float | Tensor | Sequence[float]


def check_kind(owner: str, kind: str) -> None:
    """Raises InputError unless `kind` is "call" or "put"."""
    if kind not in ("call", "put"):
        raise InputError(f"{owner}: kind must be 'call' or 'put', got {kind!r}")


def as_number(owner: str, name: str, value: object) -> Tensor:
    """The value as a tensor without axes.

    Raises:
        InputError: something else than one number; the message names the field.
    """
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        hint = "; times are years from today, such as 0.5" if isinstance(value, date) else ""
        raise InputError(f"{owner}: {name} must be a number, got {value!r}{hint}") from None
    if tensor.dim():
        raise InputError(
            f"{owner}: {name} must be one number, got shape {list(tensor.shape)}; make a payoff for each of them"
        )
    return tensor


def check_list(owner: str, **values: object) -> None:
    """Raises InputError, naming the field, unless every value has a length."""
    for name, value in values.items():
        if isinstance(value, str) or not hasattr(value, "__len__"):
            raise InputError(f"{owner}: {name} must be a list, got {value!r}; write [{value}] for one")


def check_positive(owner: str, **values: float | Tensor) -> None:
    """Raises InputError, naming the field, unless every value is one number, positive and finite."""
    for name, value in values.items():
        if type(value) is float and 0 < value < math.inf:  # what most are, in a hundredth of the time
            continue
        tensor = as_number(owner, name, value)
        if not holds(torch.isfinite(tensor) & (tensor > 0)):
            raise InputError(f"{owner}: {name} must be positive and finite, got {value}")


def check_each_positive(owner: str, **values: Sequence[float] | Tensor) -> None:
    """Raises InputError, naming the field and the place, unless every number of every list is positive and finite."""
    for name, numbers in values.items():
        check_positive(owner, **{f"{name}[{i}]": number for i, number in enumerate(numbers)})


def check_times(owner: str, times: Sequence[float]) -> tuple[float, ...]:
    """Times as floats.

    Raises:
        InputError: no times, one that is no number, negative or not finite, or an order that does not increase.
    """
    check_list(owner, times=times)
    found = tuple(t if type(t) is float else float(as_number(owner, f"times[{i}]", t)) for i, t in enumerate(times))
    if not found:
        raise InputError(f"{owner}: times is empty; give at least one observation time in years")
    for i, t in enumerate(found):
        if not math.isfinite(t) or t < 0:
            raise InputError(f"{owner}: times[{i}] = {t} must be finite and not negative (years from today)")
        if i and t <= found[i - 1]:
            raise InputError(f"{owner}: times must increase, but times[{i}] = {t} follows {found[i - 1]}; sort them")
    if found[-1] == 0:
        raise InputError(f"{owner}: the last time is 0: the contract has expired")
    return found


def check_choice(owner: str, field: str, value: str, choices: object) -> None:
    """Raises InputError unless `value` is one of the strings of the Literal `choices`."""
    known = get_args(choices)
    if value not in known:
        raise InputError(f"{owner}: {field} must be one of {', '.join(map(repr, known))}, got {value!r}")


def check_not_negative(owner: str, **values: Levels) -> None:
    """Raises InputError, naming the field, unless every value is finite and not negative."""
    for name, value in values.items():
        tensor = torch.as_tensor(value, dtype=torch.float64)
        if not holds(torch.isfinite(tensor) & (tensor >= 0)):
            raise InputError(f"{owner}: {name} must be finite and not negative, got {value}")


def book_of(payoffs: AnyClaim | Sequence[AnyClaim]) -> list[AnyClaim]:
    """One payoff or several as a list.

    Raises:
        InputError: there are none, or one is no payoff; the message names its place.

    Example:
        >>> from qsde.payoffs import European
        >>> len(book_of(European(100.0, 1.0)))
        1
    """
    if not isinstance(payoffs, (Claim, Iterable)):
        raise InputError(f"payoffs must be one of qsde.payoffs or a list of them, got {payoffs!r:.60}")
    book = [payoffs] if isinstance(payoffs, Claim) else list(payoffs)
    if not book:
        raise InputError("there are no payoffs; give at least one")
    for i, payoff in enumerate(book):
        if not isinstance(payoff, Claim):
            raise InputError(f"payoffs[{i}] must be one of qsde.payoffs, got {payoff!r:.60}")
    return book


def numbers(field: str, values: object) -> np.ndarray:
    """A list of numbers as an array.

    Raises:
        InputError: it is none.

    Example:
        >>> numbers("spots", [-0.1, 0.1]).tolist()
        [-0.1, 0.1]
    """
    try:
        found = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        found = np.zeros(())
    if found.ndim != 1:
        raise InputError(f"{field} must be a list of numbers, got {values!r:.60}")
    return found


def check_finite(owner: str, **values: float | Tensor) -> None:
    """Raises InputError, naming the field, unless every value is one finite number."""
    for name, value in values.items():
        if not holds(torch.isfinite(as_number(owner, name, value))):
            raise InputError(f"{owner}: {name} must be finite, got {value}")


def differentiated(value: Tensor) -> bool:
    """Whether a gradient to or through `value` is under way, in reverse mode or in forward mode."""
    reverse = value.requires_grad and torch.is_grad_enabled()
    return reverse or unpack_dual(value).tangent is not None


def refuse_gradient(owner: str, **levels: Levels | None) -> None:
    """Raises InputError if a gradient is asked for to a level at which the amount jumps: it would miss the jump."""
    for name, level in levels.items():
        if isinstance(level, Tensor) and differentiated(level):
            raise InputError(
                f"{owner}: the amount jumps where the price crosses {name}, so a pathwise gradient to {name} would be "
                f"wrong; detach {name} and bump it, or price under torch.no_grad()"
            )


def as_like(value: Levels, prices: Tensor) -> Tensor:
    """The value as a tensor of the dtype and device of `prices`."""
    return torch.as_tensor(value, dtype=prices.dtype, device=prices.device)
