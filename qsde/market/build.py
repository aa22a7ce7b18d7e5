"""From quotes to a surface: clean, find forwards, imply vols, keep the out-of-the-money side, select."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.errors import QuoteError, Reject, VolStatus
from qsde.market.black import black_price, black_vega
from qsde.market.cleaning import FORWARD_RULES, QUOTE_RULES, VOL_RULES, CleaningRules, apply_rules, mark, working_table
from qsde.market.curves import Curve
from qsde.market.early_exercise import remove_premium
from qsde.market.forwards import NO_FORWARD_HINT, Forwards, discount_from_prices, find_forwards
from qsde.market.implied_vol import implied_vol
from qsde.market.neighbours import add_parity_gap, fold_sides, judge_pairs, reject_outliers
from qsde.market.quotes import Quotes
from qsde.market.selection import select_days, select_deviations, select_filled
from qsde.market.surface import QUOTE_COLUMNS, SLICE_COLUMNS, Surface

#: Implied-vol outcomes as reasons to set a quote aside.
_VOL_REJECTS = {
    VolStatus.AT_INTRINSIC: Reject.NO_VEGA,
    VolStatus.BELOW_INTRINSIC: Reject.ARBITRAGE_BOUNDS,
    VolStatus.ABOVE_MAXIMUM: Reject.ARBITRAGE_BOUNDS,
    VolStatus.BAD_INPUT: Reject.UNREADABLE,
}
#: Relative vol uncertainty of a quote without bid and ask.
_MID_ONLY_NOISE = 0.01


def build_surface(
    quotes: Quotes,
    rate: float | Curve | None = None,
    dividend_yield: float | Curve | None = None,
    rules: CleaningRules | None = None,
    min_quotes_per_expiry: int = 1,
) -> Surface:
    """Turns the quotes of one underlying at one time into a clean surface of out-of-the-money vols.

    Bad quotes, and those that `rules` does not select, go to `rejected` with a reason and a sentence; accepted and
    rejected together are the rows of `quotes`. Vols are implied from prices where there are prices, else those of the
    file are taken. Prices of options marked American are first made European, given the spot, by
    `qsde.market.early_exercise.remove_premium`: `bid`, `mid` and `ask` of the surface are then European prices.

    Args:
        quotes: one underlying, one quote time; `Quotes.surfaces()` splits a file.
        rate: continuous zero rate (decimal) or curve; by default from the file or put-call parity.
        dividend_yield: continuous yield or curve; with the spot it gives the forwards.
        rules: thresholds of the cleaning and selection. Forwards come from all quotes, whatever is selected.
        min_quotes_per_expiry: expiries with fewer usable quotes are dropped.

    Raises:
        QuoteError: several underlyings or quote times, or no usable quote; the message counts the reasons and says
            what to do.
        ParameterError: a rate looks like percent.

    Example:
        >>> frame = pd.DataFrame({"underlying": "X", "quote_time": "2024-01-02T21:00Z", "expiry": "2025-01-01",
        ...                       "t": 1.0, "strike": [90.0, 110.0, 110.0], "option_type": ["P", "C", "P"],
        ...                       "bid": [3.9, 4.1, 0.0], "ask": [4.1, 4.3, 12.0], "forward": 100.0,
        ...                       "discount_factor": 0.95})
        >>> surface = build_surface(Quotes.from_frame(frame))
        >>> surface.quotes[["strike", "iv"]].round(3).values.tolist(), surface.rejected["reason"].tolist()
        ([[90.0, 0.219], [110.0, 0.203]], ['zero bid'])
    """
    _require_one(quotes)
    options = rules or CleaningRules()
    table = working_table(quotes.frame)
    apply_rules(QUOTE_RULES, table, options)
    forwards = _add_forwards(table, rate, dividend_yield)
    if options.early_exercise:
        forwards = remove_premium(table, forwards, partial(_add_forwards, table, rate, dividend_yield))
    warnings = [*quotes.warnings, *forwards.warnings]
    select_days(table, options)
    apply_rules(FORWARD_RULES, table, options)
    table["otm"] = (table["strike"] < table["F"]) == (table["option_type"] == "P")
    warnings += _trust_vols_over_prices(table)
    if options.fold:
        fold_sides(table)
    _add_vols(table, options)
    apply_rules(VOL_RULES, table, options)
    add_parity_gap(table, options)
    judge_pairs(table, options)
    mark(table, ~table["otm"], Reject.IN_THE_MONEY, "the other option of strike {strike:g} is out of the money")
    reject_outliers(table, options)
    select_deviations(table, options)
    select_filled(table, min_quotes_per_expiry)
    wanted = (365 * forwards.slices["t"]).between(options.min_days, options.max_days)
    return _assemble(quotes, table, replace(forwards, slices=forwards.slices[wanted]), warnings)


def _require_one(quotes: Quotes) -> None:
    if not isinstance(quotes, Quotes):
        raise QuoteError(
            f"build_surface takes Quotes, such as one of read_quotes(file).surfaces(), got {type(quotes).__name__}; a "
            "DataFrame becomes Quotes by Quotes.from_frame(frame)"
        )
    frame = quotes.frame
    names, times = frame["underlying"].unique(), frame["quote_time"].unique()
    if len(names) > 1 or len(times) > 1:
        raise QuoteError(
            f"{quotes.source} holds {len(names)} underlyings at {len(times)} quote times: build one surface for each "
            "part of quotes.surfaces()"
        )


def _add_forwards(table: pd.DataFrame, rate: float | Curve | None, dividend_yield: float | Curve | None) -> Forwards:
    """Adds `F`, `D`, `forward_se` by expiry, in place."""
    forwards = find_forwards(table[table["reason"].isna()], rate, dividend_yield)
    by_t = forwards.slices.set_index("t")
    for name, column in (("F", "forward"), ("D", "discount_factor"), ("forward_se", "forward_se")):
        table[name] = table["t"].map(by_t[column]).astype(float)
    # The error of a parity forward says nothing about a forward from elsewhere.
    table.loc[table["t"].map(by_t["forward_source"]) != "parity", "forward_se"] = 0.0
    return forwards


def _trust_vols_over_prices(table: pd.DataFrame) -> list[str]:
    """Drops, in place, prices that are plainly discounted otherwise than `D` says, where the file has vols."""
    implied = discount_from_prices(table[table["reason"].isna()])
    own = table["t"].map(implied).astype(float)
    if not ((own / table["D"] - 1).abs() > 5e-3).any():
        return []
    contradicts = own.notna()
    table.loc[contradicts, ["price", "half_spread"]] = np.nan
    return [
        f"prices match the file's vols only with another discount factor (such as "
        f"{own[contradicts].iloc[-1]:.4f} for {table['D'][contradicts].iloc[-1]:.4f}): the vols are used"
    ]


def _add_vols(table: pd.DataFrame, options: CleaningRules) -> None:
    """Adds `iv`, `vol_bid`, `vol_ask`, `noise` of standing out-of-the-money rows, in place; marks failures."""
    todo = table["reason"].isna() & table["otm"]
    priced = todo & (table["price"] > 0)
    table[["iv", "vol_bid", "vol_ask"]] = np.nan
    two_sided = priced & table["half_spread"].notna()
    table.loc[two_sided, "vol_bid"], _ = _implied(table[two_sided], "bid")
    table.loc[two_sided, "vol_ask"], _ = _implied(table[two_sided], "ask")
    table.loc[priced, "iv"], status = _implied(table[priced], "price")
    for outcome, reason in _VOL_REJECTS.items():
        failed = pd.Series(False, index=table.index)
        failed[priced] = status == outcome
        mark(table, failed, reason, outcome.message + ": price {price:g}, forward {F:.6g}, strike {strike:g}")
    given = todo & ~priced
    for vol, column in (("iv", "quoted_vol"), ("vol_bid", "iv_bid"), ("vol_ask", "iv_ask")):
        table.loc[given, vol] = table.loc[given, column].where(table.loc[given, column] > 0)
    _add_noise(table, priced, options)


def _implied(rows: pd.DataFrame, price: str) -> tuple[np.ndarray, np.ndarray]:
    forward, strike, t, discount = _tensors(rows)
    found = implied_vol(torch.tensor(rows[price].to_numpy(float)), forward, strike, t, discount, _is_call(rows))
    vol = torch.where(found.ok, found.vol, torch.nan)
    return vol.numpy(), found.status.numpy()


def _add_noise(table: pd.DataFrame, priced: pd.Series, options: CleaningRules) -> None:
    """Relative uncertainty of each vol: half its bid/ask spread over the vol."""
    forward, strike, t, discount = _tensors(table[priced])
    vega = black_vega(forward, strike, t, torch.tensor(table.loc[priced, "iv"].to_numpy(float)), discount).numpy()
    per_price = 1.0 / np.maximum(vega, 1e-300) / table.loc[priced, "iv"]
    noise = (table["vol_ask"] - table["vol_bid"]) / (2 * table["iv"])
    noise.loc[priced] = noise[priced].fillna(table["half_spread"] * per_price)
    table["noise"] = noise.fillna(_MID_ONLY_NOISE).clip(lower=1e-4)
    table.loc[priced, "noise"] = table.loc[priced, "noise"].clip(lower=options.price_tick / 2 * per_price)


def _tensors(rows: pd.DataFrame) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    forward, strike, t, discount = (torch.tensor(rows[c].to_numpy(float)) for c in ("F", "strike", "t", "D"))
    return forward, strike, t, discount


def _is_call(rows: pd.DataFrame) -> Tensor:
    return torch.tensor((rows["option_type"] == "C").to_numpy())


def _assemble(quotes: Quotes, table: pd.DataFrame, forwards: Forwards, warnings: list[str]) -> Surface:
    standing = table["reason"].isna()
    rejected = quotes.frame[~standing].assign(**table.loc[~standing, ["reason", "detail"]])
    if len(quotes.rejected):
        rejected = pd.concat([quotes.rejected, rejected]) if len(rejected) else quotes.rejected
    rejected = rejected.reset_index(drop=True)
    if not standing.any():
        raise QuoteError(_nothing_left(quotes, rejected))
    kept = table[standing].sort_values(["t", "strike"], kind="stable").reset_index(drop=True)
    slices = forwards.slices[forwards.slices["t"].isin(kept["t"])].reset_index(drop=True)
    slices["n_quotes"] = slices["t"].map(kept["t"].value_counts()).astype(int)
    warnings += _warnings(kept, slices, forwards)
    return Surface(
        slices=slices[list(SLICE_COLUMNS)],
        quotes=_surface_quotes(kept),
        underlying=_text(quotes.frame["underlying"].iloc[0]),
        quote_time=_text(quotes.frame["quote_time"].iloc[0]),
        spot=float(kept["spot"].median()) if kept["spot"].notna().any() else float("nan"),
        rejected=rejected,
        warnings=tuple(dict.fromkeys(warnings)),
        source=quotes.source,
    )


def _surface_quotes(kept: pd.DataFrame) -> pd.DataFrame:
    kept = kept.assign(slice=kept["t"].rank(method="dense").astype(int) - 1)
    forward, strike, t, discount = _tensors(kept)
    priced = (kept["price"] > 0).to_numpy()
    two_sided = kept["half_spread"].notna()
    columns = {"forward": kept["F"], "discount_factor": kept["D"], "iv_bid": kept["vol_bid"], "iv_ask": kept["vol_ask"]}
    for name, own, vol in (
        ("bid", kept["bid"], "vol_bid"),
        ("mid", kept["price"], "iv"),
        ("ask", kept["ask"], "vol_ask"),
    ):
        sigma = torch.tensor(kept[vol].to_numpy(float))
        model = black_price(forward, strike, t, sigma, discount, _is_call(kept)).numpy()
        quoted = own.where(two_sided) if name != "mid" else own
        columns[name] = pd.Series(np.where(priced, quoted, model), index=kept.index)
    return kept.assign(**columns)[list(QUOTE_COLUMNS)]


def _warnings(kept: pd.DataFrame, slices: pd.DataFrame, forwards: Forwards) -> list[str]:
    sentences = []
    if len(slices) == 1:
        sentences.append("only one expiry: the term structure of the model is not determined")
    thin = slices[slices["n_quotes"] < 5]
    if len(thin):
        sentences.append(f"fewer than 5 strikes at {len(thin)} of {len(slices)} expiries: {_list(thin['expiry'])}")
    lost = forwards.slices[~forwards.slices["t"].isin(kept["t"])]
    if len(lost):
        sentences.append(f"no usable quote left at {len(lost)} expiries: {_list(lost['expiry'])}")
    unlike = slices[(slices["n_pairs"] >= 5) & (slices["share_in_spread"] < 0.5)]
    if len(unlike):
        sentences.append(
            f"fewer than half of the call/put pairs agree with the forward and discount factor at {len(unlike)} "
            f"expiries: {_list(unlike['expiry'])}; stale quotes, or a rate or forward that does not fit them"
        )
    return sentences + _early_exercise_warnings(kept)


def _early_exercise_warnings(kept: pd.DataFrame) -> list[str]:
    sentences = []
    if kept["premium"].notna().any():
        forward, strike, t, discount = _tensors(kept)
        vega = black_vega(forward, strike, t, torch.tensor(kept["iv"].to_numpy(float)), discount).numpy()
        most = 1e4 * (kept["premium"] / np.maximum(vega, 1e-300)).max()
        sentences.append(f"American options: early-exercise premium removed, up to {most:.3g} bp of vol")
    if ((kept["exercise_style"] == "A") & (kept["price"] > 0)).any():
        sentences.append(
            "American options: out-of-the-money prices are taken as European, ignoring the early-exercise premium; it "
            "grows with rates (puts), dividends (calls) and time to expiry; it can be removed where there is a spot "
            "price (--spot 100)"
        )
    return sentences


def _list(values: pd.Series, most: int = 5) -> str:
    shown = ", ".join(str(v) for v in values.iloc[:most])
    return shown + (" ..." if len(values) > most else "")


def _text(value: object) -> str:
    if value is None or value is pd.NaT or value != value:
        return ""
    return value.isoformat() if isinstance(value, pd.Timestamp) else str(value)


_ADVICE = {
    Reject.EXPIRED.value: "check the quote time (--quote-time)",
    Reject.NO_FORWARD.value: NO_FORWARD_HINT,
    Reject.IN_THE_MONEY.value: "the surface is built from out-of-the-money options: supply calls above and puts below "
    "the forward",
    Reject.WIDE.value: "raise max_relative_spread if such spreads are normal here",
    Reject.NOT_SELECTED.value: "widen the selection (--min-days, --max-days, --max-deviations, or "
    "min_quotes_per_expiry)",
    Reject.ZERO_BID.value: "supply mid prices or quotes with a bid",
}


def _nothing_left(quotes: Quotes, rejected: pd.DataFrame) -> str:
    if not len(rejected):
        return f"{quotes.source} has no quotes"
    counts = {str(k): int(v) for k, v in rejected["reason"].value_counts().items()}
    # In-the-money options are no mistake: what befell the others is the news.
    first = next((reason for reason in counts if reason != Reject.IN_THE_MONEY), Reject.IN_THE_MONEY.value)
    example = rejected.loc[rejected["reason"] == first, "detail"].iloc[0]
    advice = _ADVICE.get(first, f"the first of them says: {example}")
    when = _text(rejected["quote_time"].iloc[0])[:10]
    if list(counts) == [Reject.EXPIRED.value]:
        return f"all {len(rejected)} quotes expired before {when}: {advice}"
    listed = ", ".join(f"{n} {reason}" for reason, n in counts.items())
    return f"none of {len(rejected)} quotes is usable ({listed}): {advice}"
