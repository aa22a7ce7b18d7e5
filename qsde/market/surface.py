"""A clean volatility surface: forwards and discount factors per expiry, out-of-the-money quotes, implied vols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from qsde.errors import QuoteError
from qsde.market.black import black_price
from qsde.market.quotes import empty_rejected

#: Columns of `Surface.slices`, one row per expiry.
SLICE_COLUMNS = ("expiry", "t", "forward", "discount_factor", "rate", "forward_source", "n_pairs", "n_quotes",
                 "discount_source", "share_in_spread", "parity_residual", "forward_se", "rate_se")  # fmt: skip
#: Columns of `Surface.quotes`, one row per accepted quote, sorted by slice and strike.
QUOTE_COLUMNS = ("slice", "expiry", "t", "forward", "discount_factor", "strike", "option_type",
                 "bid", "mid", "ask", "iv_bid", "iv", "iv_ask")  # fmt: skip

#: A vol above this is taken for percent.
HIGHEST_VOL = 10.0
#: Relative difference up to which forwards of one expiry are the same.
_SAME = 1e-6


@dataclass(frozen=True)
class Surface:
    """Out-of-the-money quotes of one underlying at one time, ready to calibrate.

    Attributes:
        slices: one row per expiry (`SLICE_COLUMNS`): years `t`, forward, discount factor, continuous zero rate,
            where the forward came from ("parity", "file", "curve", "given"), call/put pairs used, quotes kept;
            where the discount factor came from ("curve", "file", "parity", "prices", "assumed", "given"); and the
            quality of the parity fit (NaN without pairs): share of pairs that agree within bid/ask, median absolute
            gap in price units, standard errors of the forward and of the rate by this expiry alone.
        quotes: one row per quote (`QUOTE_COLUMNS`); prices are discounted and European (of American options, what is
            left without the premium of early exercise), vols annualised decimals; `iv` is the vol of the mid, never
            NaN; `bid`, `ask`, `iv_bid`, `iv_ask` are NaN where the market gave one price only.
        underlying: name.
        quote_time: ISO time of the quotes, "" if unknown.
        spot: price of the underlying, NaN if unknown.
        rejected: quotes set aside, with `reason` and `detail` (see `Quotes.rejected`).
        warnings: sentences a user should read.
        source: file the quotes came from.
    """

    slices: pd.DataFrame
    quotes: pd.DataFrame
    underlying: str = ""
    quote_time: str = ""
    spot: float = float("nan")
    rejected: pd.DataFrame = field(default_factory=empty_rejected)
    warnings: tuple[str, ...] = ()
    source: str = "memory"

    @classmethod
    def from_vols(
        cls,
        t: ArrayLike,
        strike: ArrayLike,
        iv: ArrayLike,
        forward: ArrayLike,
        discount_factor: ArrayLike = 1.0,
        iv_bid: ArrayLike = np.nan,
        iv_ask: ArrayLike = np.nan,
        expiry: Sequence[str] | None = None,
        underlying: str = "",
        quote_time: str = "",
        spot: float = float("nan"),
    ) -> Surface:
        """Builds a surface from implied vols; all arrays broadcast to one flat list of quotes.

        Prices are Black-76 prices of the out-of-the-money option. Quotes with the same `t` form one slice, which has
        one forward and one discount factor.

        Raises:
            QuoteError: an entry is no number, not finite or not positive, a vol is percent, the lengths differ, or the
                forwards or discount factors of a slice do; the message names its position and value.

        Example:
            >>> s = Surface.from_vols(t=[0.5, 0.5, 1.0], strike=[90, 110, 100], iv=[0.25, 0.2, 0.22], forward=100.0)
            >>> s.slices[["t", "n_quotes"]].values.tolist()
            [[0.5, 2.0], [1.0, 1.0]]
        """
        names = ("t", "strike", "iv", "forward", "discount_factor", "iv_bid", "iv_ask")
        given = (t, strike, iv, forward, discount_factor, iv_bid, iv_ask)
        table = _table({name: _numbers(name, values) for name, values in zip(names, given, strict=True)})
        _check(table)
        table["expiry"] = list(expiry) if expiry is not None else [f"{x:.6g}y" for x in table["t"]]
        return cls._assemble(table, "given", underlying, quote_time, spot)

    @classmethod
    def _assemble(
        cls, table: pd.DataFrame, forward_source: str, underlying: str, quote_time: str, spot: float
    ) -> Surface:
        table = table.sort_values(["t", "strike"], kind="stable").reset_index(drop=True)
        table["slice"] = table["t"].rank(method="dense").astype(int) - 1
        table["option_type"] = np.where(table["strike"] < table["forward"], "P", "C")
        for price, vol in (("bid", "iv_bid"), ("mid", "iv"), ("ask", "iv_ask")):
            table[price] = _otm_price(table, vol)
        slices = table.groupby("slice", as_index=False).agg(
            expiry=("expiry", "first"),
            t=("t", "first"),
            forward=("forward", "first"),
            discount_factor=("discount_factor", "first"),
            n_quotes=("strike", "size"),
        )
        slices["rate"] = np.log(1 / slices["discount_factor"]) / slices["t"]
        slices["forward_source"] = slices["discount_source"] = forward_source
        slices["n_pairs"] = 0
        slices[["share_in_spread", "parity_residual", "forward_se", "rate_se"]] = np.nan
        return cls(slices[list(SLICE_COLUMNS)], table[list(QUOTE_COLUMNS)], underlying, quote_time, spot)

    def __repr__(self) -> str:
        spot = f", spot {self.spot:.8g}" if self.spot == self.spot else ""
        size = f"{len(self):,} quotes over {len(self.slices)} expiries"
        return f"Surface({self.name}: {size}{spot}, {len(self.rejected):,} set aside)"

    def __len__(self) -> int:
        return len(self.quotes)

    @property
    def name(self) -> str:
        """Underlying and quote time, as printed in tables and reports."""
        return " ".join(part for part in (self.underlying, self.quote_time) if part) or self.source

    def select(self, mask: ArrayLike) -> Surface:
        """The surface with only the quotes where `mask` is true; slices left empty disappear."""
        quotes = self.quotes[np.asarray(mask, dtype=bool)]
        kept = np.sort(quotes["slice"].unique())
        renumber = {int(old): new for new, old in enumerate(kept)}
        quotes = quotes.assign(slice=quotes["slice"].map(renumber)).reset_index(drop=True)
        slices = self.slices.iloc[kept].reset_index(drop=True)
        slices = slices.assign(n_quotes=quotes.groupby("slice").size().reindex(range(len(kept))).to_numpy())
        return replace(self, quotes=quotes, slices=slices)


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=float).ravel()
    except (TypeError, ValueError):
        raise QuoteError(f"{name} must be a number or a list of numbers, got {values!r:.60}") from None


def _check(table: pd.DataFrame) -> None:
    """Raises QuoteError about the first entry that makes no sense."""
    for name in ("t", "strike", "iv", "forward", "discount_factor"):
        if (at := _first(~(np.isfinite(table[name]) & (table[name] > 0)))) is not None:
            raise QuoteError(f"{name}[{at}] is {table[name][at]}: it must be positive and finite")
    for name in ("iv", "iv_bid", "iv_ask"):
        if (at := _first(table[name] > HIGHEST_VOL)) is not None:
            raise QuoteError(f"{name}[{at}] is {table[name][at]:g}: vols are annualised decimals: 0.2, not 20")
    if (at := _first(table["iv_bid"] > table["iv_ask"])) is not None:
        bid, ask = (table[name][at] for name in ("iv_bid", "iv_ask"))
        raise QuoteError(f"iv_bid[{at}] is {bid:g}, above iv_ask[{at}] = {ask:g}: leave out crossed quotes")
    for name in ("forward", "discount_factor"):
        first = table.groupby("t")[name].transform("first")
        if (at := _first((table[name] / first - 1).abs() > _SAME)) is not None:
            raise QuoteError(
                f"{name}[{at}] is {table[name][at]:g} where quotes of the same t = {table['t'][at]:g} have "
                f"{first[at]:g}: give one {name} for each t"
            )


def _first(bad: pd.Series) -> int | None:
    """Number of the first entry that is bad."""
    rows = np.flatnonzero(bad)
    return int(rows[0]) if len(rows) else None


def _table(columns: dict[str, NDArray[np.float64]]) -> pd.DataFrame:
    lengths = {name: len(column) for name, column in columns.items() if len(column) != 1}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise QuoteError(f"give each list one entry for each quote; the lengths are {said}")
    return pd.DataFrame(dict(zip(columns, np.broadcast_arrays(*columns.values()), strict=True)))


def _otm_price(table: pd.DataFrame, vol: str) -> np.ndarray:
    forward, strike, t, sigma, discount_factor = (
        torch.tensor(table[c].to_numpy()) for c in ("forward", "strike", "t", vol, "discount_factor")
    )
    price: np.ndarray = black_price(forward, strike, t, sigma, discount_factor, is_call=strike >= forward).numpy()
    return price
