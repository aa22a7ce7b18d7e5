"""The tidy format of qsde itself, long and wide."""

from __future__ import annotations

import pandas as pd

from qsde.io.source import Origin
from qsde.io.vendors.base import Vendor

_PRICES = {
    "bid": "bid",
    "ask": "ask",
    "mid": "mid|settle",
    "implied_vol": "implied_vol",
    "iv_bid": "iv_bid",
    "iv_ask": "iv_ask",
    "volume": "volume",
    "open_interest": "open_interest",
}
_SHARED = {
    "underlying": "underlying",
    "quote_time": "quote_time|quote_date",
    "expiry_time": "expiry_time|expiry",
    "t": "t_years|t",
    "strike": "strike",
    "spot": "spot",
    "forward": "forward",
    "discount_factor": "discount_factor",
    "exercise_style": "exercise_style",
    "root": "root",
}


def _prepare(batch: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Settlements where no mid is given, and a discount factor of 1 where prices are known to be undiscounted."""
    if {"mid", "settle"} <= set(batch.columns):
        mid = batch["mid"].astype(object)
        batch = batch.assign(mid=mid.where(mid.notna() & (mid != ""), batch["settle"].astype(object)))
    undiscounted = pd.Series("bid_coin" in batch.columns, index=batch.index)
    if "price_basis" in batch.columns:
        undiscounted |= batch["price_basis"].astype(object) == "undiscounted_from_iv"
    if not undiscounted.any():
        return batch
    given = batch["discount_factor"].astype(object) if "discount_factor" in batch.columns else None
    return batch.assign(discount_factor=1.0 if given is None and undiscounted.all() else _ones(undiscounted, given))


def _ones(where: pd.Series, given: pd.Series | None) -> pd.Series:
    base = pd.Series(None, index=where.index, dtype=object) if given is None else given
    return base.where(~where, 1.0)


_NEEDS = "expiry|expiry_time|t_years|t"

TIDY = Vendor(
    name="tidy",
    title="the tidy format of qsde",
    needs=f"strike option_type {_NEEDS} bid|ask|mid|settle|implied_vol|iv_bid|iv_ask",
    columns={**_SHARED, **_PRICES, "option_type": "option_type"},
    reads="price_basis bid_coin",
    prepare=_prepare,
)
TIDY_WIDE = Vendor(
    name="tidy_wide",
    title="the tidy format of qsde with a call and a put in one row",
    needs=f"strike {_NEEDS} call_bid|call_ask|call_mid|call_implied_vol put_bid|put_ask|put_mid|put_implied_vol",
    columns=_SHARED,
    legs={
        leg: {c: "|".join(f"{side}_{n}" for n in found.split("|")) for c, found in _PRICES.items()}
        for leg, side in (("C", "call"), ("P", "put"))
    },
)
