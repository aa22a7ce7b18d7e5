"""What several payoffs check of their constants, beyond positive numbers and increasing times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from qsde.errors import InputError
from qsde.numerics import holds
from qsde.payoffs.base import Claim, as_number

AnyClaim = TypeVar("AnyClaim", bound=Claim)
Average = Literal["arithmetic", "geometric"]
#: One constant, or one for each date.
Levels = float | Tensor | Sequence[float]


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
