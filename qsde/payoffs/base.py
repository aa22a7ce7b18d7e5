"""What a payoff is: observation times and a function of the prices seen at them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from qsde.errors import InputError

Kind = Literal["call", "put"]


class Payoff(ABC):
    """A contract that pays a function of the underlying's path at its last observation time.

    Payoffs are frozen dataclasses: they never simulate and never discount. Their constants may be tensors, so that the
    price is differentiable in the strike, say.
    """

    #: Whether the payoff is continuous in the path, so that it may be differentiated path by path.
    continuous: ClassVar[bool] = True

    @property
    @abstractmethod
    def times(self) -> tuple[float, ...]:
        """Observation times in years, increasing; the payment is made at the last."""

    @abstractmethod
    def __call__(self, paths: Tensor) -> Tensor:
        """Amount paid [*, path] for prices [*, path, time] at `times`."""

    @property
    def maturity(self) -> float:
        """Time of the payment, years."""
        return self.times[-1]

    @property
    def name(self) -> str:
        """The name used in tables and messages."""
        return type(self).__name__


def vanilla(price: Tensor, strike: float | Tensor, kind: Kind) -> Tensor:
    """`max(price - strike, 0)` for a call, `max(strike - price, 0)` for a put."""
    return torch.relu(price - strike) if kind == "call" else torch.relu(strike - price)


def check_kind(owner: str, kind: str) -> None:
    """Raises InputError unless `kind` is "call" or "put"."""
    if kind not in ("call", "put"):
        raise InputError(f"{owner}: kind must be 'call' or 'put', got {kind!r}")


def check_positive(owner: str, **values: float | Tensor) -> None:
    """Raises InputError, naming the field, unless every value is positive and finite."""
    for name, value in values.items():
        tensor = torch.as_tensor(value)
        if not bool((torch.isfinite(tensor) & (tensor > 0)).all()):
            raise InputError(f"{owner}: {name} must be positive and finite, got {value}")


def check_times(owner: str, times: Sequence[float]) -> tuple[float, ...]:
    """Times as floats.

    Raises:
        InputError: no times, one that is negative or not finite, or an order that does not increase.
    """
    found = tuple(float(t) for t in times)
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
