"""Cliquets: sums of capped and floored returns."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import holds
from qsde.payoffs.base import OfNumbers
from qsde.payoffs.checks import as_like, check_finite, check_positive, check_times

Bound = float | Tensor | None


@dataclass(frozen=True)
class Cliquet(OfNumbers):
    """Pays `notional clip(sum_i clip(S_i / S_{i-1} - 1, local), global)` at the last reset.

    `clip(x, bounds)` is `min(max(x, floor), cap)`; a bound that is None does not bind. With no bounds at all it pays
    the sum of the returns, which may be negative; a call-like ratchet has `local_floor=0`.

    Args:
        resets: times at which the price is fixed, years, increasing, at least two; the first (0 is today) only sets
            the level of the first return.
        local_floor: least value of each return, decimal, as -0.01.
        local_cap: greatest value of each return.
        global_floor: least value of the sum.
        global_cap: greatest value of the sum.
        notional: positive.

    Raises:
        InputError: fewer than two resets, times that do not increase, a bound that is not finite, or a cap below its
            floor.

    Example:
        >>> option = Cliquet(resets=(0.0, 0.5, 1.0), local_cap=0.08, global_floor=0.0, notional=100.0)
        >>> option(torch.tensor([[100.0, 120.0, 114.0], [100.0, 90.0, 90.0]]))
        tensor([3.0000, 0.0000])
    """

    resets: Sequence[float]
    local_floor: Bound = None
    local_cap: Bound = None
    global_floor: Bound = None
    global_cap: Bound = None
    notional: float | Tensor = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "resets", check_times(f"{self.name}.resets", self.resets))
        if len(self.resets) < 2:
            raise InputError(f"{self.name}: resets has one time; a return needs two, the first may be 0")
        check_positive(self.name, notional=self.notional)
        bounds = {"local": (self.local_floor, self.local_cap), "global": (self.global_floor, self.global_cap)}
        for which, (floor, cap) in bounds.items():
            _check_bounds(self.name, which, floor, cap)

    @property
    def times(self) -> tuple[float, ...]:
        """The resets."""
        return tuple(self.resets)

    @property
    def alike(self) -> Hashable:
        """All cliquets with these resets."""
        return "returns"

    def numbers(self, prices: Tensor) -> Tensor:
        """The returns."""
        return prices[..., 1:] / prices[..., :-1] - 1

    def paid(self, numbers: Tensor) -> Tensor:
        """The bounded sum of the bounded returns."""
        total = _clip(numbers, self.local_floor, self.local_cap).sum(-1)
        return as_like(self.notional, numbers) * _clip(total, self.global_floor, self.global_cap)


def _clip(x: Tensor, floor: Bound, cap: Bound) -> Tensor:
    if floor is not None:
        x = torch.maximum(x, as_like(floor, x))
    return x if cap is None else torch.minimum(x, as_like(cap, x))


def _check_bounds(owner: str, which: str, floor: Bound, cap: Bound) -> None:
    for end, bound in (("floor", floor), ("cap", cap)):
        if bound is not None:
            check_finite(owner, **{f"{which}_{end}": bound})
    if floor is not None and cap is not None and not holds(torch.as_tensor(floor) <= torch.as_tensor(cap)):
        raise InputError(f"{owner}: {which}_cap = {cap} is below {which}_floor = {floor}; swap them or drop one")
