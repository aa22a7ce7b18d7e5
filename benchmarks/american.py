"""American options under Black-Scholes: time and error per price and per implied volatility, against QuantLib.

QuantLib takes one option at a time, so the loop is part of what its Python user pays; option and engine exist before
the clock starts, and only volatilities change. Both price with the boundary of Andersen, Lake and Offengenden: QuantLib
with its accurate scheme for the clock, its high-precision scheme for the truth. Its implied volatilities are those of
its `impliedVolatility`, which uses finite differences. Its engine has no Greeks: its user prices again at moved spots,
volatilities, rates and yields and one day on, ten times in all; we differentiate. One core each.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from harness import Row, alternate, arguments, report
from torch import Tensor

from qsde.market.american import american_price, american_vol

RATE, DIVIDEND, SPOT = 0.04, 0.02, 100.0


@dataclass(frozen=True)
class Book:
    """Options within two standard deviations of a spot of 100, on whole days, with volatilities they are priced at."""

    strike: Tensor
    days: Tensor
    vol: Tensor
    is_call: Tensor

    @staticmethod
    def of(n: int, seed: int = 7) -> Book:
        """`n` options out of the money."""
        g = torch.Generator().manual_seed(seed)
        u, v, w = (torch.rand(n, generator=g, dtype=torch.float64) for _ in range(3))
        days, vol = torch.round(7 + 730 * u), 0.1 + 0.5 * v
        strike = SPOT * torch.exp(vol * torch.sqrt(days / 365) * (4 * w - 2))
        return Book(strike, days, vol, strike >= SPOT)

    def price(self) -> Tensor:
        """Ours."""
        return american_price(SPOT, self.strike, self.days / 365, self.vol, RATE, DIVIDEND, self.is_call)

    def greeks(self) -> list[Tensor]:
        """Ours: price, delta, vega, rho, sensitivity to the yield, theta and gamma."""
        inputs = [torch.full_like(self.vol, x) for x in (SPOT, RATE, DIVIDEND)] + [self.vol.clone(), self.days / 365]
        spot, rate, dividend, vol, t = leaves = [x.requires_grad_() for x in inputs]
        price = american_price(spot, self.strike, t, vol, rate, dividend, self.is_call)
        first = torch.autograd.grad(price.sum(), leaves, create_graph=True)
        (gamma,) = torch.autograd.grad(first[0].sum(), spot)
        return [price, *first, gamma]

    def implied(self, price: Tensor) -> Tensor:
        """Ours."""
        spot, rate, dividend = (torch.full_like(price, x) for x in (SPOT, RATE, DIVIDEND))
        return american_vol(price, spot, self.strike, self.days / 365, rate, dividend, self.is_call).require()


@dataclass(frozen=True)
class Peer:
    """Loops over prices, over prices again as Greeks need them, and over implied volatilities."""

    prices: Callable[[], list[float]]
    greeks: Callable[[], list[tuple[float, ...]]]
    vols: Callable[[Tensor], list[float]]


def quantlib(book: Book, scheme: str) -> Peer:
    """The peer with a scheme of its engine."""
    ql: Any = importlib.import_module("QuantLib")
    today, clock = ql.Date(1, 1, 2020), ql.Actual365Fixed()
    ql.Settings.instance().evaluationDate = today
    spot, dividend, rate, vol = (ql.SimpleQuote(x) for x in (SPOT, DIVIDEND, RATE, 0.2))
    curves = [
        ql.YieldTermStructureHandle(ql.FlatForward(0, ql.NullCalendar(), ql.QuoteHandle(x), clock))
        for x in (dividend, rate)
    ]
    smile = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(0, ql.NullCalendar(), ql.QuoteHandle(vol), clock))
    process = ql.BlackScholesMertonProcess(ql.QuoteHandle(spot), *curves, smile)
    engine = ql.QdFpAmericanEngine(process, getattr(ql.QdFpAmericanEngine, scheme)())
    options = []
    for strike, days, call in zip(book.strike.tolist(), book.days.tolist(), book.is_call.tolist(), strict=True):
        payoff = ql.PlainVanillaPayoff(ql.Option.Call if call else ql.Option.Put, strike)
        options.append(ql.VanillaOption(payoff, ql.AmericanExercise(today, today + int(days))))
        options[-1].setPricingEngine(engine)

    def prices() -> list[float]:
        found = []
        for option, sigma in zip(options, book.vol.tolist(), strict=True):
            vol.setValue(sigma)
            found.append(option.NPV())
        return found

    def slope(option: Any, quote: Any, h: float) -> tuple[float, float]:
        at, ends = quote.value(), []
        for sign in (1, -1):
            quote.setValue(at + sign * h)
            ends.append(option.NPV())
        quote.setValue(at)
        return (ends[0] - ends[1]) / (2 * h), sum(ends)

    def greeks() -> list[tuple[float, ...]]:
        found = []
        for option, sigma in zip(options, book.vol.tolist(), strict=True):
            vol.setValue(sigma)
            price = option.NPV()
            delta, both = slope(option, spot, 0.1)
            others = [slope(option, quote, 1e-4)[0] for quote in (rate, dividend, vol)]
            ql.Settings.instance().evaluationDate = today + 1
            theta = (option.NPV() - price) * 365
            ql.Settings.instance().evaluationDate = today
            found.append((price, delta, *others, -theta, (both - 2 * price) / 0.01))
        return found

    def vols(price: Tensor) -> list[float]:
        pairs = zip(options, price.tolist(), strict=True)
        return [option.impliedVolatility(p, process, 1e-6, 100, 1e-3, 4.0) for option, p in pairs]

    return Peer(prices, greeks, vols)


def rows(n: int, n_vols: int, rounds: int) -> list[Row]:
    book, few = Book.of(n), Book.of(n_vols)
    price = few.price()
    errors = [Row("worst error of an implied vol", float((few.implied(price) - few.vol).abs().max()), None, unit="")]
    try:
        importlib.import_module("QuantLib")
    except ImportError:
        return errors
    truth = torch.tensor(quantlib(few, "highPrecisionScheme").prices())
    many, some = quantlib(book, "accurateScheme"), quantlib(few, "accurateScheme")
    ours, peer = alternate(book.price, many.prices, rounds)
    ours_vol, peer_vol = alternate(lambda: few.implied(price), lambda: some.vols(price), rounds)
    less = Book.of(n // 10)
    ours_greeks, peer_greeks = alternate(less.greeks, quantlib(less, "accurateScheme").greeks, rounds)
    return [
        Row(f"price, {n} options", 1e6 * ours / n, 1e6 * peer / n, None, "us"),
        Row(f"price and Greeks, {n // 10} options", 1e7 * ours_greeks / n, 1e7 * peer_greeks / n, None, "us"),
        Row(f"implied vol, {n_vols} options", 1e6 * ours_vol / n_vols, 1e6 * peer_vol / n_vols, None, "us"),
        Row("worst error of a price, over the spot", float((price - truth).abs().max()) / SPOT, 1e-6, 1.0, "",
            note="peer: the bound asked for; truth: QuantLib's high-precision scheme"),
        *errors,
    ]  # fmt: skip


if __name__ == "__main__":
    args = arguments(__doc__)
    torch.set_num_threads(1)
    sizes = (1000, 100, 3) if args.quick else (10_000, 500, 5)
    sys.exit(0 if report(rows(*sizes), args.json) else 1)
