"""The dates of a right to exercise, and what simulated paths look like there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.payoffs.base import EarlyExercise, Knock
from qsde.payoffs.seen import Watched
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.simulation import Simulation
from qsde.pricing.variation import with_cash
from qsde.schemes.base import State


@dataclass(frozen=True)
class View:
    """Paths at one date.

    Attributes:
        prices: [P] of one underlying, [asset, P] of several.
        hidden: the model's other state, such as the variance, [k, P].
        cum: prices just before the dividends of that date, where the holder may still have exercised at them.
    """

    prices: Tensor
    hidden: Tensor
    cum: Tensor | None = None

    def of(self, chosen: Tensor) -> View:
        """Some of the paths."""
        cum = None if self.cum is None else self.cum[..., chosen]
        return View(self.prices[..., chosen], self.hidden[:, chosen], cum)


@dataclass(frozen=True)
class Stages:
    """Today and all exercise dates.

    Attributes:
        simulation: of the whole state.
        market: spots, curves, dividends.
        claim: the right.
        times: years, today first.
        columns: of the simulation's dates.
        after, before: scale and shift [asset, stage] of prices after and before the dividends of each date.
    """

    simulation: Simulation
    market: Market | Markets
    claim: EarlyExercise
    times: tuple[float, ...]
    columns: tuple[int, ...]
    after: tuple[Tensor, Tensor]
    before: tuple[Tensor, Tensor]

    @classmethod
    def of(
        cls,
        model: Model,
        claim: EarlyExercise,
        market: Market | Markets,
        engine: MonteCarlo,
    ) -> Stages:
        """Prepares the simulation."""
        ex_dates = [t for t in market.dividend_times if 0 < t < claim.maturity]
        times = tuple(sorted({0.0, *claim.times, *(ex_dates if claim.anytime else ())}))
        windows = [claim.window] if claim.window else []
        dates = [*times, *(ex_dates if windows else ())]
        simulation = Simulation.of(model, dates, engine, windows, whole_state=True, clock=market.clock)
        grid = simulation.job.grid
        after, before = (_affine(market, times, times[-1], b, engine.device) for b in (False, True))
        return cls(simulation, market, claim, times, tuple(grid.column(t) for t in times), after, before)

    @property
    def last(self) -> int:
        """Number of the last stage."""
        return len(self.times) - 1

    def allowed(self, i: int) -> bool:
        """Whether stage `i` is an exercise date."""
        return i > 0 or self.claim.times[0] == 0

    def discounts(self) -> list[Tensor]:
        """Discount factors from each stage to the one before; 1 for the first."""
        factors = self.market.discount(torch.tensor(self.times, dtype=torch.float64)).to(self.simulation.engine.device)
        return [torch.ones_like(factors[0]), *(factors[1:] / factors[:-1]).unbind(0)]

    def view(self, state: State, i: int) -> View:
        """What is seen of a state [P] each at stage `i`."""
        n = self.claim.assets
        martingales = torch.exp(torch.stack(state[:n]).double())
        hidden = [s.double() for s in (state[n:-1] if self._tracked else state[n:])]
        prices = _priced(martingales, self.after, i)
        chooses = self.claim.anytime and self.times[i] in self.market.dividend_times
        cum = _priced(martingales, self.before, i) if chooses else None
        return View(prices, torch.stack(hidden) if hidden else martingales[:0], cum)

    def growth(self, before: State, after: State) -> Tensor:
        """What one unit of each underlying's martingale gains between two states, [asset, P]."""
        n = self.claim.assets
        return torch.expm1(torch.stack(after[:n]).double() - torch.stack(before[:n]).double())

    def knock(self, states: State, i: int) -> Knock | None:
        """What the barrier does between stage `i` and the next, from all states [date, P] of that interval."""
        return None if self.claim.window is None else self.claim.between(self._watched(states, i))

    def interval(self, i: int) -> slice:
        """Dates of the simulation from stage `i` to the next."""
        return slice(self.columns[i], self.columns[i + 1] + 1)

    @property
    def _tracked(self) -> bool:
        return self.claim.window is not None and self.simulation.scheme.jumps

    def _watched(self, states: State, i: int) -> Watched:
        dates = self.simulation.job.grid.dates[self.interval(i)]
        states = tuple(s.double() for s in states)
        t = self.market.years(dates).to(states[0].device).unsqueeze(-1)
        before, after = tuple(s[:-1] for s in states), tuple(s[1:] for s in states)
        simulation = self.simulation
        interval = simulation.model, before, after, t.diff(dim=0), t[:-1]
        variance, slope = simulation.scheme.variance(*interval), simulation.scheme.slope(*interval)
        scale, shift = (v[0, :, None] for v in self._affine(dates))
        prices = scale * torch.exp(states[0]) + shift
        end_scale, end_shift = (v[0, :, None] for v in self._affine(dates[1:], before=True))
        ends = end_scale * torch.exp(after[0] - after[-1] if self._tracked else after[0]) + end_shift
        if self.market.has_cash:
            variance, slope = with_cash(variance, slope, 1 - shift[:-1] / prices[:-1])
        slope = None if slope is None else slope.expand_as(variance).mT
        return Watched(dates, torch.log(prices).mT, torch.log(ends).mT, variance.mT, prices.new_empty(0), slope)

    def _affine(self, times: tuple[float, ...], before: bool = False) -> tuple[Tensor, Tensor]:
        return _affine(self.market, times, self.times[-1], before, self.simulation.engine.device)


def _affine(
    market: Market | Markets, times: tuple[float, ...], horizon: float, before: bool, device: str
) -> tuple[Tensor, Tensor]:
    """Scale and shift [asset, time] of the price."""
    found = market.affine(torch.tensor(times, dtype=torch.float64), before=before, horizon=horizon)
    scale, shift = (v.to(device).reshape(-1, len(times)) for v in found)
    return scale, shift


def _priced(martingales: Tensor, affine: tuple[Tensor, Tensor], i: int) -> Tensor:
    """Prices [P] or [asset, P] of `exp(x)` [asset, P] at stage `i`."""
    scale, shift = (v[:, i, None] for v in affine)
    prices: Tensor = scale * martingales + shift
    return prices[0] if len(prices) == 1 else prices


@dataclass(frozen=True)
class Sample:
    """Simulated paths at all stages.

    Attributes:
        states: components of the state, [stage, P] each.
        knocks: what the barrier does in each interval; None where there is none.
    """

    states: State
    knocks: tuple[Knock | None, ...]

    @classmethod
    def of(cls, stages: Stages, states: State) -> Sample:
        """From the states [date, P] at all dates of the simulation."""
        knocks = tuple(stages.knock(tuple(s[stages.interval(i)] for s in states), i) for i in range(stages.last))
        return cls(tuple(s[list(stages.columns)] for s in states), knocks)

    @classmethod
    def joined(cls, parts: list[Sample]) -> Sample:
        """The paths of all parts."""
        states = tuple(torch.cat(column, -1) for column in zip(*(p.states for p in parts), strict=True))
        return cls(states, tuple(_joined(list(column)) for column in zip(*(p.knocks for p in parts), strict=True)))

    def split(self, size: int) -> Iterator[Sample]:
        """Samples of at most `size` paths."""
        for first in range(0, self.states[0].shape[-1], size):
            part = slice(first, first + size)
            knocks = (k and Knock(k.survival[part], k.early[part], k.late[part]) for k in self.knocks)
            yield Sample(tuple(s[:, part] for s in self.states), tuple(knocks))

    def at(self, i: int) -> State:
        """State at stage `i`."""
        return tuple(s[i] for s in self.states)


def _joined(parts: list[Knock | None]) -> Knock | None:
    found = [part for part in parts if part is not None]
    if not found:
        return None
    return Knock(
        *(torch.cat(column, -1) for column in zip(*((k.survival, k.early, k.late) for k in found), strict=True))
    )
