"""Likelihood ratios given everything but the price's own noise: derivatives of any payoff of prices at dates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.payoffs import Paths, Payoff
from qsde.pricing.path_set import PathSet
from qsde.pricing.simulation import Block, Parts

Change = Callable[[Block], Block]

#: Variances of an interval below this count as this.
_LEAST = 1e-14


@dataclass(frozen=True)
class LikelihoodRun:
    """Prices at dates, sampled once and then held, and the likelihood ratio that carries all their derivatives.

    Given the path of the variance and the jumps, log-prices at the dates have independent normal increments with mean
    `M_k` and variance `W_k`. The samples `S_k` are held constant; the density `p` of the model at parameters `theta` is
    not:

        `V(theta) = E[ payoff(S) p(S; theta) / p(S; theta_0) ]`,

    whose derivatives of every order are unbiased, whether or not the payoff jumps. `M_k` and `W_k` are differentiated
    path by path. One more unit of variance for each date: it suits payoffs with few dates.

    References:
        Broadie, Glasserman (1996), "Estimating security price derivatives using simulation", Management Science 42(2);
        Glasserman (2004), "Monte Carlo Methods in Financial Engineering", section 7.3.

    Attributes:
        book: payoffs of prices at dates.
        market: the market.
        paths: paths with mean and variance of the log-price beside it.
    """

    book: list[Payoff]
    market: Market | Markets
    paths: PathSet

    @classmethod
    def on(cls, paths: PathSet, book: list[Payoff], market: Market | Markets) -> LikelihoodRun:
        """A book on these paths.

        Raises:
            InputError: a payoff is watched continuously, or the scheme cannot leave the price's own noise out.
        """
        check_dated(book)
        if not paths.simulation.sampled:
            raise InputError(
                f"{type(paths.simulation.scheme).__name__} does not tell the price's own noise from the rest, so there "
                "are no likelihood ratios; use HestonQE(), or an exact scheme"
            )
        return cls(book, market, paths)

    def worths(self, parts: Parts) -> list[Tensor]:
        """Present value of each payoff over these paths, differentiable any number of times in spot and curves."""
        return self._averages(parts, False, None)

    def changed(self, parts: Parts, change: Change) -> list[Tensor]:
        """By how much each value moves if the paths are changed."""
        pairs = zip(self._averages(parts, False, change), self._averages(parts, False, None), strict=True)
        return [after - before for after, before in pairs]

    def deltas(self, parts: Parts, change: Change | None = None) -> list[list[Tensor]]:
        """Pathwise delta of each (continuous) payoff over these paths, differentiable likewise; of one underlying.

        With a change of the paths, by how much each moves.
        """
        found = self._averages(parts, True, None)
        if change is not None:
            found = [after - before for after, before in zip(self._averages(parts, True, change), found, strict=True)]
        return [[delta] for delta in found]

    def _averages(self, parts: Parts, deltas: bool, change: Change | None) -> list[Tensor]:
        sums: list[Tensor] = []
        for block in self.paths.blocks(parts):
            block = block if change is None else change(block)
            found = [self._sample(payoff, block, deltas).sum(-1, dtype=torch.float64) for payoff in self.book]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        return [s.cpu() / self.paths.simulation.n_paths for s in sums]

    def _sample(self, payoff: Payoff, block: Block, deltas: bool) -> Tensor:
        """Worth or delta of each path times its likelihood ratio, less a baseline that has no effect on the mean."""
        times = payoff.times
        grid = self.paths.simulation.job.grid
        columns = [grid.column(t) for t in times]
        affine = self.market.affine(times, horizon=times[-1])
        growth = block.states[0][columns].detach()
        scale, shift = (v.to(growth).movedim(-1, 0).unsqueeze(-1) for v in affine)  # [time, *batch, 1]
        prices = scale.detach() * torch.exp(growth) + shift.detach()  # [time, *batch, path]
        x = torch.log(prices - shift) - torch.log(scale)
        moving = [i for i, u in enumerate(times) if u > 0]
        mean, variance = (_increments(s[columns][moving]) for s in (block.mean, block.variance))
        variance = variance.clamp(min=_LEAST)
        miss = _increments(x[moving]) - mean
        log = -0.5 * (torch.log(variance) + miss * miss / variance).sum(0) - torch.log(prices - shift)[moving].sum(0)
        ratio = torch.exp(log - log.detach())
        if deltas:
            slope = self._slope(payoff, prices, shift)
            value = slope * self._spot_share(scale).to(slope.device)
        else:
            value = discounted(payoff, prices.movedim(0, -1), self.market)
        return baselined(value, ratio)

    def _slope(self, payoff: Payoff, prices: Tensor, shift: Tensor) -> Tensor:
        """`sum_k (d worth / d S_k) (S_k - shift_k)` of each path: how the worth moves with all prices together."""
        with torch.enable_grad():
            leaf = prices.detach().clone().requires_grad_()
            worth = discounted(payoff, leaf.movedim(0, -1), self.market)
            if not worth.requires_grad:
                return torch.zeros_like(worth)
            (gradient,) = torch.autograd.grad(worth.sum(), leaf, create_graph=True)  # of curves and time
        return (gradient * (prices - shift)).sum(0)

    def _spot_share(self, scale: Tensor) -> Tensor:
        """`d log scale / d spot`, the same at every date: the shape of the spot."""
        assert isinstance(self.market, Market), "one underlying"
        spot = torch.as_tensor(self.market.spot)
        share: Tensor = torch.autograd.grad(torch.log(scale[-1]).sum(), spot, create_graph=True)[0]
        return share


def check_dated(book: list[Payoff]) -> None:
    """Raises InputError if a payoff is watched continuously."""
    for payoff in book:
        if payoff.window is not None:
            raise InputError(f"{payoff.name} is watched continuously: no likelihood ratio; use method='pathwise'")


def discounted(payoff: Payoff, prices: Tensor, market: Market | Markets) -> Tensor:
    """Present value of the payments [*, path] for prices [*, path, time]."""
    flows = payoff.flows(Paths(prices))
    return (flows.amounts * market.discount(flows.times).to(flows.amounts).unsqueeze(-2)).sum(-1)


def baselined(value: Tensor, ratio: Tensor) -> Tensor:
    """Values times ratios (of 1), less a baseline for each path that has no effect on the mean: that of the others."""
    n = value.shape[-1]
    return value + (value - value.mean(-1, keepdim=True)) * (ratio - 1) * (n / max(n - 1, 1))


def _increments(values: Tensor) -> Tensor:
    """Differences along the first axis, from 0."""
    return torch.diff(values, dim=0, prepend=torch.zeros_like(values[:1]))
