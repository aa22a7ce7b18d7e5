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
#: The premium moves forwards and rates, which move the premium, until both move by less than this, relative.
_SETTLED, _ROUNDS = 1e-5, 6
#: Call/put pairs that know the forward better than a file, whose forward may be that of American pairs.
_ENOUGH_PAIRS = 5
#: Forwards further from the spot than this factor say that one of both is in another unit.
_UNITS_APART = 2.0
_PRICES = ["bid", "ask", "mid", "price"]


def remove_premium(table: pd.DataFrame, forwards: Forwards, refit: Callable[[], Forwards]) -> Forwards:
    """Makes American prices European, in place, and finds the forwards again until both agree.

    A price `p` becomes `black_price(F, K, t, sigma, D)` with `sigma = american_vol(p)`, for bid, ask and the middle
    each. A bid or ask that implies no volatility, being worth less than exercise at once, gives up the premium of the
    middle; so do both in the search for the forwards, since their own premia would shift the middle. Rates and
    dividend yields are continuous: `r = -ln D / t`, and the yield pooled over the expiries by `dividend_yields`, with
    the spot `F D exp(q t)` that goes with it. Converted rows are of style "E" and carry their `premium`; rows without a
    spot near the forward stay as they are; prices that imply no volatility are marked. Where there are call/put pairs
    enough, the forward is theirs, not that of the file, which often is that of parity between American prices.

    Args:
        table: working table of the cleaning, with `F` and `D` by expiry.
        forwards: what `F` and `D` come from.
        refit: finds the forwards of the changed table and writes `F` and `D` into it.

    Returns:
        The forwards of the European prices.
    """
    american = table["reason"].isna() & (table["exercise_style"] == "A") & (table["price"] > 0)
    american &= (table["F"] / table["spot"]).between(1 / _UNITS_APART, _UNITS_APART)
    if not american.any():
        return forwards
    quoted = table.loc[american, [*_PRICES, "half_spread", "strike", "option_type", "t"]]
    n_pairs = table["t"].map(forwards.slices.set_index("t")["n_pairs"])
    table.loc[american & (n_pairs >= _ENOUGH_PAIRS), "forward"] = np.nan
    for _ in range(_ROUNDS):
        quoted[["F", "D"]] = table.loc[american, ["F", "D"]]
        dividends = dividend_yields(forwards.slices)
        middle, ended = _european(quoted, "price", dividends)
        premium = quoted["price"] - middle
        table.loc[american, _PRICES] = quoted[_PRICES].sub(premium, axis=0)
        forwards = refit()
        if not ((table.loc[american, ["F", "D"]] / quoted[["F", "D"]] - 1).abs() > _SETTLED).any(axis=None):
            break
    two_sided, status = quoted["half_spread"].notna(), {"price": ended}
    for name, inside in (("bid", np.minimum), ("ask", np.maximum)):
        own, status[name] = _european(quoted, name, dividends)
        table.loc[american, name] = inside(own.where(two_sided).fillna(table[name]), table["price"])
    table.loc[american, "half_spread"] = (table["ask"] - table["bid"]).where(two_sided) / 2
    table.loc[american, "premium"] = premium
    _mark(table, quoted, status)
    table.loc[american & table["premium"].notna(), "exercise_style"] = "E"
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


def _european(quoted: pd.DataFrame, name: str, dividends: pd.Series) -> tuple[pd.Series, pd.Series]:
    """European prices for the American ones of a column, NaN without a volatility, and how each inversion ended."""
    columns = (*(quoted[c] for c in (name, "F", "D", "strike", "t")), quoted["t"].map(dividends))
    price, forward, discount, strike, t, dividend = (torch.tensor(column.to_numpy(float)) for column in columns)
    is_call = torch.tensor((quoted["option_type"] == "C").to_numpy())
    spot = forward * discount * torch.exp(dividend * t)
    found = american_vol(price, spot, strike, t, -torch.log(discount) / t, dividend, is_call)
    vol = torch.where(found.ok, found.vol, torch.nan)
    european = black_price(forward, strike, t, vol, discount, is_call)
    return pd.Series(european.numpy(), quoted.index), pd.Series(found.status.numpy(), quoted.index)


def _mark(table: pd.DataFrame, quoted: pd.DataFrame, status: dict[str, pd.Series]) -> None:
    """Marks the rows without a volatility; their prices are the quoted ones again."""
    failed = quoted.index[table.loc[quoted.index, "premium"].isna()]
    columns = [*_PRICES, "half_spread"]
    table.loc[failed, columns] = quoted.loc[failed, columns]
    price, ask = (status[name].reindex(table.index) for name in ("price", "ask"))
    low = [int(VolStatus.BELOW_INTRINSIC), int(VolStatus.AT_INTRINSIC)]
    exercise = "an American option worth no more than exercise at once implies no volatility"
    for broken, reason, why in (
        (price == VolStatus.ABOVE_MAXIMUM, Reject.ARBITRAGE_BOUNDS, VolStatus.ABOVE_MAXIMUM.message),
        (ask == VolStatus.BELOW_INTRINSIC, Reject.ARBITRAGE_BOUNDS, "even the ask is under the value of exercise"),
        (price.isin(low), Reject.NO_VEGA, exercise),
    ):
        mark(table, broken, reason, why + ": price {price:g} (bid {bid:g}, ask {ask:g}), strike {strike:g}")
