"""Options on geometric averages, and forward-start options, under any affine model: exact prices by Fourier integrals.

They are prices in their own right and the control variates of their arithmetic counterparts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.market.underlying import Market
from qsde.models.affine import TOGETHER
from qsde.models.base import Model
from qsde.numerics import FEW, one_by_one
from qsde.payoffs.base import Kind
from qsde.payoffs.checks import check_each_positive, check_kind, check_times
from qsde.pricing.fourier import Fourier, FourierPrice, Number, price_european, price_rows
from qsde.pricing.log_ratio import MULTIPLE, Exposure, LogRatio

#: Intervals of the rule for a continuous average.
_INTERVALS = 128


@dataclass(frozen=True)
class Averaging:
    """A geometric average `G = exp(sum_i w_i log S_{t_i})` of past and future fixings.

    Args:
        fixings: times of the future fixings, years, increasing; the first may be 0 (today's price).
        past: fixings already made, positive prices.
        weights: of the past fixings, then of the future ones, positive; None gives each `1 / n`.

    Raises:
        InputError: no future fixing, times that do not increase, a past fixing or weight that is not positive, or
            not one weight per fixing.
    """

    fixings: Sequence[float]
    past: Sequence[float] | Tensor = ()
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "fixings", check_times("fixings", self.fixings))
        past = _past(self.past)
        check_each_positive("geometric average", past=past)
        n = len(past) + len(self.fixings)
        weights = [1 / n] * n if self.weights is None else [float(w) for w in self.weights]
        if len(weights) != n:
            raise InputError(f"weights: give one for each of the {n} fixings (past ones first), got {len(weights)}")
        check_each_positive("geometric average", weights=weights)
        object.__setattr__(self, "weights", tuple(weights))

    @property
    def to_come(self) -> Sequence[float]:
        """Weights of the future fixings."""
        assert self.weights is not None, "weights are made when the average is"
        return self.weights[len(self.past) :]

    def log_forward(self, market: Market, until: float | None = None) -> Tensor:
        """`sum w_i log F(t_i)`, past fixings included.

        Args:
            market: the market.
            until: last time at which the contract looks at the price; None is the last fixing.

        Raises:
            InputError: cash dividends before that: the price is then not the exponential of the model's.
        """
        times = torch.tensor(self.fixings, dtype=torch.float64)
        horizon = times[-1] if until is None else until
        if market.has_cash and bool((market.affine(times, horizon=horizon)[1] != 0).any()):
            raise InputError(
                "dividends: a geometric average has no exact price with cash dividends between its dates; simulate "
                "it, or give the dividends as ProportionalDividend"
            )
        prices = torch.cat([_past(self.past), market.forward(times)])
        return (torch.tensor(self.weights, dtype=torch.float64) * torch.log(prices)).sum()


def price_geometric_asian(
    model: Model,
    market: Market,
    strike: Number,
    fixings: Sequence[float],
    kind: Kind = "call",
    *,
    expiry: float | None = None,
    past: Sequence[float] | Tensor = (),
    weights: Sequence[float] | None = None,
    engine: Fourier | None = None,
) -> FourierPrice:
    """Options on the geometric average of the price at several dates: `max(G - K, 0)` or `max(K - G, 0)`.

    `log G = sum_i w_i (log F(t_i) + x_{t_i})` has the characteristic function of the joint transform of `x` at the
    fixings, chained date by date (`qsde.models.affine.log_moment`); the rest is a European option on `G`.
    Differentiable in the parameters, the strike, the market and the past fixings.

    Args:
        model: Black-Scholes, Heston, or one of them with jumps; parameters may have batch axes.
        market: spot, rates and dividends.
        strike: a number or `[K]`.
        fixings: times of the future fixings, years, increasing; the first may be 0 (today's price).
        kind: "call" or "put".
        expiry: time of payment, at or after the last fixing; None pays at the last fixing.
        past: fixings already made: a seasoned option.
        weights: of the past fixings, then of the future ones, positive; None gives each `1 / n`.
        engine: quadrature settings.

    Returns:
        Prices `[*batch, K]` and error estimates.

    Raises:
        InputError: a model without a transition transform, bad times, prices or weights, or cash dividends between
            the fixings.
        NumericsError: the quadrature did not reach its tolerance.

    References:
        Fusai and Meucci (2008), "Pricing discretely monitored Asian options under Levy processes", section 3.1; Kim,
        Kim, Kim and Wee (2016), "Valuation of discrete geometric Asian options in Heston's model".

    Example:
        >>> from qsde.models import BlackScholes
        >>> market = Market(spot=100.0, rate=0.06, dividend_yield=0.03)
        >>> fixings = [i / 10 for i in range(1, 11)]
        >>> round(float(price_geometric_asian(BlackScholes(0.2), market, 100.0, fixings).value), 10)
        5.3425606635
    """
    check_kind("price_geometric_asian", kind)
    average = Averaging(fixings, past, weights)
    law = _average(model, market, ((1.0, average),))
    mean = torch.exp(average.log_forward(market) + law.log_means[1])
    paid = _paid(average, expiry)
    return _european(law, strike, paid, mean, market.discount(paid), kind, engine)


@one_by_one()
def price_geometric_asian_rows(
    model: Model,
    markets: Sequence[Market],
    strike: Tensor,
    averages: Sequence[Averaging],
    paid: float,
    is_call: Tensor,
    engine: Fourier,
) -> tuple[FourierPrice, Tensor]:
    """Options on averages of the same fixings, each under parameters and in a market of its own.

    Args:
        model: parameters [R], one set for each option, as all that follow.
        markets: spot, rates and dividends.
        strike: strikes.
        averages: with equal fixings and weights.
        paid: time of payment, years.
        is_call: call or put.
        engine: quadrature settings.

    Returns:
        Prices and errors [R], and which of them are final [R] (`price_rows`).

    Example:
        >>> from qsde.models import BlackScholes
        >>> average = Averaging([i / 10 for i in range(1, 11)])
        >>> market, strike = Market(spot=100.0, rate=0.06, dividend_yield=0.03), torch.tensor([100.0, 105.0]).double()
        >>> rows = BlackScholes([0.2, 0.3]), [market] * 2, strike, [average] * 2, 1.0, torch.tensor([True, True])
        >>> price_geometric_asian_rows(*rows, Fourier())[0].value
        tensor([5.3426, 5.4274], dtype=torch.float64)
    """
    fixings = len(averages[0].fixings)
    most = (FEW - 1) // fixings - MULTIPLE  # nodes of an option alone that complex functions take one by one
    if most < engine.nodes:
        none = torch.zeros_like(strike)
        return FourierPrice(none, none), torch.zeros_like(is_call)
    forwards = torch.stack([average.log_forward(market) for average, market in zip(averages, markets, strict=True)])
    discounts = torch.stack([market.discount(paid) for market in markets])
    parts = []
    for rows in torch.arange(len(markets)).split(TOGETHER // (fixings * (engine.nodes + MULTIPLE))):
        law = _average(model.map(lambda p, rows=rows: p[rows]), markets[0], ((1.0, averages[0]),))  # type: ignore[misc]
        mean = torch.exp(forwards[rows] + law.log_means[1])
        t, most = torch.full_like(mean, paid), min(most, 4 * engine.nodes)
        parts.append(price_rows(law, strike[rows], t, mean, discounts[rows], is_call[rows], engine, most))
    prices, final = zip(*parts, strict=True)
    value, error = (torch.cat([getattr(price, name) for price in prices]) for name in ("value", "error"))
    return FourierPrice(value, error), torch.cat(final)


def geometric_mean(
    model: Model,
    market: Market,
    fixings: Sequence[float],
    *,
    past: Sequence[float] | Tensor = (),
    weights: Sequence[float] | None = None,
) -> Tensor:
    """The expectation `E[G]` of a geometric average, `[*batch]`; arguments as in `price_geometric_asian`.

    Example:
        >>> from qsde.models import BlackScholes
        >>> round(float(geometric_mean(BlackScholes(0.2), Market(100.0), [1.0, 2.0])), 6)   # 100 exp(-0.2^2 / 8)
        99.501248
    """
    average = Averaging(fixings, past, weights)
    return torch.exp(average.log_forward(market) + _average(model, market, ((1.0, average),)).log_means[1])


def price_continuous_geometric_asian(
    model: Model,
    market: Market,
    strike: Number,
    expiry: float,
    kind: Kind = "call",
    *,
    intervals: int = _INTERVALS,
    engine: Fourier | None = None,
) -> FourierPrice:
    """Options on `G = exp(int_0^T log S_t dt / T)`.

    The transform is that of trapezoidal rules with `n` and `n / 2` intervals, extrapolated (Richardson): its error
    falls like `n^-4`. The error returned contains the distance to the same with half the intervals. Arguments and
    results otherwise as in `price_geometric_asian`.

    Args:
        model: Black-Scholes, Heston, or one of them with jumps.
        market: spot, rates and dividends.
        strike: a number or `[K]`.
        expiry: end of the average and time of payment, years.
        kind: "call" or "put".
        intervals: of the finer rule, a multiple of 4.
        engine: quadrature settings.

    Raises:
        InputError: as in `price_geometric_asian`, or another number of intervals.

    Reference:
        Kim and Wee (2014), "Pricing of geometric Asian options under Heston's stochastic volatility model", who solve
        the same by series.

    Example:
        >>> from qsde.models import Heston
        >>> m = Heston(v0=0.09, kappa=1.15, theta=0.348, sigma=0.39, rho=-0.64)
        >>> round(float(price_continuous_geometric_asian(m, Market(100.0, rate=0.05), 100.0, 1.5).value), 4)
        11.3374
    """
    check_kind("price_continuous_geometric_asian", kind)
    if intervals < 4 or intervals % 4:
        raise InputError(f"intervals must be a positive multiple of 4, got {intervals}")
    rules = [_trapezoid(expiry, intervals // part) for part in (1, 2, 4)]
    fine, coarse = (_extrapolated(model, market, strike, pair, kind, engine) for pair in itertools.pairwise(rules))
    gap = (fine.value - coarse.value).detach().abs()
    return replace(fine, error=fine.error + gap)


def price_geometric_average_strike(
    model: Model,
    market: Market,
    fixings: Sequence[float],
    kind: Kind = "call",
    *,
    moneyness: Number = 1.0,
    expiry: float | None = None,
    past: Sequence[float] | Tensor = (),
    weights: Sequence[float] | None = None,
    engine: Fourier | None = None,
) -> FourierPrice:
    """Options struck at a geometric average: `max(S_T - k G, 0)` or `max(k G - S_T, 0)`.

    With `G` as numeraire this is `E[G]` times an option on `S_T / G` with the strike `k`.

    Args:
        model: Black-Scholes, Heston, or one of them with jumps; parameters may have batch axes.
        market: spot, rates and dividends.
        fixings: times of the future fixings, years, increasing; the first may be 0 (today's price).
        kind: "call" or "put".
        moneyness: `k`, a number or `[K]`.
        expiry: `T`, at or after the last fixing; None is the last fixing.
        past: fixings already made: a seasoned option.
        weights: of the past fixings, then of the future ones, positive; None gives each `1 / n`.
        engine: quadrature settings.

    Returns:
        Prices `[*batch, K]` and error estimates.

    Raises:
        InputError: as in `price_geometric_asian`.
        NumericsError: the quadrature did not reach its tolerance.

    Example:
        >>> from qsde.models import BlackScholes
        >>> market = Market(spot=100.0, rate=0.06, dividend_yield=0.03)
        >>> fixings = [i / 10 for i in range(1, 11)]
        >>> round(float(price_geometric_average_strike(BlackScholes(0.2), market, fixings).value), 6)
        4.956202
    """
    check_kind("price_geometric_average_strike", kind)
    average = Averaging(fixings, past, weights)
    paid = _paid(average, expiry)
    later = [paid] if paid > average.fixings[-1] else []
    below = [*average.to_come, *(0.0 for _ in later)]
    above = [0.0] * (len(below) - 1) + [1.0]
    exposure = Exposure.of(market.years([*average.fixings, *later]), below, above)
    law = LogRatio(model, ((1.0, exposure),), "average-strike option")
    mean = torch.exp(average.log_forward(market, paid) + law.log_means[0])
    ratio = market.forward(paid) / mean
    return _european(law, moneyness, paid, ratio, market.discount(paid) * mean, kind, engine)


def price_forward_start(
    model: Model,
    market: Market,
    start: float,
    expiry: float,
    moneyness: Number = 1.0,
    kind: Kind = "call",
    *,
    pays: str = "price",
    engine: Fourier | None = None,
) -> FourierPrice:
    """Forward-start options: `max(S_T - m S_t, 0)`, or `max(S_T / S_t - m, 0)` if they pay on the return.

    The first is an average-strike option with the one fixing `t`, whose share measure weighs paths by `S_t`; the
    second takes `x_T - x_t` as it is. Both follow from the joint transform of `x_t` and `x_T`.

    Args:
        model: Black-Scholes, Heston, or one of them with jumps; parameters may have batch axes.
        market: spot, rates and dividends.
        start: `t`, when the strike is set, years; 0 is today.
        expiry: `T`, after the start.
        moneyness: `m`, a number or `[K]`.
        kind: "call" or "put".
        pays: "price" or "return".
        engine: quadrature settings.

    Returns:
        Prices `[*batch, K]` and error estimates.

    Raises:
        InputError: as in `price_geometric_asian`, or `pays` is another word.
        NumericsError: the quadrature did not reach its tolerance.

    Reference:
        Kruse and Nogel (2005), "On the pricing of forward starting options in Heston's model on stochastic
        volatility".

    Example:
        >>> from qsde.models import BlackScholes
        >>> market = Market(spot=100.0, rate=0.05)
        >>> price = price_forward_start(BlackScholes(0.2), market, start=0.5, expiry=1.5)
        >>> round(float(price.value), 6)                     # that of a one-year option today
        10.450584
    """
    check_kind("price_forward_start", kind)
    times = check_times("price_forward_start (start, expiry)", [start, expiry])
    if pays not in ("price", "return"):
        raise InputError(f"pays must be 'price' or 'return', got {pays!r}")
    Averaging(times).log_forward(market)  # refuses cash dividends in between
    below = (1.0, 0.0) if pays == "price" else (0.0, 0.0)
    above = (0.0, 1.0) if pays == "price" else (-1.0, 1.0)
    law = LogRatio(model, ((1.0, Exposure.of(market.years(times), below, above)),), "forward-start option")
    first, last = market.forward(torch.tensor(times, dtype=torch.float64))
    notional = market.discount(times[1]) * (first if pays == "price" else 1.0)
    return _european(law, moneyness, times[1], last / first, notional, kind, engine)


def _average(model: Model, market: Market, rules: Sequence[tuple[float, Averaging]]) -> LogRatio:
    exposures = [Exposure.of(market.years(rule.fixings), [0.0] * len(rule.to_come), rule.to_come) for _, rule in rules]
    pairs = tuple((factor, exposure) for (factor, _), exposure in zip(rules, exposures, strict=True))
    return LogRatio(model, pairs, "geometric average")


def _trapezoid(expiry: float, n: int) -> Averaging:
    inner = [1 / n] * (n - 1)
    return Averaging([expiry * i / n for i in range(n + 1)], weights=[0.5 / n, *inner, 0.5 / n])


def _extrapolated(
    model: Model, market: Market, strike: Number, pair: tuple[Averaging, Averaging], kind: Kind, engine: Fourier | None
) -> FourierPrice:
    rules = tuple(zip((4 / 3, -1 / 3), pair, strict=True))
    law = _average(model, market, rules)
    log_forward = sum((factor * rule.log_forward(market) for factor, rule in rules), torch.zeros(()))
    expiry = pair[0].fixings[-1]
    mean = torch.exp(log_forward + law.log_means[1])
    return _european(law, strike, expiry, mean, market.discount(expiry), kind, engine)


def _past(prices: Sequence[float] | Tensor) -> Tensor:
    return torch.as_tensor(prices, dtype=torch.float64)


def _paid(average: Averaging, expiry: float | None) -> float:
    last = average.fixings[-1]
    if expiry is None:
        return last
    if not math.isfinite(expiry) or expiry < last:
        raise InputError(f"expiry = {expiry} must be finite and not before the last fixing, {last}")
    return float(expiry)


def _european(
    law: LogRatio, strike: Number, t: float, forward: Tensor, discount: Tensor, kind: Kind, engine: Fourier | None
) -> FourierPrice:
    """A European option on the ratio, with forward and discount factor of the shape of the parameters."""
    rows = [x.expand(law.batch_shape).unsqueeze(-1) if law.batch_shape else x for x in (forward, discount)]
    return price_european(law, strike, t, rows[0], rows[1], kind == "call", engine)
