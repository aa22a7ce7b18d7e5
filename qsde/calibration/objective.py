"""Residuals of many surfaces as one tensor problem, and Fourier prices on nodes fixed for the whole calibration."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.calibration.penalties import Penalty
from qsde.calibration.space import Space
from qsde.errors import InputError
from qsde.market.black import black_price
from qsde.market.surface import Surface
from qsde.models.base import fourier_model
from qsde.numerics import complex_exp
from qsde.pricing.contours import lewis_range, nodes_needed
from qsde.pricing.grid import LewisGrid

#: Model error of vol that the weights allow for beside half the bid/ask spread: 50 basis points.
VOL_FLOOR = 0.0050
#: Quotes more at-the-money standard deviations away than this do not enter the fit (their model vols are reported).
FAR = 65.0
#: Added to model and market prices (in units of sqrt(forward strike)) before vols are compared: a thousandth of a
#: usual tick. Without it a quote that a model prices at 1e-60 has a residual of hundreds of vol points and no gradient.
PRICE_FLOOR = 1e-8
_COLUMNS = ("slice", "t", "strike", "forward", "iv")
#: Halley steps per residual; each cubes the error.
_VOL_STEPS = 8
_INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class Data:
    """Quotes of S surfaces padded to E expiries and K strikes; padding has `weight` 0 and harmless values.

    Attributes:
        t: [S, E] years.
        k: [S, E, K] log(strike / forward).
        vol: [S, E, K] market implied vol.
        weight: [S, E, K], mean square 1 over the quotes of a surface, divided by the square root of their number.
        position: [S, E, K] row of `surface.quotes`, -1 for padding.
    """

    t: Tensor
    k: Tensor
    vol: Tensor
    weight: Tensor
    position: Tensor

    @classmethod
    def of(
        cls, surfaces: Sequence[Surface], weights: str | Callable[[pd.DataFrame], np.ndarray], far: float = FAR
    ) -> Data:
        """Pads and stacks; `weights` is "spread", "equal" or a function of `surface.quotes`.

        Quotes more than `far` at-the-money standard deviations away get weight 0.
        """
        columns = [{name: s.quotes[name].to_numpy() for name in _COLUMNS} for s in surfaces]
        ranks = [rank_in_slice(q["slice"]) for q in columns]
        shape = (len(surfaces), max(len(s.slices) for s in surfaces), max(int(size.max()) for _, size in ranks))
        t, k, vol = np.ones(shape[:2]), np.zeros(shape), np.full(shape, 0.2)
        weight, position = np.zeros(shape), np.full(shape, -1)
        for i, (surface, q, (column, _)) in enumerate(zip(surfaces, columns, ranks, strict=True)):
            row, n = q["slice"], len(column)
            t[i, row] = q["t"]
            k[i, row, column] = np.log(q["strike"] / q["forward"])
            vol[i, row, column] = q["iv"]
            weight[i, row, column] = quote_weights(surface.quotes, weights) / math.sqrt(n)
            position[i, row, column] = np.arange(n)
        data = cls(*(torch.as_tensor(a) for a in (t, k, vol, weight, position)))
        beyond = data.k.abs() > far * torch.sqrt(data.variance).unsqueeze(-1)
        return replace(data, weight=torch.where(beyond, torch.zeros_like(data.weight), data.weight))

    def rows(self, rows: Tensor) -> Data:
        """The data of some surfaces."""
        return Data(*(getattr(self, f.name)[rows] for f in fields(self)))

    @property
    def variance(self) -> Tensor:
        """Total variance of the quote nearest the forward, [S, E]."""
        return self.at_the_money_vol() ** 2 * self.t

    @property
    def levels(self) -> dict[str, Tensor]:
        """At-the-money levels [S] that start searches are relative to."""
        atm = self.at_the_money_vol()
        present = (self.weight > 0).any(-1)
        first = torch.where(present, self.t, torch.inf).argmin(-1, keepdim=True)
        last = torch.where(present, self.t, -torch.inf).argmax(-1, keepdim=True)
        short, long = (atm.gather(-1, i).squeeze(-1) for i in (first, last))
        return {"short variance": short**2, "long variance": long**2, "vol": long}

    @property
    def nodes(self) -> int:
        """Quadrature nodes that resolve the farthest quote of any expiry."""
        distance = torch.where(self.weight > 0, self.k.abs(), torch.zeros_like(self.k)).amax(-1)
        return max(64, 32 * math.ceil(float(nodes_needed(self.variance, distance).max()) / 32))

    def at_the_money_vol(self) -> Tensor:
        """Vol of the quote nearest the forward, [S, E]."""
        distance = torch.where(self.position >= 0, self.k.abs(), torch.inf)
        return self.vol.gather(-1, distance.argmin(-1, keepdim=True)).squeeze(-1)


def rank_in_slice(slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each quote within its slice and the number of quotes of that slice; `slices` is sorted, from 0."""
    size = np.bincount(slices)
    first = np.concatenate([[0], np.cumsum(size)[:-1]])
    return np.arange(len(slices)) - first[slices], size[slices]


def quote_weights(quotes: pd.DataFrame, weights: str | Callable[[pd.DataFrame], np.ndarray]) -> np.ndarray:
    """Weight of each quote, normalised to mean square 1.

    "spread" is `1 / sqrt(half_spread^2 + 50bp^2)` in vol: the bid/ask error of the quote and the error of the model
    itself, so that a quote much tighter than any model fits does not rule the fit. One-sided quotes count as
    the widest.

    Raises:
        InputError: unknown name, or a function returned weights that are negative, not finite or all zero.
    """
    if callable(weights):
        raw = np.asarray(weights(quotes), dtype=float)
    elif weights == "equal":
        raw = np.ones(len(quotes))
    elif weights == "spread":
        half = (quotes["iv_ask"].to_numpy() - quotes["iv_bid"].to_numpy()) / 2
        known = np.isfinite(half)
        widest = half[known].max() if known.any() else 0.0
        raw = 1 / np.sqrt(np.where(known, half, widest) ** 2 + VOL_FLOOR**2)
    else:
        raise InputError(f"weights must be 'spread', 'equal' or a function of the quotes, got {weights!r}")
    if raw.shape != (len(quotes),) or not np.isfinite(raw).all() or (raw < 0).any() or not raw.any():
        raise InputError(f"weights must be {len(quotes)} finite numbers >= 0, not all zero")
    normalised: np.ndarray = raw / np.sqrt(np.mean(raw**2))
    return normalised


class SurfaceObjective(ABC):
    """Weighted implied-vol (or vega-weighted price) errors and their Jacobian for a batch of parameter sets."""

    def __init__(self, data: Data, space: Space, penalties: Sequence[Penalty], in_vol: bool) -> None:
        self.data, self.space, self.penalties, self.in_vol = data, space, tuple(penalties), in_vol
        self.used_k = torch.where(data.weight > 0, data.k, torch.zeros_like(data.k))
        self.root_t = torch.sqrt(data.t).unsqueeze(-1)
        total = data.vol * self.root_t
        self.market_price = black(self.used_k, total)
        self.guess, vega = total_vol(self.market_price + PRICE_FLOOR, self.used_k, total)
        self.market_vol, self.market_vega = self.guess / self.root_t, vega * self.root_t

    @abstractmethod
    def prices(self, p: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised out-of-the-money prices [S, n, E, K] and derivatives to the free parameters [S, n, E, K, P]."""

    def vols(self, p: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Vols of the model's prices plus the floor [S, n, E, K], derivatives [S, n, E, K, P], normalised vega."""
        rows = torch.arange(p.shape[0]) if rows is None else rows
        price, gradient = self.prices(p, rows)
        vol, vega = self.vols_of(price, rows)
        return vol, gradient / vega.unsqueeze(-1), vega

    def vols_of(self, price: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Vols of normalised prices [S, n, E, K] plus the floor, and normalised vegas."""
        root_t = self.root_t[rows].unsqueeze(1)
        total, vega = total_vol(price + PRICE_FLOOR, self.data.k[rows].unsqueeze(1), self.guess[rows].unsqueeze(1))
        return total / root_t, vega * root_t

    def residuals(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What `levenberg_marquardt.solve` minimises, in units of vol."""
        p = self.space.to_params(x)
        return self.weighted(p, *self.prices(p, rows), rows)

    def weighted(self, p: Tensor, price: Tensor, gradient: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The residuals and their Jacobian to the unknowns from prices at parameters p and their derivatives."""
        if self.in_vol:
            vol, vega = self.vols_of(price, rows)
            error, gradient = vol - self.market_vol[rows].unsqueeze(1), gradient / vega.unsqueeze(-1)
        else:
            vega = self.market_vega[rows].unsqueeze(1)
            error, gradient = (price - self.market_price[rows].unsqueeze(1)) / vega, gradient / vega.unsqueeze(-1)
        weight = self.data.weight[rows].unsqueeze(1)
        slope = self.space.slope(p)
        r = (weight * error).flatten(2)
        jacobian = (weight.unsqueeze(-1) * gradient * slope[:, :, None, None, :]).flatten(2, 3)
        return with_penalties(r, jacobian, self.penalties, self.space, p)


class Objective(SurfaceObjective):
    """Errors of Fourier prices.

    The quadrature nodes of an expiry depend on its market at-the-money variance only, so one `LewisGrid` serves the
    whole calibration.
    """

    def __init__(self, data: Data, space: Space, penalties: Sequence[Penalty], in_vol: bool, nodes: int) -> None:
        super().__init__(data, space, penalties, in_vol)
        variance, k = data.variance.unsqueeze(-1), self.used_k
        scale, reach = lewis_range(variance, variance, k.abs().amax(-1, keepdim=True))
        self.grid = LewisGrid.of(k, variance, scale, reach, nodes)
        self.t = data.t[:, None, :, None]  # [S, 1, E, 1]

    def prices(self, p: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised out-of-the-money prices [S, n, E, K] and derivatives to the free parameters [S, n, E, K, P]."""
        model = fourier_model(self.space.with_free(p)).map(lambda x: x[..., None, None])
        u, t = self.grid.u[rows].unsqueeze(1), self.t[rows]
        value, gradient = model.log_cf_gradient(u, t)
        names = list(self.space.model.params)
        if len(self.space.free) < len(names):
            gradient = gradient[[names.index(name) for name in self.space.free]]
        phi = complex_exp(value)
        stack = torch.cat([phi.unsqueeze(0), gradient * phi])  # [1 + P, S, n, E, N]
        parts = torch.cat([stack.real, stack.imag], -1).permute(1, 3, 4, 2, 0)  # [S, E, 2N, n, 1 + P]
        s, e, n2, n, width = parts.shape
        flat = self.grid.matrix[rows] @ parts.reshape(s, e, n2, n * width)
        out = flat.reshape(s, e, -1, n, width).permute(0, 3, 1, 2, 4)
        return self.grid.base[rows].unsqueeze(1) - out[..., 0], -out[..., 1:]

    def quadrature_gap(self, price: Tensor, vol: Tensor, vega: Tensor) -> Tensor:
        """Largest error [S], in vol, of prices [S, E, K], given exact vols and vega [S, E, K]."""
        gap = (price - black(self.data.k, vol * self.root_t)).abs() / vega
        return torch.where(self.data.weight > 0, gap, torch.zeros_like(gap)).flatten(1).amax(-1)


def with_penalties(
    r: Tensor, jacobian: Tensor, penalties: Sequence[Penalty], space: Space, p: Tensor
) -> tuple[Tensor, Tensor]:
    """Residuals [S, n, Q] and their Jacobian to the unknowns [S, n, Q, P], those of the penalties at p appended."""
    for penalty in penalties:
        extra, extra_jacobian = _with_jacobian(penalty, space, p)
        r = torch.cat([r, extra], -1)
        jacobian = torch.cat([jacobian, extra_jacobian * space.slope(p).unsqueeze(-2)], -2)
    return r, jacobian


def black(k: Tensor, total_vol: Tensor) -> Tensor:
    """Out-of-the-money prices in units of sqrt(forward strike)."""
    return black_price(torch.exp(-0.5 * k), torch.exp(0.5 * k), 1.0, total_vol, 1.0, k >= 0)


def _vega(k: Tensor, total_vol: Tensor) -> Tensor:
    """D (normalised price) / d (total vol), symmetric in k."""
    return torch.exp(-0.5 * ((k / total_vol) ** 2 + 0.25 * total_vol**2)) * _INV_SQRT_2PI


def total_vol(price: Tensor, k: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
    """Total vol of normalised out-of-the-money prices near a guess, and vega there.

    Safeguarded Halley steps on the logarithm of the price, within factors of a bracket: enough for residuals, which
    need no more than 1e-10, and several times faster than `implied_vol`, which is exact everywhere.
    """
    k = k.abs()
    low, high = torch.exp(-0.5 * k), torch.exp(0.5 * k)
    target = torch.minimum(price.clamp(min=0.5 * PRICE_FLOOR), low * (1 - 1e-12))
    k2 = k * k
    least = k / 6.5  # with the floor no price is below that of 6.3 deviations
    s = torch.maximum(guess, 1.1 * least)
    for _ in range(_VOL_STEPS):
        h, half = k / s, 0.5 * s
        value = (low * torch.special.ndtr(half - h) - high * torch.special.ndtr(-h - half)).clamp(min=1e-300)
        slope = torch.exp(-0.5 * (h * h + half * half)) * _INV_SQRT_2PI / value
        newton = torch.log(value / target) / slope
        bend = k2 / (s * s * s) - 0.25 * s - slope  # d log(slope) / ds
        step = newton / (1 - 0.5 * newton * bend).clamp(min=0.5, max=2.0)
        s = torch.maximum(torch.maximum(torch.minimum(s - step, 5.0 * s), 0.2 * s), least)
        if float((step / s).abs().amax()) < 1e-4:  # the next error is its cube
            break
    return s, _vega(k, s).clamp(min=1e-300)


def _with_jacobian(penalty: Penalty, space: Space, p: Tensor) -> tuple[Tensor, Tensor]:
    def residual(q: Tensor) -> Tensor:
        return penalty(space.with_free(q).params)

    columns = [
        torch.func.jvp(residual, (p,), (torch.nn.functional.one_hot(torch.tensor(i), p.shape[-1]).to(p).expand_as(p),))
        for i in range(p.shape[-1])
    ]
    return columns[0][0], torch.stack([c[1] for c in columns], -1)
