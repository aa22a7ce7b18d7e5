"""Which quotes to believe and to use: a table of rules, each with a reason and a sentence that shows the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qsde.errors import InputError, Reject
from qsde.market.dividends import SAME_TIME


@dataclass(frozen=True)
class CleaningRules:
    """Thresholds of the cleaning and selection; the defaults suit listed options and select everything.

    Attributes:
        max_relative_spread: widest `(ask - bid) / mid`; 1 rejects an ask above three times the bid.
        max_vol_uncertainty: largest half bid/ask in vol terms, over the vol itself; beyond, a price says nothing
            about the vol (no vega).
        max_noise_ratio: largest bid/ask in vol terms over the median of the neighbouring strikes.
        noise_floor: half bid/ask over the vol that is never too wide for its neighbourhood.
        price_tick: smallest price step; half of it counts as price uncertainty at least. 0 ignores it.
        parity_slack: parity gap allowed beyond the bid/ask of both legs, as a fraction of the forward.
        outlier_deviations: robust deviations off the local smile from which a vol is an outlier.
        outlier_floor: relative distance off the smile that is never an outlier.
        stale_floor: the same for the out-of-the-money leg of a pair that violates put-call parity.
        min_days: shortest time to expiry selected, in days of 24 hours.
        max_days: longest time to expiry selected.
        max_deviations: farthest strike selected: `|log(K / F)|` over the at-the-money vol of its expiry times
            `sqrt(t)`.
        early_exercise: remove the premium of early exercise from prices of options marked American; False takes them
            as European, with a warning.
        fold: narrow each out-of-the-money quote by the other option of its strike (`fold_sides`). It leaves less noise
            in the middle, and the forward no step, at the cost of a bid and ask that are no longer those of one option.

    Raises:
        InputError: the selection can hold no quote.

    Example:
        >>> CleaningRules(max_relative_spread=0.5).outlier_floor
        0.015
    """

    max_relative_spread: float = 1.0
    max_vol_uncertainty: float = 0.5
    max_noise_ratio: float = 6.0
    noise_floor: float = 0.05
    price_tick: float = 0.0
    parity_slack: float = 1e-4
    outlier_deviations: float = 6.0
    outlier_floor: float = 0.015
    stale_floor: float = 0.01
    min_days: float = 0.0
    max_days: float = math.inf
    max_deviations: float = math.inf
    early_exercise: bool = True
    fold: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_days <= self.max_days:
            raise InputError(
                f"min_days = {self.min_days:g} and max_days = {self.max_days:g}: write 0 <= min_days <= max_days"
            )
        if not self.max_deviations > 0:
            raise InputError(f"max_deviations must be positive, got {self.max_deviations:g}")


@dataclass(frozen=True)
class Rule:
    """One reason to set quotes aside.

    Attributes:
        reason: the label that reports count.
        broken: which rows of the working table break the rule.
        detail: sentence with the columns of the row in braces.
    """

    reason: Reject
    broken: Callable[[pd.DataFrame, CleaningRules], pd.Series]
    detail: str


def working_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The quotes with the columns the rules work on; `reason` is None while a quote stands.

    Adds `price` (mid of bid and ask where both are there, else `mid`), `half_spread` (NaN without bid and ask),
    `quoted_vol` (the file's vol at the mid) and empty `reason`, `detail`, `premium` (of early exercise, once removed).
    """
    two_sided = (frame["bid"] > 0) & (frame["ask"] > 0)
    vol = frame["implied_vol"].where(frame["implied_vol"] > 0)
    both_vols = ((frame["iv_bid"] + frame["iv_ask"]) / 2).where((frame["iv_bid"] > 0) & (frame["iv_ask"] > 0))
    return frame.assign(
        price=((frame["bid"] + frame["ask"]) / 2).where(two_sided, frame["mid"]),
        half_spread=((frame["ask"] - frame["bid"]) / 2).where(two_sided),
        premium=np.nan,
        quoted_vol=vol.fillna(both_vols),
        reason=pd.Series(None, index=frame.index, dtype=object),
        detail="",
    )


def apply_rules(rules: tuple[Rule, ...], table: pd.DataFrame, options: CleaningRules) -> None:
    """Marks, in place, the standing rows that break a rule; the first broken rule gives the reason."""
    for rule in rules:
        mark(table, rule.broken(table, options), rule.reason, rule.detail)


def mark(table: pd.DataFrame, broken: pd.Series, reason: Reject, detail: str) -> None:
    """Marks, in place, the standing rows where `broken` is true, with a sentence filled from each row."""
    bad = (broken.fillna(False).astype(bool) & table["reason"].isna()).to_numpy()
    if bad.any():
        rows = table[bad]
        values = (dict(zip(rows.columns, row, strict=True)) for row in rows.itertuples(index=False, name=None))
        table.loc[bad, "reason"] = reason.value
        table.loc[bad, "detail"] = [detail.format(**row) for row in values]


def _duplicate(table: pd.DataFrame, _: CleaningRules) -> pd.Series:
    standing = table[table["reason"].isna()].sort_values("half_spread", kind="stable")
    repeated = standing.duplicated(["t", "strike", "option_type"])
    return repeated.reindex(table.index, fill_value=False)


def _zero_bid(table: pd.DataFrame, _: CleaningRules) -> pd.Series:
    offered, no_vol = table["ask"] > 0, ~(table["quoted_vol"] > 0)
    # A printed bid of 0 is a fact; a missing one may be a file that gives mids or vols instead.
    nobody = (table["bid"] == 0) & offered
    missing = table["bid"].isna() & offered & table["mid"].isna() & no_vol
    dead = (table["bid"] == 0) & ~offered & ~(table["mid"] > 0) & no_vol
    vols = table["price"].isna() & (table["iv_ask"] > 0) & no_vol
    return nobody | missing | dead | vols


#: Strikes, prices and forwards from here on are slips, and squares of them may overflow.
_ABSURD = 1e12

#: Rules on the quotes alone, before any forward is known.
QUOTE_RULES = (
    Rule(
        Reject.UNREADABLE,
        lambda q, _: q["t"].isna(),
        "no time to expiry: the quote time (--quote-time) or the expiry is missing",
    ),
    Rule(
        Reject.EXPIRED,
        lambda q, _: q["t"] <= SAME_TIME,
        "expiry {expiry} is not after the quote time: t = {t:.6g} years",
    ),
    Rule(Reject.BAD_STRIKE, lambda q, _: ~((q["strike"] > 0) & (q["strike"] < _ABSURD)), "strike is {strike:g}"),
    Rule(
        Reject.BAD_TYPE, lambda q, _: ~q["option_type"].isin(["C", "P"]), "option type is {option_type!r}, not C or P"
    ),
    Rule(
        Reject.NEGATIVE_PRICE,
        lambda q, _: (q["bid"] < 0) | (q["ask"] < 0) | (q["mid"] < 0),
        "negative price: bid {bid:g}, ask {ask:g}, mid {mid:g}",
    ),
    Rule(Reject.CROSSED, lambda q, _: q["bid"] > q["ask"], "bid {bid:g} is above ask {ask:g}"),
    Rule(Reject.CROSSED, lambda q, _: q["iv_bid"] > q["iv_ask"], "bid vol {iv_bid:g} is above ask vol {iv_ask:g}"),
    Rule(Reject.ZERO_BID, _zero_bid, "nobody bids: bid {bid:g}, ask {ask:g}"),
    Rule(
        Reject.NO_QUOTE,
        lambda q, _: ~(q["price"] > 0) & ~(q["quoted_vol"] > 0) | (q["price"] >= _ABSURD),
        "no two-sided market, price or vol: bid {bid:g}, ask {ask:g}, mid {mid:g}, vol {implied_vol:g}",
    ),
    Rule(
        Reject.WIDE,
        lambda q, o: 2 * q["half_spread"] > o.max_relative_spread * q["price"],
        "bid {bid:g} and ask {ask:g} are too far apart",
    ),
    Rule(Reject.DUPLICATE, _duplicate, "the same option, strike {strike:g}, is quoted more than once"),
)


def _outside_bounds(table: pd.DataFrame, _: CleaningRules) -> pd.Series:
    forward, strike = table["F"] * table["D"], table["strike"] * table["D"]
    is_call = table["option_type"] == "C"
    # An American put is worth up to its strike, undiscounted.
    put_most = table["strike"].where(table["exercise_style"] == "A", strike)
    most = forward.where(is_call, put_most)
    least = (forward - strike).where(is_call, strike - forward).clip(lower=0.0)
    bid = table["bid"].where(table["half_spread"].notna(), table["price"])
    ask = table["ask"].where(table["half_spread"].notna(), table["price"])
    tolerance = 1e-9 * forward + 3 * table["forward_se"].fillna(0.0)
    return (bid >= most + tolerance) | (ask < least - tolerance)


#: Rules that need the forward `F` and discount factor `D`.
FORWARD_RULES = (
    Rule(
        Reject.NO_FORWARD,
        lambda q, _: ~(q["F"] > 0) | ~(q["D"] > 0),
        "no forward for {expiry}: no call/put pair, no forward column, no curve",
    ),
    Rule(
        Reject.NO_FORWARD,
        lambda q, _: (q["F"] >= _ABSURD) | (q["D"] >= _ABSURD),
        "a forward of {F:g} with a discount factor of {D:g} makes no sense",
    ),
    Rule(
        Reject.ARBITRAGE_BOUNDS,
        _outside_bounds,
        "price {price:g} (bid {bid:g}, ask {ask:g}) lies outside the bounds for forward {F:.6g}, strike {strike:g}",
    ),
)

#: Rules on the vol `iv` and its relative uncertainty `noise`.
VOL_RULES = (
    Rule(
        Reject.NO_VEGA,
        lambda q, o: q["otm"] & (q["noise"] > o.max_vol_uncertainty),
        "bid/ask spans +-{noise:.0%} of the vol {iv:.4g}: the price says nothing about it",
    ),
)
