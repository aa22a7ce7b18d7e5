"""Likelihood ratios of several correlated Black-Scholes underlyings: derivatives of any payoff of prices at dates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.greeks.likelihood import Change, baselined, check_dated, discounted
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.models.black_scholes import BlackScholes
from qsde.models.multi_asset import MultiAsset
from qsde.payoffs import Payoff
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.path_set import PathSet
from qsde.pricing.simulation import Block, Parts

#: Correlations with an eigenvalue below this leave so little noise in one direction that the ratios vary wildly.
_LEAST = 0.02


def jointly_gaussian(model: Model, engine: MonteCarlo) -> bool:
    """Whether increments of the log-prices are exactly normal with a correlation that is far from singular."""
    return (
        isinstance(model, MultiAsset)
        and all(isinstance(one, BlackScholes) for one in model.models)
        and (engine.scheme is None or engine.scheme.exact)
        and bool((torch.linalg.eigvalsh(model.full_correlation.detach()) > _LEAST).all())
    )


@dataclass(frozen=True)
class GaussianRun:
    """Prices of several underlyings at dates, sampled once and then held, and the ratio that carries derivatives.

    Increments of the log-prices `x` between dates `h` apart are normal with means `-vol_i^2 h / 2` and covariances
    `c_ij vol_i vol_j h`. As in `qsde.greeks.likelihood.LikelihoodRun`, samples are held constant and their density is
    not, so that derivatives of every order are unbiased, and kinks of the payoff do not matter.

    References:
        Broadie, Glasserman (1996), "Estimating security price derivatives using simulation", Management Science 42(2);
        Glasserman (2004), "Monte Carlo Methods in Financial Engineering", example 7.3.4 (normal random vectors).

    Attributes:
        book: payoffs of prices at dates.
        market: the market of each underlying.
        paths: the paths.
    """

    book: list[Payoff]
    market: Market | Markets
    paths: PathSet

    @classmethod
    def on(cls, paths: PathSet, book: list[Payoff], market: Market | Markets) -> GaussianRun:
        """A book on these paths.

        Raises:
            InputError: a payoff is watched continuously.
        """
        check_dated(book)
        return cls(book, market, paths)

    def worths(self, parts: Parts) -> list[Tensor]:
        """Present value of each payoff over these paths, differentiable any number of times."""
        return [found[0] for found in self._averages(parts, deltas=False)]

    def changed(self, parts: Parts, change: Change) -> list[Tensor]:
        """There are no jumps to change."""
        raise NotImplementedError("Black-Scholes underlyings have no jumps")

    def deltas(self, parts: Parts, change: Change | None = None) -> list[list[Tensor]]:
        """Pathwise deltas of each (continuous) payoff to each spot over these paths, differentiable likewise."""
        assert change is None, "no jumps"
        return self._averages(parts, deltas=True)

    def _averages(self, parts: Parts, deltas: bool) -> list[list[Tensor]]:
        sums: list[list[Tensor]] = []
        n_paths = self.paths.simulation.n_paths
        for block in self.paths.blocks(parts):
            found = [self._sample(payoff, block, deltas) for payoff in self.book]
            pairs = zip(sums or [[torch.zeros_like(v) for v in row] for row in found], found, strict=True)
            sums = [[a + b for a, b in zip(*pair, strict=True)] for pair in pairs]
        return [[s / n_paths for s in row] for row in sums]

    def _sample(self, payoff: Payoff, block: Block, deltas: bool) -> list[Tensor]:
        """Sums over the paths of worth, or of the delta to each spot, times the likelihood ratio."""
        times = payoff.times
        columns = [self.paths.simulation.job.grid.column(t) for t in times]
        x = torch.stack([s[columns].detach() for s in block.states[: block.assets]])  # [asset, time, *batch, path]
        affine = self.market.affine(times, horizon=times[-1])
        scale, shift = (v.to(x).movedim(-1, 1).unsqueeze(-1) for v in affine)
        prices = scale.detach() * torch.exp(x) + shift.detach()
        ratio = self._ratio(prices - shift, scale, times)
        if not deltas:
            return [_weighted(discounted(payoff, _seen(prices), self.market), ratio)]
        slope = self._slope(payoff, prices, shift)
        shares = [_share(self.market, i, scale[i, -1]) for i in range(len(slope))]
        return [_weighted(own * share.to(own.device), ratio) for own, share in zip(slope, shares, strict=True)]

    def _ratio(self, moving: Tensor, scale: Tensor, times: tuple[float, ...]) -> Tensor:
        """The density of the held prices over itself, [*batch, path]: 1, with the derivatives of its logarithm."""
        model = self.paths.simulation.model
        assert isinstance(model, MultiAsset), "refused by jointly_gaussian"
        later_ = [i for i, t in enumerate(times) if t > 0]
        ends = self.market.years([times[i] for i in later_]).movedim(-1, 0).to(moving)
        ends = ends.reshape(*ends.shape, *(1,) * (moving.dim() - 1 - ends.dim()))  # [time, 1... or *batch, 1]
        step = torch.diff(ends, dim=0, prepend=torch.zeros_like(ends[:1]))
        vol = torch.stack([one.params["vol"].to(moving).unsqueeze(-1) for one in model.models])  # [asset, *batch, 1]
        vol = vol.unsqueeze(1)
        y = (torch.log(moving) - torch.log(scale))[:, later_]
        z = (torch.diff(y, dim=1, prepend=torch.zeros_like(y[:, :1])) / vol + 0.5 * vol * step) / torch.sqrt(step)
        factor = torch.linalg.cholesky(model.full_correlation.to(moving))  # [*batch, asset, asset]
        stacked = z.movedim(1, -2).movedim(0, -3).flatten(-2)  # [*batch, asset, time * path]
        own = torch.linalg.solve_triangular(factor, stacked, upper=False).unflatten(-1, (len(later_), -1))
        volume = torch.log(torch.diagonal(factor, dim1=-2, dim2=-1)).sum(-1, keepdim=True) + torch.log(vol[:, 0]).sum(0)
        log = -0.5 * own.square().sum((-3, -2)) - len(later_) * volume - torch.log(moving[:, later_]).sum((0, 1))
        return torch.exp(log - log.detach())

    def _slope(self, payoff: Payoff, prices: Tensor, shift: Tensor) -> Tensor:
        """`sum_k (d worth / d S_ik) (S_ik - shift_ik)` of each path, [asset, *batch, path]."""
        with torch.enable_grad():
            leaf = prices.detach().clone().requires_grad_()
            worth = discounted(payoff, _seen(leaf), self.market)
            if not worth.requires_grad:
                return torch.zeros_like(prices[:, 0])
            (gradient,) = torch.autograd.grad(worth.sum(), leaf, create_graph=True)  # of curves and time
        return (gradient * (prices - shift)).sum(1)


def _seen(prices: Tensor) -> Tensor:
    """Prices [*batch, asset, path, time] of [asset, time, *batch, path]."""
    return prices.movedim(0, -2).movedim(0, -1)


def _weighted(values: Tensor, ratio: Tensor) -> Tensor:
    """The sum over paths of values times ratios."""
    total: Tensor = baselined(values, ratio).sum(-1, dtype=torch.float64)
    return total.cpu()


def _share(market: Market | Markets, i: int, scale: Tensor) -> Tensor:
    """`d log scale / d spot` of one underlying, the same at every date: the shape of the spot."""
    one = market.markets[i] if isinstance(market, Markets) else market
    spot = torch.as_tensor(one.spot)
    share: Tensor = torch.autograd.grad(torch.log(scale).sum(), spot, create_graph=True)[0]
    return share
