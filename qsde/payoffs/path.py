"""Payoffs of the price at several dates, and the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs.base import Kind, Terminal, check_kind, check_positive, check_times, vanilla


@dataclass(frozen=True)
class Barrier(Terminal):
    """A call or put that lives or dies by a barrier watched at `monitoring` dates only; paid at the last of them.

    Args:
        strike: strike of the vanilla.
        barrier: level.
        monitoring: times at which the price is compared with the barrier, the expiry last.
        style: "up-and-out", "down-and-out", "up-and-in" or "down-and-in"; a touch counts as a hit.
        kind: "call" or "put".
        rebate: paid at expiry if the option is knocked out or never knocked in.

    Example:
        >>> option = Barrier(strike=100.0, barrier=120.0, monitoring=(0.5, 1.0), style="up-and-out")
        >>> option(torch.tensor([[110.0, 115.0], [125.0, 115.0]]))
        tensor([15.,  0.])
    """

    strike: float | Tensor
    barrier: float | Tensor
    monitoring: Sequence[float]
    style: Literal["up-and-out", "down-and-out", "up-and-in", "down-and-in"]
    kind: Kind = "call"
    rebate: float | Tensor = 0.0

    continuous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive(self.name, strike=self.strike, barrier=self.barrier)
        check_kind(self.name, self.kind)
        if self.style not in ("up-and-out", "down-and-out", "up-and-in", "down-and-in"):
            raise InputError(f"Barrier: style must be up or down, -and-out or -and-in, got {self.style!r}")
        object.__setattr__(self, "monitoring", check_times(self.name, self.monitoring))

    @property
    def times(self) -> tuple[float, ...]:
        """The monitoring times."""
        return tuple(self.monitoring)

    def __call__(self, paths: Tensor) -> Tensor:
        """Vanilla payoff where the option is alive, the rebate elsewhere."""
        beyond = paths >= self.barrier if self.style.startswith("up") else paths <= self.barrier
        hit = beyond.any(-1)
        alive = ~hit if self.style.endswith("out") else hit
        rebate = torch.as_tensor(self.rebate, dtype=paths.dtype, device=paths.device)
        return torch.where(alive, vanilla(paths[..., -1], self.strike, self.kind), rebate)


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
        >>> best = PathFunction((0.5, 1.0), lambda s: s.amax(-1) - s[..., -1], label="drawdown")
        >>> best(torch.tensor([[120.0, 100.0]]))
        tensor([20.])
    """

    dates: Sequence[float]
    function: Callable[[Tensor], Tensor]
    label: str = "PathFunction"
    jumps: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "dates", check_times(self.label, self.dates))

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
