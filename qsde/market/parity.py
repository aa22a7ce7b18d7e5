"""Forwards and discount factors from put-call parity, by least absolute deviations and a pooled rate curve."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Floats = NDArray[np.float64]

#: Implied continuous rates outside this band are not believed.
RATE_BAND = (-0.05, 0.15)
#: Prior for the level of rates, used where no expiry says anything: mean and standard deviation.
RATE_PRIOR = (0.02, 0.05)
#: How far the zero rate may wander: standard deviation per square root of a unit of log maturity. Read off the
#: expiries that show their rate to within `IDENTIFIED`, within these bounds; the default where there are too few.
RATE_WANDER_BOUNDS, RATE_WANDER, IDENTIFIED = (0.001, 0.02), 0.003, 0.002
#: A discount factor is never believed to better than this.
DISCOUNT_FLOOR_SE = 1e-5
#: Stale quotes tilt all pairs together, unseen by the fit: assume the typical gap over a tenth of the forward.
TILT = 10.0


@dataclass(frozen=True)
class ParityFit:
    """Forward and discount factor of one expiry from its call/put pairs.

    Attributes:
        forward: forward price; the weighted median of `K + (C - P) / D`.
        discount_factor: `D = exp(-rate t)`.
        rate: continuous zero rate.
        forward_se: standard error of the forward given the discount factor, in price units.
        rate_se: standard error of the rate by this expiry alone; infinite with fewer than two strikes.
        n_pairs: strikes with a two-sided call and put.
        share_in_spread: share of pairs whose parity gap `C - P - D (F - K)` lies within their bid/ask.
        residual: weighted median of the absolute parity gap, in price units.
    """

    forward: float
    discount_factor: float
    rate: float
    forward_se: float
    rate_se: float
    n_pairs: int
    share_in_spread: float
    residual: float


def call_put_pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """Strikes of each expiry where both the call and the put have a usable price.

    Args:
        frame: quotes with `t`, `strike`, `option_type`, `bid`, `ask`, `mid`.

    Returns:
        One row per pair: `t`, `strike`, `difference` (call minus put, mids), `half_spread` (sum of both half
        spreads, floored so that locked markets and mids do not get infinite weight).

    Example:
        >>> q = pd.DataFrame({"t": 1.0, "strike": [95.0, 95.0, 99.0], "option_type": ["C", "P", "C"],
        ...                   "bid": [9.0, 4.0, 6.0], "ask": [9.2, 4.4, 6.2], "mid": np.nan})
        >>> call_put_pairs(q).round(6).values.tolist()
        [[1.0, 95.0, 4.9, 0.3]]
    """
    two_sided = (frame["bid"] > 0) & (frame["ask"] >= frame["bid"])
    price = ((frame["bid"] + frame["ask"]) / 2).where(two_sided, frame["mid"])
    spread = ((frame["ask"] - frame["bid"]) / 2).where(two_sided)
    legs = frame[["t", "strike", "option_type"]].assign(price=price, spread=spread)[price > 0]
    calls, puts = (legs[legs["option_type"] == side].drop(columns="option_type") for side in "CP")
    pairs = calls.merge(puts, on=["t", "strike"], suffixes=("_c", "_p")).sort_values(["t", "strike"])
    pairs = pairs.assign(
        difference=pairs["price_c"] - pairs["price_p"],
        half_spread=_floored(pairs["spread_c"] + pairs["spread_p"], pairs),
    )
    return pairs[["t", "strike", "difference", "half_spread"]].reset_index(drop=True)


def fit_all(pairs: pd.DataFrame, discount: dict[float, float] | None = None) -> dict[float, ParityFit]:
    """Parity fits of all expiries, the rates pooled over them.

    Each expiry gives `(F, D)` by least absolute deviations of `C - P = D (F - K)`. The rates then pass through
    `pool_rates`, so that expiries too short or too dirty to show a rate borrow it from their neighbours, and the
    forwards are fitted again given the pooled discount factors.

    Args:
        pairs: as from `call_put_pairs`.
        discount: known discount factors by `t`; these expiries keep theirs.

    Returns:
        Fits by `t`.
    """
    known = discount or {}
    chains = {chain.t: chain for chain in (_Chain.of(g) for _, g in pairs.groupby("t"))}
    alone = {t: c.fit() for t, c in chains.items()}
    free = [t for t in chains if t not in known]
    pooled = pool_rates(free, [alone[t].rate for t in free], [alone[t].rate_se for t in free])
    rates = {t: -np.log(d) / t for t, d in known.items()} | dict(zip(free, pooled.tolist(), strict=True))
    return {t: replace(c.given_rate(rates[t], alone[t].forward), rate_se=alone[t].rate_se) for t, c in chains.items()}


def fit_parity(
    strike: Floats, difference: Floats, half_spread: Floats, t: float, rate: float | None = None
) -> ParityFit:
    """Fits `C - P = D (F - K)` over the strikes of one expiry, robustly.

    Starts at the rate at which half of the pairs agree best on the forward, which no bunch of stale pairs can pull
    as long as they are fewer than half. Then minimises `sum_i w_i |y_i - D (F - K_i)|` exactly: for a given `D` the
    best `F` is a weighted median, and the profile is convex in `D`. Weights fall with the spread and away from the
    money (three standard deviations of a 15 % vol, or the inner half of the strikes); pairs many times off the
    typical gap are dropped and the fit repeated.

    Args:
        strike: strikes.
        difference: call minus put at each strike, discounted.
        half_spread: noise scale of each difference, positive.
        t: years to expiry.
        rate: continuous rate to impose; by default it is fitted within `RATE_BAND`.

    Example:
        >>> K = np.array([90.0, 95.0, 100.0, 105.0, 110.0])
        >>> y = 0.95 * (102.0 - K)
        >>> y[1] += 3.0                                        # a stale pair does not matter
        >>> fit = fit_parity(K, y, np.full(5, 0.1), t=1.0)
        >>> round(fit.forward, 6), round(fit.discount_factor, 6), fit.share_in_spread
        (102.0, 0.95, 0.8)
    """
    chain = _Chain(np.asarray(strike, float), np.asarray(difference, float), np.asarray(half_spread, float), t)
    alone = chain.fit()
    return alone if rate is None else replace(chain.given_rate(rate, alone.forward), rate_se=alone.rate_se)


def pool_rates(t: list[float], rate: list[float], rate_se: list[float]) -> Floats:
    """A smooth zero-rate curve through noisy rates.

    Minimises `sum_i huber((r_i - c_i) / se_i) + sum_i (c_{i+1} - c_i)^2 / (w^2 log(t_{i+1} / t_i)) + prior`,

    a random walk in log maturity with `w` read off the rates that are known well. A rate with a small standard error
    stays where it is, one with a large takes the value of its neighbours.

    Example:
        >>> pool_rates([0.01, 0.5, 1.0], [0.14, 0.04, 0.04], [0.5, 1e-4, 1e-4]).round(3).tolist()
        [0.04, 0.04, 0.04]
    """
    order = np.argsort(t)
    times, r = np.asarray(t, float)[order], np.asarray(rate, float)[order]
    precision = 1.0 / (np.asarray(rate_se, float)[order] ** 2 + (DISCOUNT_FLOOR_SE / times) ** 2)
    smooth = _random_walk_penalty(times, _wander(times, r, precision)) + np.eye(len(times)) / (
        RATE_PRIOR[1] ** 2 * max(len(times), 1)
    )
    prior = np.full(len(times), RATE_PRIOR[0] / (RATE_PRIOR[1] ** 2 * max(len(times), 1)))
    weight = np.ones_like(r)
    curve = r
    for _ in range(30):
        curve = np.linalg.solve(np.diag(weight * precision) + smooth, weight * precision * r + prior)
        weight = 1.0 / np.maximum(1.0, np.abs(r - curve) * np.sqrt(precision) / 2)
    result = np.empty_like(curve)
    result[order] = np.clip(curve, *RATE_BAND)
    return result


def weighted_median(values: Floats, weights: Floats) -> float:
    """The value below which half of the weight lies; the midpoint where a value splits the weight evenly.

    Example:
        >>> weighted_median(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 5.0]))
        2.0
    """
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    half = 0.5 * cumulative[-1]
    low = np.searchsorted(cumulative, half * (1 - 1e-12))
    high = np.searchsorted(cumulative, half * (1 + 1e-12))
    return float(values[order][[low, min(high, len(values) - 1)]].mean())


@dataclass(frozen=True)
class _Chain:
    strike: Floats
    difference: Floats
    half_spread: Floats
    t: float

    @classmethod
    def of(cls, pairs: pd.DataFrame) -> _Chain:
        strike, difference, half_spread = (pairs[c].to_numpy(float) for c in ("strike", "difference", "half_spread"))
        return cls(strike, difference, half_spread, float(pairs["t"].iloc[0]))

    def fit(self) -> ParityFit:
        """Forward and rate by this expiry alone."""
        weight = 1.0 / self.half_spread
        rate, forward = self._lad(weight) if len(self.strike) < 8 else self._shortest_half()
        for _ in range(4):
            weight = self._near_money(forward) * self._kept(rate, forward)
            rate, forward = self._lad(weight)
        return self._summary(rate, forward, weight)

    def given_rate(self, rate: float, forward: float) -> ParityFit:
        """Forward given the rate, starting from a first guess."""
        weight = self._near_money(forward)
        for _ in range(3):
            forward = self._level(rate, weight)
            weight = self._near_money(forward) * self._kept(rate, forward)
        return self._summary(rate, self._level(rate, weight), weight)

    def gap(self, rate: float, forward: float) -> Floats:
        """Parity gap `y - D (F - K)` of each pair."""
        return np.asarray(self.difference - np.exp(-rate * self.t) * (forward - self.strike))

    def _level(self, rate: float, weight: Floats) -> float:
        return weighted_median(self.strike + self.difference * np.exp(rate * self.t), weight)

    def _lad(self, weight: Floats) -> tuple[float, float]:
        def loss(rate: float) -> float:
            return float(weight @ np.abs(self.gap(rate, self._level(rate, weight))))

        rate = float(minimize_scalar(loss, bounds=RATE_BAND, method="bounded", options={"xatol": 1e-10}).x)
        return rate, self._level(rate, weight)

    def _shortest_half(self) -> tuple[float, float]:
        """The rate at which half of the pairs agree best on the forward, and their middle.

        A start that stale pairs cannot pull however they bunch, as long as they are fewer than half.
        """
        rates = np.linspace(*RATE_BAND, 81)
        guesses = np.sort(self.strike + self.difference * np.exp(rates * self.t)[:, None], axis=1)
        half = guesses.shape[1] // 2
        width = guesses[:, half:] - guesses[:, : guesses.shape[1] - half]
        row, left = np.unravel_index(np.argmin(width), width.shape)
        return float(rates[row]), float(np.median(guesses[row, left : left + half + 1]))

    def _near_money(self, forward: float) -> Floats:
        # Three deviations of a 15 % vol, or the middle half of the strikes where a wilder market lists wider ones.
        moneyness = np.abs(np.log(self.strike / max(forward, 1e-12)))
        width = max(0.45 * np.sqrt(self.t), 0.03, float(np.median(moneyness)))
        near = np.exp(-0.5 * (moneyness / width) ** 2)
        return np.asarray(np.maximum(near, 1e-12) / self.half_spread)

    def _kept(self, rate: float, forward: float) -> Floats:
        gap = np.abs(self.gap(rate, forward))
        scale = 1.4826 * weighted_median(gap, self._near_money(forward))
        # Never to zero: a chain of only a few strikes must not lose all its weight.
        return np.where(gap <= 4 * np.maximum(scale, 0.05 * self.half_spread), 1.0, 1e-6)

    def _summary(self, rate: float, forward: float, weight: Floats) -> ParityFit:
        gap = np.abs(self.gap(rate, forward))
        discount = float(np.exp(-rate * self.t))
        residual = weighted_median(gap, weight)
        noise = np.maximum(1.4826 * residual, 0.03 * self.half_spread)
        centred = self.strike - weight @ self.strike / weight.sum()
        # 1.25 = sqrt(pi / 2): a median is that much noisier than a mean.
        level_se = 1.25 * np.sqrt(weight**2 @ noise**2) / weight.sum() / discount
        information = weight @ centred**2
        spread = 1.25 * np.sqrt((weight * centred) ** 2 @ noise**2)
        slope_se = spread / information if information > 1e-12 * forward**2 else np.inf
        rate_se = np.hypot(slope_se, TILT * residual / forward) / (discount * self.t)
        inside = float(np.mean(gap <= self.half_spread * (1 + 1e-9)))
        return ParityFit(
            forward, discount, rate, float(level_se), float(rate_se), len(self.strike), inside, float(residual)
        )


def _floored(spread: pd.Series, pairs: pd.DataFrame) -> pd.Series:
    typical = spread.groupby(pairs["t"]).transform("median").fillna(0.0)
    floor = np.maximum(0.05 * typical, 1e-6 * pairs["strike"])
    return spread.fillna(typical).clip(lower=floor)


def _wander(t: Floats, rate: Floats, precision: Floats) -> float:
    """Robust scale of the steps between well-known rates, per square root of log maturity."""
    known = precision > IDENTIFIED**-2
    if known.sum() < 3:
        return RATE_WANDER
    steps = np.abs(np.diff(rate[known])) / np.sqrt(np.maximum(np.diff(np.log(t[known])), 1e-6))
    return float(np.clip(1.4826 * np.median(steps), *RATE_WANDER_BOUNDS))


def _random_walk_penalty(t: Floats, wander: float) -> Floats:
    if len(t) < 2:
        return np.zeros((len(t), len(t)))
    steps = np.diff(np.eye(len(t)), axis=0)
    stiffness = 1.0 / (wander**2 * np.maximum(np.diff(np.log(t)), 1e-6))
    return np.asarray(steps.T @ (stiffness[:, None] * steps))
