"""The portfolio of quoted options and spot that neutralises the vega ladder of a book."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.calibration.fit import Fit
from qsde.errors import InputError
from qsde.greeks.implicit import Hessian
from qsde.greeks.ladder import MONEYNESS, buckets_of
from qsde.greeks.quotes import QuoteSensitivities, quote_sensitivities
from qsde.market.black import black_price
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.payoffs import Payoff
from qsde.payoffs.checks import numbers
from qsde.pricing.engine import Auto, MonteCarlo
from qsde.pricing.fourier import Fourier, price_european

Target = Literal["quotes", "parameters", "buckets"]

#: Singular values below this share of the largest are directions in which nothing can be hedged.
_RANK = 1e-9


@dataclass(frozen=True)
class Hedge:
    """Positions that offset a book, and what is left.

    Attributes:
        sensitivities: the book's own sensitivities.
        positions: one row per instrument: `quote` (row of `surface.quotes`), expiry, strike, kind, `position` (options
            bought; negative is sold), the model's `price` of one, its `half_spread` and the `cost` of trading the
            position at half the spread (NaN without a two-sided quote).
        spot: units of the underlying bought, so that the whole has no delta.
        parameters: by parameter: exposure before and after, options at the model's prices, per 1.00.
        before: sensitivities of the book to the quotes [quotes], in the units of `sensitivities`.
        after: those of book and hedge together, options valued as the target says (`neutralise`).
        cost: sum of the known costs, in the currency of the prices; the spot is taken to trade without.
    """

    sensitivities: QuoteSensitivities
    positions: pd.DataFrame
    spot: float
    parameters: pd.DataFrame
    before: Tensor
    after: Tensor
    cost: float

    def __repr__(self) -> str:
        """The positions, and what is left."""
        rest = f"spot {self.spot:.6g}, cost {self.cost:.4g}, {100 * self.left:.3g} % of the exposure to quotes left"
        return f"{self.positions.to_string(index=False)}\n{rest}"

    @property
    def left(self) -> float:
        """Norm of the exposures to the quotes after the hedge, as a share of that before."""
        return float(self.after.norm() / self.before.norm())


def hedge(
    fit: Fit,
    payoffs: Payoff | Sequence[Payoff],
    market: Market | None = None,
    engine: MonteCarlo | Fourier | Auto | None = None,
    *,
    instruments: Sequence[int] | None = None,
    target: Target = "quotes",
    cost_weight: float = 0.0,
    hessian: Hessian = "full",
) -> Hedge:
    """Finds the quoted options to trade against a book of which one of each payoff is held, and the spot.

    Arguments as in `quote_sensitivities` and `neutralise`.

    Example:
        >>> from qsde.calibration import calibrate
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import European
        >>> surface = Surface.from_vols([0.5, 0.5, 1.0], [90.0, 110.0, 100.0], 0.2, forward=100.0, spot=100.0)
        >>> fit = calibrate(BlackScholes(0.3), surface, weights="equal")
        >>> found = hedge(fit, European(100.0, expiry=1.0), instruments=[2])
        >>> float(found.positions["position"].iloc[0].round(6)), found.left < 1e-9
        (-1.0, True)
    """
    found = quote_sensitivities(fit, payoffs, market, engine, hessian=hessian)
    return neutralise(found, instruments=instruments, target=target, cost_weight=cost_weight)


def neutralise(
    sensitivities: QuoteSensitivities,
    *,
    instruments: Sequence[int] | None = None,
    target: Target = "quotes",
    cost_weight: float = 0.0,
) -> Hedge:
    r"""Finds the quoted options to trade against a book whose sensitivities are known, and the spot.

    With `e` the exposures of the book that count and `E` those of one of each instrument, positions `x` minimise

        |e + E x|^2 + |cost_weight h x|^2,

    `h` the half spreads of the prices. Among equally good positions the one with the least `|h x|` is taken. What
    counts, and how the options are valued, is the target:

    - "quotes": sensitivities to every quote, options at the model's prices. As many instruments as parameters leave
      nothing. It holds when the surface moves as the model can follow; when a quote moves by itself, the market price
      of that option moves by its own vega and its model price by less.
    - "parameters": exposures to parameters in units of their standard errors (of their size where these are not
      known), options at the model's prices.
    - "buckets": totals of the cells of the ladder (each expiry, `MONEYNESS`), options at their own quotes, so that each
      has its Black vega and nothing else. One instrument in a cell makes its total 0; moves that are the same
      throughout each cell are hedged, whether or not the model can follow them.

    The delta that the options leave, at the model's prices, is offset in the spot.

    Args:
        sensitivities: of the book.
        instruments: rows of `fit.surface.quotes`; None takes `liquid_quotes`.
        target: what counts.
        cost_weight: how much cost counts against exposure; 0 hedges as well as it can.

    Raises:
        InputError: no instruments, rows that are not there, an unknown target or a negative cost weight.
    """
    fit = sensitivities.fit
    if target not in get_args(Target):
        raise InputError(f"target must be one of {', '.join(get_args(Target))}; got {target!r}")
    if not (cost_weight >= 0 and math.isfinite(cost_weight)):
        raise InputError(f"cost_weight must be at least 0 and finite, got {cost_weight}")
    given = liquid_quotes(fit) if instruments is None else numbers("instruments", instruments)
    rows, n = given.astype(int), len(fit.surface)
    if not len(rows) or (rows != given).any() or rows.min() < 0 or rows.max() >= n or len(set(rows)) < len(rows):
        raise InputError(f"instruments must be different rows of the surface's {n} quotes, got {given}")
    options = _Options.of(sensitivities, rows)
    book = sensitivities.gradient.gradient.sum(0)
    moves = sensitivities.quote_jacobian.mT * sensitivities.scale
    by_quote = options.own_vega(fit.surface) * sensitivities.scale if target == "buckets" else moves @ options.gradient
    if target == "parameters":
        sizes = _sizes(fit)
        exposure, each = sizes * book, sizes.unsqueeze(-1) * options.gradient
    else:
        exposure, each = moves @ book, by_quote
    if target == "buckets":
        cells = torch.nn.functional.one_hot(torch.tensor(buckets_of(fit.surface))).double().mT
        exposure, each = cells @ exposure, cells @ each
    position = _least_squares(each, -exposure, options.weight, cost_weight)
    table = options.table(fit.surface, position)
    left = book + options.gradient @ position
    parameters = pd.DataFrame({"before": book.numpy(), "after": left.numpy()}, pd.Index(fit.free, name="parameter"))
    return Hedge(
        sensitivities, table, -float(sensitivities.gradient.delta.sum() + options.delta @ position), parameters,
        moves @ book, moves @ book + by_quote @ position, float(table["cost"].sum()),
    )  # fmt: skip


def liquid_quotes(fit: Fit, strike_buckets: Sequence[float] = MONEYNESS) -> np.ndarray:
    """Rows of the tightest quote of each expiry and bucket of moneyness; nearest the forward without spreads."""
    quotes = fit.surface.quotes
    bid, ask, strike, forward = (quotes[name].to_numpy(float) for name in ("iv_bid", "iv_ask", "strike", "forward"))
    spread, distance = ask - bid, np.abs(np.log(strike / forward))
    order = np.lexsort([distance, np.where(np.isnan(spread), np.inf, spread)])
    used = order[fit.weight[order] > 0]
    cells = buckets_of(fit.surface, strike_buckets)[used]
    rows: np.ndarray = np.sort(used[np.unique(cells, return_index=True)[1]])
    return rows


@dataclass(frozen=True)
class _Options:
    """Quoted options at the model's prices.

    Attributes:
        rows: rows of the quotes.
        price, delta: one of each [n].
        gradient: derivatives to the fitted parameters [free, n].
        half_spread: half of ask less bid [n], NaN without both.
    """

    rows: np.ndarray
    price: Tensor
    delta: Tensor
    gradient: Tensor
    half_spread: np.ndarray

    @classmethod
    def of(cls, sensitivities: QuoteSensitivities, rows: np.ndarray) -> _Options:
        fit, market = sensitivities.fit, sensitivities.market
        quotes = fit.surface.quotes.iloc[rows]
        strike, t, df, forward = (
            torch.tensor(quotes[name].to_numpy(float)) for name in ("strike", "t", "discount_factor", "forward")
        )
        is_call = torch.tensor((quotes["option_type"] == "C").to_numpy())
        spot = torch.as_tensor(market.spot).detach().clone().requires_grad_()
        ours = Market(spot, market.rate, market.dividend_yield, market.dividends).forward(t)
        leaves = {name: fit.model.params[name].detach().clone().requires_grad_() for name in fit.free}
        # forwards are the quotes' own, and move with the spot as the market's do
        moving = (forward * ours / ours.detach()).unsqueeze(-1)
        found = price_european(
            fit.model.with_params(leaves), strike.unsqueeze(-1), t, moving.squeeze(-1), df, is_call.unsqueeze(-1)
        )
        price = found.value.squeeze(-1)
        inputs = [spot, *leaves.values()]
        slopes = [torch.stack(torch.autograd.grad(p, inputs, retain_graph=True)) for p in price.unbind()]
        table = torch.stack(slopes, -1)
        half = 0.5 * (quotes["ask"] - quotes["bid"]).to_numpy(float)
        return cls(rows, price.detach(), table[0], table[1:], half)

    def own_vega(self, surface: Surface) -> Tensor:
        """Black vega of each option in its own quote, [quotes, n], per 1.00."""
        q = surface.quotes.iloc[self.rows]
        forward, strike, t, vol, df = (
            torch.tensor(q[name].to_numpy(float)) for name in ("forward", "strike", "t", "iv", "discount_factor")
        )
        vol.requires_grad_()
        call = torch.tensor((q["option_type"] == "C").to_numpy())
        (vega,) = torch.autograd.grad(black_price(forward, strike, t, vol, df, call).sum(), vol)
        return torch.zeros(len(surface), len(self.rows), dtype=torch.float64).index_copy(
            0, torch.tensor(self.rows), torch.diag(vega)
        )

    @property
    def weight(self) -> Tensor:
        """Half spreads, those not known as wide as the widest, all 1 if none is known."""
        known = self.half_spread[np.isfinite(self.half_spread) & (self.half_spread > 0)]
        if not len(known):
            return torch.ones(len(self.rows), dtype=torch.float64)
        filled = np.where(np.isnan(self.half_spread), known.max(), np.maximum(self.half_spread, known.min()))
        return torch.tensor(filled)

    def table(self, surface: Surface, position: Tensor) -> pd.DataFrame:
        """The positions as `Hedge.positions`."""
        quotes = surface.quotes.iloc[self.rows]
        return pd.DataFrame(
            {
                "quote": self.rows,
                "expiry": quotes["expiry"].to_numpy(),
                "strike": quotes["strike"].to_numpy(float),
                "kind": np.where(quotes["option_type"] == "C", "call", "put"),
                "position": position.numpy(),
                "price": self.price.numpy(),
                "half_spread": self.half_spread,
                "cost": np.abs(position.numpy()) * self.half_spread,
            }
        )


def _sizes(fit: Fit) -> Tensor:
    """How far each parameter may be off: its standard error, or its size (at least 0.01)."""
    error = fit.covariance.diagonal().sqrt()
    size = torch.tensor([abs(fit.params[name]) for name in fit.free], dtype=torch.float64).clamp(min=0.01)
    return torch.where(torch.isfinite(error) & (error > 0), error, size)


def _least_squares(matrix: Tensor, target: Tensor, weight: Tensor, cost_weight: float) -> Tensor:
    """The x of least `|M x - b|^2 + |c w x|^2`, and of least `|w x|` among those, in variables `w x`."""
    scaled = matrix / weight
    if cost_weight:
        scaled = torch.cat([scaled, cost_weight * torch.eye(len(weight), dtype=torch.float64)])
        target = torch.cat([target, target.new_zeros(len(weight))])
    found: Tensor = torch.linalg.pinv(scaled, rtol=_RANK) @ target / weight
    return found
