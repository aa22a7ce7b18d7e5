"""Monte Carlo prices of any payoff under any model, with standard errors and exact gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.numerics import holds
from qsde.payoffs import Payoff
from qsde.pricing.engine import Estimate, MonteCarlo
from qsde.pricing.moments import Control, Moments
from qsde.pricing.observe import Observer
from qsde.pricing.simulation import Block, Simulation, refuse_intensity_gradient

__all__ = ["Estimate", "MonteCarlo", "price"]

Progress = Callable[[int, int], None]


def price(
    model: Model,
    payoffs: Payoff | Sequence[Payoff],
    market: Market,
    engine: MonteCarlo | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """Prices payoffs by Monte Carlo, all from the same paths.

    Leading batch axes of the model's parameters are models that are priced together and share the noise. The value is
    differentiable in everything that is a tensor: spot, curves, parameters, payoff constants, by `backward()` and by
    `torch.func.grad`, `jvp` and `vmap`; the gradient is exact for the simulated price and of first order. What a
    pathwise gradient would get wrong is refused: payoffs that jump (`continuous` False), and jump intensities, which
    move the paths by whole jumps.

    Args:
        model: the model.
        payoffs: one payoff or a list.
        market: spot, curves and dividends. Cash dividends count for a payoff up to the last date at which it looks at
            the price.
        engine: settings.
        progress: called with (paths done, paths) after each block.

    Raises:
        InputError: nothing to price, a scheme that does not step the model, or a gradient that would be wrong.
        NumericsError: a path left the finite numbers.

    Example:
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import European
        >>> estimate = price(BlackScholes(0.2), European(100.0, expiry=1.0), Market(spot=100.0))
        >>> abs(float(estimate.value) - 7.9656) < 4 * float(estimate.std_error)
        True
    """
    began = time.perf_counter()
    engine = engine or MonteCarlo()
    book: list[Payoff] = [payoffs] if isinstance(payoffs, Payoff) else list(payoffs)
    if not book:
        raise InputError("there are no payoffs to price")
    run = _Run.of(model, book, market, engine)
    columns = run.finish(run.moments(progress or (lambda done, total: None)))
    if isinstance(payoffs, Payoff):
        value, std_error, ratio = (column[0] for column in columns)
    else:
        value, std_error, ratio = (torch.stack(column, -1) for column in columns)
    paths = run.simulation.n_paths
    return Estimate(value, std_error, paths, engine.noise, time.perf_counter() - began, ratio)


@dataclass(frozen=True)
class _Run:
    """One call of `price`: what all blocks share."""

    book: list[Payoff]
    market: Market
    simulation: Simulation
    observers: list[Observer]

    @classmethod
    def of(cls, model: Model, book: list[Payoff], market: Market, engine: MonteCarlo) -> _Run:
        refuse_intensity_gradient(model)
        for payoff in book:
            _check(payoff, model, market)
        windows = {payoff.window for payoff in book if payoff.window is not None}
        dates = [t for payoff in book for t in payoff.times]
        dates += [t for t in market.dividend_times for start, end in windows if start < t < end]
        simulation = Simulation.of(model, dates, engine, windows)
        return cls(book, market, simulation, [Observer(simulation, market, payoff) for payoff in book])

    def moments(self, progress: Progress) -> list[Moments]:
        """All blocks, merged. Scrambles of a low-discrepancy noise span blocks, so their means are summed first."""
        simulation, total = self.simulation, self.simulation.n_paths
        merged: list[Moments] = []
        sums: list[tuple[Tensor, Tensor]] = []
        for first in range(0, total, simulation.block_size):
            block = simulation.block(first)
            if simulation.group < 0:
                parts = [(y * block.n_paths, c * block.n_paths) for y, c in self.samples(block)]
                sums = [(a + y, b + c) for (a, b), (y, c) in zip(sums, parts, strict=True)] if sums else parts
            else:
                of_block = self._block_moments(block)
                merged = [m.merge(b) for m, b in zip(merged, of_block, strict=True)] if merged else of_block
            progress(first + block.n_paths, total)
        return merged or [Moments.of(y / total, Control.of(c / total)) for y, c in sums]

    def _block_moments(self, block: Block) -> list[Moments]:
        """Payoff by payoff, so that no more than one payoff's samples of all parameter sets are held at once."""
        controls: dict[int, tuple[Tensor, Control]] = {}
        parts = []
        for value, control in self.samples(block):
            if id(control) not in controls:
                controls[id(control)] = control, Control.of(control)
            parts.append(Moments.of(value, controls[id(control)][1]))
        return parts

    def samples(self, block: Block) -> Iterator[tuple[Tensor, Tensor]]:
        """Present value [*batch, samples] and controls [*batch, k, samples] of each payoff in one block.

        Payoffs that look at the price last on the same date share their controls.
        """
        shared: dict[int, Tensor] = {}
        for payoff, observer in zip(self.book, self.observers, strict=True):
            last = observer.maturity_columns[-1]
            if last not in shared:
                shared[last] = self._controls(block, last)
            worth = self._worth(payoff, observer, block)
            if not holds(torch.isfinite(worth.detach().sum())):
                raise NumericsError(self.simulation.where_not_finite(block.noise))
            yield self._grouped(worth), shared[last]

    def _controls(self, block: Block, last: int) -> Tensor:
        """The prices of the underlyings over their forwards, less 1, where their mean is known."""
        model = self.simulation.model
        n = model.assets if model.martingale and self.simulation.engine.control_variate else 0
        return self._grouped(torch.stack([torch.expm1(s[last]) for s in block.states[:n]], -2) if n else
                             block.states[0].new_zeros(*block.states[0].shape[1:-1], 0, block.n_paths))  # fmt: skip

    def _worth(self, payoff: Payoff, observer: Observer, block: Block) -> Tensor:
        """Discounted payments [*batch, path]."""
        seen = observer.paths(block)
        if not payoff.continuous and seen.prices.requires_grad:
            raise InputError(
                f"{payoff.name} jumps, so its pathwise gradient is wrong; price it under torch.no_grad() or with "
                "inputs that do not require grad"
            )
        flows = payoff.flows(seen)
        discount = self.market.discount(torch.tensor(flows.times, dtype=torch.float64)).to(flows.amounts)
        return (flows.amounts * discount).sum(-1)

    def finish(self, moments: list[Moments]) -> tuple[list[Tensor], ...]:
        """Values, standard errors and variance ratios [*batch] of the payoffs."""
        # a regression on the few independent scrambles would be mostly noise
        use = self.simulation.engine.control_variate and self.simulation.group > 0
        return tuple(list(column) for column in zip(*(m.estimate(use) for m in moments), strict=True))

    def _grouped(self, values: Tensor) -> Tensor:
        """Samples [..., n] from paths [..., P]: means over neighbours, or (negative) over one path in `-group`."""
        group = self.simulation.group
        if group == 1:
            return values
        rows, axis = (values.unflatten(-1, (-1, group)), -1) if group > 1 else (values.unflatten(-1, (-1, -group)), -2)
        means: Tensor = rows.mean(axis)
        return means


def _check(payoff: Payoff, model: Model, market: Market) -> None:
    if payoff.assets != model.assets:
        raise InputError(f"{payoff.name} is on {payoff.assets} underlyings, {model.name} simulates {model.assets}")
    payoff.check_spot(torch.as_tensor(market.spot))
