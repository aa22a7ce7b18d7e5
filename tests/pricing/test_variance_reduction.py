"""Control variates and conditioning: the same price with a smaller error, and an honest statement of the gain."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, Model, bates, merton
from qsde.noise import Antithetic, Noise, Sobol, Threefry
from qsde.payoffs import Asian, AssetDigital, AverageStrike, Barrier, Digital, European, Gap
from qsde.pricing.controls import companion
from qsde.pricing.digital import price_digital
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7)
BATES = bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.3, -0.1, 0.15)
MARKET = Market(spot=100.0, rate=0.03, dividend_yield=0.01)
ENGINE = MonteCarlo(n_paths=1 << 14, max_dt=1 / 16, noise=Threefry(3))
QUARTERS = (0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize("model", [HESTON, BATES, merton(0.2, 0.5, -0.1, 0.15)], ids=lambda m: m.name)
def test_conditioning_prices_europeans_and_digitals_like_fourier(model: Model) -> None:
    """Within 4 standard errors and the bias of the steps, below 0.1 % of the price here."""
    book = [European(95.0, 1.0), European(110.0, 0.5, "put"), Digital(105.0, 1.0), AssetDigital(105.0, 1.0, "put")]
    got = price(model, book, MARKET, ENGINE)
    exact = []
    for payoff in book:
        t = payoff.expiry
        forward, discount = MARKET.forward(t), MARKET.discount(t)
        if isinstance(payoff, European):
            exact.append(price_european(model, payoff.strike, t, forward, discount, payoff.kind == "call").value)
        else:
            pays = "cash" if isinstance(payoff, Digital) else "asset"
            exact.append(
                price_digital(model, payoff.strike, t, forward, discount, payoff.kind == "call", pays=pays).value
            )
    for i, want in enumerate(exact):
        assert abs(float(got.value[i] - want)) < 4 * float(got.std_error[i]) + 1e-3 * float(want)
    assert bool((got.variance_ratio > 1.5).all())


@pytest.mark.parametrize("model", [HESTON, BATES], ids=lambda m: m.name)
def test_the_gain_is_what_plain_simulation_would_take(model: Model) -> None:
    """Of conditioning: the plain error, measured, is the one that the ratio claims."""
    payoff = European(100.0, 1.0)
    alone = dataclasses.replace(ENGINE, control_variate=False)
    conditional = price(model, payoff, MARKET, alone)
    plain = price(model, payoff, MARKET, dataclasses.replace(alone, conditional=False))
    assert abs(float(conditional.value - plain.value)) < 4 * math.hypot(conditional.std_error, plain.std_error)
    claimed = float(conditional.std_error) * math.sqrt(float(conditional.variance_ratio))
    assert claimed == pytest.approx(float(plain.std_error), rel=0.03)


@pytest.mark.parametrize("noise", [Threefry(5), Antithetic(Threefry(5)), Sobol(5)], ids=lambda n: type(n).__name__)
def test_the_gain_of_any_noise_is_against_plain_paths(noise: Noise) -> None:
    payoff, engine = Asian(100.0, QUARTERS), dataclasses.replace(ENGINE, noise=noise)
    plain = price(HESTON, payoff, MARKET, dataclasses.replace(ENGINE, control_variate=False))
    for control in (False, True):
        got = price(HESTON, payoff, MARKET, dataclasses.replace(engine, control_variate=control))
        claimed = float(got.std_error) * math.sqrt(float(got.variance_ratio))
        assert claimed == pytest.approx(float(plain.std_error), rel=0.05)
        assert abs(float(got.value - plain.value)) < 4 * math.hypot(got.std_error, plain.std_error)


def test_a_digital_may_be_differentiated_where_conditioning_makes_it_smooth() -> None:
    spot, rho = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (100.0, -0.7))
    model = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=rho)
    engine = dataclasses.replace(ENGINE, n_paths=1 << 15, max_dt=1 / 32)
    market = Market(spot, 0.03, 0.01)
    got = torch.autograd.grad(price(model, Digital(100.0, 1.0, cash=100.0), market, engine).value, (spot, rho))
    exact = price_digital(model, 100.0, 1.0, market.forward(1.0), market.discount(1.0)).value
    want = torch.autograd.grad(100 * exact, (spot, rho))
    torch.testing.assert_close(torch.stack(got), torch.stack(want), rtol=0.03, atol=0.0)


def test_a_gap_is_smooth_too_and_mixed_books_are_simulated_plainly() -> None:
    gap = Gap(strike=110.0, trigger=100.0, expiry=1.0)
    alone = price(HESTON, gap, MARKET, ENGINE)
    mixed = price(HESTON, [gap, Asian(100.0, QUARTERS)], MARKET, ENGINE)
    assert float(alone.std_error) < 0.5 * float(mixed.std_error[0])
    assert abs(float(alone.value - mixed.value[0])) < 4 * float(mixed.std_error[0])


@pytest.mark.parametrize("model", [BlackScholes(0.2), HESTON, BATES], ids=lambda m: m.name)
@pytest.mark.parametrize(
    ("payoff", "least"),
    [
        (Asian(100.0, QUARTERS), 100),
        (AverageStrike(QUARTERS), 100),
        (Asian(100.0, QUARTERS, "put", past=(98.0, 103.0)), 100),
        (Barrier(100.0, 80.0, 1.0, "down-and-out", monitoring=QUARTERS), 3),
    ],
    ids=["Asian", "AverageStrike", "seasoned", "Barrier"],
)
def test_companions_keep_the_mean_and_pay(model: Model, payoff: Asian, least: float) -> None:
    with_it = price(model, payoff, MARKET, ENGINE)
    without = price(model, payoff, MARKET, dataclasses.replace(ENGINE, control_variate=False, n_paths=1 << 16))
    assert abs(float(with_it.value - without.value)) < 4 * math.hypot(with_it.std_error, without.std_error)
    assert float(with_it.variance_ratio) > least


def test_companions_are_differentiated_with_the_price() -> None:
    """The control corrects the gradient too: it agrees with that of many more plain paths."""
    spot, vol = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (100.0, 0.2))
    payoff = Asian(100.0, QUARTERS)

    def gradient(engine: MonteCarlo) -> torch.Tensor:
        value = price(BlackScholes(vol), payoff, Market(spot, 0.03), engine).value
        return torch.stack(torch.autograd.grad(value, (spot, vol)))

    few = gradient(dataclasses.replace(ENGINE, n_paths=1 << 12))
    many = gradient(dataclasses.replace(ENGINE, n_paths=1 << 18, control_variate=False))
    torch.testing.assert_close(few, many, rtol=0.01, atol=0.0)


def test_what_has_no_companion_says_none() -> None:
    assert companion(HESTON, MARKET, Asian(100.0, QUARTERS, average="geometric")) is None
    assert companion(HESTON, MARKET, European(100.0, 1.0)) is None
