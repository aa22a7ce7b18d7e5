"""What a payoff is: observation times and a function of what is seen of the path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from qsde.payoffs.seen import Paths, Watched

Kind = Literal["call", "put"]


@dataclass(frozen=True)
class Piece:
    """`cash + assets S` if the price lies between two levels.

    Attributes:
        lower, upper: the levels; None is none.
        cash, assets: the amounts.
        paid: time of the payment, years.
    """

    lower: float | Tensor | None
    upper: float | Tensor | None
    cash: float | Tensor
    assets: float | Tensor
    paid: float


@dataclass(frozen=True)
class Stage:
    """One date of a contract that lives.

    Attributes:
        time: the date, years.
        pieces: what it pays for the price at the date.
        stays: the levels between which the price has to be for the contract to live on.
    """

    time: float
    pieces: tuple[Piece, ...] = ()
    stays: tuple[float | Tensor | None, float | Tensor | None] = (None, None)


#: A payoff as a sum of contracts, each with a factor: given the price before, the mean of each date is a closed form.
Staged = Sequence[tuple[float, Sequence[Stage]]]


@dataclass(frozen=True)
class Flows:
    """Payments of a contract on each path, undiscounted.

    Attributes:
        times: when they are made, years, [payment].
        amounts: [*, path, payment].
    """

    times: tuple[float, ...]
    amounts: Tensor


class Claim(ABC):
    """A contract on one or several underlyings: frozen data that never simulates and never discounts.

    Its constants may be tensors, so that the price is differentiable in the strike, say.
    """

    @property
    @abstractmethod
    def times(self) -> tuple[float, ...]:
        """Observation times in years, increasing."""

    @property
    def window(self) -> tuple[float, float] | None:
        """The stretch of time in which every moment counts, for continuously watched contracts; None for the others."""
        return None

    @property
    def assets(self) -> int:
        """Number of underlyings."""
        return 1

    @property
    def maturity(self) -> float:
        """Time of the last payment, years."""
        return self.times[-1]

    @property
    def name(self) -> str:
        """The name used in tables and messages."""
        return type(self).__name__

    def check_spot(self, spot: Tensor) -> None:
        """Raises InputError where the contract makes no sense at this spot; most take any."""
        return


class Payoff(Claim):
    """A contract that pays functions of the underlying's path.

    Subclasses that pay once, at `maturity`, and look at prices only are a `Terminal`.
    """

    #: Whether the amounts are continuous in the path, so that they may be differentiated path by path.
    continuous: ClassVar[bool] = True
    #: Whether the amounts, where they are continuous, change so fast near a level that pathwise derivatives are noisy.
    steep: ClassVar[bool] = False

    @abstractmethod
    def flows(self, paths: Paths) -> Flows:
        """What is paid, and when."""

    def stages(self) -> Staged | None:
        """The payoff as contracts that pay and end at dates, each date by the price there; None if it is none such."""
        return None


class Terminal(Payoff):
    """A payoff that pays once, at the last of its times: a function of the prices at them."""

    @abstractmethod
    def __call__(self, prices: Tensor) -> Tensor:
        """Amount paid [*, path] for prices [*, path, time] at `times` ([*, asset, path, time] for several assets)."""

    def flows(self, paths: Paths) -> Flows:
        """The one amount, at `maturity`."""
        return Flows((self.maturity,), self(paths.prices).unsqueeze(-1))


class OfNumbers(Terminal):
    """A `Terminal` that pays a function of some numbers of the path, which payoffs alike share."""

    @property
    @abstractmethod
    def alike(self) -> Hashable:
        """Payoffs on the same dates of which this is the same look at the same numbers."""

    @abstractmethod
    def numbers(self, prices: Tensor) -> Tensor:
        """What the payoff looks at, of prices [*, path, time]."""

    @abstractmethod
    def paid(self, numbers: Tensor) -> Tensor:
        """Amount paid [*, path]."""

    def __call__(self, prices: Tensor) -> Tensor:
        """What is paid for the numbers of these prices."""
        return self.paid(self.numbers(prices))

    def flows(self, paths: Paths) -> Flows:
        """The one amount, at `maturity`."""
        numbers = paths.once(self.alike, lambda: self.numbers(paths.prices))
        return Flows((self.maturity,), self.paid(numbers).unsqueeze(-1))


@dataclass(frozen=True)
class Knock:
    """What an interval between two exercise dates does to a contract with a barrier; probabilities given the path.

    Attributes:
        survival: probability that the barrier is not touched, [*, path].
        early: what is paid on touching it, as far as it is booked at the start of the interval, [*, path].
        late: the part booked at its end.
    """

    survival: Tensor
    early: Tensor
    late: Tensor


class EarlyExercise(Claim):
    """A contract whose holder chooses one of its `times` to be paid at, or none of them.

    What exercising pays depends on the prices at that moment. With a `window`, a barrier may end the right or begin it.
    """

    #: Whether the amounts are continuous in the prices, so that they may be differentiated path by path.
    continuous: bool = True
    #: Whether the dates stand for any time, so that the holder may exercise just before a dividend, too.
    anytime: ClassVar[bool] = False
    #: Whether the right begins when the barrier is touched, instead of ending.
    knocks_in: ClassVar[bool] = False

    @abstractmethod
    def exercise(self, prices: Tensor) -> Tensor:
        """What exercising pays, [*, path, time], for prices [*, path, time] ([*, asset, path, time] if several).

        Where it is not positive nobody exercises; how far below 0 it lies says how far that is.
        """

    def signals(self, prices: Tensor) -> Tensor:
        """Numbers that tell what the right is worth, [signal, *, path, time]: by default the log-prices."""
        logs = torch.log(prices)
        return logs.unsqueeze(0) if self.assets == 1 else logs.movedim(-3, 0)

    def inside(self, prices: Tensor) -> Tensor:
        """Which prices [*, path] have not touched the barrier; all of them where there is none."""
        return torch.ones_like(prices, dtype=torch.bool)

    def between(self, watched: Watched) -> Knock:
        """What happens between two exercise dates, of contracts with a `window`."""
        raise NotImplementedError(f"{self.name} has no barrier")

    @property
    def never(self) -> float | Tensor:
        """Paid at `maturity` if the right never begins, of contracts that knock in."""
        return 0.0


def vanilla(price: Tensor, strike: float | Tensor, kind: Kind) -> Tensor:
    """`max(price - strike, 0)` for a call, `max(strike - price, 0)` for a put."""
    return torch.relu(price - strike) if kind == "call" else torch.relu(strike - price)
