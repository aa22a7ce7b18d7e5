"""Paths moved to where they come near a barrier, with the weights that leave every mean as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.payoffs import Payoff
from qsde.payoffs.monitoring import Crossing
from qsde.pricing.observe import Observer
from qsde.pricing.simulation import Block, Simulation

#: Width of the noise around the place of a barrier, in its own deviations: that of a bridge of 1/16 of the whole time.
_WIDTH = 0.25
#: Places are at most so many deviations away; variances below this count as this.
_FARTHEST, _LEAST = 6.0, 1e-12


@dataclass(frozen=True, eq=False)
class NearBarrier:
    """Samples of the paths as they are, and of half of them near each barrier.

    Given the path of the variance, `x_k = r_k + xi W_k / sqrt(W_n)` at the dates with `W_k` the variance of the price's
    own noise up to each, `xi` a standard normal that tells where the path ends, and `r` a bridge independent of it.
    With `zeta` the xi for which the path just meets the barrier, payoffs change there and nowhere else. So every second
    path is looked at with `zeta + xi / 4` in place of `xi`, too, and all samples are weighted (balance heuristic) by

        `n(z) / (n(z) + 2 n(4 (z - zeta)))`,   `z` the noise of each, `n` the normal density.

    The mean of the sums is unbiased for every payoff, and many paths come near the barrier, however far it is.

    Attributes:
        observer: of the payoff, at the spot to which the samples belong: that of the market, or one near it.
        bounds: the barriers below and above, None where there is none.

    References:
        Veach and Guibas (1995), "Optimally combining sampling techniques for Monte Carlo rendering", SIGGRAPH, eq. 9;
        Glasserman (2004), "Monte Carlo Methods in Financial Engineering", sections 4.3 and 4.6.
    """

    observer: Observer
    bounds: tuple[float | Tensor | None, float | Tensor | None]

    def __call__(self, block: Block) -> list[tuple[Tensor, Block]]:
        """Weights [*batch, path] and samples of a block; both are the same at all spots and kept, the paths are not."""
        key = self, torch.is_grad_enabled()
        if key not in block.near:
            block.near[key] = self._moves(block)
        own, *others = block.near[key]
        half = block.half
        n, x, variance = half.n_paths, half.states[0], half.variance
        near = [(w[..., :n], self.observer.moved(half, torch.addcmul(x, variance, m[..., :n]))) for w, m in others]
        return [(own[0], block), *near]

    def _moves(self, block: Block) -> list[tuple[Tensor, Tensor]]:
        """Weights, and moves of the log-price for each unit of its variance."""
        last = self.observer.last_column
        root = torch.sqrt(block.variance[last].clamp(min=_LEAST))
        own = (block.states[0][last] - block.mean[last]) / root
        places = [self._place(block, own, root, side) for side in (0, 1) if self.bounds[side] is not None]
        noises = [own, *(place + _WIDTH * own for place in places)]
        return [(_weight(noise, places), (noise - own) / root) for noise in noises]

    def _place(self, block: Block, own: Tensor, root: Tensor, side: int) -> Tensor:
        """The noise with which a path just meets the barrier below (0) or above (1)."""
        bound, watched = self.bounds[side], self.observer.watched
        assert bound is not None, "asked for where there is one"
        away = self.observer.log_level(bound, block.states[0]) - block.states[0][watched]
        away = away / block.variance[watched].clamp(min=_LEAST)
        first = own + root * (away.amin(0) if side else away.amax(0))
        return first.clamp(-_FARTHEST, _FARTHEST)


def _weight(noise: Tensor, places: list[Tensor]) -> Tensor:
    """Density of a standard normal over its sum with those around the places."""
    ratios = (torch.exp(0.5 * (noise.square() - ((noise - p) / _WIDTH).square())) / (2.0 * _WIDTH) for p in places)
    return 1.0 / sum(ratios, torch.ones_like(noise))


def near_barriers(simulation: Simulation, market: Market | Markets, book: Sequence[Payoff]) -> dict[int, NearBarrier]:
    """Those of the payoffs watched continuously, by their number; none if the scheme does not tell the noises apart.

    Args:
        simulation: where the paths come from.
        market: with the spot to which the samples belong.
        book: the payoffs.
    """
    steep = {i: p for i, p in enumerate(book) if isinstance(p, Crossing) and p.steep and simulation.sampled}
    return {i: NearBarrier(Observer(simulation, market, p), p.bounds) for i, p in steep.items()}
