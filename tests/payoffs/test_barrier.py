"""Barrier options on paths worked out by hand, and on one watched interval integrated over its end point."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs import Barrier, DoubleBarrier, European, Flows, Paths, Payoff, Watched
from qsde.payoffs.monitoring import BetweenDates
from qsde.payoffs.region import region

PRICES = torch.tensor([[90.0, 80.0, 105.0], [110.0, 125.0, 118.0], [100.0, 100.0, 100.0]], dtype=torch.float64)
DATES = (0.25, 0.5, 1.0)
SPOT, RATE, VOL, EXPIRY = 100.0, 0.08, 0.25, 0.5


def paid(payoff: Payoff, prices: Tensor) -> list[float]:
    return payoff.flows(Paths(prices)).amounts.sum(-1).tolist()


@pytest.mark.parametrize(
    ("barrier", "style", "rebate", "amounts"),
    [
        (120.0, "up-and-out", 0.0, [10.0, 0.0, 5.0]),
        (120.0, "up-and-out", 2.0, [10.0, 2.0, 5.0]),
        (120.0, "up-and-in", 1.0, [1.0, 23.0, 1.0]),
        (85.0, "down-and-out", 0.0, [0.0, 23.0, 5.0]),
        (85.0, "down-and-in", 0.0, [10.0, 0.0, 0.0]),
        (125.0, "up-and-out", 0.0, [10.0, 0.0, 5.0]),  # a touch is a hit
        (80.0, "down-and-in", 0.0, [10.0, 0.0, 0.0]),
    ],
)
@pytest.mark.parametrize("rebate_at", ["hit", "expiry"])
def test_looked_at_on_dates(barrier: float, style: Any, rebate: float, amounts: list[float], rebate_at: Any) -> None:
    payoff = Barrier(95.0, barrier, 1.0, style, rebate=rebate, rebate_at=rebate_at, monitoring=DATES)
    assert not payoff.continuous
    assert payoff.times == DATES
    assert payoff.window is None
    assert paid(payoff, PRICES) == amounts
    batch = payoff.flows(Paths(PRICES.expand(2, *PRICES.shape))).amounts
    torch.testing.assert_close(batch[1], payoff.flows(Paths(PRICES)).amounts)


def test_rebates_on_their_dates() -> None:
    out = Barrier(95.0, 120.0, 1.0, "up-and-out", rebate=2.0, monitoring=(0.25, 0.5))
    assert out.times == (0.25, 0.5, 1.0)
    flows = out.flows(Paths(PRICES))
    assert flows.times == (0.25, 0.5, 1.0)
    assert flows.amounts.tolist() == [[0.0, 0.0, 10.0], [0.0, 2.0, 0.0], [0.0, 0.0, 5.0]]
    late = Barrier(95.0, 120.0, 1.0, "up-and-out", rebate=2.0, rebate_at="expiry", monitoring=(0.25, 0.5))
    assert late.flows(Paths(PRICES)).times == (1.0,)
    double = DoubleBarrier(95.0, 85.0, 120.0, 1.0, "knock-out", rebate=2.0, monitoring=DATES).flows(Paths(PRICES))
    assert double.times == (0.25, 0.5, 1.0, 1.0)
    assert double.amounts.tolist() == [[0.0, 2.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0]]


# one interval under Black-Scholes, its end point by quadrature


def end_points(*kinks: float) -> tuple[Tensor, Tensor]:
    """Prices at expiry and their probabilities: Gauss-Legendre between the kinks of the payoff."""
    size, mean = VOL * math.sqrt(EXPIRY), (RATE - VOL**2 / 2) * EXPIRY
    x, w = np.polynomial.legendre.leggauss(80)
    logs = sorted(min(max(math.log(k / SPOT), mean - 9 * size), mean + 9 * size) for k in kinks)
    edges = [mean - 9 * size, *logs, mean + 9 * size]
    z = np.concatenate([low + (high - low) * (x + 1) / 2 for low, high in pairwise(edges)])
    weight = np.concatenate([(high - low) / 2 * w for low, high in pairwise(edges)])
    density = np.exp(-0.5 * ((z - mean) / size) ** 2) / (size * math.sqrt(2 * math.pi))
    return torch.tensor(SPOT * np.exp(z)), torch.tensor(weight * density)


def one_interval(end: Tensor, spot: float | Tensor = SPOT, vol: float | Tensor = VOL) -> Paths:
    start = torch.as_tensor(spot, dtype=torch.float64) * torch.ones_like(end)
    prices = torch.stack([start, end], -1)
    variance = (torch.as_tensor(vol, dtype=torch.float64) ** 2 * EXPIRY).expand(len(end), 1)
    logs, half = prices.log(), torch.full((len(end), 1), 0.5)
    return Paths(prices[:, 1:], Watched((0.0, EXPIRY), logs, logs[:, 1:], variance, half))


def worth(payoff: Payoff, *kinks: float) -> float:
    end, weight = end_points(*kinks)
    return discounted(payoff.flows(one_interval(end)), weight)


def discounted(flows: Flows, weight: Tensor) -> float:
    discount = torch.exp(-RATE * torch.tensor(flows.times, dtype=torch.float64))
    return float((flows.amounts * discount).sum(-1) @ weight)


def normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def call(spot: float, strike: float) -> float:
    size = VOL * math.sqrt(EXPIRY)
    d = (math.log(spot / strike) + RATE * EXPIRY) / size + size / 2
    return spot * normal(d) - strike * math.exp(-RATE * EXPIRY) * normal(d - size)


@pytest.mark.parametrize("barrier", [70.0, 85.0, 95.0, 99.9])
def test_down_and_out_call_is_the_reflection_formula(barrier: float) -> None:
    """Merton (1973): C(S) - (B / S)^(2 r / v^2 - 1) C(B^2 / S) for a strike above the barrier."""
    exact = call(SPOT, 100.0) - (barrier / SPOT) ** (2 * RATE / VOL**2 - 1) * call(barrier**2 / SPOT, 100.0)
    out = Barrier(100.0, barrier, EXPIRY, "down-and-out")
    assert worth(out, 100.0, barrier) == pytest.approx(exact, abs=1e-10)
    inside = Barrier(100.0, barrier, EXPIRY, "down-and-in")
    assert worth(inside, 100.0, barrier) == pytest.approx(call(SPOT, 100.0) - exact, abs=1e-10)


def hit_value(barrier: float) -> float:
    """One unit of cash at the hit of a barrier above the spot (Reiner and Rubinstein 1991)."""
    mu = RATE / VOL**2 - 0.5
    power = math.sqrt(mu**2 + 2 * RATE / VOL**2)
    size = VOL * math.sqrt(EXPIRY)
    z = math.log(barrier / SPOT) / size + power * size
    ratio = barrier / SPOT
    return ratio ** (mu + power) * normal(-z) + ratio ** (mu - power) * normal(-z + 2 * power * size)


@pytest.mark.parametrize("barrier", [100.5, 105.0, 130.0])
def test_rebate_at_hit_in_one_interval(barrier: float) -> None:
    """Booked at the ends of the interval with the right mean time: within r^2 h^2 / 8 of the exact value."""
    exact = 3 * hit_value(barrier)
    kept = Barrier(1e-9, barrier, EXPIRY, "up-and-out", "put", rebate=3.0)
    assert kept.times == (0.25, 0.5)
    value = worth(kept, barrier)
    assert exact < value < exact * (1 + (RATE * EXPIRY) ** 2 / 8)
    at_expiry = Barrier(1e-9, barrier, EXPIRY, "up-and-out", "put", rebate=3.0, rebate_at="expiry")
    never_in = Barrier(1e-9, barrier, EXPIRY, "up-and-in", "put", rebate=3.0)
    both = worth(at_expiry, barrier) + worth(never_in, barrier)
    assert both == pytest.approx(3 * math.exp(-RATE * EXPIRY), abs=1e-10)
    assert worth(at_expiry, barrier) < exact


def test_double_knock_out_tends_to_single_ones() -> None:
    wide = DoubleBarrier(100.0, 85.0, 1e4, EXPIRY, "knock-out", rebate=2.0)
    assert worth(wide, 100.0, 85.0) == pytest.approx(
        worth(Barrier(100.0, 85.0, EXPIRY, "down-and-out", rebate=2.0), 100.0, 85.0), abs=1e-10
    )
    wide = DoubleBarrier(100.0, 1e-2, 115.0, EXPIRY, "knock-out", rebate=2.0)
    assert worth(wide, 100.0, 115.0) == pytest.approx(
        worth(Barrier(100.0, 115.0, EXPIRY, "up-and-out", rebate=2.0), 100.0, 115.0), abs=1e-10
    )


@pytest.mark.parametrize(("lower", "upper"), [(50.0, 150.0), (80.0, 120.0), (90.0, 110.0), (95.0, 102.0)])
def test_double_knock_out_is_a_fourier_series(lower: float, upper: float) -> None:
    """Call between two barriers by eigenfunctions of the whole problem (Pelsser 2000), integrated in closed form."""
    width, mu = math.log(upper / lower), RATE - VOL**2 / 2
    x, low, high = math.log(SPOT / lower), math.log(max(100.0, lower) / lower), width
    drift = mu / VOL**2
    total = 0.0
    for k in range(1, 200):
        b = k * math.pi / width

        def integral(a: float, b: float = b) -> float:  # of exp(a z) sin(b z)
            part = [math.exp(a * z) * (a * math.sin(b * z) - b * math.cos(b * z)) for z in (low, high)]
            return (part[1] - part[0]) / (a * a + b * b)

        paid = lower * integral(1 + drift) - 100.0 * integral(drift)
        total += math.sin(b * x) * paid * math.exp(-0.5 * (b * VOL) ** 2 * EXPIRY)
    exact = 2 / width * total * math.exp(-drift * x - 0.5 * mu**2 / VOL**2 * EXPIRY - RATE * EXPIRY)
    assert worth(DoubleBarrier(100.0, lower, upper, EXPIRY, "knock-out"), lower, 100.0, upper) == pytest.approx(
        exact, abs=1e-10
    )


STYLES: list[Callable[..., Payoff]] = [
    lambda **terms: Barrier(barrier=115.0, style="up-and-out", **terms),
    lambda **terms: Barrier(barrier=115.0, style="up-and-in", **terms),
    lambda **terms: Barrier(barrier=90.0, style="down-and-out", **terms),
    lambda **terms: Barrier(barrier=90.0, style="down-and-in", **terms),
    lambda **terms: DoubleBarrier(lower=90.0, upper=115.0, style="knock-out", **terms),
    lambda **terms: DoubleBarrier(lower=90.0, upper=115.0, style="knock-in", **terms),
]


def a_few_steps() -> tuple[Paths, list[Tensor]]:
    """Paths of three intervals with jumps at their ends; the second begins close to a barrier."""
    generator = torch.Generator().manual_seed(3)
    moves = torch.randn(40, 3, generator=generator, dtype=torch.float64) * 0.06
    jumps = torch.where(torch.rand(40, 3, generator=generator) < 0.3, -0.02, 0.0).double()
    spot, vol = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (100.0, 0.2))
    logs = torch.log(spot) + vol / 0.2 * (torch.cumsum(moves + jumps, -1))
    prices = torch.cat([spot.expand(40, 1), torch.exp(logs)], -1)
    ends = prices[:, 1:] * torch.exp(-jumps)
    variance = (vol**2 / 3).expand(40, 3)
    uniforms = torch.rand(40, 3, generator=generator, dtype=torch.float64)
    watched = Watched((0.0, 1 / 3, 2 / 3, 1.0), prices.log(), ends.log(), variance, uniforms)
    return Paths(prices[:, 1:], watched), [spot, vol]


@pytest.mark.parametrize("build", STYLES)
@pytest.mark.parametrize("rebate_at", ["hit", "expiry"])
def test_all_probability_is_paid(build: Callable[..., Payoff], rebate_at: str) -> None:
    """In and out make the vanilla; every path gets the rebate or the vanilla, in shares that add to one."""
    paths, _ = a_few_steps()
    flows = build(strike=1e-9, expiry=1.0, kind="put", rebate=1.0, rebate_at=rebate_at).flows(paths)
    assert bool((flows.amounts > -1e-12).all())
    shares = flows.amounts.sum(-1)
    assert bool((shares <= 1 + 1e-12).all())
    plain = build(strike=100.0, expiry=1.0)
    with_rebate = build(strike=100.0, expiry=1.0, rebate=1.0, rebate_at=rebate_at)
    extra = with_rebate.flows(paths).amounts.sum(-1) - plain.flows(paths).amounts.sum(-1)
    torch.testing.assert_close(extra, shares)


def test_in_and_out_make_the_vanilla() -> None:
    paths, _ = a_few_steps()
    vanilla = European(105.0, 1.0, "put").flows(Paths(paths.prices[:, -1:])).amounts
    for out, into in zip(STYLES[::2], STYLES[1::2], strict=True):
        parts = [build(strike=105.0, expiry=1.0, kind="put").flows(paths).amounts for build in (out, into)]
        torch.testing.assert_close(parts[0] + parts[1], vanilla)
        dates = [build(strike=105.0, expiry=1.0, kind="put", monitoring=(1 / 3, 2 / 3, 1.0)) for build in (out, into)]
        torch.testing.assert_close(sum(d.flows(paths).amounts for d in dates), vanilla)
        # looking at every moment finds no less than looking at dates
        assert bool((parts[0] <= dates[0].flows(paths).amounts + 1e-12).all())


def test_payoffs_with_one_barrier_share_how_paths_leave() -> None:
    paths, _ = a_few_steps()
    assert paths.watched is not None
    alone = Barrier(105.0, 95.0, 1.0, "down-and-out", rebate=2.0).flows(a_few_steps()[0]).amounts
    Barrier(100.0, 95.0, 1.0, "down-and-in").flows(paths)
    found = paths.watched.once(region(95.0, None), lambda: pytest.fail("made already"))
    assert isinstance(found, BetweenDates)
    shared = Barrier(105.0, 95.0, 1.0, "down-and-out", rebate=2.0).flows(paths).amounts
    torch.testing.assert_close(shared, alone, rtol=0, atol=0)


def test_a_jump_over_the_barrier_knocks_out() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    prices, ends = torch.tensor([[100.0, 85.0, 100.0]]).double(), torch.tensor([[100.0, 100.0]]).double()
    watched = Watched((0.0, 0.5, 1.0), prices.log(), ends.log(), 1e-6 * torch.cat([one, one], -1), 0.5 * one)
    paths = Paths(prices[:, -1:], watched)
    out = Barrier(90.0, 90.0, 1.0, "down-and-out", rebate=2.0).flows(paths)
    assert out.times == (0.0, 0.5, 1.0, 1.0)
    torch.testing.assert_close(out.amounts, torch.tensor([[0.0, 2.0, 0.0, 0.0]]).double())
    assert Barrier(90.0, 90.0, 1.0, "down-and-in").flows(paths).amounts.tolist() == [[10.0]]


@pytest.mark.parametrize("build", STYLES)
@pytest.mark.parametrize("rebate_at", ["hit", "expiry"])
def test_gradient_is_the_bump(build: Callable[..., Payoff], rebate_at: str) -> None:
    """To the spot, the vol and the constants of the contract, path by path: the payoff has no jumps."""
    paths, inputs = a_few_steps()
    watched = paths.watched
    assert watched is not None
    strike, rebate = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (101.0, 2.0))

    def amounts(strike: Tensor, rebate: Tensor, spot_factor: Tensor, variance_factor: Tensor) -> Tensor:
        logs, ends = (x.detach() + torch.log(spot_factor) for x in (watched.logs, watched.log_ends))
        seen = Watched(watched.times, logs, ends, watched.variance.detach() * variance_factor, watched.uniforms)
        payoff = build(strike=strike, expiry=1.0, rebate=rebate, rebate_at=rebate_at)
        return payoff.flows(Paths(paths.prices.detach() * spot_factor, seen)).amounts

    assert build(strike=strike, expiry=1.0).continuous
    factors = [torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(amounts, (strike, rebate, *factors), eps=1e-7, atol=1e-4)
    total = build(strike=strike, expiry=1.0, rebate=rebate, rebate_at=rebate_at).flows(paths).amounts.sum()
    assert all(bool(torch.isfinite(g)) for g in torch.autograd.grad(total, inputs))


def test_gradient_to_the_barrier() -> None:
    end, weight = end_points(100.0, 90.0)
    level = torch.tensor(90.0, dtype=torch.float64, requires_grad=True)
    amounts = Barrier(100.0, level, EXPIRY, "down-and-out").flows(one_interval(end)).amounts[:, 0]
    (slope,) = torch.autograd.grad(amounts @ weight, level)
    power = 2 * RATE / VOL**2 - 1

    def exact(barrier: float) -> float:
        return -((barrier / SPOT) ** power) * call(barrier**2 / SPOT, 100.0) * math.exp(RATE * EXPIRY)

    assert float(slope) == pytest.approx((exact(90.001) - exact(89.999)) / 0.002, rel=1e-6)
    dated = Barrier(100.0, level, EXPIRY, "down-and-out", monitoring=(EXPIRY,))
    with pytest.raises(InputError, match="Barrier: the amount jumps where the price crosses barrier"):
        dated.flows(Paths(end.unsqueeze(-1)))


def test_what_the_engine_reads() -> None:
    plain = Barrier(100.0, 120.0, 2.0, "up-and-out")
    assert (plain.times, plain.window, plain.continuous, plain.maturity) == ((2.0,), (0.0, 2.0), True, 2.0)
    rebate = Barrier(100.0, 120.0, 0.8, "up-and-out", rebate=1.0)
    assert rebate.times == pytest.approx((0.2, 0.4, 0.6, 0.8))
    assert Barrier(100.0, 120.0, 0.8, "up-and-in", rebate=1.0).times == (0.8,)
    with pytest.raises(InputError, match="needs Paths"):
        plain.flows(Paths(PRICES))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Barrier(100.0, 0.0, 1.0, "up-and-out"), "barrier must be positive"),
        (lambda: Barrier(100.0, math.nan, 1.0, "up-and-out"), "barrier must be positive and finite"),
        (lambda: Barrier(-1.0, 90.0, 1.0, "up-and-out"), "strike must be positive"),
        (lambda: Barrier(100.0, 90.0, 1.0, "up"), "style must be one of 'up-and-out'"),  # type: ignore[arg-type]
        (lambda: Barrier(100.0, 90.0, 0.0, "down-and-out"), "Barrier: expiry must be positive"),
        (lambda: Barrier(100.0, 90.0, 1.0, "down-and-out", rebate=math.inf), "rebate must be finite"),
        (lambda: Barrier(100.0, 90.0, 1.0, "down-and-out", rebate_at="end"), "rebate_at must be one of"),  # type: ignore[arg-type]
        (lambda: Barrier(100.0, 90.0, 1.0, "down-and-out", monitoring="daily"), "monitoring must be 'continuous' or"),  # type: ignore[arg-type]
        (lambda: Barrier(100.0, 90.0, 1.0, "down-and-out", monitoring=()), "times is empty"),
        (lambda: Barrier(100.0, 90.0, 1.0, "down-and-out", monitoring=(0.5, 2.0)), "after the expiry 1.0"),
        (lambda: DoubleBarrier(100.0, 110.0, 90.0, 1.0, "knock-out"), "lower = 110.0 must be below upper = 90.0"),
        (lambda: DoubleBarrier(100.0, 90.0, 90.0, 1.0, "knock-out"), "must be below upper"),
        (lambda: DoubleBarrier(100.0, 0.0, 90.0, 1.0, "knock-out"), "lower must be positive"),
        (lambda: DoubleBarrier(100.0, 80.0, 90.0, 1.0, "out"), "style must be one of 'knock-out'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_is_named(build: Callable[[], Payoff], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize(
    ("payoff", "message"),
    [
        (Barrier(100.0, 95.0, 1.0, "up-and-out", rebate=3.0),
         r"barrier = 95.0 lies at or below the spot 100 \(up-and-out\): .* out: it is worth its rebate, 3.0 now"),
        (Barrier(100.0, 100.0, 1.0, "down-and-out", rebate=3.0, rebate_at="expiry"), "rebate, 3.0 at expiry"),
        (Barrier(100.0, 105.0, 1.0, "down-and-in", "put"), r"knocked in: price European\(100.0, 1.0, 'put'\)"),
        (DoubleBarrier(100.0, 80.0, 95.0, 1.0, "knock-in"), "spot 100 is not between lower = 80.0 and upper = 95.0"),
        (Barrier(100.0, 95.0, 1.0, "up-and-out", monitoring=(0.0, 1.0)), "already knocked out"),
    ],
)  # fmt: skip
def test_barriers_on_the_wrong_side(payoff: Payoff, message: str) -> None:
    with pytest.raises(InputError, match=message):
        payoff.check_spot(torch.tensor(100.0, dtype=torch.float64))


def test_barriers_that_make_sense_pass() -> None:
    spot = torch.tensor(100.0, dtype=torch.float64)
    Barrier(100.0, 101.0, 1.0, "up-and-out").check_spot(spot)
    Barrier(100.0, 95.0, 1.0, "up-and-out", monitoring=(0.5, 1.0)).check_spot(spot)  # it may be lower by then
    DoubleBarrier(100.0, 99.0, 101.0, 1.0, "knock-in").check_spot(spot)
