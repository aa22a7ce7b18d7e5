"""Local volatility through the quotes: the smoothest whose forward equation meets them within their errors."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsde.calibration.dupire import dupire_variance
from qsde.calibration.fit import Fit
from qsde.calibration.forward_equation import ForwardEquation
from qsde.calibration.levenberg_marquardt import solve
from qsde.calibration.objective import quote_weights
from qsde.calibration.ssvi import SSVIFit, fit_ssvi
from qsde.calibration.training_paths import WEIGHTS, Quoted
from qsde.errors import FitStatus, InputError
from qsde.market.black import black_vega
from qsde.market.implied_vol import implied_vol
from qsde.market.ssvi import ESSVI
from qsde.market.surface import Surface
from qsde.models.base import Model
from qsde.models.black_scholes import BlackScholes
from qsde.models.jump_diffusion import JumpDiffusion
from qsde.models.jumps import JumpLaw
from qsde.models.leverage import GridLeverage
from qsde.models.lsv import leveraged
from qsde.models.neural import early_knots

Floats = NDArray[np.float64]
#: Nodes of the shape in moneyness, and how far it may go.
_NODES, _MOST = 11, 1.5
#: What a bend of the shape of 1 from node to node costs, in errors of a quote.
_STIFFNESS = 1.5
#: That of a rise in time and of a bend in time, and the shape itself, relative.
_IN_TIME, _LEVEL = 1 / 3, 0.02
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
        interpolated: the surface that has `theta`.
        times, moneyness: nodes [T] and [Z].
        shape: `c` at the nodes [T, Z], constant beyond; None takes Dupire's local volatility of the surface instead.
        bounds: least and largest volatility.
    """

    interpolated: ESSVI
    times: Tensor
    moneyness: Tensor
    shape: Tensor | None
    bounds: tuple[float, float]

    @classmethod
    def flat(cls, fit: SSVIFit) -> LocalVolatility:
        """Without a smile; volatility from a tenth of the least quoted to 5 times the largest."""
        quotes, slices = fit.surface.quotes, fit.interpolated.t
        bounds = 0.1 * float(quotes["iv"].min()), 5 * float(quotes["iv"].max())
        k = np.log((quotes["strike"] / quotes["forward"]).to_numpy())
        theta, _, _ = fit.interpolated.slice_at(torch.tensor(quotes["t"].to_numpy()))
        z = k / torch.sqrt(theta).numpy()
        moneyness = torch.linspace(min(float(z.min()), -1.0), max(float(z.max()), 1.0), _NODES, dtype=torch.float64)
        # between two expiries lies what only the later one sees, such as an announcement
        times, _ = torch.cat([slices, torch.sqrt(slices[1:] * slices[:-1])]).sort()
        return cls(fit.interpolated, times, moneyness, torch.zeros(len(times), _NODES, dtype=torch.float64), bounds)

    def variance(self, t: Tensor, x: Tensor) -> Tensor:
        """Local variance at years t and points `x = log(S / F)`, broadcast."""
        if self.shape is None:
            return dupire_variance(self.interpolated, t, x, self.bounds)
        t, x = torch.broadcast_tensors(t, x)
        level, _, _ = self.interpolated.slopes_at(t)
        return (level * torch.exp(2 * (self.basis(t, x) @ self.shape.flatten()))).clamp(*(b * b for b in self.bounds))

    def basis(self, t: Tensor, x: Tensor) -> Tensor:
        """Weights [*, T Z] of the nodes at years t and points x, broadcast."""
        t, x = torch.broadcast_tensors(t, x)
        # at first paths are at one point, where a smile that sharpened on would cost many steps
        theta, _, _ = self.interpolated.slice_at(t.clamp(min=float(_EARLY * self.times[0])))
        in_time = _hats(self.times, t)
        in_space = _hats(self.moneyness, x / torch.sqrt(theta))
        return (in_time.unsqueeze(-1) * in_space.unsqueeze(-2)).flatten(-2)

    def leverage(self) -> GridLeverage:
        """The volatility on a grid of times and points, as the leverage on a Black-Scholes model of volatility 1."""
        nodes = torch.cat([self.interpolated.t.new_zeros(1), self.interpolated.t])
        share = torch.linspace(0.01, 0.99, _ROWS).to(nodes)  # the volatility jumps at the slices
        within = (nodes[:-1, None] + nodes.diff()[:, None] * share).flatten()
        early = torch.tensor(early_knots(float(nodes[1]))).to(nodes)  # where paths of all steps start from one point
        t = torch.cat([early[early < nodes[1]], within]).unique()
        theta, _, _ = self.interpolated.slice_at(t)
        x = torch.linspace(-_REACH, _REACH, _POINTS).to(nodes) * torch.sqrt(theta).unsqueeze(-1)
        values = torch.sqrt(self.variance(t.unsqueeze(-1), x))
        scale = float(torch.sqrt(self.interpolated.theta[-1] / self.interpolated.t[-1]))
        return GridLeverage(t, x, values, scale=scale)

    def solved(self, equation: ForwardEquation) -> tuple[Floats, Floats]:
        """Calls [E, N] on the grid of the equation and their derivatives to the shape [E, N, T Z]."""
        x = torch.tensor(np.log(equation.y))

        def local(t: float, _: Floats) -> tuple[Floats, Floats]:
            years = torch.tensor(t, dtype=torch.float64)
            variance, basis = self.variance(years, x), self.basis(years, x)
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


def calibrate_local_vol(
    surface: Surface,
    *,
    weights: str | Callable[[pd.DataFrame], np.ndarray] = "spread",
    stiffness: float = _STIFFNESS,
    max_iterations: int = 30,
    jumps: Sequence[JumpLaw] = (),
) -> Fit:
    """A local volatility that reprices the quotes: the one-factor model that fits every arbitrage-free surface.

    It is the forward vol at the money times `exp(c(t, z))`, `z = log(S / F) / sqrt(theta(t))`, with `theta` the total
    variance at the money of an eSSVI surface (`fit_ssvi`) and `c` linear between 11 points of z and the expiries and
    their geometric means. Levenberg-Marquardt finds `c` from the implied vols that Dupire's forward equation gives; it
    minimises

        sum(((vol - quote) / error)^2) + stiffness^2 (|c_zz|^2 + (|c_t|^2 + |c_tt|^2) / 9 + |0.02 c|^2),

    in differences from node to node. Bends that the quotes' errors do not warrant are noise, and would be wrong
    between the quotes. Prices that solve the equation have no static arbitrage, whatever the quotes.

    Args:
        surface: the quotes.
        weights: "spread" takes `sqrt(half_spread^2 + (3 bp)^2)` as the error of a quote, "equal" 5 bp, which fits the
            middle of wide quotes, too; a function of the quotes gives what 5 bp are divided by, on average 1.
        stiffness: see above; infinite leaves Dupire's local volatility of the eSSVI surface.
        max_iterations: Levenberg-Marquardt iterations of `c`.
        jumps: laws of jumps beside the diffusion, which is then what they leave to it (Andersen and Andreasen 2000).

    Returns:
        A fit whose model is a `LocalStochasticVol` on `BlackScholes(1.0)`, under the jumps, and whose `model_iv` are
        those of the forward equation. It has no free parameters in the sense of a handful that quotes determine: `free`
        is empty.

    Raises:
        InputError: jumps with infinite stiffness.
        QuoteError: the surface is empty.

    References:
        B. Dupire, Pricing with a smile, Risk 7 (1994); J. Andreasen and B. Huge, Volatility interpolation, Risk (March
        2011), which this shares the forward equation with.

    Example:
        >>> surface = Surface.from_vols([0.5, 0.5, 0.5, 1.0], [90.0, 100.0, 110.0, 100.0], 0.2, forward=100.0)
        >>> fit = calibrate_local_vol(surface)
        >>> fit.model.name, fit.rmse_bp < 2
        ('LocalVol', True)
    """
    began = time.perf_counter()
    if jumps and math.isinf(stiffness):
        raise InputError("jumps: Dupire's formula knows none; give a finite stiffness, or no jumps")
    smooth = fit_ssvi(surface, weights)
    start, status, iterations = LocalVolatility.flat(smooth), smooth.status, 0
    problem = _Problem.of(surface, start, weights, stiffness, tuple(jumps))
    found = replace(start, shape=None)
    if math.isfinite(stiffness):
        unknowns = torch.zeros(1, 1, problem.penalty.shape[-1], dtype=torch.float64)
        solution = solve(problem.residuals, unknowns, max_iterations, cost_tolerance=1e-3)
        found, iterations = problem.at(solution.x[0, 0]), int(solution.iterations)
        status = FitStatus.CONVERGED if bool(solution.converged) else FitStatus.MAX_ITERATIONS
    vols, _ = problem.vols(found)
    empty = torch.zeros(len(surface), 0, dtype=torch.float64)
    one: Model = BlackScholes(torch.tensor(1.0, dtype=torch.float64))
    return Fit(
        model=leveraged(reduce(JumpDiffusion, jumps, one), found.leverage()),
        surface=surface,
        status=status,
        model_iv=vols.numpy(),
        weight=smooth.weight,
        free=(),
        jacobian=empty,
        covariance=empty[:0],
        at_bounds=(),
        iterations=iterations,
        starts=1,
        starts_agreeing=1,
        seconds=time.perf_counter() - began,
        warnings=() if status.converged else (status.value,),
    )


@dataclass(frozen=True)
class _Problem:
    """Least squares in the shape of a local volatility."""

    surface: Surface
    local: LocalVolatility
    scale: Tensor
    penalty: Tensor
    jumps: tuple[JumpLaw, ...]

    @classmethod
    def of(
        cls,
        surface: Surface,
        local: LocalVolatility,
        weights: str | Callable[[pd.DataFrame], np.ndarray],
        stiffness: float,
        jumps: tuple[JumpLaw, ...],
    ) -> _Problem:
        half = Quoted.of(surface).half
        if isinstance(weights, str):
            scale = WEIGHTS[weights](half)
        else:
            scale = WEIGHTS["equal"](half) * torch.tensor(quote_weights(surface.quotes, weights))
        bends = _bends(len(local.times), len(local.moneyness))
        return cls(surface, local, scale, stiffness * bends if math.isfinite(stiffness) else bends, jumps)

    @cached_property
    def equation(self) -> ForwardEquation:
        """The grid of the quotes' expiries."""
        vol = float(self.surface.quotes["iv"].median())
        return ForwardEquation.of(self.surface.slices["t"].tolist(), vol, jumps=self.jumps)

    @cached_property
    def weights(self) -> list[Tensor]:
        """Weights [quotes of a slice, N] of the grid's prices in those of the quotes."""
        quotes = self.surface.quotes
        ratio = (quotes["strike"] / quotes["forward"]).to_numpy()
        rows = quotes["slice"].to_numpy()
        return [torch.tensor(_cubic(self.equation.y, ratio[rows == i])) for i in range(len(self.surface.slices))]

    def vols(self, local: LocalVolatility) -> tuple[Tensor, Tensor]:
        """Implied vols [Q] of the quotes and their derivatives to the shape [Q, T Z]."""
        value, slope = (torch.tensor(v) for v in local.solved(self.equation))
        price = torch.cat([w @ v for w, v in zip(self.weights, value, strict=True)])
        by_node = torch.cat([w @ s for w, s in zip(self.weights, slope, strict=True)])
        ratio, t = self._quotes
        call = ratio >= 1
        price = torch.where(call, price, price - 1 + ratio)  # out of the money
        vol = implied_vol(price.clamp(min=1e-12), 1.0, ratio, t, is_call=call).vol
        return vol, by_node / black_vega(1.0, ratio, t, vol).clamp(min=1e-9).unsqueeze(-1)

    @cached_property
    def _quotes(self) -> tuple[Tensor, Tensor]:
        strike, forward, t = (torch.tensor(self.surface.quotes[c].to_numpy()) for c in ("strike", "forward", "t"))
        return strike / forward, t

    def residuals(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted errors of vol and the bends of the shape, and their Jacobian."""
        vol, slope = self.vols(self.at(x[0, 0]))
        market = torch.tensor(self.surface.quotes["iv"].to_numpy())
        r = torch.cat([self.scale * (vol - market), self.penalty @ x[0, 0]])
        return r[None, None], torch.cat([self.scale.unsqueeze(-1) * slope, self.penalty])[None, None]

    def at(self, x: Tensor) -> LocalVolatility:
        """The local volatility of unknowns [T Z]."""
        shape = x.clamp(-_MOST, _MOST).reshape(len(self.local.times), len(self.local.moneyness))
        return replace(self.local, shape=shape)


def _bends(times: int, nodes: int) -> Tensor:
    """Rows that take second differences in moneyness, first and second in time, and a little of each node itself."""
    in_time, in_space = torch.eye(times, dtype=torch.float64), torch.eye(nodes, dtype=torch.float64)
    return torch.cat(
        [
            torch.kron(in_time, in_space.diff(n=2, dim=0)),
            *(_IN_TIME * torch.kron(in_time.diff(n=n, dim=0), in_space) for n in (1, 2)),
            _LEVEL * torch.kron(in_time, in_space),
        ]
    )


def _cubic(grid: Floats, at: Floats) -> Floats:
    """Weights [points, grid] of cubic interpolation through the four grid points around each point."""
    first = np.clip(np.searchsorted(grid, at) - 2, 0, len(grid) - 4)
    out = np.zeros((len(at), len(grid)))
    for i in range(4):
        mine = grid[first + i]
        others = [grid[first + j] for j in range(4) if j != i]
        out[np.arange(len(at)), first + i] = np.prod([(at - o) / (mine - o) for o in others], axis=0)
    return out
