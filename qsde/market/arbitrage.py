"""Static arbitrage: in quotes one can trade on, and in the prices of a fitted model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from qsde.market.black import black_vega
from qsde.market.surface import Surface

Floats = NDArray[np.float64]
#: `(t [E], forward [E], strike [E, K]) -> undiscounted call prices [E, K]`.
CallPrices = Callable[[Tensor, Tensor, Tensor], Tensor]

#: Columns of both reports.
VIOLATION_COLUMNS = ("kind", "expiry", "t", "strikes", "size", "size_vol_bp", "sentence")


def quote_arbitrage(surface: Surface, tolerance: float = 1e-9) -> pd.DataFrame:
    """Static arbitrage that could be traded at the quoted bid and ask.

    All quotes become undiscounted calls: a put at strike `K` is the call less `F - K`, which parity makes exact, so
    the out-of-the-money surface is checked without its in-the-money half. Quotes without bid and ask count with
    their mid on both sides. With `b`, `a` the bid and ask of those calls:

    - call spread: `b(K2) <= a(K1)` for every `K1 < K2`;
    - put spread: `b(K1) + K1 <= a(K2) + K2` for every `K1 < K2` (a call spread is worth at most its width);
    - butterfly: `b(K2) <= w a(K1) + (1 - w) a(K3)` for neighbouring strikes, `K2 = w K1 + (1 - w) K3`;
    - calendar: at equal `K / F`, `b / F` of an expiry at most the chord through `a / F` of the next.

    Args:
        surface: a surface with quotes.
        tolerance: smallest violation reported, as a fraction of the forward.

    Returns:
        One row per violation, the largest first (`VIOLATION_COLUMNS`): kind, expiry, years, strikes, size as
        discounted price and in vol bp (NaN where there is no vega), and a sentence.

    Example:
        >>> s = Surface.from_vols(t=1.0, strike=[90.0, 100.0, 110.0], iv=[0.2, 0.3, 0.2], forward=100.0)
        >>> quote_arbitrage(s)["kind"].tolist()
        ['butterfly']
    """
    found: list[pd.DataFrame] = []
    previous: pd.DataFrame | None = None
    for _, rows in surface.quotes.groupby("slice"):
        calls = _as_calls(rows)
        found += [*_spreads(calls, tolerance), _butterflies(calls, tolerance)]
        if previous is not None:
            found.append(_calendar(previous, calls, tolerance))
        previous = calls
    return _report(found)


def model_arbitrage(
    prices: CallPrices,
    t: ArrayLike,
    forward: ArrayLike,
    discount_factor: ArrayLike = 1.0,
    deviations: ArrayLike = (-4.0, 4.0),
    vol: float = 0.2,
    n_strikes: int = 81,
    tolerance: float = 1e-8,
) -> pd.DataFrame:
    """Static arbitrage in a fitted surface, on a grid of equal moneyness `log(K / F)` at every expiry.

    Checks bounds `(F - K)+ <= C <= F`, `-1 <= dC/dK <= 0`, convexity in strike, and calls that do not fall with
    expiry at equal `K / F`.

    Args:
        prices: function of years `[E]`, forwards `[E]`, strikes `[E, K]` giving undiscounted calls `[E, K]`.
        t: years, increasing.
        forward: forward of each.
        discount_factor: discount factor of each, for the sizes in currency.
        deviations: ends of the grid in units of `vol sqrt(max t)`.
        vol: scale of the grid.
        n_strikes: grid points.
        tolerance: smallest violation reported, as a fraction of the forward.

    Example:
        >>> from qsde.market.black import black_price
        >>> falling = lambda t, f, k: black_price(f[:, None], k, t[:, None], 0.2 / t[:, None])
        >>> model_arbitrage(falling, [0.5, 1.0], [100.0, 101.0])["kind"].unique().tolist()
        ['calendar']
    """
    years = np.atleast_1d(np.asarray(t, float))
    forwards, discounts = (
        np.broadcast_to(np.asarray(a, float), years.shape).copy() for a in (forward, discount_factor)
    )
    low, high = np.asarray(deviations, float) * vol * np.sqrt(years.max())
    strikes = forwards[:, None] * np.exp(np.linspace(low, high, n_strikes))
    calls = prices(torch.tensor(years), torch.tensor(forwards), torch.tensor(strikes)).detach().numpy()
    found, previous = [], None
    for i in range(len(years)):
        rows = pd.DataFrame({"strike": strikes[i], "bid": calls[i], "ask": calls[i], "iv": np.nan})
        rows = rows.assign(expiry=f"{years[i]:.6g}y", t=years[i], forward=forwards[i], discount_factor=discounts[i])
        found += [*_spreads(rows, tolerance), _butterflies(rows, tolerance), _bounds(rows, tolerance)]
        if previous is not None:
            found.append(_calendar(previous, rows, tolerance))
        previous = rows
    return _report(found)


def _as_calls(rows: pd.DataFrame) -> pd.DataFrame:
    """Undiscounted call bid and ask of one expiry, sorted by strike."""
    shift = np.where(rows["option_type"] == "P", rows["forward"] - rows["strike"], 0.0)
    sides = {side: rows[side].fillna(rows["mid"]) / rows["discount_factor"] + shift for side in ("bid", "ask")}
    return rows.assign(**sides).sort_values("strike")


def _spreads(calls: pd.DataFrame, tolerance: float) -> list[pd.DataFrame]:
    """Vertical spreads against the best strike below, which covers every pair of strikes."""
    strike, bid, ask = (calls[c].to_numpy(float) for c in ("strike", "bid", "ask"))
    cheapest = _running_argmin(ask)
    call_size = bid[1:] - ask[cheapest]
    dearest = _running_argmin(-(bid + strike))
    put_size = bid[dearest] + strike[dearest] - ask[1:] - strike[1:]
    return [
        _rows(calls, "call spread", call_size, [strike[cheapest], strike[1:]], tolerance, strike[1:], _CALL_SPREAD),
        _rows(calls, "put spread", put_size, [strike[dearest], strike[1:]], tolerance, strike[1:], _PUT_SPREAD),
    ]


def _butterflies(calls: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    strike, bid, ask = (calls[c].to_numpy(float) for c in ("strike", "bid", "ask"))
    low, body, high = strike[:-2], strike[1:-1], strike[2:]
    weight = (high - body) / np.where(high > low, high - low, 1.0)
    size = bid[1:-1] - weight * ask[:-2] - (1 - weight) * ask[2:]
    return _rows(calls, "butterfly", size, [low, body, high], tolerance, body, _BUTTERFLY)


def _calendar(near: pd.DataFrame, far: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """The near bid against the far chord of asks, which costs at least as much as the far call and pays as much."""
    f_near, f_far = float(near["forward"].iloc[0]), float(far["forward"].iloc[0])
    at, grid = near["strike"].to_numpy(float) / f_near, far["strike"].to_numpy(float) / f_far
    chord = np.interp(at, grid, far["ask"].to_numpy(float) / f_far, left=np.nan, right=np.nan)
    size = (near["bid"].to_numpy(float) / f_near - chord) * f_near
    rows = _rows(near, "calendar", size, [at * f_near, at * f_far], tolerance, at * f_near, _CALENDAR)
    return rows.assign(sentence=[s + f" ({far['expiry'].iloc[0]})" for s in rows["sentence"]])


def _bounds(calls: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    strike, bid, ask = (calls[c].to_numpy(float) for c in ("strike", "bid", "ask"))
    forward = float(calls["forward"].iloc[0])
    size = np.maximum(np.maximum(forward - strike, 0.0) - ask, bid - forward)
    # A price that is not a number breaks every bound.
    size = np.where(np.isnan(bid), np.inf, size)
    return _rows(calls, "bounds", size, [strike], tolerance, strike, _BOUNDS)


_CALL_SPREAD = "{expiry}: the call struck {1:g} sells above the one struck {0:g} by {size:.4g}"
_PUT_SPREAD = "{expiry}: the put struck {0:g} sells above the one struck {1:g} by {size:.4g}"
_BUTTERFLY = "{expiry}: the butterfly {0:g}/{1:g}/{2:g} can be bought for less than nothing: {size:.4g}"
_CALENDAR = "{expiry}: the option struck {0:g} sells above the one struck {1:g} at the next expiry by {size:.4g}"
_BOUNDS = "{expiry}: the call struck {0:g} lies outside its bounds by {size:.4g}"


def _running_argmin(values: Floats) -> NDArray[np.int64]:
    """For every position from 1: the index of the smallest value before it."""
    best = np.minimum.accumulate(values)
    index = np.where(values <= best, np.arange(len(values)), 0)
    return np.maximum.accumulate(index)[:-1]


def _rows(
    calls: pd.DataFrame, kind: str, size: Floats, strikes: list[Floats], tolerance: float, at: Floats, sentence: str
) -> pd.DataFrame:
    """The violations among `size` (undiscounted) as rows of the report."""
    forward, discount = float(calls["forward"].iloc[0]), float(calls["discount_factor"].iloc[0])
    bad = np.flatnonzero(size > tolerance * forward)
    expiry, t = str(calls["expiry"].iloc[0]), float(calls["t"].iloc[0])
    vol = np.interp(at[bad], calls["strike"].to_numpy(float), calls["iv"].to_numpy(float)) if len(bad) else at[bad]
    vega = black_vega(forward, torch.tensor(at[bad]), t, torch.tensor(vol)).numpy()
    size_vol_bp = np.where(vega > 1e-6 * forward, 1e4 * size[bad] / np.maximum(vega, 1e-300), np.nan)
    involved = [tuple(float(s[i]) for s in strikes) for i in bad]
    values = size[bad] * discount
    text = [sentence.format(*k, expiry=expiry, size=v) for k, v in zip(involved, values, strict=True)]
    columns = (kind, expiry, t, involved, values, size_vol_bp, text)
    return pd.DataFrame(dict(zip(VIOLATION_COLUMNS, columns, strict=True)), columns=list(VIOLATION_COLUMNS))


def _report(found: list[pd.DataFrame]) -> pd.DataFrame:
    full = [f for f in found if len(f)]
    if not full:
        return pd.DataFrame(columns=list(VIOLATION_COLUMNS))
    return pd.concat(full).sort_values("size", ascending=False, kind="stable").reset_index(drop=True)
