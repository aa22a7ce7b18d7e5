"""Lookbacks on paths worked out by hand, and in one watched interval against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs import FixedLookback, FloatingLookback, Paths, Payoff, Watched

PRICES = torch.tensor([[90.0, 80.0, 105.0], [110.0, 125.0, 118.0], [100.0, 100.0, 100.0]], dtype=torch.float64)
DATES = (0.25, 0.5, 1.0)
SPOT, RATE, VOL, EXPIRY = 100.0, 0.1, 0.3, 0.5


@pytest.mark.parametrize(
    ("payoff", "amounts"),
    [
        (FixedLookback(100.0, 1.0, monitoring=DATES), [5.0, 25.0, 0.0]),
        (FixedLookback(100.0, 1.0, "put", monitoring=DATES), [20.0, 0.0, 0.0]),
        (FixedLookback(100.0, 1.0, monitoring=DATES, extreme=107.0), [7.0, 25.0, 7.0]),
        (FixedLookback(100.0, 1.0, "put", monitoring=DATES, extreme=99.0), [20.0, 1.0, 1.0]),
        (FixedLookback(100.0, 1.0, monitoring=(0.25, 0.5)), [0.0, 25.0, 0.0]),
        (FloatingLookback(1.0, monitoring=DATES), [25.0, 8.0, 0.0]),
        (FloatingLookback(1.0, "put", monitoring=DATES), [0.0, 7.0, 0.0]),
        (FloatingLookback(1.0, monitoring=(0.25,)), [15.0, 8.0, 0.0]),
        (FloatingLookback(1.0, monitoring=DATES, scale=1.05), [21.0, 2.5, 0.0]),
        (FloatingLookback(1.0, "put", monitoring=DATES, extreme=120.0), [15.0, 7.0, 20.0]),
    ],
)
def test_looked_at_on_dates(payoff: Payoff, amounts: list[float]) -> None:
    columns = [DATES.index(t) for t in payoff.times]
    assert payoff.times[-1] == payoff.maturity == 1.0
    assert payoff.window is None
    assert payoff.continuous
    flows = payoff.flows(Paths(PRICES[:, columns]))
    assert flows.times == (1.0,)
    torch.testing.assert_close(flows.amounts[:, 0], torch.tensor(amounts, dtype=torch.float64))


def nodes(low: float, high: float, n: int) -> tuple[Tensor, Tensor]:
    x, w = np.polynomial.legendre.leggauss(n)
    return torch.tensor(low + (high - low) * (x + 1) / 2), torch.tensor((high - low) / 2 * w)


@cache
def one_interval() -> tuple[Paths, Tensor]:
    """End points and uniforms with their probabilities: the extremes' law is exact, only their mean is integrated."""
    size, mean = VOL * math.sqrt(EXPIRY), (RATE - VOL**2 / 2) * EXPIRY
    z, wz = nodes(mean - 8 * size, mean + 8 * size, 500)
    t, wt = nodes(-30.0, 30.0, 300)  # u = 1 / (1 + exp(-t))
    probability = wz * torch.exp(-0.5 * ((z - mean) / size) ** 2) / (size * math.sqrt(2 * math.pi))
    end = (SPOT * torch.exp(z))[:, None].expand(-1, 300).reshape(-1, 1)
    uniforms = torch.sigmoid(t).repeat(500)[:, None]
    weight = (probability[:, None] * wt * torch.sigmoid(t) * torch.sigmoid(-t)).flatten()
    prices = torch.cat([torch.full_like(end, SPOT), end], -1)
    return Paths(end, Watched((0.0, EXPIRY), prices.log(), end.log(), 0 * end + size**2, uniforms)), weight


def worth(payoff: Payoff) -> float:
    paths, weight = one_interval()
    return float(payoff.flows(paths).amounts[:, 0] @ weight) * math.exp(-RATE * EXPIRY)


def normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def floating_call(lowest: float) -> float:
    """Goldman, Sosin and Gatto (1979), no dividends."""
    size, discount = VOL * math.sqrt(EXPIRY), math.exp(-RATE * EXPIRY)
    a = (math.log(SPOT / lowest) + (RATE + VOL**2 / 2) * EXPIRY) / size
    k = VOL**2 / (2 * RATE)
    reflected = (SPOT / lowest) ** (-1 / k) * normal(-a + 2 * RATE * math.sqrt(EXPIRY) / VOL)
    premium = SPOT * k * (discount * reflected - normal(-a))
    return SPOT * normal(a) - lowest * discount * normal(a - size) + premium


@pytest.mark.parametrize("lowest", [100.0, 95.0, 80.0])
def test_floating_call_in_closed_form(lowest: float) -> None:
    tolerance = 1e-4 if lowest < SPOT else 1e-6  # the amount has a kink between the nodes at a past minimum
    assert worth(FloatingLookback(EXPIRY, extreme=lowest)) == pytest.approx(floating_call(lowest), abs=tolerance)


def test_floating_call_and_fixed_put_differ_by_the_forward() -> None:
    """S - min S = (K - min S) + (S - K) where the past minimum is at most the strike."""
    floating = worth(FloatingLookback(EXPIRY, extreme=95.0))
    fixed = worth(FixedLookback(95.0, EXPIRY, "put", extreme=95.0))
    assert floating - fixed == pytest.approx(SPOT - 95.0 * math.exp(-RATE * EXPIRY), abs=1e-6)
    floating = worth(FloatingLookback(EXPIRY, "put", extreme=104.0))
    fixed = worth(FixedLookback(104.0, EXPIRY, extreme=104.0))
    assert fixed - floating == pytest.approx(SPOT - 104.0 * math.exp(-RATE * EXPIRY), abs=1e-6)


def steps() -> Watched:
    """Three intervals with a jump at the end of the second."""
    prices = torch.tensor([[100.0, 104.0, 90.0, 95.0], [100.0, 97.0, 99.0, 101.0]], dtype=torch.float64)
    ends = torch.tensor([[104.0, 103.0, 95.0], [97.0, 99.0, 101.0]], dtype=torch.float64)
    uniforms = torch.tensor([[0.3, 0.6, 0.9], [0.2, 0.99, 0.5]], dtype=torch.float64)
    return Watched((0.0, 0.25, 0.5, 1.0), prices.log(), ends.log(), 0 * ends + 0.01, uniforms)


def test_extremes_lie_beyond_all_that_is_seen() -> None:
    watched = steps()
    paths = Paths(watched.prices[:, -1:], watched)
    top = FixedLookback(1e-9, 1.0).flows(paths).amounts[:, 0]
    bottom = watched.prices[:, -1] - FloatingLookback(1.0).flows(paths).amounts[:, 0]
    seen = torch.cat([watched.logs, watched.log_ends], -1).exp()
    assert bool((top >= seen.amax(-1)).all())
    assert bool((bottom <= seen.amin(-1)).all())
    still = Paths(
        paths.prices, Watched(watched.times, watched.logs, watched.log_ends, 0 * watched.variance, watched.uniforms)
    )
    torch.testing.assert_close(FixedLookback(1e-9, 1.0).flows(still).amounts[:, 0], seen.amax(-1), rtol=1e-10, atol=0)
    assert FixedLookback(90.0, 1.0, "put").flows(still).amounts[:, 0].tolist() == pytest.approx([0.0, 0.0])
    jump = FixedLookback(100.0, 1.0, "put").flows(still).amounts[:, 0]  # to 90, where the third interval begins
    torch.testing.assert_close(jump, torch.tensor([10.0, 3.0], dtype=torch.float64))


@pytest.mark.parametrize("build", [FixedLookback, FloatingLookback])
@pytest.mark.parametrize("kind", ["call", "put"])
def test_gradient_is_the_bump(build: Callable[..., Payoff], kind: str) -> None:
    watched = steps()

    def amounts(prices: Tensor, ends: Tensor, variance: Tensor, level: Tensor) -> Tensor:
        terms = {"strike": level} if build is FixedLookback else {"scale": level / 100}
        seen = Watched(watched.times, prices.log(), ends.log(), variance, watched.uniforms)
        return build(expiry=1.0, kind=kind, **terms).flows(Paths(prices[:, -1:], seen)).amounts

    level = torch.tensor(101.0, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for x in (watched.prices, watched.log_ends.exp(), watched.variance, level)]
    assert torch.autograd.gradcheck(amounts, inputs, eps=1e-6, atol=1e-5)


def test_what_the_engine_reads() -> None:
    whole = FixedLookback(100.0, 1.0)
    assert (whole.times, whole.window) == ((1.0,), (0.0, 1.0))
    late = FixedLookback(100.0, 1.0, start=0.4)
    assert (late.times, late.window) == ((0.4, 1.0), (0.4, 1.0))
    early = FloatingLookback(1.0, end=0.4)
    assert (early.times, early.window) == ((0.4, 1.0), (0.0, 0.4))
    assert FloatingLookback(1.0, end=1.0).window == (0.0, 1.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FixedLookback(0.0, 1.0), "strike must be positive"),
        (lambda: FixedLookback(100.0, 1.0, "both"), "kind must be 'call' or 'put'"),  # type: ignore[arg-type]
        (lambda: FixedLookback(100.0, 1.0, start=1.0), r"start = 1.0 must lie between today \(0\) and the expiry 1.0"),
        (lambda: FixedLookback(100.0, 1.0, start=-0.1), "start = -0.1 must lie between"),
        (lambda: FixedLookback(100.0, 1.0, start=math.nan), "start = nan must lie between"),
        (lambda: FixedLookback(100.0, 1.0, start=0.5, extreme=90.0), "start = 0.5 is to come; drop one"),
        (lambda: FixedLookback(100.0, 1.0, start=0.5, monitoring=DATES), "give the dates of the window alone"),
        (lambda: FixedLookback(100.0, 1.0, extreme=-1.0), "extreme must be positive"),
        (lambda: FloatingLookback(1.0, end=0.0), "end = 0.0 must lie between"),
        (lambda: FloatingLookback(1.0, end=2.0), "end = 2.0 must lie between"),
        (lambda: FloatingLookback(1.0, scale=0.0), "scale must be positive"),
        (lambda: FloatingLookback(1.0, monitoring="hourly"), "monitoring must be 'continuous' or dates"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_is_named(build: Callable[[], Payoff], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_a_past_extreme_the_spot_contradicts() -> None:
    spot = torch.tensor(100.0, dtype=torch.float64)
    with pytest.raises(InputError, match=r"extreme = 95.0 lies below the spot 100, but it is the highest price so far"):
        FixedLookback(100.0, 1.0, extreme=95.0).check_spot(spot)
    with pytest.raises(InputError, match=r"extreme = 105.0 lies above the spot 100, but it is the lowest"):
        FloatingLookback(1.0, extreme=105.0).check_spot(spot)
    FloatingLookback(1.0, extreme=100.0).check_spot(spot)
    FixedLookback(100.0, 1.0, monitoring=DATES, extreme=95.0).check_spot(spot)
