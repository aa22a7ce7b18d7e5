"""Payoffs of the price at several dates, and the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs.base import Terminal
from qsde.payoffs.checks import check_times, differentiated


@dataclass(frozen=True)
class PathFunction(Terminal):
    """A payoff of the user's own: any torch function from prices [*, path, time] to amounts [*, path].

    Args:
        dates: observation times in years.
        function: the payoff.
        label: name for tables.
        jumps: the amount is not continuous in the prices, so that its pathwise gradient is refused.

    Raises:
        InputError: dates that do not increase, a function that does not return one amount per path, or a gradient
            through an amount without one, such as `(s[..., -1] > 100).double()`.

    Example:
        >>> import torch
        >>> best = PathFunction((0.5, 1.0), lambda s: s.amax(-1) - s[..., -1], label="drawdown")
        >>> best(torch.tensor([[120.0, 100.0]]))
        tensor([20.])
    """

    dates: Sequence[float]
    function: Callable[[Tensor], Tensor]
    label: str = "PathFunction"
    jumps: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "dates", check_times(f"{self.label}.dates", self.dates))
        if not callable(self.function):
            raise InputError(
                f"{self.label}: the payoff must be a function of prices [*, path, time], got {self.function!r:.60}"
            )

    @property
    def name(self) -> str:
        """The label."""
        return self.label

    @property
    def continuous(self) -> bool:  # type: ignore[override]
        """False for a function that jumps."""
        return not self.jumps

    @property
    def times(self) -> tuple[float, ...]:
        """The observation times."""
        return tuple(self.dates)

    def __call__(self, paths: Tensor) -> Tensor:
        """The function's amounts.

        Raises:
            InputError: the function returned something else than one amount per path, or, where a gradient is under
                way, an amount through which none can flow.
        """
        amount = self.function(paths.clone())  # it may work in place, and other payoffs look at the same prices
        if not isinstance(amount, Tensor) or amount.shape != paths.shape[:-1]:
            got = tuple(amount.shape) if isinstance(amount, Tensor) else type(amount).__name__
            raise InputError(
                f"{self.label}: the payoff function must return one amount per path, shape {tuple(paths.shape[:-1])}, "
                f"got {got}; use torch functions and reduce over the last axis (time)"
            )
        if self.continuous and differentiated(paths) and not differentiated(amount):
            raise InputError(
                f"{self.label}: the amount has no derivative to the prices, so a pathwise gradient would miss it: if "
                "it jumps, say jumps=True and take qsde.greeks.greeks(...); else make it by torch functions alone"
            )
        return amount
