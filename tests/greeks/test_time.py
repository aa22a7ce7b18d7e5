"""Theta and charm: derivatives to the time elapsed, against bumps, exact prices and the pricing equation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from qsde.greeks import greeks
from qsde.greeks.estimators import Simulated
from qsde.greeks.inputs import Inputs
from qsde.greeks.methods import method_for
from qsde.greeks.sampling import replicates
from qsde.market.curves import PillarCurve
from qsde.market.dividends import CashDividend, ProportionalDividend
from qsde.market.underlying import Market
from qsde.models import BlackScholes, GridLeverage, Heston, Model, bates, kou, leveraged, merton
from qsde.noise import Threefry
from qsde.payoffs import (
    Asian,
    AtExpiry,
    Autocallable,
    AverageStrike,
    Barrier,
    Bermudan,
    Claim,
    Cliquet,
    Digital,
    European,
    FixedLookback,
    ForwardStart,
    Payoff,
    VarianceSwap,
)
from qsde.pricing.exact import price_exact
from qsde.pricing.fourier import Fourier
from qsde.pricing.montecarlo import MonteCarlo, price

HESTON = Heston(0.04, 1.5, 0.05, 0.4, -0.7)
BATES = bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.5, -0.1, 0.15)
SMILE = leveraged(HESTON, GridLeverage([0.0, 2.0], [-0.2, 0.2], [[1.2, 0.9], [1.1, 1.0]]))
MARKET = Market(100.0, PillarCurve([0.3, 2.0], [0.01, 0.04]), 0.01)
DIVIDENDS = Market(100.0, 0.03, dividends=[CashDividend(0.3, 4.0), ProportionalDividend(0.6, 0.03)])
QUARTERS = (0.25, 0.5, 0.75, 1.0)
ENGINE = MonteCarlo(n_paths=1 << 14, max_dt=1 / 8, noise=Threefry(5), compile="never")
#: Payoffs with exact prices, with all their dates so much closer.
EXACT: dict[str, Callable[[float], Payoff]] = {
    "european": lambda h: European(105.0, 1.0 - h, "put"),
    "asian": lambda h: Asian(100.0, [t - h for t in QUARTERS], average="geometric"),
    "average strike": lambda h: AverageStrike(
        [t - h for t in (0.35, 0.6)], "call", expiry=1.0 - h, average="geometric"
    ),
    "forward start": lambda h: ForwardStart(0.4 - h, 1.0 - h),
    "variance swap": lambda h: VarianceSwap(0.03, [t - h for t in QUARTERS], notional=100.0),
}
CLIQUET = Cliquet([0.0, *QUARTERS], local_floor=-0.05, local_cap=0.08, global_floor=0.0, notional=100.0)
#: Payoffs of all kinds that a path may be differentiated through, or the mean given the variance.
SMOOTH: list[Payoff] = [
    Asian(100.0, (0.0, *QUARTERS)),
    Barrier(100.0, 120.0, 1.0, "up-and-out", rebate=2.0, rebate_at="hit"),
    FixedLookback(100.0, 1.0),
    CLIQUET,
    VarianceSwap(0.04, [0.0, *QUARTERS], notional=100.0),
    ForwardStart(0.4, 1.0),
]
STAGED: list[Payoff] = [
    Digital(105.0, 1.0, cash=10.0),
    Autocallable(QUARTERS, 100.0, 0.02, knock_in=0.8, notional=100.0),
    Barrier(100.0, 85.0, 1.0, "down-and-out", monitoring=QUARTERS),
]


@pytest.mark.parametrize("market", [MARKET, DIVIDENDS], ids=["curves", "dividends"])
@pytest.mark.parametrize(
    ("model", "book"),
    [(BlackScholes(0.2), SMOOTH), (HESTON, SMOOTH), (SMILE, SMOOTH), (HESTON, STAGED)],
    ids=["BlackScholes", "Heston", "LocalHeston", "Heston date by date"],
)
def test_the_derivative_is_that_of_a_bump_with_the_same_noise(model: Model, book: list[Payoff], market: Market) -> None:
    """With one step from date to date: else uniforms that are held in the derivative move with the bump."""
    engine = replace(ENGINE, n_paths=1 << 9, max_dt=0.25, control_variate=False)
    methods = [method_for(payoff, model, engine) for payoff in book]
    inputs = Inputs.of(model, market, book)
    one, (parts,) = replicates(model, engine)

    def values(elapsed: float) -> tuple[Simulated, list[Tensor]]:
        moved = replace(inputs, leaves=inputs.leaves | {"elapsed": torch.tensor(elapsed, dtype=torch.float64)})
        found = Simulated(moved.at((), len(parts.offsets)), book, methods, one)
        return found, found.values(parts)

    base, here = values(0.0)
    got = torch.stack([base.gradient(value)["elapsed"].mean() for value in here])
    h = 1e-6
    up, down = (torch.stack([v.detach().mean() for v in values(x)[1]]) for x in (h, -h))
    torch.testing.assert_close(got, (up - down) / (2 * h), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("market", [MARKET, DIVIDENDS], ids=["curves", "dividends"])
@pytest.mark.parametrize("model", [BlackScholes(0.2), HESTON, BATES], ids=lambda m: m.name)
def test_exact_prices_move_as_their_dates_come_closer(model: Model, market: Market) -> None:
    for name, make in EXACT.items():
        if market.has_cash and name != "european":
            continue
        point = Inputs.of(model, market, [make(0.0)]).at()
        (price,) = price_exact(model, [make(0.0)], point.market, Fourier())
        (got,) = torch.autograd.grad(price.value, point.leaves["elapsed"])
        h = 1e-4
        up, down = (float(price_exact(model, [make(x)], _aged(market, x), Fourier())[0].value) for x in (h, -h))
        assert float(got) == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-5), name


def _aged(market: Market, elapsed: float) -> Market:
    """The market with its dividends so much closer."""
    return replace(market, dividends=[replace(d, time=d.time - elapsed) for d in market.dividends])


@pytest.mark.parametrize(
    "model", [BlackScholes(0.2), HESTON, BATES, kou(0.2, 1.0, 0.4, 10.0, 8.0)], ids=lambda m: m.name
)
def test_simulation_agrees_with_exact_prices(model: Model) -> None:
    book = [make(0.0) for make in EXACT.values()]
    got = greeks(model, book, MARKET, ENGINE, ["theta", "charm"], units="raw")
    for i, (name, payoff) in enumerate(zip(EXACT, book, strict=True)):
        point = Inputs.of(model, MARKET, [payoff]).at()
        leaves = point.leaves["spot"], point.leaves["elapsed"]
        (price,) = price_exact(model, [payoff], point.market, Fourier())
        delta, theta = torch.autograd.grad(price.value, leaves, create_graph=True)
        (charm,) = torch.autograd.grad(delta, leaves[1], allow_unused=True)
        for greek, want in (("theta", float(theta.detach())), ("charm", 0.0 if charm is None else float(charm))):
            room = 3 * float(got.error(greek)[i]) + 0.005 * abs(want) + 1e-10
            assert abs(float(got[greek][i]) - want) < room, (name, greek)


@pytest.mark.parametrize("market", [MARKET, DIVIDENDS], ids=["curves", "dividends"])
@pytest.mark.parametrize("model", [HESTON, merton(0.2, 0.5, -0.1, 0.15)], ids=lambda m: m.name)
def test_simulation_agrees_with_fourier(model: Model, market: Market) -> None:
    book: list[AtExpiry] = [European(95.0, 1.0), Digital(105.0, 0.5, cash=100.0)]
    got = greeks(model, book, market, replace(ENGINE, max_dt=1 / 16), ["theta", "charm"])
    want = greeks(model, book, market, Fourier(), ["theta", "charm"])
    room = 3 * got.std_error + 0.01 * want.value.abs()
    assert ((got.value - want.value).abs() < room).all(), (got.value - want.value) / got.std_error


FLAT = Market(100.0, 0.03, 0.01)
CLAIMS: list[Claim] = [
    Asian(100.0, QUARTERS),
    Asian(100.0, (0.0002, 0.5, 1.0)),
    SMOOTH[1],
    FixedLookback(120.0, 1.0),
    *STAGED,
    Bermudan(105.0, QUARTERS),
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.name)
def test_theta_solves_the_pricing_equation(claim: Claim) -> None:
    """`theta = r V - (r - q) S delta - vol^2 S^2 gamma / 2` for whatever looks at no price before now."""
    vol, engine = 0.2, replace(ENGINE, n_paths=1 << 15)
    got = greeks(BlackScholes(vol), claim, FLAT, engine, ["price", "delta", "gamma", "theta"], units="raw")
    terms = {"price": 0.03, "delta": -0.02 * 100, "gamma": -0.5 * vol**2 * 100**2, "theta": -1.0}
    miss = sum(factor * float(got[name]) for name, factor in terms.items())
    error = sum((factor * float(got.error(name))) ** 2 for name, factor in terms.items()) ** 0.5
    assert abs(miss) < 4 * error + 0.02 * abs(float(got["theta"])), (miss, error, got["theta"])


@pytest.mark.parametrize("payoff", [*STAGED, Asian(100.0, QUARTERS)], ids=lambda p: p.name)
def test_theta_solves_the_pricing_equation_with_jumps(payoff: Payoff) -> None:
    """As above, with `lambda (V(S e^J) - V - S (e^J - 1) delta)` more, the mean over jumps by Gauss-Hermite."""
    vol, intensity, mean, std = 0.2, 0.5, -0.1, 0.15
    model, engine = merton(vol, intensity, mean, std), replace(ENGINE, n_paths=1 << 15)
    got = greeks(model, payoff, FLAT, engine, ["price", "delta", "gamma", "theta"], units="raw")
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    after = [price(model, payoff, replace(FLAT, spot=100 * math.exp(mean + std * z)), engine) for z in nodes]
    share = intensity * weights / weights.sum()
    drift = 0.02 - intensity * math.expm1(mean + 0.5 * std**2)
    terms = {"price": 0.03 + intensity, "delta": -drift * 100, "gamma": -0.5 * vol**2 * 100**2, "theta": -1.0}
    miss = sum(factor * float(got[name]) for name, factor in terms.items())
    miss -= sum(w * float(found.value) for w, found in zip(share, after, strict=True))
    error = sum((factor * float(got.error(name))) ** 2 for name, factor in terms.items()) ** 0.5
    error += sum(w * float(found.std_error) for w, found in zip(share, after, strict=True))  # on the same noise
    assert abs(miss) < 3 * error, (miss, error, got["theta"])


@pytest.mark.parametrize(
    "payoff", [Asian(100.0, QUARTERS), FixedLookback(120.0, 1.0), *STAGED[1:]], ids=lambda p: p.name
)
def test_charm_is_how_theta_moves_with_the_spot(payoff: Payoff) -> None:
    """With jumps, and control variates of value and theta that charm does not have."""
    engine = replace(ENGINE, n_paths=1 << 15)
    here, up, down = (
        greeks(BATES, payoff, replace(FLAT, spot=spot), engine, [name], units="raw")
        for spot, name in ((100.0, "charm"), (101.0, "theta"), (99.0, "theta"))
    )
    want = float(up["theta"] - down["theta"]) / 2
    error = float(here.error("charm")) + float(torch.hypot(up.error("theta"), down.error("theta"))) / 2
    assert abs(float(here["charm"]) - want) < 3 * error, (here["charm"], want, error)
