"""A local volatility as a shape in moneyness and time on the forward volatility at the money."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsde.calibration.dupire import dupire_variance
from qsde.calibration.forward_equation import ForwardEquation
from qsde.calibration.forward_variance import ForwardVariance
from qsde.calibration.ssvi import SSVIFit
from qsde.market.ssvi import ESSVI
from qsde.models.leverage import GridLeverage
from qsde.models.neural import early_knots

Floats = NDArray[np.float64]
#: Nodes of the shape in moneyness.
_NODES = 11
#: The share of the first expiry before which moneyness is that of then.
_EARLY = 0.25
#: Rows of the grid of leverage in each stretch between expiries, and its points and reach in deviations.
_ROWS, _POINTS, _REACH = 8, 121, 7.0


@dataclass(frozen=True)
class LocalVolatility:
    """A local volatility: the forward vol at the money times `exp(c)`, `c` linear between nodes in time and moneyness.

    Moneyness is `z = x / sqrt(theta(t))`, with `theta` the total variance at the money: in z, smiles of short and long
    dates are alike, so that between two expiries, and where there are no quotes, the shape `c(t, z)` is theirs.

    Attributes:
        interpolated: an arbitrage-free surface near the quotes.
        level: forward variance at the money, and with it `theta`; at the expiries that of the surface.
        times, moneyness: nodes [T] and [Z].
        shape: `c` at the nodes [T, Z], constant beyond; None takes Dupire's local volatility of the surface instead.
        bounds: least and largest volatility.
    """

    interpolated: ESSVI
    level: ForwardVariance
    times: Tensor
    moneyness: Tensor
    shape: Tensor | None
    bounds: tuple[float, float]

    @classmethod
    def flat(cls, fit: SSVIFit) -> LocalVolatility:
        """Without a smile; volatility from a tenth of the least quoted to 5 times the largest."""
        quotes, slices = fit.surface.quotes, fit.interpolated.t
        level = ForwardVariance.through(slices, fit.interpolated.theta)
        bounds = 0.1 * float(quotes["iv"].min()), 5 * float(quotes["iv"].max())
        k = np.log((quotes["strike"] / quotes["forward"]).to_numpy())
        z = k / torch.sqrt(level.total(torch.tensor(quotes["t"].to_numpy()))).numpy()
        moneyness = torch.linspace(min(float(z.min()), -1.0), max(float(z.max()), 1.0), _NODES, dtype=torch.float64)
        # between two expiries lies what only the later one sees, such as an announcement
        times, _ = torch.cat([slices, torch.sqrt(slices[1:] * slices[:-1])]).sort()
        shape = torch.zeros(len(times), _NODES, dtype=torch.float64)
        return cls(fit.interpolated, level, times, moneyness, shape, bounds)

    def variance(self, t: Tensor, x: Tensor) -> Tensor:
        """Local variance at years t and points `x = log(S / F)`, broadcast."""
        t, x = torch.broadcast_tensors(t, x)
        return self._variance(t, x, self.basis(t, x))

    def _variance(self, t: Tensor, x: Tensor, basis: Tensor) -> Tensor:
        if self.shape is None:
            return dupire_variance(self.interpolated, t, x, self.bounds)
        shape = torch.exp(2 * (basis @ self.shape.flatten()))
        return (self.level.at(t) * shape).clamp(*(b * b for b in self.bounds))

    def basis(self, t: Tensor, x: Tensor) -> Tensor:
        """Weights [*, T Z] of the nodes at years t and points x, broadcast."""
        t, x = torch.broadcast_tensors(t, x)
        # at first paths are at one point, where a smile that sharpened on would cost many steps
        theta = self.level.total(t.clamp(min=float(_EARLY * self.times[0])))
        in_time = _hats(self.times, t)
        in_space = _hats(self.moneyness, x / torch.sqrt(theta))
        return (in_time.unsqueeze(-1) * in_space.unsqueeze(-2)).flatten(-2)

    def leverage(self) -> GridLeverage:
        """The volatility on a grid of times and points, as the leverage on a Black-Scholes model of volatility 1."""
        nodes = torch.cat([self.interpolated.t.new_zeros(1), self.interpolated.t])
        share = torch.linspace(0.01, 0.99, _ROWS).to(nodes)  # the volatility may jump at the slices
        within = (nodes[:-1, None] + nodes.diff()[:, None] * share).flatten()
        early = torch.tensor(early_knots(float(nodes[1]))).to(nodes)  # where paths of all steps start from one point
        t = torch.cat([early[early < nodes[1]], within]).unique()
        x = torch.linspace(-_REACH, _REACH, _POINTS).to(nodes) * torch.sqrt(self.level.total(t)).unsqueeze(-1)
        values = torch.sqrt(self.variance(t.unsqueeze(-1), x))
        scale = float(torch.sqrt(self.interpolated.theta[-1] / self.interpolated.t[-1]))
        return GridLeverage(t, x, values, scale=scale)

    def solved(self, equation: ForwardEquation) -> tuple[Floats, Floats]:
        """Calls [E, N] on the grid of the equation and their derivatives to the shape [E, N, T Z]."""
        x = torch.tensor(np.log(equation.y))

        def local(t: float, _: Floats) -> tuple[Floats, Floats]:
            years = torch.full_like(x, t)
            basis = self.basis(years, x)
            variance = self._variance(years, x, basis)
            return variance.numpy(), (2 * variance.unsqueeze(-1) * basis).numpy()

        return equation.solve(local)


def _hats(nodes: Tensor, at: Tensor) -> Tensor:
    """Piecewise linear weights [*, nodes] of points, constant beyond the ends."""
    if len(nodes) == 1:
        return torch.ones(*at.shape, 1, dtype=at.dtype)
    right = torch.searchsorted(nodes, at.contiguous()).clamp(1, len(nodes) - 1)
    share = ((at - nodes[right - 1]) / (nodes[right] - nodes[right - 1])).clamp(0, 1).unsqueeze(-1)
    low, high = (torch.nn.functional.one_hot(i, len(nodes)).to(at) for i in (right - 1, right))
    return low + share * (high - low)
