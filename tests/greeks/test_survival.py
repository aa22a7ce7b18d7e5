"""Contracts that end or live on at dates: date by date they are worth what whole paths say, and so are their Greeks."""

from __future__ import annotations

import math

import pytest
import torch

from qsde.greeks import greeks
from qsde.greeks.methods import method_for
from qsde.market.dividends import CashDividend, ProportionalDividend
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, Model, bates
from qsde.noise import Threefry
from qsde.payoffs import Autocallable, Barrier, DoubleBarrier, NoTouch, OneTouch, Payoff
from qsde.pricing.montecarlo import MonteCarlo, price

HESTON = Heston(0.04, 1.5, 0.05, 0.4, -0.7)
MARKET = Market(100.0, 0.03, 0.01)
QUARTERS = (0.25, 0.5, 0.75, 1.0)
ENGINE = MonteCarlo(n_paths=1 << 13, max_dt=1 / 8, noise=Threefry(5), compile="never")
PAYOFFS: list[Payoff] = [
    *(
        Barrier(100.0, level, 1.0, style, kind, rebate, at, QUARTERS)  # type: ignore[arg-type]
        for level, style in ((115.0, "up-and-out"), (90.0, "down-and-in"), (120.0, "up-and-in"), (85.0, "down-and-out"))
        for kind, rebate, at in (("call", 0.0, "hit"), ("put", 3.0, "expiry"))
    ),
    Barrier(100.0, 115.0, 1.0, "up-and-out", rebate=3.0, monitoring=QUARTERS),
    Barrier(100.0, 115.0, 1.0, "up-and-out", rebate=3.0, monitoring=(0.0, 0.4, 0.8)),
    Barrier(100.0, 90.0, 1.0, "down-and-in", rebate=2.0, monitoring=(0.4, 0.8)),
    DoubleBarrier(100.0, 85.0, 120.0, 1.0, "knock-out", rebate=2.0, monitoring=QUARTERS),
    DoubleBarrier(100.0, 85.0, 120.0, 1.0, "knock-in", "put", monitoring=QUARTERS),
    OneTouch(1.0, upper=112.0, cash=10.0, monitoring=QUARTERS),
    OneTouch(1.0, lower=90.0, pays="asset", monitoring=QUARTERS),
    OneTouch(1.0, lower=90.0, upper=115.0, pays="asset", pay_at="expiry", monitoring=(0.3, 0.6)),
    NoTouch(1.0, lower=90.0, upper=115.0, cash=10.0, monitoring=QUARTERS),
    Autocallable(QUARTERS, 100.0, 0.03, knock_in=0.8, notional=100.0),
    Autocallable(QUARTERS, 100.0, 0.03, [math.inf, 1.05, 1.0, 0.95], memory=True, knock_in=0.9, strike=0.85),
    Autocallable(QUARTERS, 100.0, 0.03, 1.1, coupon_barrier=[0.9, 0.0, 0.85, 0.8], notional=100.0),
]  # fmt: skip


def check(model: Model, market: Market, book: list[Payoff], engine: MonteCarlo = ENGINE) -> None:
    """Within 4 errors of the difference of independent paths."""
    assert {method_for(payoff, model, engine) for payoff in book} == {"conditional"}
    found = greeks(model, book, market, engine, ["price"])
    want = price(model, book, market, MonteCarlo(1 << 15, engine.max_dt, noise=Threefry(6), compile="never"))
    error = torch.sqrt(found.error("price").square() + want.std_error.square())
    assert ((found["price"] - want.value).abs() < 4 * error).all(), (found["price"], want.value, error)


def test_prices_under_heston() -> None:
    check(HESTON, MARKET, PAYOFFS)


def test_prices_under_black_scholes() -> None:
    check(BlackScholes(0.2), MARKET, PAYOFFS)


def test_prices_with_jumps() -> None:
    check(bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.5, -0.1, 0.15), MARKET, PAYOFFS)


def test_prices_with_dividends() -> None:
    check(HESTON, Market(100.0, 0.03, dividends=[CashDividend(0.3, 4.0), ProportionalDividend(0.75, 0.03)]), PAYOFFS)


@pytest.mark.parametrize("model", [HESTON, BlackScholes(0.2)], ids=lambda m: m.name)
def test_greeks_are_those_of_likelihood_ratios_with_less_noise(model: Model) -> None:
    book = [PAYOFFS[0], PAYOFFS[2], PAYOFFS[11], PAYOFFS[17]]
    which = ["delta", "gamma", "vega", "vanna", "rho", "theta", *(f"d_{name}" for name in model.params)]
    found = greeks(model, book, MARKET, ENGINE, which)
    want = greeks(model, book, MARKET, MonteCarlo(1 << 15, 1 / 8, noise=Threefry(6)), which, method="likelihood")
    error = torch.sqrt(found.std_error.square() + want.std_error.square())
    assert ((found.value - want.value).abs() < 4 * error).all(), (found.value - want.value) / error
    assert (found.error("gamma") < 2 * want.error("gamma")).all()  # which has four times the paths


def test_notes_that_remember_are_left_to_likelihood_ratios() -> None:
    phoenix = Autocallable(QUARTERS, 100.0, 0.03, coupon_barrier=0.8, memory=True)
    watched = Autocallable(QUARTERS, 100.0, 0.03, knock_in=0.7, knock_in_dates=(0.5, 1.0))
    assert [method_for(payoff, HESTON, ENGINE) for payoff in (phoenix, watched)] == ["likelihood"] * 2
