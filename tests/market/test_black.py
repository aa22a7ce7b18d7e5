"""Black prices: 50-digit truth, published tables, laws, derivatives that stay finite."""

import csv
import json
import math
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qsde.market.black import black_price, black_vega, log_moneyness, mills_difference

REFERENCE = Path(__file__).parents[1] / "reference"
EPS = 2.0**-52
# torch itself warns the first time forward-mode differentiation is imported
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def leaf(value: float | list[float]) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def rows(name: str) -> list[dict[str, str]]:
    with (REFERENCE / name).open() as file:
        return list(csv.DictReader(file))


def exact_otm(forward: float, strike: float, s: float) -> tuple[mp.mpf, mp.mpf]:
    """Out-of-the-money price, and how much it moves when ln(F/K) and s move by their own size."""
    with mp.workdps(110):
        low, high, s = mp.mpf(min(forward, strike)), mp.mpf(max(forward, strike)), mp.mpf(s)
        x = mp.log(high / low)
        d, e = x / s - s / 2, x / s + s / 2
        tail = high * mp.erfc(e / mp.sqrt(2)) / 2
        vega = low * mp.exp(-d * d / 2) / mp.sqrt(2 * mp.pi)
        return low * mp.erfc(d / mp.sqrt(2)) / 2 - tail, s * vega + x * tail


def domain(n: int) -> list[tuple[float, float, float]]:
    """(forward, strike, total volatility) over the whole domain, OTM prices down to 1e-300."""
    rng = np.random.default_rng(3)
    found: list[tuple[float, float, float]] = []
    while len(found) < n:
        x = float(rng.choice([0.0, 10.0 ** rng.uniform(-12, 1.3), rng.uniform(0, 1)]))
        s = 10.0 ** rng.uniform(-8, 1.7) if rng.random() < 0.5 else max(x, 1e-9) / rng.uniform(0.2, 37)
        if x / s - s / 2 < 36.8:
            pair = (100.0, float(100.0 * np.exp(x)))
            found.append((*(pair if rng.random() < 0.5 else pair[::-1]), s))
    return found


def test_relative_precision_over_the_whole_domain() -> None:
    points = domain(800)
    f, k, s = (torch.tensor(v, dtype=torch.float64) for v in zip(*points, strict=True))
    prices = black_price(f, k, 1.0, s, is_call=f <= k)
    for point, price in zip(points, prices.tolist(), strict=True):
        exact, moves = exact_otm(*point)
        assert abs(mp.mpf(price) - exact) <= 8 * EPS * (exact + moves), point


def test_mills_difference_across_its_switch() -> None:
    for a in (0.0, 1e-9, 0.5, 2.0, 2.7, 3.6, 4.5, 5.5, 9.0, 36.0):
        for tau in (1e-12, 0.01, 0.299999, 0.300001, a / 9.0001 + 1e-9, a / 8.9999 + 1e-9):
            with mp.workdps(60):
                high, low = (mp.mpf(a) + mp.mpf(tau)), (mp.mpf(a) - mp.mpf(tau))
                exact = sum(
                    sign * mp.sqrt(mp.pi / 2) * mp.exp(z * z / 2) * mp.erfc(z / mp.sqrt(2))
                    for sign, z in ((1, low), (-1, high))
                )
                got = float(mills_difference(*torch.tensor([[a], [tau]], dtype=torch.float64)))
                assert abs(got / exact - 1) < 12 * EPS, (a, tau)


@pytest.mark.parametrize("row", rows("bsm_european_haug.csv"), ids=lambda r: f"{r['type']}-{r['strike']}-{r['t']}")
def test_haug_prices(row: dict[str, str]) -> None:
    k, s0, q, r, t, vol = (float(row[c]) for c in ("strike", "spot", "q", "r", "t", "vol"))
    price = black_price(s0 * math.exp((r - q) * t), k, t, vol, math.exp(-r * t), row["type"] == "Call")
    assert abs(float(price) - float(row["price"])) <= float(row["tol"])


@pytest.mark.parametrize("row", rows("bsm_greeks_haug.csv"), ids=lambda r: f"{r['greek']}-{r['type']}")
def test_haug_greeks_by_autograd(row: dict[str, str]) -> None:
    s0, q, r, t, vol = (leaf(float(row[c])) for c in ("spot", "q", "r", "t", "vol"))
    forward, df = s0 * torch.exp((r - q) * t), torch.exp(-r * t)
    price = black_price(forward, float(row["strike"]), t, vol, df, row["type"] == "Call")
    delta, vega, by_t, rho, by_q = torch.autograd.grad(price, (s0, vol, t, r, q), create_graph=True)
    greeks = {
        "delta": lambda: delta,
        "elasticity": lambda: delta * s0 / price,
        "gamma": lambda: torch.autograd.grad(delta, s0)[0],
        "vega": lambda: vega,
        "theta": lambda: -by_t,
        "theta_per_day": lambda: -by_t / 365.0,
        "rho": lambda: rho,
        "dividend_rho": lambda: by_q,
    }
    assert abs(float(greeks[row["greek"]]().detach()) - float(row["value"])) <= 1e-4


@pytest.mark.parametrize("name", ["I", "II"])
def test_benchop_problem_1(name: str) -> None:
    table = json.loads((REFERENCE / "benchop_european.json").read_text())
    case, expected = table[f"set{name}"], table["problem1"][f"european_call_{name}"]
    r, t = case["r"], case["T"]
    spot, vol = leaf([float(v) for v in case["S"]]), leaf([case["sigma"]] * 3)
    price = black_price(spot * math.exp(r * t), float(case["K"]), t, vol, math.exp(-r * t))
    delta, vega = torch.autograd.grad(price.sum(), (spot, vol), create_graph=True)
    (gamma,) = torch.autograd.grad(delta.sum(), spot)
    for key, got in {"price": price, "delta": delta, "gamma": gamma, "vega": vega}.items():
        published = torch.tensor([float(v) for v in expected[key]], dtype=torch.float64)
        torch.testing.assert_close(got.detach(), published, rtol=1e-11, atol=2e-13)


positive = st.floats(0.01, 1000.0)


@settings(max_examples=150, deadline=None)
@given(f=positive, k=positive, t=st.floats(0.0, 10.0), vol=st.floats(0.0, 5.0), df=st.floats(0.1, 1.2))
def test_laws(f: float, k: float, t: float, vol: float, df: float) -> None:
    call, put = (float(black_price(f, k, t, vol, df, is_call)) for is_call in (True, False))
    assert abs(call - put - df * (f - k)) <= 4 * EPS * df * (f + k)
    assert df * max(f - k, 0.0) * (1 - 4 * EPS) <= call <= df * f * (1 + 4 * EPS)
    assert float(black_price(3.0 * f, 3.0 * k, t, vol, df)) == pytest.approx(3.0 * call, rel=1e-11, abs=1e-290)
    assert float(black_price(f, k, t, vol * 1.01 + 1e-3, df)) >= call * (1 - 4 * EPS)
    assert float(black_price(k, f, t, vol, df, False)) == pytest.approx(call, rel=1e-13, abs=1e-290)


EDGES = [
    (100.0, 100.0, 1.0, 0.0),
    (100.0, 100.0, 0.0, 0.2),
    (100.0, 100.0, 0.0, 0.0),
    (100.0, 90.0, 1.0, 0.0),
    (90.0, 100.0, 0.0, 0.2),
    (100.0, 101.0, 1.0, 1e-200),
    (100.0, 100.0, 1.0, 1e-12),
    (100.0, 200.0, 1.0, 0.0188),
    (100.0, 100.0, 1.0, 60.0),
    (1.0, 1e9, 1.0, 0.5),
    (1e9, 1.0, 1.0, 40.0),
]


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("is_call", [True, False])
def test_first_and_second_derivatives_are_finite(edge: tuple[float, ...], is_call: bool) -> None:
    inputs = [*(leaf(v) for v in edge), leaf(0.9)]
    price = black_price(*inputs, is_call=is_call)
    first = torch.autograd.grad(price, inputs, create_graph=True)
    for slope in (price, *first):
        assert math.isfinite(float(slope.detach()))
        second = torch.autograd.grad(slope, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)
        assert all(math.isfinite(float(v)) for v in second)
    if edge[2] * edge[3] == 0.0:
        sign = 1.0 if is_call else -1.0
        assert float(price.detach()) == 0.9 * max(sign * (edge[0] - edge[1]), 0.0)


def test_delta_at_the_money_without_volatility_is_the_limit() -> None:
    forward, vol = leaf(100.0), leaf(0.0)
    delta, vega = torch.autograd.grad(black_price(forward, 100.0, 1.0, vol), (forward, vol))
    assert float(delta) == 0.5
    assert float(vega) == pytest.approx(100.0 / math.sqrt(2.0 * math.pi), rel=1e-15)


@FORWARD_MODE
def test_gradcheck_in_both_modes() -> None:
    is_call = torch.tensor([True, False, True, False, True])
    inputs = [
        leaf([100.0, 90.0, 80.0, 120.0, 100.0]),
        leaf([110.0, 100.0, 100.0, 100.0, 100.0]),
        leaf([1.0, 2.0, 0.5, 0.1, 1.0]),
        leaf([0.2, 0.3, 0.4, 0.5, 0.1]),
        leaf([0.9, 0.8, 1.0, 1.0, 0.7]),
    ]

    def price(*args: Tensor) -> Tensor:
        return black_price(*args, is_call=is_call)

    assert torch.autograd.gradcheck(price, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(price, inputs)


@FORWARD_MODE
def test_vega_is_the_derivative_and_works_under_vmap() -> None:
    vols = torch.tensor([0.001, 0.02, 0.3, 2.0], dtype=torch.float64)
    slopes = torch.func.vmap(torch.func.jacfwd(lambda v: black_price(100.0, 103.0, 0.7, v, 0.9)))(vols)
    torch.testing.assert_close(slopes, black_vega(100.0, 103.0, 0.7, vols, 0.9), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize(
    "arguments",
    [(math.nan, 1.0, 1.0, 0.2), (-1.0, 1.0, 1.0, 0.2), (1.0, 1.0, -1.0, 0.2), (1.0, 1.0, 1.0, -0.2)],
)
def test_outside_the_domain_is_nan(arguments: tuple[float, ...]) -> None:
    assert math.isnan(float(black_price(*arguments)))


def test_nan_vol_spoils_only_its_own_price() -> None:
    prices = black_price(100.0, 100.0, 1.0, torch.tensor([math.nan, 0.2]))
    assert torch.isnan(prices).tolist() == [True, False]


def test_shapes_broadcast() -> None:
    assert black_price(torch.full((3, 1), 100.0), torch.full((4,), 90.0), 1.0, 0.2).shape == (3, 4)


def test_log_moneyness_near_one() -> None:
    one = torch.ones((), dtype=torch.float64)
    assert float(log_moneyness(one + 2.0**-52, one)) == 2.0**-52 - 2.0**-105
