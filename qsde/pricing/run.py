"""One simulation of a book of payoffs: samples of their worth, and what they say of the price."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.numerics import holds
from qsde.payoffs import AtExpiry, Paths, Payoff
from qsde.payoffs.checks import differentiated
from qsde.pricing.controls import Companion, companions
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.moments import Control, Moments, Result
from qsde.pricing.near import NearBarrier
from qsde.pricing.observe import Observer
from qsde.pricing.path_set import PathSet
from qsde.pricing.simulation import Block, Parts, Simulation
from qsde.solve.transforms import inside_transform

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sample:
    """What one block says of one payoff.

    Attributes:
        worth: present value [*batch, path].
        controls: quantities of known mean 0 [*batch, k, path].
        within: variance of the worth that was averaged out, [*batch, path] or None.
    """

    worth: Tensor
    controls: Tensor
    within: Tensor | None = None


@dataclass(frozen=True)
class Run:
    """One simulation of a book: what all its blocks share.

    Attributes:
        book, market: what is priced, and where.
        paths: the paths.
        averaged: payoffs whose mean over the price's own noise is taken in closed form.
        observers: what each payoff sees of them; those that look at the same times share one.
        companions: control variates with an exact price, where there is one.
        near: of payoffs that are looked at near their barriers, too, how; by their number.
    """

    book: list[Payoff]
    market: Market | Markets
    paths: PathSet
    averaged: list[bool]
    observers: list[Observer]
    companions: list[Companion]
    near: Mapping[int, NearBarrier] = field(default_factory=dict)
    _discounts: dict[tuple[float, ...], Tensor] = field(default_factory=dict)  # of the block that is looked at

    @classmethod
    def of(
        cls,
        model: Model,
        book: list[Payoff],
        market: Market | Markets,
        engine: MonteCarlo,
        companions: list[Companion] | None = None,
    ) -> Run:
        """Prepares the simulation of a book.

        Args:
            model: the model.
            book: the payoffs.
            market: spot, curves and dividends.
            engine: settings.
            companions: control variates of the payoffs; None finds them.

        Raises:
            InputError: payoffs, model and market do not belong together, or a gradient that would be wrong.
        """
        means = engine.conditional and all(isinstance(payoff, AtExpiry) for payoff in book)
        simulation = simulated(model, book, market, engine, averaged=means)
        if companions is None:
            companions = _companions(model, book, market) if engine.control_variate else []
        averaged = [simulation.averaged] * len(book)
        return cls.on(PathSet(simulation), book, market, averaged, companions or [None] * len(book))

    @classmethod
    def on(
        cls,
        paths: PathSet,
        book: list[Payoff],
        market: Market | Markets,
        averaged: list[bool],
        companions: list[Companion],
        near: Mapping[int, NearBarrier] | None = None,
    ) -> Run:
        """A book on paths that others look at, too; arguments are the attributes."""
        made: dict[object, Observer] = {}
        for payoff in book:
            looks = payoff.times, payoff.window, payoff.assets
            if looks not in made:
                made[looks] = Observer(paths.simulation, market, payoff)
        observers = [made[payoff.times, payoff.window, payoff.assets] for payoff in book]
        return cls(book, market, paths, averaged, observers, companions, near or {})

    @property
    def simulation(self) -> Simulation:
        """Where the paths come from."""
        return self.paths.simulation

    def results(self, progress: Progress) -> list[Result]:
        """Every payoff's result from all blocks."""
        return self._replicates(progress) if self.simulation.group < 0 else self._samples(progress)

    def worths(self, parts: Parts) -> list[Tensor]:
        """Present value of each payoff from independent samples on these parts of the paths."""
        return [m.result().value for m in self._of_parts(parts)]

    def changed(self, parts: Parts, change: Callable[[Block], Block]) -> list[Tensor]:
        """By how much each value moves if the paths are changed, with the regression on the controls held."""
        pairs = zip(self._of_parts(parts), self._of_parts(parts, change), strict=True)
        return [b.mean_y - a.mean_y - (a.beta() * (b.mean_c - a.mean_c)).sum(-1) for a, b in pairs]

    def _of_parts(self, paths: Parts, change: Callable[[Block], Block] | None = None) -> list[Moments]:
        merged: list[Moments] = []
        for block in self.paths.blocks(paths):
            parts = self._moments(block if change is None else change(block))
            merged = [m.merge(b) for m, b in zip(merged, parts, strict=True)] if merged else parts
        return merged

    def _samples(self, progress: Progress) -> list[Result]:
        """From independent samples: paths, or groups of neighbouring paths."""
        merged: list[Moments] = []
        for block in self._blocks(progress):
            parts = self._moments(block)
            merged = [m.merge(b) for m, b in zip(merged, parts, strict=True)] if merged else parts
        return [m.result() for m in merged]

    def _moments(self, block: Block) -> list[Moments]:
        """Payoff by payoff, so that no more than one payoff's samples of all parameter sets are held at once."""
        shared: dict[int, tuple[Tensor, Control]] = {}
        parts = []
        size = max(1, self.simulation.group)
        for sample in self._of_block(block):
            if id(sample.controls) not in shared:
                shared[id(sample.controls)] = sample.controls, Control.of(_means(sample.controls, size))
            control = shared[id(sample.controls)][1]
            within = _within(sample.worth, sample.within, size)
            parts.append(Moments.of(_means(sample.worth, size), control, size, within))
        return parts

    def _replicates(self, progress: Progress) -> list[Result]:
        """From scrambles of a low-discrepancy noise, which span all blocks: path i belongs to scramble i mod s."""
        scrambles, total = -self.simulation.group, self.simulation.n_paths
        merged: list[Moments] = []
        sums: list[tuple[Tensor, Tensor]] = []
        for block in self._blocks(progress):
            parts: list[Moments] = []
            means: list[tuple[Tensor, Tensor]] = []
            for sample in self._of_block(block):
                parts.append(Moments.of(sample.worth, Control.of(sample.controls), within=sample.within))
                means.append((_replicate_sums(sample.worth, scrambles), _replicate_sums(sample.controls, scrambles)))
            merged = [m.merge(b) for m, b in zip(merged, parts, strict=True)] if merged else parts
            sums = [(a + y, b + c) for (a, b), (y, c) in zip(sums, means, strict=True)] if sums else means
        each = total // scrambles
        return [m.of_replicates(y / each, c / each) for m, (y, c) in zip(merged, sums, strict=True)]

    def _blocks(self, progress: Progress) -> Iterator[Block]:
        total = self.simulation.n_paths
        for first in range(0, total, self.simulation.block_size):
            block = self.simulation.block(first)
            yield block
            progress(first + block.n_paths, total)

    def _of_block(self, block: Block) -> Iterator[Sample]:
        """Each payoff's sample. Payoffs that look at the price last on the same date share the forward as control."""
        forwards: dict[tuple[bool, int], Tensor] = {}
        kept: dict[Observer, Paths] = {}
        self._discounts.clear()
        pieces = self._watched(block)
        for i, (payoff, observer, like) in enumerate(zip(self.book, self.observers, self.companions, strict=True)):
            last = self.averaged[i], observer.last_column
            if last not in forwards:
                forwards[last] = self._forwards(block, *last)
            if self.averaged[i]:
                sample = self._mean(payoff, observer, block, forwards[last])
            elif i in self.near:
                sample = self._weighted(payoff, observer, like, self.near[i], block)
            else:
                found = pieces.get(i) or [self._worths(payoff, like, self._kept(observer, block, kept))]
                sample = self._sample(found, like, forwards[last])
            if not holds(torch.isfinite(sample.worth.detach().sum())):
                raise NumericsError(self.simulation.where_not_finite(block.noise))
            yield sample

    def _watched(self, block: Block) -> dict[int, list[tuple[Tensor, ...]]]:
        """Worths of what is watched continuously, all of it piece by piece, so that the caches hold what it shares."""
        mine = [i for i, p in enumerate(self.book) if p.window and not self.averaged[i] and i not in self.near]
        found: dict[int, list[tuple[Tensor, ...]]] = {i: [] for i in mine}
        for piece in block.pieces if mine else ():
            seen = {observer: self._paths(observer, piece) for observer in {self.observers[i] for i in mine}}
            for i in mine:
                found[i].append(self._worths(self.book[i], self.companions[i], seen[self.observers[i]]))
        return found

    def _kept(self, observer: Observer, block: Block, kept: dict[Observer, Paths]) -> Paths:
        """What an observer sees, kept for the next payoff, as far as that is no more than the block itself."""
        if observer not in kept:
            while kept and observer.n_dates + sum(other.n_dates for other in kept) > len(block.dates):
                del kept[next(iter(kept))]
            kept[observer] = self._paths(observer, block)
        return kept[observer]

    def _forwards(self, block: Block, averaged: bool, last: int) -> Tensor:
        """The prices of the underlyings over their forwards, less 1, where their mean is known: [*batch, k, path]."""
        simulation, states = self.simulation, block.states
        if not (simulation.model.martingale and simulation.engine.control_variate):
            return states[0].new_zeros(*states[0].shape[1:-1], 0, block.n_paths)
        if averaged:
            mean, variance = block.lognormal(last)
            return torch.expm1(mean + 0.5 * variance).unsqueeze(-2)
        return torch.stack([torch.expm1(s[last]) for s in block.by_date[: simulation.model.assets]], -2)

    def _mean(self, payoff: Payoff, observer: Observer, block: Block, forwards: Tensor) -> Sample:
        """The mean of the worth given everything but the price's own noise, date by date if there are several."""
        if not isinstance(payoff, AtExpiry):
            return Sample(self._staged(payoff, observer, block), forwards)
        mean, variance = payoff.given_lognormal(*observer.lognormal(block))
        discount = self._discount(payoff.times, mean)
        return Sample(mean * discount, forwards, variance * discount.square())

    def _staged(self, payoff: Payoff, observer: Observer, block: Block) -> Tensor:
        contracts = payoff.stages()
        assert contracts is not None, "checked by whoever chose the method"
        times = sorted({piece.paid for _, stages in contracts for stage in stages for piece in stage.pieces})
        factors = dict(zip(times, self._discount(tuple(times), block.mean).unbind(-1), strict=True))
        worths = [factor * observer.survived(block, stages, factors.__getitem__) for factor, stages in contracts]
        return torch.stack(worths).sum(0)

    def _sample(self, found: list[tuple[Tensor, ...]], like: Companion, forwards: Tensor) -> Sample:
        """From the worths in each piece of the block."""
        worth, *likes = (torch.cat(parts, -1) for parts in zip(*found, strict=True))
        if like is None:
            return Sample(worth, forwards)
        miss = likes[0] - like[1].to(worth).unsqueeze(-1)
        shared = forwards.expand(*miss.shape[:-1], *forwards.shape[-2:])  # by all spots of one parameter set
        return Sample(worth, torch.cat([shared, miss.unsqueeze(-2)], -2))

    def _weighted(self, payoff: Payoff, observer: Observer, like: Companion, near: NearBarrier, block: Block) -> Sample:
        """Sums over the samples of each path, those near a barrier among them; those of weights are a control."""
        sums = []
        for piece in block.pieces:
            rows = []
            for weight, sample in near(piece):
                forwards = self._forwards(sample, False, observer.last_column).unbind(-2)
                worths = self._worths(payoff, like, self._paths(observer, sample))
                found = *worths, *forwards, torch.ones_like(weight)
                row = weight.unsqueeze(-2) * torch.stack(torch.broadcast_tensors(*found), -2)
                rows.append(torch.nn.functional.pad(row, (0, piece.n_paths - sample.n_paths)))
            sums.append(torch.stack(rows).sum(0))
        worth, *controls = torch.cat(sums, -1).unbind(-2)
        if not self.simulation.engine.control_variate:
            return Sample(worth, worth.new_zeros(*worth.shape[:-1], 0, worth.shape[-1]))
        if like is not None:
            controls[0] = controls[0] - like[1].to(worth).unsqueeze(-1)
        controls[-1] = controls[-1] - 1.0
        return Sample(worth, torch.stack(controls, -2))

    def _paths(self, observer: Observer, block: Block) -> Paths:
        """What an observer sees; an error if it is not finite."""
        seen = observer.paths(block)
        if not holds(torch.isfinite(seen.prices.detach().sum())):
            raise NumericsError(self.simulation.where_not_finite(block.noise))
        return seen

    def _worths(self, payoff: Payoff, like: Companion, seen: Paths) -> tuple[Tensor, ...]:
        """Worth of a payoff, and of its companion if there is one, [*batch, path] each."""
        if not payoff.continuous and differentiated(seen.prices):
            raise InputError(
                f"{payoff.name} jumps, so its pathwise gradient is wrong; price it under torch.no_grad() or with "
                "inputs that do not require grad"
            )
        worth = self._worth(payoff, seen)
        return (worth,) if like is None else (worth, self._worth(like[0], seen))

    def _worth(self, payoff: Payoff, seen: Paths) -> Tensor:
        """Discounted payments [*batch, path]."""
        flows = payoff.flows(seen)
        return (flows.amounts * self._discount(flows.times, flows.amounts).unsqueeze(-2)).sum(-1)

    def _discount(self, times: tuple[float, ...], like: Tensor) -> Tensor:
        if times not in self._discounts:
            self._discounts[times] = self.market.discount(times).to(like)
        return self._discounts[times]


def simulated(
    model: Model,
    book: list[Payoff],
    market: Market | Markets,
    engine: MonteCarlo,
    averaged: bool = False,
    sampled: bool = False,
) -> Simulation:
    """The simulation that a book needs.

    Args:
        model: the model.
        book: the payoffs.
        market: spot, curves and dividends.
        engine: settings.
        averaged: leave the price's own noise out, where the scheme can.
        sampled: keep the mean and the variance of the log-price beside it, where the scheme can.

    Raises:
        InputError: payoffs, model and market do not belong together.
    """
    for payoff in book:
        _check(payoff, model, market)
    windows = {payoff.window for payoff in book if payoff.window is not None}
    dates = [t for payoff in book for t in payoff.times]
    dates += [t for t in market.dividend_times for start, end in windows if start < t < end]
    # between cash dividends the logarithm of the price is no exact bridge
    fine = bool(windows) and market.has_cash
    return Simulation.of(
        model, dates, engine, windows, averaged=averaged, fine=fine, clock=market.clock, sampled=sampled
    )


def _companions(model: Model, book: list[Payoff], market: Market | Markets) -> list[Companion]:
    # Fourier integrals look at their inputs, which a transform forbids
    if isinstance(market, Markets) or inside_transform():
        return []
    return companions(model, market, book)


def _means(values: Tensor, size: int) -> Tensor:
    """Means over groups of `size` neighbours."""
    if size == 1:
        return values
    means: Tensor = values.unflatten(-1, (-1, size)).mean(-1)
    return means


def _within(worth: Tensor, given: Tensor | None, size: int) -> Tensor | None:
    """Variance of the paths within each group: what differs between them, and what was averaged out on each."""
    if size == 1:
        return given
    between: Tensor = worth.detach().unflatten(-1, (-1, size)).var(-1, correction=0)
    return between if given is None else between + _means(given.detach(), size)


def _replicate_sums(values: Tensor, scrambles: int) -> Tensor:
    """Sums [..., scrambles] over the paths of each scramble."""
    sums: Tensor = values.unflatten(-1, (-1, scrambles)).sum(-2, dtype=torch.float64)
    return sums


def _check(payoff: Payoff, model: Model, market: Market | Markets) -> None:
    n = len(market.markets) if isinstance(market, Markets) else 1
    if not payoff.assets == model.assets == n:
        raise InputError(
            f"{payoff.name} is on {payoff.assets} underlyings, {model.name} simulates {model.assets}, and there are "
            f"{n} markets; the three must agree"
        )
    payoff.check_spot(market.spots if isinstance(market, Markets) else torch.as_tensor(market.spot))
