"""American quotes as European ones: each price less the premium of early exercise at the volatility that it implies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from qsde.errors import Reject, VolStatus
from qsde.market.american import american_vol
from qsde.market.black import black_price
from qsde.market.cleaning import mark
from qsde.market.forwards import Forwards
from qsde.market.parity import pool_rates

#: Relative error of a spot price that is not of the same moment as the quotes.
SPOT_ERROR = 1e-3
#: Forwards move the premium, which moves the forwards: settled when they move by less than this, relative.
_SETTLED, _ROUNDS = 1e-6, 5
_PRICES = ["bid", "ask", "mid", "price", "half_spread"]


def remove_premium(table: pd.DataFrame, forwards: Forwards, refit: Callable[[], Forwards]) -> Forwards:
    """Makes American prices European, in place, and finds the forwards again until both agree.

    A price `p` becomes `black_price(F, K, t, sigma, D)` with `american_vol(p) = sigma`, for bid, ask and the price
    between. A bid or ask that implies no volatility, because it is worth less than exercise at once, gives up the
    premium of the price between. Rates and dividend yields are continuous: `r = -ln D / t`, and the yield pooled over
    the expiries by `dividend_yields`, with the spot `F D exp(q t)` that goes with it. Converted rows are of style "E"
    and carry their `premium`; rows without a spot stay as they are; prices that imply no volatility are marked.

    Args:
        table: working table of the cleaning, with `F` and `D` by expiry.
        forwards: what `F` and `D` come from.
        refit: finds the forwards of the changed table and writes `F` and `D` into it.

    Returns:
        The forwards of the European prices.
    """
    american = table["reason"].isna() & (table["exercise_style"] == "A") & (table["price"] > 0) & (table["spot"] > 0)
    if not american.any():
        return forwards
    quoted = table.loc[american, [*_PRICES, "strike", "option_type", "t", "spot"]]
    for _ in range(_ROUNDS):
        before = table.loc[american, "F"]
        status = _convert(table, quoted, dividend_yields(forwards.slices))
        forwards = refit()
        if not ((table.loc[american, "F"] / before - 1).abs() > _SETTLED).any():
            break
    table.loc[american, "premium"] = quoted["price"] - table.loc[american, "price"]
    _mark(table, quoted, status)
    table.loc[american & table["reason"].isna() & table["premium"].notna(), "exercise_style"] = "E"
    return forwards


def dividend_yields(slices: pd.DataFrame) -> pd.Series:
    """Continuous dividend yields by `t` from spot, forwards and discount factors: `q = ln(S / (F D)) / t`, pooled.

    An expiry too short to tell a yield from an error of the spot borrows it from the others (`pool_rates`). NaN where
    there is no spot or forward. Where rates are negative a negative yield counts as 0.

    Example:
        >>> slices = pd.DataFrame({"t": [0.02, 1.0], "spot": 100.0, "forward": [100.3, 103.0],
        ...                        "discount_factor": [0.999, 0.95], "forward_se": 0.0, "forward_source": "parity"})
        >>> dividend_yields(slices).round(4).tolist()
        [0.0203, 0.0217]
    """
    known = slices[(slices["spot"] > 0) & (slices["forward"] > 0) & (slices["discount_factor"] > 0)]
    log_ratio = np.log(known["spot"] / (known["forward"] * known["discount_factor"]))
    # A yield that the user gave needs no pooling.
    own = known["forward_source"].eq("curve") * (1e-6 - SPOT_ERROR) + SPOT_ERROR
    error = np.hypot(own, known["forward_se"].fillna(0.0) / known["forward"])
    t = known["t"]
    pooled = pd.Series(pool_rates(t.tolist(), (log_ratio / t).tolist(), (error / t).tolist()), index=t)
    negative = (known["discount_factor"] > 1).to_numpy()
    return pooled.where(~negative, pooled.clip(lower=0.0)).reindex(slices["t"])


def _convert(table: pd.DataFrame, quoted: pd.DataFrame, dividends: pd.Series) -> pd.DataFrame:
    """Writes the European prices of the `quoted` rows; returns how the implied volatility of each ended."""
    columns = (*(table.loc[quoted.index, c] for c in "FD"), quoted["strike"], quoted["t"], quoted["t"].map(dividends))
    forward, discount, strike, t, dividend = (torch.tensor(column.to_numpy(float)) for column in columns)
    is_call = torch.tensor((quoted["option_type"] == "C").to_numpy())
    rate, spot = -torch.log(discount) / t, forward * discount * torch.exp(dividend * t)
    european, status = {}, {}
    for name in ("bid", "ask", "price"):
        found = american_vol(torch.tensor(quoted[name].to_numpy(float)), spot, strike, t, rate, dividend, is_call)
        vol = torch.where(found.ok, found.vol, torch.nan)
        european[name] = pd.Series(black_price(forward, strike, t, vol, discount, is_call).numpy(), index=quoted.index)
        status[name] = pd.Series(found.status.numpy(), index=quoted.index)
    premium = quoted["price"] - european["price"]
    two_sided = quoted["half_spread"].notna() & premium.notna()
    bid, ask = (european[name].fillna(quoted[name] - premium).where(two_sided) for name in ("bid", "ask"))
    middle = ((bid + ask) / 2).where(two_sided, european["price"])
    new = pd.DataFrame({"bid": bid, "ask": ask, "mid": middle, "price": middle, "half_spread": (ask - bid) / 2})
    table.loc[quoted.index, _PRICES] = new[_PRICES]
    return pd.DataFrame(status)


def _mark(table: pd.DataFrame, quoted: pd.DataFrame, status: pd.DataFrame) -> None:
    """Marks the rows without a volatility; their prices are the quoted ones again."""
    failed = quoted.index[table.loc[quoted.index, "price"].isna()]
    table.loc[failed, _PRICES] = quoted.loc[failed, _PRICES]
    status = status.reindex(table.index)
    low = [int(VolStatus.BELOW_INTRINSIC), int(VolStatus.AT_INTRINSIC)]
    exercise = "an American option worth no more than exercise at once implies no volatility"
    for broken, reason, why in (
        (status["price"] == VolStatus.ABOVE_MAXIMUM, Reject.ARBITRAGE_BOUNDS, VolStatus.ABOVE_MAXIMUM.message),
        (status["ask"] == VolStatus.BELOW_INTRINSIC, Reject.ARBITRAGE_BOUNDS, "even the ask is under that of exercise"),
        (status["price"].isin(low), Reject.NO_VEGA, exercise),
    ):
        mark(table, broken, reason, why + ": price {price:g} (bid {bid:g}, ask {ask:g}), strike {strike:g}")
