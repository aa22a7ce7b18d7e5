"""What quotes say of each other: the two options of a strike by parity, those beside it by the smile."""

from __future__ import annotations

import numpy as np
import pandas as pd

from qsde.errors import Reject
from qsde.market.cleaning import CleaningRules, mark
from qsde.market.smile import fit_smile, running_median

_SIDES = ["bid", "ask", "price"]
_PARITY = "call minus put misses D (F - K) by {gap:.4g}, bid/ask explain {allowed:.4g}"
_OFF_SMILE = "vol {iv:.4g} where the neighbouring quotes say {smile:.4g}"


def fold_sides(table: pd.DataFrame) -> None:
    """Narrows, in place, out-of-the-money quotes by the in-the-money ones that agree with them.

    By put-call parity the other option of a strike is worth the same but for `D (F - K)`. Where both are European with
    bid and ask, and these overlap, the quote gets the higher bid, the lower ask, and the mean of the middles weighted
    by the inverse squares of the half spreads.
    """
    usable = table["reason"].isna() & table["half_spread"].notna() & (table["exercise_style"] != "A")
    sign = np.where(table["option_type"] == "C", 1.0, -1.0)
    parity = (table["D"] * (table["F"] - table["strike"]) * sign).where(~table["otm"], 0.0)
    keys = ["t", "strike"]
    own = table[keys + _SIDES].assign(**table[_SIDES].sub(parity, axis=0)).assign(half=table["half_spread"])
    other = own[usable & ~table["otm"]].drop_duplicates(keys)
    both = own.merge(other, on=keys, how="left", suffixes=("", "_other")).set_axis(table.index)
    bid, ask = both[["bid", "bid_other"]].max(axis=1), both[["ask", "ask_other"]].min(axis=1)
    weight, other_weight = (1 / both[name].clip(lower=1e-12) ** 2 for name in ("half", "half_other"))
    mean = (weight * both["price"] + other_weight * both["price_other"]) / (weight + other_weight)
    folded = usable & table["otm"] & both["price_other"].notna() & (bid <= ask)
    new = pd.DataFrame({"bid": bid, "ask": ask, "price": mean.clip(bid, ask), "half_spread": (ask - bid) / 2})[folded]
    table.loc[folded, list(new)] = new


def add_parity_gap(table: pd.DataFrame, options: CleaningRules) -> None:
    """Adds, in place, `gap = C - P - D (F - K)` and `allowed`, what bid/ask and the forward's error can explain.

    American options may miss European parity by the early exercise premium, at most the carry of strike and spot:
    that is added to what is allowed.
    """
    standing = table["reason"].isna() & (table["price"] > 0)
    legs = table.loc[standing, ["t", "strike", "option_type", "price", "half_spread"]]
    other = legs.assign(option_type=legs["option_type"].map({"C": "P", "P": "C"}))
    keys = ["t", "strike", "option_type"]
    both = table[keys].merge(other, on=keys, how="left").set_axis(table.index)
    sign = np.where(table["option_type"] == "C", 1.0, -1.0)
    spreads = table["half_spread"].fillna(0.0) + both["half_spread"].fillna(0.0)
    error = (3 * table["forward_se"].fillna(0.0) + options.parity_slack * table["F"]) * table["D"]
    carry = table["strike"] * (1 - table["D"]).abs() + (table["spot"] - table["F"] * table["D"]).abs().fillna(0.0)
    table["gap"] = (sign * (table["price"] - both["price"]) - table["D"] * (table["F"] - table["strike"])).where(
        standing
    )
    table["allowed"] = spreads + error + carry.where(table["exercise_style"] == "A", 0.0)


def judge_pairs(table: pd.DataFrame, options: CleaningRules) -> None:
    """Marks, in place, the stale legs of pairs that violate put-call parity.

    The smile is fitted to the other out-of-the-money quotes. If the out-of-the-money leg of a violating pair lies on
    it, the in-the-money leg is stale; if it lies off, it is stale itself and its partner is set aside for parity. If
    there are too few quotes to fit a smile, both are set aside for parity.
    """
    violating = (table["gap"].abs() > table["allowed"]) & table["reason"].isna()
    if not violating.any():
        return
    otm = table["otm"] & table["reason"].isna() & table["iv"].notna()
    _add_smile(table, otm, trusted=~violating)
    off = (table["smile_distance"] > options.outlier_deviations) & (table["smile_gap"] > options.stale_floor)
    unknown = ~table["smile_known"].astype(bool)
    table["partner_stands"] = _partner(table, otm & ~off & ~unknown)
    mark(table, violating & otm & unknown, Reject.PARITY, _PARITY)
    mark(table, violating & otm & off, Reject.STALE, _PARITY + f"; {_OFF_SMILE}")
    itm = violating & ~table["otm"]
    mark(table, itm & table["partner_stands"], Reject.STALE, _PARITY + "; the other leg lies on the smile")
    mark(table, itm, Reject.PARITY, _PARITY)


def reject_outliers(table: pd.DataFrame, options: CleaningRules) -> None:
    """Marks, in place, out-of-the-money vols far off the local smile, or with a far wider market than around them."""
    otm = table["otm"] & table["reason"].isna() & table["iv"].notna()
    _add_smile(table, otm, trusted=otm)
    off = (table["smile_distance"] > options.outlier_deviations) & (table["smile_gap"] > options.outlier_floor)
    # A kink or a steep wing may lie off the local line, but not off its own neighbours on both sides.
    between = table["median_gap"] < np.maximum(0.5 * options.outlier_floor, table["noise"])
    mark(table, off & ~between, Reject.OUTLIER, _OFF_SMILE)
    wide = (table["noise"] > options.max_noise_ratio * table["usual_noise"]) & (table["noise"] > options.noise_floor)
    mark(table, wide, Reject.WIDE, "bid/ask spans +-{noise:.1%} of the vol where the neighbours have {usual_noise:.1%}")


def _partner(table: pd.DataFrame, flag: pd.Series) -> pd.Series:
    """The value of `flag` at the other option of the same strike and expiry."""
    keys = pd.MultiIndex.from_frame(table[["t", "strike"]])
    return pd.Series(keys.isin(keys[np.flatnonzero(flag)]), index=table.index)


def _add_smile(table: pd.DataFrame, judged: pd.Series, trusted: pd.Series) -> None:
    """Adds `smile`, `smile_gap` and `median_gap` (relative), `smile_distance` (deviations), `smile_known` in place."""
    table["smile"] = table["iv"]
    table["smile_gap"] = table["smile_distance"] = table["median_gap"] = 0.0
    table["usual_noise"] = table["noise"]
    table["smile_known"] = False
    for _, rows in table[judged].sort_values(["t", "strike"]).groupby("t"):
        strike, forward, t, vol, noise = (rows[c].to_numpy(float) for c in ("strike", "F", "t", "iv", "noise"))
        x = np.log(strike / forward) / np.sqrt(t)
        believed = trusted.loc[rows.index].to_numpy(bool)
        if believed.sum() < 5:
            continue
        fit = fit_smile(x, vol, noise, believed)
        table.loc[rows.index, "smile"] = fit.vol
        table.loc[rows.index, "smile_gap"] = fit.gap
        table.loc[rows.index, "smile_distance"] = fit.distance
        table.loc[rows.index, "median_gap"] = np.abs(np.log(vol) - running_median(np.log(vol), believed))
        table.loc[rows.index, "usual_noise"] = running_median(noise, believed)
        table.loc[rows.index, "smile_known"] = True
