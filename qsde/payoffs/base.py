"""What a payoff is: observation times and a function of what is seen of the path."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import holds
from qsde.payoffs.bridge import reach
from qsde.payoffs.picked import Picked

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


#: Log prices at the start and the end of intervals, variances and their slopes.
Bridging = tuple[Tensor, Tensor, Tensor, Tensor | None]

Made = TypeVar("Made")


@dataclass(frozen=True)
class Shared:
    """What payoffs look at, with all that several of them make of it."""

    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` returns, made when first asked for."""
        if key not in self._made:
            self._made[key] = make()
        found: Made = self._made[key]
        return found


@dataclass(frozen=True)
class Watched(Shared):
    """What is known of paths between the dates of a window that a payoff watches continuously.

    Between two neighbouring times the logarithm of the price is a Brownian bridge from `logs[..., i]` to
    `log_ends[..., i]` with quadratic variation `variance[..., i]`; then it jumps to `logs[..., i + 1]`. Bridges of
    different intervals are independent given the ends. This is exact for Black-Scholes. Where the variance moves with
    the price inside an interval, `slope[..., i]` says how (`bridge.variance_to`); where jumps arrive at its end only,
    there is an error of the order of the interval.

    Attributes:
        times: ends of the intervals, years, [n + 1]; the first is the start of the window.
        logs: log prices [*, path, n + 1] at `times`, after jumps.
        log_ends: log prices [*, path, n] just before the jumps and dividends at the end of each interval.
        variance: quadratic variation of log price over each interval, [*, path, n].
        uniforms: one independent uniform for each interval, [path, n], for sampling extremes.
        slope: change of `variance` per unit of log price at which the path is, [*, path, n]; None if there is none.
        reaches: how far beyond both its ends each interval gets on a side (`bridge.reach`), shared by all that have the
            same variance and slope.
    """

    times: tuple[float, ...]
    logs: Tensor
    log_ends: Tensor
    variance: Tensor
    uniforms: Tensor
    slope: Tensor | None = None
    reaches: dict[float, Tensor] = field(default_factory=dict)

    @property
    def prices(self) -> Tensor:
        """Prices at `times`, after jumps."""
        return self.once("prices", lambda: torch.exp(self.logs))

    def bridges_of(self, some: Picked) -> Bridging:
        """Log prices at the start and the end of some intervals, their variances and slopes, [interval] each."""
        slope = None if self.slope is None else some.of(self.slope)
        return some.of(self.logs[..., :-1]), some.of(self.log_ends), some.of(self.variance), slope

    @property
    def depths(self) -> Tensor:
        """Minus logarithms of `uniforms`."""
        return self.once("depths", lambda: -torch.log(self.uniforms))

    def farther(self, side: float) -> Tensor:
        """The highest (1) or lowest (-1) log price [*, path, n] at the ends of each interval, without gradient."""
        start, end, after = (x.detach() for x in (self.logs[..., :-1], self.log_ends, self.logs[..., 1:]))
        pick = _PICK[side]
        return self.once(("farther", side), lambda: pick(pick(start, end), after))

    def so_far(self, side: float) -> Tensor:
        """The highest (1) or lowest (-1) log price [*, path, n + 1] at all times up to each, without gradient."""
        rows = self.logs.detach().unbind(-1)
        return self.once(
            ("so far", side), lambda: torch.stack(list(itertools.accumulate(rows, _PICK[side]))).movedim(0, -1)
        )

    def may_pass(self, level: Tensor, side: float) -> Tensor:
        """In which intervals [*, path, n] the price may be above (1) or below (-1) a log price for the first time."""
        before = self.so_far(side)[..., :-1]
        farthest = self.once(("farthest", side), lambda: self.farther(side) + side * self._reach(side))
        return (farthest >= level) & (before < level) if side > 0 else (farthest <= level) & (before > level)

    def _reach(self, side: float) -> Tensor:
        if side not in self.reaches:
            slope = None if self.slope is None else self.slope.detach()
            self.reaches[side] = reach(self.variance.detach(), slope, side)
        return self.reaches[side]


_PICK = {1.0: torch.maximum, -1.0: torch.minimum}


@dataclass(frozen=True)
class Paths(Shared):
    """What a payoff sees of a block of paths.

    Attributes:
        prices: prices [*, path, time] at the payoff's `times`; [*, asset, path, time] if it is on several assets.
        watched: what lies between, for payoffs with a `window`; None for the others.
    """

    prices: Tensor
    watched: Watched | None = None


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
