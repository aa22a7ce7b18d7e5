"""Implied volatility: 50-digit truth over the whole domain, statuses, derivatives, any guess."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qsde.errors import QuoteError, VolStatus
from qsde.market.black import black_price, black_vega, mills, normalised_price
from qsde.market.implied_vol import implied_vol
from qsde.numerics import norm_pdf

EPS = 2.0**-52
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def leaf(value: float | list[float]) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def exact_quote(forward: float, strike: float, s: float) -> tuple[float, mp.mpf, float]:
    """OTM price rounded to float64, the total volatility of that rounded price, and the bound's size over 8 eps."""
    with mp.workdps(110):
        low, high, s0 = mp.mpf(min(forward, strike)), mp.mpf(max(forward, strike)), mp.mpf(s)
        x = mp.log(high / low)
        d, e = x / s0 - s0 / 2, x / s0 + s0 / 2
        price = low * mp.erfc(d / mp.sqrt(2)) / 2 - high * mp.erfc(e / mp.sqrt(2)) / 2
        vega = low * mp.exp(-d * d / 2) / mp.sqrt(2 * mp.pi)
        tail = high * mp.erfc(e / mp.sqrt(2)) / 2
        rounded = float(price)
        return rounded, s0 + (mp.mpf(rounded) - price) / vega, float(s0 + price / vega + x * tail / vega)


def domain(n: int) -> list[tuple[float, float, float]]:
    rng = np.random.default_rng(11)
    found: list[tuple[float, float, float]] = []
    while len(found) < n:
        x = float(rng.choice([0.0, 10.0 ** rng.uniform(-12, 1.3), rng.uniform(0, 1)]))
        s = 10.0 ** rng.uniform(-8, 1.7) if rng.random() < 0.5 else max(x, 1e-9) / rng.uniform(0.2, 37)
        # beyond d = -7 the price is the maximum to the last bits and fixes no volatility
        if -7.0 < x / s - s / 2 < 36.8:
            pair = (100.0, float(100.0 * np.exp(x)))
            found.append((*(pair if rng.random() < 0.5 else pair[::-1]), s))
    return found


def test_precision_over_the_whole_domain() -> None:
    points = domain(800)
    quotes = [exact_quote(*point) for point in points]
    f, k, _ = (torch.tensor(v, dtype=torch.float64) for v in zip(*points, strict=True))
    prices = torch.tensor([q[0] for q in quotes], dtype=torch.float64)
    vols = implied_vol(prices, f, k, 1.0, is_call=f <= k).require()
    for point, (_, exact, size), vol in zip(points, quotes, vols.tolist(), strict=True):
        assert abs(mp.mpf(vol) - exact) <= 8 * EPS * size, point


def residual_in_eps(x: Tensor, beta: Tensor, guess: Tensor | None) -> float:
    """Largest re-pricing error over eps times what rounding of the inputs and of the answer moves the price by."""
    low, high = torch.ones_like(x), torch.exp(x)
    result = implied_vol(beta, low, high, 1.0, guess=guess)
    ok = result.status != VolStatus.ABOVE_MAXIMUM
    assert bool(result.ok[ok].all())
    s, x, beta = result.vol[ok], torch.log(high[ok]), beta[ok]
    d = x / s - 0.5 * s
    size = beta + norm_pdf(d) * (s + x * mills(d + s))
    return float(((normalised_price(x, s) - beta).abs() / size).max()) / EPS


@pytest.mark.parametrize("guessed", [False, True])
def test_every_price_is_inverted_whatever_the_guess(guessed: bool) -> None:
    g = torch.Generator().manual_seed(5)

    def uniform() -> Tensor:
        return torch.rand(4_000, generator=g, dtype=torch.float64)

    for x in (10.0 ** (14.0 * uniform() - 12.0), 20.0 * uniform(), 0.0 * uniform(), uniform()):
        for beta in (
            10.0 ** (-304.0 * uniform()),
            uniform(),
            10.0 ** (-8.0 * uniform()),
            1.0 - 10.0 ** -(16.0 * uniform()),
        ):
            guess = 10.0 ** (14.0 * uniform() - 10.0) if guessed else None
            inside = beta < 1.0
            assert residual_in_eps(x[inside], beta[inside], None if guess is None else guess[inside]) < 16.0


@settings(max_examples=150, deadline=None)
@given(
    f=st.floats(0.01, 1000.0),
    moneyness=st.floats(-3.0, 3.0),
    t=st.floats(0.001, 30.0),
    vol=st.floats(0.02, 2.0),
    df=st.floats(0.2, 1.2),
    is_call=st.booleans(),
)
def test_round_trip(f: float, moneyness: float, t: float, vol: float, df: float, is_call: bool) -> None:
    k = f * math.exp(moneyness * vol * math.sqrt(t))
    price = float(black_price(f, k, t, vol, df, is_call))
    result = implied_vol(price, f, k, t, df, is_call)
    vega = float(black_vega(f, k, t, vol, df))
    if vega * vol > 1e-6 * df * min(f, k) and bool(result.ok):
        # the in-the-money price is only known to eps times itself
        bound = 16 * EPS * (vol * (1 + 2.0 / t**0.5) + (price + df * f) / vega)
        assert abs(float(result.vol) - vol) <= bound


CASES = [
    (0.0, 100.0, 110.0, 1.0, 1.0, True, VolStatus.AT_INTRINSIC),
    (10.0, 100.0, 90.0, 1.0, 1.0, True, VolStatus.AT_INTRINSIC),
    (9.0, 100.0, 90.0, 1.0, 0.9, True, VolStatus.AT_INTRINSIC),
    (1e-320, 100.0, 110.0, 1.0, 1.0, True, VolStatus.AT_INTRINSIC),
    (9.0, 100.0, 90.0, 1.0, 1.0, True, VolStatus.BELOW_INTRINSIC),
    (9.0, 90.0, 100.0, 1.0, 1.0, False, VolStatus.BELOW_INTRINSIC),
    (-1.0, 100.0, 110.0, 1.0, 1.0, True, VolStatus.BELOW_INTRINSIC),
    (100.0, 100.0, 110.0, 1.0, 1.0, True, VolStatus.ABOVE_MAXIMUM),
    (100.0, 120.0, 100.0, 1.0, 1.0, False, VolStatus.ABOVE_MAXIMUM),
    (99.0, 100.0, 90.0, 1.0, 0.9, True, VolStatus.ABOVE_MAXIMUM),
    (math.nan, 100.0, 100.0, 1.0, 1.0, True, VolStatus.BAD_INPUT),
    (math.inf, 100.0, 100.0, 1.0, 1.0, True, VolStatus.BAD_INPUT),
    (5.0, math.inf, 100.0, 1.0, 1.0, True, VolStatus.BAD_INPUT),
    (5.0, -100.0, 100.0, 1.0, 1.0, True, VolStatus.BAD_INPUT),
    (5.0, 100.0, 0.0, 1.0, 1.0, True, VolStatus.BAD_INPUT),
    (5.0, 100.0, 100.0, 0.0, 1.0, True, VolStatus.BAD_INPUT),
    (5.0, 100.0, 100.0, 1.0, 0.0, True, VolStatus.BAD_INPUT),
    (5.0, 100.0, 100.0, 1.0, math.nan, True, VolStatus.BAD_INPUT),
    (99.99999, 100.0, 110.0, 1.0, 1.0, True, VolStatus.OK),
    (5.0, 100.0, 100.0, 1.0, 1.0, False, VolStatus.OK),
]


def test_statuses_and_gradients_without_nan() -> None:
    columns = list(zip(*CASES, strict=True))
    inputs = [leaf(list(c)) for c in columns[:5]]
    result = implied_vol(*inputs, is_call=torch.tensor(columns[5]))
    assert [VolStatus(v) for v in result.status.tolist()] == list(columns[6])
    assert result.messages() == [VolStatus(v).message for v in columns[6]]
    bad = ~result.ok
    assert bool((result.vol[bad] == 0.0).all())
    first = torch.autograd.grad(result.vol.sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(v.sum() for v in first), inputs)
    for gradient in (*first, *second):
        assert bool((gradient[bad] == 0.0).all())
        assert bool(torch.isfinite(gradient).all())


def test_require_names_the_bad_quotes() -> None:
    good = implied_vol(5.0, 100.0, 100.0, 1.0)
    assert good.require() is good.vol
    with pytest.raises(QuoteError, match=r"7 of 8 quotes .*quote 1: price is below intrinsic.*and 2 more"):
        implied_vol(torch.tensor([5.0, *([-1.0] * 7)]), 100.0, 100.0, 1.0).require()


def smile_inputs() -> tuple[list[Tensor], Tensor]:
    forward, strike, t, vol, df = (
        leaf(v)
        for v in (
            [100.0, 90.0, 80.0, 120.0, 100.0, 100.0],
            [110.0, 100.0, 100.0, 100.0, 100.0, 100.0],
            [1.0, 2.0, 0.5, 0.1, 1.0, 4.0],
            [0.2, 0.3, 0.4, 0.5, 0.2, 1.5],
            [0.9, 0.8, 1.0, 1.0, 0.7, 0.9],
        )
    )
    is_call = torch.tensor([True, False, True, False, True, False])
    price = black_price(forward, strike, t, vol, df, is_call).detach().requires_grad_()
    return [price, forward, strike, t, df], is_call


@FORWARD_MODE
def test_gradcheck_to_second_order() -> None:
    inputs, is_call = smile_inputs()

    def vol(*args: Tensor) -> Tensor:
        return implied_vol(*args, is_call=is_call).vol

    assert torch.autograd.gradcheck(vol, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(vol, inputs)


def test_gradient_inverts_vega() -> None:
    (price, forward, strike, t, df), is_call = smile_inputs()
    vol = implied_vol(price, forward, strike, t, df, is_call).vol
    (slope,) = torch.autograd.grad(vol.sum(), price)
    torch.testing.assert_close(
        slope * black_vega(forward, strike, t, vol, df), torch.ones_like(slope), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize(
    ("strike", "t", "vol"), [(300.0, 0.01, 0.3), (300.0, 0.1, 0.15), (100.0 * (1 + 1e-12), 1e-6, 1e-4)]
)
def test_derivatives_in_the_wings_are_finite_and_homogeneous(strike: float, t: float, vol: float) -> None:
    inputs = [leaf(v) for v in (float(black_price(100.0, strike, t, vol)), 100.0, strike, t)]
    result = implied_vol(*inputs).vol
    assert float(result.detach()) == pytest.approx(vol, rel=1e-13)
    by_price, by_forward, by_strike, by_t = torch.autograd.grad(result, inputs, create_graph=True)
    # sigma does not change when price, forward and strike scale together, and scales as 1 / sqrt(t)
    scale = inputs[0] * by_price + inputs[1] * by_forward + inputs[2] * by_strike
    assert abs(float(scale.detach())) <= 1e-12 * abs(float((inputs[1] * by_forward).detach()))
    assert float((by_t * inputs[3] / result).detach()) == pytest.approx(-0.5, rel=1e-12)
    for slope in (by_forward, by_strike, by_t):
        second = torch.autograd.grad(slope, inputs, retain_graph=True)
        assert all(math.isfinite(float(v)) for v in second)


def test_guess_changes_rounding_only() -> None:
    strike = torch.linspace(60.0, 160.0, 41, dtype=torch.float64)
    price = black_price(100.0, strike, 0.5, 0.2, 0.97)
    cold = implied_vol(price, 100.0, strike, 0.5, 0.97).require()
    for guess in (0.2, 0.21, 1e-8, 1e-3, 50.0, 1e4, math.nan, -1.0, math.inf):
        warm = implied_vol(price, 100.0, strike, 0.5, 0.97, guess=guess).require()
        torch.testing.assert_close(warm, cold, rtol=1e-15, atol=1e-12 * 0.2)


def test_blocks_shapes_and_empty() -> None:
    assert implied_vol(torch.zeros(0), 100.0, 100.0, 1.0).vol.shape == (0,)
    assert implied_vol(torch.full((3, 1), 5.0), 100.0, torch.full((4,), 100.0), 1.0).vol.shape == (3, 4)
    n = (1 << 15) + 5
    vols = torch.linspace(0.1, 0.9, n, dtype=torch.float64)
    got = implied_vol(black_price(100.0, 105.0, 1.0, vols), 100.0, 105.0, 1.0).require()
    torch.testing.assert_close(got, vols, rtol=1e-13, atol=0.0)


@FORWARD_MODE
def test_vmap_and_forward_mode() -> None:
    strikes = torch.tensor([95.0, 105.0], dtype=torch.float64)
    prices = black_price(100.0, strikes, 1.0, 0.2)
    by_row = torch.func.vmap(lambda p, k: black_price(100.0, k, 1.0, p), in_dims=(0, 0))(torch.full((2,), 0.2), strikes)
    torch.testing.assert_close(by_row, prices, rtol=1e-7, atol=0.0)
    jacobian = torch.func.jacfwd(lambda p: implied_vol(p, 100.0, strikes, 1.0).vol)(prices)
    torch.testing.assert_close(jacobian.diagonal() * black_vega(100.0, strikes, 1.0, 0.2), torch.ones(2).double())
