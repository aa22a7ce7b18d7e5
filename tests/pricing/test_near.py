"""Samples near barriers: means stay what they are, derivatives are those of closed forms, and noise falls."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from qsde.greeks import greeks
from qsde.market.dividends import CashDividend, ProportionalDividend
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, Model, bates
from qsde.noise import Antithetic, Noise, Sobol, Threefry
from qsde.payoffs import Asian, Barrier, DoubleBarrier, NoTouch, OneTouch, Payoff
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.pricing.near import near_barriers
from qsde.pricing.observe import Observer
from qsde.pricing.simulation import Simulation

D = torch.float64
VOL, RATE, YIELD = 0.2, 0.03, 0.01
MARKET = Market(100.0, RATE, YIELD)
HESTON = Heston(0.04, 1.5, 0.04, 0.5, -0.7)
BATES = bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.5, -0.1, 0.15)
ENGINE = MonteCarlo(n_paths=1 << 13, max_dt=1 / 8, noise=Threefry(5), compile="never")
WATCHED: list[Payoff] = [
    Barrier(100.0, 125.0, 1.0, "up-and-out"),
    Barrier(100.0, 85.0, 1.0, "down-and-in", "put"),
    Barrier(100.0, 102.0, 1.0, "up-and-out", rebate=3.0),
    Barrier(100.0, 99.0, 1.0, "down-and-out", rebate=3.0, rebate_at="expiry"),
    DoubleBarrier(100.0, 85.0, 120.0, 1.0, "knock-out", rebate=2.0),
    DoubleBarrier(100.0, 70.0, 150.0, 1.0, "knock-in", "put"),
    OneTouch(1.0, upper=112.0, cash=10.0),
    OneTouch(1.0, lower=80.0, pays="asset"),
    NoTouch(1.0, lower=80.0, upper=125.0, cash=10.0),
]
CASH = Market(100.0, RATE, dividends=[CashDividend(0.3, 4.0), ProportionalDividend(0.75, 0.03)])


@pytest.mark.parametrize(
    ("model", "market"),
    [(HESTON, MARKET), (HESTON, CASH), (BlackScholes(VOL), MARKET), (BATES, MARKET)],
    ids=["Heston", "cash dividends", "Black-Scholes", "Bates"],
)
def test_weights_leave_every_mean_as_it_is(model: Model, market: Market) -> None:
    """Within 4 errors of the difference on the same paths; and so is the mean of the weights 1."""
    simulation = Simulation.of(model, [0.25, 1.0], ENGINE, [(0.0, 1.0)], fine=True, sampled=True)
    block = simulation.block(0)
    for i, near in near_barriers(simulation, market, WATCHED).items():
        payoff, observer = WATCHED[i], Observer(simulation, market, WATCHED[i])
        plain = payoff.flows(observer.paths(block)).amounts.sum(-1)
        samples = near(block)
        assert len(samples) == 1 + sum(bound is not None for bound in near.bounds)
        total, weights = -plain, -torch.ones_like(plain)
        for weight, sample in samples:
            n = sample.n_paths
            total[:n] += weight * payoff.flows(observer.paths(sample)).amounts.sum(-1)
            weights[:n] += weight
        for miss in (total, weights):
            assert miss.mean().abs() < 4 * miss.std() / len(miss) ** 0.5, payoff


def cdf(z: Tensor) -> Tensor:
    return 0.5 * torch.special.erfc(-z / math.sqrt(2.0))


def vanilla(spot: Tensor, vol: Tensor, strike: float, sign: float) -> Tensor:
    forward, discount = spot * math.exp(RATE - YIELD), math.exp(-RATE)
    d = torch.log(forward / strike) / vol + 0.5 * vol
    return sign * discount * (forward * cdf(sign * d) - strike * cdf(sign * (d - vol)))


def with_image(payoff: Payoff, spot: Tensor, vol: Tensor) -> Tensor:
    """The worth without the barrier B less `(B / S)^(2 m)` times that at `B^2 / S`, `m = (r - q) / vol^2 - 1 / 2`."""
    drift = RATE - YIELD - 0.5 * vol**2

    def free(start: Tensor) -> Tensor:
        if isinstance(payoff, Barrier):
            return vanilla(start, vol, float(payoff.strike), 1.0 if payoff.kind == "call" else -1.0)
        assert isinstance(payoff, NoTouch)
        return float(payoff.cash) * math.exp(-RATE) * cdf((torch.log(start / level) + drift) / vol)

    level = float(payoff.barrier if isinstance(payoff, Barrier) else payoff.lower)
    return free(spot) - (level / spot) ** (2 * drift / vol**2) * free(level**2 / spot)


@pytest.mark.parametrize(
    "noise", [Threefry(3), Antithetic(Threefry(3)), Sobol(3, scrambles=16)], ids=lambda n: type(n).__name__
)
def test_greeks_are_those_of_images(noise: Noise) -> None:
    """Differences over 1 % of the spot, within 4 errors and what hardly any path sees."""
    book: list[Payoff] = [
        Barrier(100.0, 75.0, 1.0, "down-and-out"),
        Barrier(100.0, 85.0, 1.0, "down-and-out"),
        Barrier(100.0, 97.0, 1.0, "down-and-out"),
        Barrier(95.0, 103.0, 1.0, "up-and-out", "put"),
        NoTouch(1.0, lower=90.0, cash=10.0),
    ]
    months = Asian(100.0, [k / 12 for k in range(1, 13)])  # whose dates the grid has
    engine = MonteCarlo(n_paths=1 << 14, noise=noise, compile="never")
    got = greeks(BlackScholes(VOL), [*book, months], MARKET, engine, ("delta", "gamma", "vanna"), units="raw")
    for i, payoff in enumerate(book):
        spot, vol = (torch.tensor(x, dtype=D, requires_grad=True) for x in (100.0, VOL))
        ends = [with_image(payoff, spot * (1 + k * 0.01), vol) for k in (-1, 0, 1)]
        vegas = [torch.autograd.grad(v, vol, retain_graph=True)[0] for v in ends]
        want = {
            "delta": ((ends[2] - ends[0]) / 2).detach(),
            "gamma": (ends[2] - 2 * ends[1] + ends[0]).detach(),
            "vanna": (vegas[2] - vegas[0]) / 2,
        }
        for name, value in want.items():
            gap, error = float((got[name][i] - value).abs()), float(got.error(name)[i])
            assert gap < 4 * error + 1e-6, (payoff, name, gap, error)


@pytest.mark.parametrize("level", [150.0, 125.0, 102.0])
def test_deltas_have_a_tenth_of_the_variance_of_bumps(level: float) -> None:
    """Of 0.1 %, with control variates and the same number of paths; the floor of benchmarks/greeks.py."""
    payoff = Barrier(100.0, level, 1.0, "up-and-out")
    engine = MonteCarlo(n_paths=1 << 13, max_dt=1 / 32, compile="never")
    error = float(greeks(HESTON, payoff, MARKET, engine, ["delta"]).error("delta"))
    bumps = []
    for seed in range(24):
        few = replace(engine, n_paths=1 << 10, noise=Threefry(100 + seed), conditional=False)
        up, down = (price(HESTON, payoff, Market(s, RATE, YIELD), few).value for s in (100.1, 99.9))
        bumps.append((up - down) / 0.2)
    assert error**2 * 10 < float(torch.stack(bumps).var()) / 8, level
