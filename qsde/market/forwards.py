"""Forward and discount factor of every expiry: from the user's curves, the file, or put-call parity."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from qsde.errors import QuoteError
from qsde.market.black import black_price
from qsde.market.curves import Curve, as_curve
from qsde.market.parity import ParityFit, call_put_pairs, fit_all

#: A parity rate with a larger standard error than this is reported as not identified.
IDENTIFIED_SE = 0.01
#: Forward and spot further apart than this factor are not in the same unit.
_UNITS_APART = 3.0
#: What to supply where neither the user, the file nor parity gives a forward.
NO_FORWARD_HINT = (
    "supply a rate, a dividend yield and the spot (--rate 0.03 --dividend-yield 0.01 --spot 100), or a forward column"
)


@dataclass(frozen=True)
class Forwards:
    """Forwards of one surface.

    Attributes:
        slices: one row per expiry time, sorted by `t`: `expiry`, `t`, `forward`, `discount_factor`, `rate`,
            `forward_source` ("curve", "file", "parity" or "none"), `discount_source` ("curve", "file", "parity",
            "prices", "assumed" or "none"), `n_pairs`, `share_in_spread`, `parity_residual`, `forward_se`, `rate_se`.
        warnings: sentences a user should read.
    """

    slices: pd.DataFrame
    warnings: tuple[str, ...] = field(default=())


def find_forwards(
    frame: pd.DataFrame, rate: float | Curve | None = None, dividend_yield: float | Curve | None = None
) -> Forwards:
    """Forward and discount factor per expiry, from the best source there is.

    Forward: with a dividend yield `F = S exp(-q t) / D`; else the file's forward; else parity. Discount factor: the
    user's rate `D = exp(-r t)`; else the file's; else parity; else the ratio of the file's prices to Black prices
    at the file's vols; else 1, with a warning. An expiry that has none of these keeps a NaN forward.

    Args:
        frame: quotes of one underlying at one time (columns of `qsde.market.quotes.COLUMNS`), with `t` positive.
        rate: continuous zero rate, annualised decimal, or a curve.
        dividend_yield: continuous dividend (or foreign) yield, or a curve.

    Raises:
        QuoteError: a dividend yield is given but no quote has a spot price.
        ParameterError: a rate looks like percent.

    Example:
        >>> from qsde.market.quotes import Quotes
        >>> quotes = Quotes.from_frame(pd.DataFrame({"t": [1.0], "strike": [90.0], "option_type": ["C"],
        ...                                          "bid": [11.0], "ask": [11.2], "spot": [100.0]}))
        >>> found = find_forwards(quotes.frame, rate=0.03, dividend_yield=0.01)
        >>> found.slices[["forward", "forward_source"]].round(4).values.tolist()
        [[102.0201, 'curve']]
    """
    slices = _expiries(frame)
    slices["discount_factor"], slices["discount_source"] = _given_discount(slices, rate)
    fits = _parity(frame, slices)
    warnings = _fill_discount(slices, frame, fits)
    warnings += _fill_forward(slices, fits, dividend_yield)
    _describe(slices, fits)
    warnings += _other_units(slices)
    missing = slices["forward"].isna()
    slices.loc[missing, "forward_source"] = "none"
    slices["rate"] = np.log(1 / slices["discount_factor"]) / slices["t"]
    return Forwards(slices, tuple(warnings))


def _expiries(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per expiry time with the medians of what the file says about it."""
    grouped = frame.groupby("t", sort=True)
    return grouped.agg(
        expiry=("expiry", "first"),
        spot=("spot", "median"),
        file_forward=("forward", "median"),
        file_discount=("discount_factor", "median"),
    ).reset_index()


def _given_discount(slices: pd.DataFrame, rate: float | Curve | None) -> tuple[np.ndarray, np.ndarray]:
    from_file = slices["file_discount"].to_numpy(float)
    if rate is None:
        return from_file.copy(), np.where(np.isfinite(from_file), "file", "none").astype(object)
    t = torch.tensor(slices["t"].to_numpy(float))
    return as_curve(rate).discount(t).detach().numpy(), np.full(len(slices), "curve", dtype=object)


def _parity(frame: pd.DataFrame, slices: pd.DataFrame) -> dict[float, ParityFit]:
    pairs = call_put_pairs(frame)
    known = slices.loc[slices["discount_factor"].notna(), ["t", "discount_factor"]]
    return fit_all(pairs, dict(known.itertuples(index=False, name=None))) if len(pairs) else {}


def _fill_discount(slices: pd.DataFrame, frame: pd.DataFrame, fits: dict[float, ParityFit]) -> list[str]:
    """Fills missing discount factors in place; returns warnings."""
    best_se = min((fit.rate_se for fit in fits.values()), default=np.inf)
    # A forward that the file gives does not need parity; a discount factor from noisy pairs would only do harm.
    if best_se < IDENTIFIED_SE or slices["file_forward"].isna().any():
        _take_discount(slices, {t: fit.discount_factor for t, fit in fits.items()}, "parity")
    if slices["discount_factor"].isna().any():
        _take_discount(slices, discount_from_prices(frame), "prices")
    needed = slices["discount_factor"].isna() & slices["file_forward"].notna()
    _take_discount(slices, dict.fromkeys(slices.loc[needed, "t"], 1.0), "assumed")
    return _discount_warnings(slices, best_se)


def _take_discount(slices: pd.DataFrame, found: dict[float, float], source: str) -> None:
    values = slices["t"].map(found).astype(float)
    take = slices["discount_factor"].isna() & values.notna()
    slices.loc[take, "discount_factor"] = values[take]
    slices.loc[take, "discount_source"] = source


def _discount_warnings(slices: pd.DataFrame, best_se: float) -> list[str]:
    warnings = []
    source, factor = slices["discount_source"], slices["discount_factor"]
    if (source == "parity").any() and best_se >= IDENTIFIED_SE:
        last = slices[source == "parity"].iloc[-1]
        warnings.append(
            "put-call parity does not identify the discount rate ("
            + (f"best standard error {best_se:.1%}" if np.isfinite(best_se) else "no expiry has two pairs")
            + f"): {-np.log(last['discount_factor']) / last['t']:.2%} is used at {last['expiry']}; "
            "give a rate (--rate 0.03) if you know it"
        )
    if (source == "prices").any() and (factor[source == "prices"] == 1.0).all():
        warnings.append("prices equal undiscounted Black prices at the file's vols: a discount factor of 1 is used")
    if (source == "assumed").any():
        warnings.append(
            f"no discount factor for {(source == 'assumed').sum()} of {len(slices)} expiries: 1 is assumed, so prices "
            "count as undiscounted; give a rate (--rate 0.03) if they are not"
        )
    return warnings


def discount_from_prices(frame: pd.DataFrame) -> dict[float, float]:
    """Discount factors by `t` that the file's own prices and vols imply: median of price over undiscounted Black.

    Only expiries with a forward, prices and vols appear, and only where price and vol agree with each other: half
    of the ratios must lie within 0.5 % of their median. Ratios all within 0.2 % of 1 are taken as exactly 1.
    """
    price = ((frame["bid"] + frame["ask"]) / 2).fillna(frame["mid"])
    vol = frame["implied_vol"].fillna((frame["iv_bid"] + frame["iv_ask"]) / 2)
    keep = (price > 0) & (vol > 0) & (frame["forward"] > 0)
    if not keep.any():
        return {}
    rows = frame[keep]
    forward, strike, t, sigma = (torch.tensor(c.to_numpy(float)) for c in (*_columns(rows), vol[keep]))
    is_call = torch.tensor((rows["option_type"] == "C").to_numpy())
    rows = rows.assign(black=black_price(forward, strike, t, sigma, 1.0, is_call).numpy(), price=price[keep])
    # The dearer half: cheap options are rounded to the tick.
    rows = rows[rows["black"] >= rows.groupby("t")["black"].transform("median")]
    ratios = (rows["price"] / rows["black"]).groupby(rows["t"])
    median, scatter = ratios.median(), ratios.quantile(0.75) - ratios.quantile(0.25)
    good = median[(scatter < 0.01) & median.between(0.2, 1.2)]
    if len(good) and (good - 1).abs().max() < 2e-3:
        good = good * 0 + 1.0
    return dict(zip(good.index.to_numpy(float).tolist(), good.to_numpy(float).tolist(), strict=True))


def _columns(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    return rows["forward"], rows["strike"], rows["t"]


def _fill_forward(
    slices: pd.DataFrame, fits: dict[float, ParityFit], dividend_yield: float | Curve | None
) -> list[str]:
    """Fills `forward` and `forward_source` in place; returns warnings."""
    slices["forward"], slices["forward_source"] = slices["file_forward"], "file"
    if dividend_yield is not None:
        if slices["spot"].isna().all():
            raise QuoteError(
                "a dividend yield needs the spot price: add a spot column or --spot 100, or give forwards instead"
            )
        growth = as_curve(dividend_yield, "dividend_yield").discount(torch.tensor(slices["t"].to_numpy(float)))
        slices["forward"] = slices["spot"] * growth.detach().numpy() / slices["discount_factor"]
        slices["forward_source"] = "curve"
    missing = slices["forward"].isna()
    slices.loc[missing, "forward"] = slices.loc[missing, "t"].map({t: fit.forward for t, fit in fits.items()})
    slices.loc[missing, "forward_source"] = "parity"
    return _disagreements(slices, fits)


def _disagreements(slices: pd.DataFrame, fits: dict[float, ParityFit]) -> list[str]:
    """Warns where a given forward contradicts the calls and puts of the same file."""
    given = slices[(slices["forward_source"] != "parity") & slices["t"].isin(list(fits))]
    columns = (given[c].tolist() for c in ("t", "expiry", "forward", "forward_source"))
    warnings = []
    for t, expiry, forward, source in zip(*columns, strict=True):
        fit = fits[t]
        gap = abs(fit.forward - forward)
        if fit.n_pairs >= 5 and gap > 0.01 * forward and gap > 10 * fit.forward_se:
            warnings.append(
                f"{expiry}: the forward from the {source} is {forward:.6g}, put-call parity says "
                f"{fit.forward:.6g}; the former is used"
            )
    return warnings


def _other_units(slices: pd.DataFrame) -> list[str]:
    """Warns where forwards are so far from the spot that one of the two must be in other units."""
    ratio = slices["forward"] / slices["spot"]
    odd = slices[(ratio > _UNITS_APART) | (ratio < 1 / _UNITS_APART)]
    if odd.empty:
        return []
    forward, spot = odd["forward"].iloc[0], odd["spot"].iloc[0]
    return [
        f"the forward is {forward:.6g} where the spot is {spot:.6g}, at {len(odd)} of {len(slices)} expiries: are "
        "strikes, prices and spot in the same unit (cents, a split, another underlying)?"
    ]


def _describe(slices: pd.DataFrame, fits: dict[float, ParityFit]) -> None:
    """Adds the quality of the parity fits."""
    for column, attribute in (
        ("n_pairs", "n_pairs"),
        ("share_in_spread", "share_in_spread"),
        ("parity_residual", "residual"),
        ("forward_se", "forward_se"),
        ("rate_se", "rate_se"),
    ):
        slices[column] = slices["t"].map({t: getattr(fit, attribute) for t, fit in fits.items()}).astype(float)
    slices["n_pairs"] = slices["n_pairs"].fillna(0).astype(int)
