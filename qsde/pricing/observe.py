"""From simulated states to what a claim sees: prices at its dates, and what lies between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.payoffs import Claim, Paths, Watched
from qsde.payoffs.base import Stage
from qsde.payoffs.checks import as_like
from qsde.pricing.simulation import Block, Bridges, Simulation
from qsde.pricing.survival import survived
from qsde.pricing.variation import cut_in_two, with_cash
from qsde.solve.once import first_order

#: Variances of a step below this count as this, where a root is taken.
_LEAST_VARIANCE = 1e-12
#: Prices before dividends below this count as this.
_LEAST_PRICE = 1e-12


class Observer:
    """Turns blocks into the paths of one claim.

    Cash dividends after the last date on which the claim looks at the price are left out (`Market`, "Horizon").
    """

    def __init__(self, simulation: Simulation, market: Market | Markets, claim: Claim) -> None:
        self._simulation = simulation
        self._market = market
        self._claim = claim
        self._horizon = claim.times[-1]
        grid = simulation.job.grid
        self._columns = [grid.column(t) for t in claim.times]
        self._affines: dict[tuple[tuple[float, ...], bool], tuple[Tensor, Tensor]] = {}
        self._scale, self._shift = self._affine(claim.times)
        if claim.window is not None:
            first, last = (grid.column(t) for t in claim.window)
            self.watched = slice(first, last + 1)  # columns of the window
            self._dates = grid.dates[self.watched]
            self._steps = [k - 1 for k in grid.observed_after[first + 1 : last + 1]]

    @property
    def n_dates(self) -> int:
        """Number of dates at which the claim looks at the price."""
        return len(self._columns)

    @property
    def last_column(self) -> int:
        """Column of the last date at which the claim looks at the price."""
        return self._columns[-1]

    def paths(self, block: Block) -> Paths:
        """What the claim sees of a block."""
        seen = self._claim.assets
        growth = torch.stack([torch.stack([block.grown(k, i) for i in self._columns]) for k in range(seen)])
        prices = _priced(growth, self._scale, self._shift)  # of growth [asset, time, *batch, path]
        prices = first_order(prices[0] if seen == 1 else prices.movedim(0, -3))
        if self._claim.window is None:
            return Paths(prices)
        return Paths(prices, self._between(block))

    def log_level(self, level: float | Tensor, like: Tensor) -> Tensor:
        """`x` at which the price is at a level, at the dates of the window: [date, *batch, 1]."""
        scale, shift = (v[0].unsqueeze(-1) for v in self._affine(self._dates))
        return torch.log((as_like(level, scale) - shift).clamp(min=_LEAST_PRICE) / scale).detach().to(like)

    def lognormal(self, block: Block) -> tuple[Tensor, Tensor]:
        """Mean of the price at the last date, and the variance of its logarithm, on each path: [*batch, path] both."""
        mean, variance = block.lognormal(self.last_column)
        return self._scale[0, -1].unsqueeze(-1) * torch.exp(mean + 0.5 * variance), variance

    def survived(self, block: Block, stages: Sequence[Stage], discount: Callable[[float], Tensor]) -> Tensor:
        """Present value of a contract that ends or lives on at dates, date by date (`survival.survived`)."""
        times = tuple(stage.time for stage in stages)
        columns = [self._simulation.job.grid.column(t) for t in times]
        x, means, variances = (s[columns] for s in (block.states[0], block.mean, block.variance))
        with torch.no_grad():
            own, spread = (torch.diff(v, dim=0, prepend=torch.zeros_like(v[:1])) for v in (x - means, variances))
            uniforms = 0.5 * torch.special.erfc(-math.sqrt(0.5) * own / torch.sqrt(spread.clamp(min=_LEAST_VARIANCE)))
        scale, shift = (v[0].unsqueeze(-1) for v in self._affine(times))
        return survived(stages, means, variances, uniforms, (scale, shift), discount, today=times[0] == 0.0)

    def _between(self, block: Block) -> Watched:
        """What lies between the dates of the window: claims with the same window share it, markets the bridges."""
        key = (id(self._market), self._dates, self._horizon if self._market.has_cash else None)
        if key not in block.watched:
            block.watched[key] = self._market, self._priced(self._bridges(block))
        return block.watched[key][1]

    def moved(self, block: Block, x: Tensor) -> Block:
        """The block with other x and the same variance, [date, *batch, path]."""
        moved = block.with_x(x)
        bridges = self._bridges(block)
        if bridges.ends is None:
            moved.bridges[self._dates] = replace(bridges, x=x[self.watched])
        return moved

    def _bridges(self, block: Block) -> Bridges:
        if self._dates not in block.bridges:
            block.bridges[self._dates] = self._bridged(block)
        return block.bridges[self._dates]

    def _bridged(self, block: Block) -> Bridges:
        simulation, dates = self._simulation, self._dates
        states = tuple(s[self.watched] for s in block.states)
        before, after = tuple(s[:-1] for s in states), tuple(s[1:] for s in states)
        t = self._market.years(dates).movedim(-1, 0).to(states[0])
        t = t.reshape(*t.shape, *(1,) * (states[0].dim() - t.dim()))
        start, size = t[:-1], t.diff(dim=0)
        interval = simulation.model, before, after, size, start
        variance, slope = simulation.scheme.variance(*interval), simulation.scheme.slope(*interval)
        x, uniforms = states[0], block.uniforms(self._steps)
        if not simulation.scheme.jumps:
            return Bridges(dates, x, None, variance, slope, uniforms)
        dates, x, ends, variance, slope, uniforms = self._halved(block, x, after, variance, slope)
        return Bridges(dates, x, ends, variance, slope, uniforms)

    def _priced(self, bridges: Bridges) -> Watched:
        dates, variance, slope = bridges.dates, bridges.variance, bridges.slope
        logs = self._logs(bridges.x, dates)
        smooth = bridges.ends is None and not self._market.dividend_times
        x = bridges.x[1:] if bridges.ends is None else bridges.ends
        ends = logs[1:] if smooth else self._logs(x, dates[1:], before=True)
        if self._market.has_cash:
            shift = self._affine(dates)[1][0][:-1]
            moving = 1 - shift.reshape(*shift.shape, *(1,) * (logs.dim() - shift.dim())) * torch.exp(-logs[:-1])
            variance, slope = with_cash(variance, slope, moving)
        slope = None if slope is None else slope.movedim(0, -1)
        reaches = {} if self._market.has_cash else bridges.reaches
        return Watched(
            dates, logs.movedim(0, -1), ends.movedim(0, -1), variance.movedim(0, -1), bridges.uniforms, slope, reaches
        )

    def _logs(self, x: Tensor, times: tuple[float, ...], before: bool = False) -> Tensor:
        """Logarithms of the price [time, *batch, path]."""
        scale, shift = self._affine(times, before)
        if self._market.has_cash:
            return torch.log(_priced(torch.exp(x)[None], scale, shift)[0]).movedim(-1, 0)
        logs = torch.log(scale[0])
        return x + logs.reshape(*logs.shape, *(1,) * (x.dim() - logs.dim()))

    def _halved(
        self, block: Block, x: Tensor, after: tuple[Tensor, ...], variance: Tensor, slope: Tensor | None
    ) -> tuple[tuple[float, ...], Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        """Steps cut in two, with their jumps in the middle, to which the bridge of the diffusion is sampled.

        Jumps come at any time of a step: put at its end they would leave a price on either side of a barrier at once,
        with an error of the order of the step and a jump of the payoff that pathwise gradients miss.
        """
        middles = [0.5 * (a + b) for a, b in pairwise(self._dates)]
        dates = tuple(sorted([*self._dates, *middles]))
        normal = torch.special.ndtri(block.uniforms(self._steps, -2)).movedim(-1, 0)
        normal = normal.reshape(len(normal), *(1,) * (x.dim() - normal.dim()), *normal.shape[1:])
        way = after[0] - after[-1] - x[:-1]
        move, *halves = cut_in_two(way, variance, slope, normal)
        before = x[:-1] + 0.5 * way + move
        halved = torch.cat([_interleaved(x[:-1], before + after[-1]), x[-1:]])
        uniforms = _interleaved(*(block.uniforms(self._steps, k).movedim(-1, 0) for k in (-3, -1))).movedim(0, -1)
        slope = None if slope is None else 0.5 * slope.repeat_interleave(2, 0)
        return dates, halved, _interleaved(before, after[0]), _interleaved(*halves), slope, uniforms

    def _affine(self, times: tuple[float, ...], before: bool = False) -> tuple[Tensor, Tensor]:
        """Scale and shift [asset, time, *batch] of the price; without batch axes unless the market has them."""
        if (times, before) not in self._affines:
            engine = self._simulation.engine
            t = torch.tensor(times, dtype=torch.float64)
            found = self._market.affine(t, before=before, horizon=self._horizon)
            by_asset = found if isinstance(self._market, Markets) else tuple(v.unsqueeze(0) for v in found)
            scale, shift = (v.to(engine.device, engine.dtype).movedim(-1, 1) for v in by_asset)
            self._affines[times, before] = scale, shift
        return self._affines[times, before]


def _priced(growth: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Prices [asset, *batch, path, time] from `exp(x)` [asset, time, *batch, path]."""
    shape = (*scale.shape, *(1,) * (growth.dim() - scale.dim()))
    return torch.addcmul(shift.reshape(shape), scale.reshape(shape), growth).movedim(1, -1)


def _interleaved(first: Tensor, second: Tensor) -> Tensor:
    """Rows of both in turn."""
    return torch.stack([first, second], 1).flatten(0, 1)
