"""Least squares whose solution is the smoothest local volatility that meets the quotes within their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsde.calibration.forward_equation import ForwardEquation
from qsde.calibration.local_vol_shape import LocalVolatility
from qsde.calibration.objective import quote_weights
from qsde.calibration.training_paths import WEIGHTS, Quoted
from qsde.market.black import black_vega
from qsde.market.implied_vol import implied_vol
from qsde.market.surface import Surface
from qsde.models.jumps import JumpLaw

Floats = NDArray[np.float64]
#: How far the shape may go.
_MOST = 1.5
#: What a rise and a bend in time cost, and the shape itself, over what a bend in moneyness does.
_IN_TIME, _LEVEL = 1 / 3, 0.02
#: What it costs, in errors of a quote, if between two expiries the smile is not their mean but off by all of itself; it
#: is looked at up to so many deviations.
_BETWEEN, _SEEN = 100.0, 2.0


@dataclass(frozen=True)
class LocalVolProblem:
    """Least squares in the shape of a local volatility.

    Attributes:
        surface: the quotes.
        local: the local volatility whose shape is looked for.
        scale: what errors of vol are multiplied by, [Q].
        penalty: rows that a smooth shape makes small [*, T Z].
        jumps: laws of jumps beside the diffusion.
    """

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
    ) -> LocalVolProblem:
        """The problem of the quotes, from the local volatility `local` on."""
        half = Quoted.of(surface).half
        if isinstance(weights, str):
            scale = WEIGHTS[weights](half)
        else:
            scale = WEIGHTS["equal"](half) * torch.tensor(quote_weights(surface.quotes, weights))
        bends = _bends(len(local.times), len(local.moneyness))
        return cls(surface, local, scale, stiffness * bends if math.isfinite(stiffness) else bends, jumps)

    @cached_property
    def equation(self) -> ForwardEquation:
        """The grid of the quotes' expiries and, between each two, of their middle."""
        t = self.surface.slices["t"].to_numpy()
        vol = float(self.surface.quotes["iv"].median())
        times = np.sort(np.concatenate([t, 0.5 * (t[1:] + t[:-1])]))
        return ForwardEquation.of(times.tolist(), vol, jumps=self.jumps)

    @cached_property
    def quotes(self) -> _Points:
        """Where the quotes are."""
        quotes, slices = self.surface.quotes, self.surface.slices["t"]
        ratio, rows = (torch.tensor(v.to_numpy()) for v in (quotes["strike"] / quotes["forward"], quotes["slice"]))
        return _Points.of(self.equation.y, slices.tolist(), [ratio[rows == i] for i in range(len(slices))])

    @cached_property
    def nodes(self) -> _Points:
        """Nodes of moneyness at all times of the equation."""
        z = self.local.moneyness[self.local.moneyness.abs() <= _SEEN]
        times = self.equation.expiries
        theta = self.local.level.total(torch.tensor(times, dtype=z.dtype))
        return _Points.of(self.equation.y, times, list(torch.exp(z * torch.sqrt(theta).unsqueeze(-1))))

    def vols(self, local: LocalVolatility) -> tuple[Tensor, Tensor]:
        """Implied vols [Q] of the quotes and their derivatives to the shape [Q, T Z]."""
        value, slope = (torch.tensor(v) for v in local.solved(self.equation))
        return self.quotes.vols(value[::2], slope[::2])

    def residuals(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted errors of vol, bends of the shape and of the smiles in time, and their Jacobian."""
        value, slope = (torch.tensor(v) for v in self.at(x[0, 0]).solved(self.equation))
        vol, by_shape = self.quotes.vols(value[::2], slope[::2])
        market = torch.tensor(self.surface.quotes["iv"].to_numpy())
        between = [self._between(v) for v in self.nodes.vols(value, slope)]
        r = torch.cat([self.scale * (vol - market), self.penalty @ x[0, 0], between[0]])
        jacobian = torch.cat([self.scale.unsqueeze(-1) * by_shape, self.penalty, between[1]])
        return r[None, None], jacobian[None, None]

    def _between(self, vols: Tensor) -> Tensor:
        """How far smiles, or their derivatives, between two expiries are off the mean of theirs [nodes * times, *]."""
        times = torch.tensor(self.equation.expiries, dtype=vols.dtype)
        at_the_money = torch.sqrt(self.local.level.total(times) / times)
        smile = vols.unflatten(0, (len(times), -1)) / at_the_money.reshape(-1, *(1,) * vols.ndim)
        bent: Tensor = smile[1::2] - 0.5 * (smile[:-1:2] + smile[2::2])
        return _BETWEEN * bent.flatten(0, 1)

    def at(self, x: Tensor) -> LocalVolatility:
        """The local volatility of unknowns [T Z]."""
        shape = x.clamp(-_MOST, _MOST).reshape(len(self.local.times), len(self.local.moneyness))
        return replace(self.local, shape=shape)


@dataclass(frozen=True)
class _Points:
    """Strikes over the forward at some times of a forward equation.

    Attributes:
        ratio, t: of all points, one time after the other.
        weights: by time, weights [points, N] of the grid's prices in those of the points.
    """

    ratio: Tensor
    t: Tensor
    weights: list[Tensor]

    @classmethod
    def of(cls, grid: Floats, times: Sequence[float], ratios: Sequence[Tensor]) -> _Points:
        """Points of each time."""
        t = torch.cat([torch.full_like(r, year) for r, year in zip(ratios, times, strict=True)])
        return cls(torch.cat(list(ratios)), t, [torch.tensor(_cubic(grid, r.numpy())) for r in ratios])

    def vols(self, value: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Implied vols and their derivatives [*, P], from calls on the grid [times, N] and theirs [times, N, P]."""
        price, by_parameter = (
            torch.cat([w @ v for w, v in zip(self.weights, values, strict=True)]) for values in (value, slope)
        )
        call = self.ratio >= 1
        price = torch.where(call, price, price - 1 + self.ratio)  # out of the money
        vol = implied_vol(price.clamp(min=1e-12), 1.0, self.ratio, self.t, is_call=call).vol
        vega = black_vega(1.0, self.ratio, self.t, vol).clamp(min=1e-9)
        return vol, by_parameter / vega.unsqueeze(-1)


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
