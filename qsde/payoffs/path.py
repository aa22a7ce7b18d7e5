"""Payoffs of the price at several dates, and the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs.base import Terminal, check_times


@dataclass(frozen=True)
class PathFunction(Terminal):
    """A payoff of the user's own: any torch function from prices [*, path, time] to amounts [*, path].

    Args:
        dates: observation times in years.
        function: the payoff.
        label: name for tables.
        jumps: the amount is not continuous in the prices, so that its pathwise gradient is refused.

    Raises:
        InputError: dates that do not increase, or a function that does not return one amount per path.

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
            InputError: the function returned another shape than one amount per path.
        """
        amount = self.function(paths)
        if amount.shape != paths.shape[:-1]:
            raise InputError(
                f"{self.label}: the payoff function must return one amount per path, shape {tuple(paths.shape[:-1])}, "
                f"got {tuple(amount.shape)}; reduce over the last axis (time)"
            )
        return amount
