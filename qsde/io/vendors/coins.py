"""Deribit and Tardis: options on coins, quoted in the coin itself unless they settle in USDC or USDT."""

from __future__ import annotations

import pandas as pd

from qsde.errors import Reject
from qsde.io.source import Origin
from qsde.io.vendors.base import Vendor
from qsde.io.vendors.symbols import split_deribit

_SNAPSHOT = pd.Timedelta(minutes=1)


def _decode(column: str, batch: pd.DataFrame) -> pd.DataFrame:
    parts = split_deribit(batch[column])
    return batch.assign(
        root=parts["root"],
        underlying=parts["root"],
        expiry=parts["expiry"],
        option_type=parts["type"],
        strike=parts["strike"],
        exercise_style="E",
    )


def _deribit(batch: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    return _decode("instrument_name", batch)


def _tardis(batch: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    decoded = _decode("symbol", batch)
    # exchanges other than Deribit name their options differently; the columns say the same
    for name, column in (("expiry", "expiration"), ("option_type", "type"), ("strike", "strike_price")):
        own = decoded[name].astype(object)
        decoded[name] = own.where(own.notna(), batch[column].astype(object))
    return decoded


def _to_dollars(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Coin prices times the forward are undiscounted dollar prices, hence the discount factor of 1."""
    inverse = ~frame["root"].map(lambda root: "_USD" in str(root)).astype(bool)
    scale = frame["forward"].where(inverse, 1.0)
    worth = frame.assign(**{c: frame[c] * scale for c in ("bid", "ask", "mid")}, discount_factor=1.0)
    lost = inverse & frame["forward"].isna() & frame["reason"].isna() & frame[["bid", "ask", "mid"]].notna().any(axis=1)
    worth.loc[lost, "reason"] = Reject.NO_FORWARD.value
    worth.loc[lost, "detail"] = "the price is in coin and neither a future of this expiry nor underlying_price is given"
    return worth


def _one_snapshot(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """A book summary is stamped row by row within milliseconds: one snapshot gets one time, the last."""
    times = frame["quote_local"]
    known = frame["quote_kind"] > 0
    if known.any() and times[known].max() - times[known].min() <= _SNAPSHOT:
        frame = frame.assign(quote_local=times.where(~known, times[known].max()))
    return _to_dollars(frame, origin)


_DECODED = {"underlying": "underlying", "root": "root", "expiry_time": "expiry", "strike": "strike",
            "option_type": "option_type", "exercise_style": "exercise_style",
            "forward": "underlying_price"}  # fmt: skip

COINS = (
    Vendor(
        name="deribit",
        title="Deribit book summary or bundle",
        needs="instrument_name bid_price ask_price",
        columns={
            **_DECODED, "quote_time": "as_of|creation_timestamp|timestamp|quote_time", "bid": "bid_price",
            "ask": "ask_price", "mid": "mark_price|mid_price", "implied_vol": "mark_iv", "iv_bid": "bid_iv",
            "iv_ask": "ask_iv", "spot": "index_price|estimated_delivery_price", "volume": "volume",
            "open_interest": "open_interest",
        },
        percent_vols=True,
        prepare=_deribit,
        finish=_one_snapshot,
    ),
    Vendor(
        name="tardis",
        title="Tardis options_chain",
        needs="exchange symbol timestamp type strike_price expiration bid_price ask_price underlying_price",
        columns={
            **_DECODED, "quote_time": "timestamp", "bid": "bid_price", "ask": "ask_price", "mid": "mark_price",
            "implied_vol": "mark_iv", "iv_bid": "bid_iv", "iv_ask": "ask_iv", "open_interest": "open_interest",
        },
        zone="UTC",
        percent_vols=True,
        prepare=_tardis,
        finish=_to_dollars,
    ),
)  # fmt: skip
