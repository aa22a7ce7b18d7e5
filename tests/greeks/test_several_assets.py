"""Greeks of several underlyings against closed forms, exact integrals, limits of one underlying and each other."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from qsde.errors import InputError
from qsde.greeks import Greeks, greeks
from qsde.greeks.table import greeks_of
from qsde.market.dividends import CashDividend
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, MultiAsset
from qsde.noise import Antithetic, Sobol, Threefry
from qsde.payoffs import Basket, BestOf, European, Spread, WorstOf
from qsde.pricing.montecarlo import MonteCarlo, price

MARKETS = Markets([Market(100.0, 0.03, 0.01), Market(95.0, 0.03, 0.02)])
MODEL = MultiAsset([BlackScholes(0.2), BlackScholes(0.3)], [[1.0, 0.4], [0.4, 1.0]])
FEW = MonteCarlo(n_paths=1 << 15, noise=Threefry(5))
#: Names of the inputs of `closed` in this order.
NAMES = ("spot_1", "spot_2", "vol_1", "vol_2", "correlation", "yield_1", "yield_2", "rate", "t")
POINT = (100.0, 95.0, 0.2, 0.3, 0.4, 0.01, 0.02, 0.03, 1.0)
Closed = Callable[..., Tensor]


def margrabe(
    s1: Tensor, s2: Tensor, v1: Tensor, v2: Tensor, c: Tensor, q1: Tensor, q2: Tensor, r: Tensor, t: Tensor
) -> Tensor:
    """Margrabe (1978): the second exchanged for the first."""
    width = torch.sqrt((v1 * v1 + v2 * v2 - 2 * c * v1 * v2) * t)
    own, other = s1 * torch.exp(-q1 * t), s2 * torch.exp(-q2 * t)
    d = torch.log(own / other) / width + 0.5 * width
    return own * torch.special.ndtr(d) - other * torch.special.ndtr(d - width)


def both_below(h: Tensor, k: Tensor, c: Tensor) -> Tensor:
    """Bivariate normal distribution: `int_0^12 n(h - u) N((k - c (h - u)) / sqrt(1 - c^2)) du`, smooth in all."""
    nodes, weights = (6 * torch.tensor(x, dtype=torch.float64) for x in leggauss(80))
    z = h - (nodes + 6)
    inner = torch.special.ndtr((k - c * z) / torch.sqrt(1 - c * c))
    return (weights * torch.exp(-0.5 * z * z) * inner).sum() / math.sqrt(2 * math.pi)


def best_of(
    s1: Tensor, s2: Tensor, v1: Tensor, v2: Tensor, c: Tensor, q1: Tensor, q2: Tensor, r: Tensor, t: Tensor
) -> Tensor:
    """Stulz (1982): a call struck at 100 on the highest of two."""
    root, width = torch.sqrt(t), torch.sqrt((v1 * v1 + v2 * v2 - 2 * c * v1 * v2) * t)
    own, other, cash = s1 * torch.exp(-q1 * t), s2 * torch.exp(-q2 * t), 100.0 * torch.exp(-r * t)
    d = torch.log(own / other) / width + 0.5 * width
    d1, d2 = (torch.log(x / cash) / (v * root) + 0.5 * v * root for x, v in ((own, v1), (other, v2)))
    first = own * both_below(d1, d, (v1 - c * v2) * root / width)
    second = other * both_below(d2, width - d, (v2 - c * v1) * root / width)
    return first + second - cash * (1 - both_below(v1 * root - d1, v2 * root - d2, c))


def exact(closed: Closed) -> dict[str, float]:
    """Raw Greeks by automatic differentiation."""
    x = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in POINT]
    value = closed(*x)
    g = dict(zip(NAMES, torch.autograd.grad(value, x, create_graph=True, allow_unused=True), strict=True))
    found = {"price": value, "rho": g["rate"], "d_correlation_1_2": g["correlation"]}
    for i in ("1", "2"):
        found |= {f"delta_{i}": g[f"spot_{i}"], f"vega_{i}": g[f"vol_{i}"], f"dividend_rho_{i}": g[f"yield_{i}"]}
        found[f"d_asset{i}_vol"] = g[f"vol_{i}"]
        second = torch.autograd.grad(g[f"spot_{i}"], x[:4], retain_graph=True)
        found |= {f"gamma_{i}_{j}": second[int(j) - 1] for j in ("1", "2") if i <= j}
        found |= {f"vanna_{i}_{j}": second[int(j) + 1] for j in ("1", "2")}
        found[f"volga_{i}"] = torch.autograd.grad(g[f"vol_{i}"], x[int(i) + 1], retain_graph=True)[0]
    found["theta"] = -g["t"]
    return {name: 0.0 if v is None else float(v.detach()) for name, v in found.items()}


def check(got: Greeks, want: dict[str, float], row: int = 0, slack: float = 0.0) -> None:
    """Within 4 standard errors; theta is that of a whole day, volga a difference over one vol point."""
    for name, value in want.items():
        room = {"theta": 0.01, "volga": 0.01}.get(name.split("_")[0], slack)
        gap = abs(float(got[name][row]) - value)
        assert gap < 4 * float(got.error(name)[row]) + room * abs(value) + 1e-7, (name, float(got[name][row]), value)


@pytest.mark.parametrize("noise", [Threefry(5), Antithetic(Threefry(6)), Sobol(7)], ids=lambda n: type(n).__name__)
def test_exchange_and_best_of_against_closed_forms(noise: object) -> None:
    engine = MonteCarlo(n_paths=1 << 15, noise=noise)  # type: ignore[arg-type]
    got = greeks(MODEL, [Spread(0.0, 1.0), BestOf((1.0, 1.0), 100.0, 1.0)], MARKETS, engine, units="raw")
    check(got, exact(margrabe))
    check(got, exact(best_of), row=1)
    assert got.methods == ("pathwise",) * 2


def test_differences_of_deltas_agree_with_the_closed_form() -> None:
    """Nearly one noise for both: likelihood ratios would vary too much."""
    close = MultiAsset([BlackScholes(0.2), BlackScholes(0.3)], [[1.0, 0.995], [0.995, 1.0]])
    which = [name for name in exact(margrabe) if not name.startswith(("theta", "volga"))]
    got = greeks(close, Basket((1.0, -1.0), 0.0, 1.0), MARKETS, FEW, which, units="raw")
    assert got.methods == ("pathwise (second derivatives: differences)",)
    x = [
        torch.tensor(v if n != "correlation" else 0.995, dtype=torch.float64) for n, v in zip(NAMES, POINT, strict=True)
    ]
    assert float(got["price"]) == pytest.approx(float(margrabe(*x)), abs=4 * float(got.error("price")))
    bumped = [
        (float(margrabe(x[0] * (1 + h), *x[1:])), float(margrabe(x[0], x[1] * (1 + h), *x[2:]))) for h in (0.01, -0.01)
    ]
    base = float(margrabe(*x))
    check(got, {f"gamma_{i + 1}_{i + 1}": (bumped[0][i] - 2 * base + bumped[1][i]) / (0.01 * s) ** 2
                for i, s in enumerate((100.0, 95.0))}, slack=0.05)  # fmt: skip


def test_two_hestons_with_little_vol_of_vol_are_near_black_scholes() -> None:
    """Differences of deltas, and vega along the shift of each Heston's own smile."""
    hestons = [Heston(v0=v * v, kappa=1.0, theta=v * v, sigma=0.01, rho=0.0) for v in (0.2, 0.3)]
    model = MultiAsset(hestons, [[1.0, 0.4], [0.4, 1.0]])
    which = ["price", "delta_1", "delta_2", "gamma_1_1", "gamma_1_2", "gamma_2_2", "vega_1", "vega_2", "rho"]
    got = greeks(model, Spread(0.0, 1.0), MARKETS, MonteCarlo(n_paths=1 << 14, max_dt=0.25, noise=Threefry(8)), which,
                 units="raw")  # fmt: skip
    want = exact(margrabe)
    check(got, {name: want[name] for name in which}, slack=0.02)
    assert "differences" in got.methods[0]


def test_a_basket_of_one_underlying_is_the_european() -> None:
    got = greeks(MODEL, Basket((1.0, 0.0), 105.0, 1.0, "put"), MARKETS, FEW, units="raw")
    want = greeks(BlackScholes(0.2), European(105.0, 1.0, "put"), MARKETS.markets[0], units="raw")
    check(got, {f"{n}{'' if n in ('price', 'rho', 'theta') else '_1'}": float(want[n]) for n in
                ("price", "delta", "vega", "rho", "dividend_rho", "theta", "volga", "charm")})  # fmt: skip
    check(got, {"gamma_1_1": float(want["gamma"]), "vanna_1_1": float(want["vanna"])})
    for name in ("delta_2", "vega_2", "gamma_2_2", "gamma_1_2", "dividend_rho_2", "d_correlation_1_2"):
        assert abs(float(got[name])) < 1e-9 + 4 * float(got.error(name)), name


def test_one_path_set_gives_exact_identities() -> None:
    """Parity of calls and puts, best plus worst, and Euler's identity of homogeneous payoffs ."""
    book = [Basket((0.5, 0.5), 100.0, 1.0), Basket((0.5, 0.5), 100.0, 1.0, "put"), Spread(0.0, 1.0)]
    got = greeks(MODEL, [*book, BestOf((1.0, 1.0), 90.0, 1.0), WorstOf((1.0, 1.0), 90.0, 1.0)], MARKETS, FEW,
                 ["price", "delta_1", "delta_2", "gamma_1_1", "gamma_1_2", "gamma_2_2"], units="raw")  # fmt: skip
    forward = 0.5 * float(MARKETS.forward(1.0).sum())
    assert float(got["price"][0] - got["price"][1]) == pytest.approx(math.exp(-0.03) * (forward - 100.0), abs=1e-9)
    each = greeks_of_europeans()
    assert float(got["price"][3] + got["price"][4]) == pytest.approx(each, abs=4 * float(got.error("price")[3:].sum()))
    for i, name in enumerate(("delta_1", "delta_2")):
        carried = 0.5 * math.exp(-(0.01, 0.02)[i])
        room = 4 * float(got.error(name)[:2].sum())
        assert float(got[name][0] - got[name][1]) == pytest.approx(carried, abs=room)
    for name in ("gamma_1_1", "gamma_1_2", "gamma_2_2"):
        assert abs(float(got[name][0] - got[name][1])) < 4 * float(got.error(name)[:2].sum()) + 1e-9
    euler = 100.0 * got["delta_1"][2] + 95.0 * got["delta_2"][2]
    assert float(euler) == pytest.approx(float(got["price"][2]), abs=4 * float(got.error("delta_1")[2] * 100))
    flat = 100.0 * got["gamma_1_1"][2] + 95.0 * got["gamma_1_2"][2]
    assert abs(float(flat)) < 4 * float(100 * got.error("gamma_1_1")[2] + 95 * got.error("gamma_1_2")[2])


def greeks_of_europeans() -> float:
    """Best and worst of two together are both."""
    pairs = zip((0.2, 0.3), MARKETS.markets, strict=True)
    return sum(float(greeks(BlackScholes(v), European(90.0, 1.0), m, which=["price"])["price"]) for v, m in pairs)


def test_three_underlyings_against_bumps_with_the_same_noise() -> None:
    correlation = [[1.0, 0.5, 0.2], [0.5, 1.0, -0.1], [0.2, -0.1, 1.0]]
    model = MultiAsset([BlackScholes(0.2), BlackScholes(0.3), BlackScholes(0.25)], correlation)
    payoff = Basket((0.4, 0.3, 0.3), 100.0, 1.0)
    many = MonteCarlo(n_paths=1 << 18, noise=Threefry(1))

    def value(a: float = 100.0, b: float = 110.0) -> float:
        with torch.no_grad():
            return float(price(model, payoff, Markets([Market(s) for s in (a, b, 90.0)]), many).value)

    got = greeks(model, payoff, Markets([Market(s) for s in (100.0, 110.0, 90.0)]), FEW)
    assert [g.name for g in got.greeks if g.name.startswith("gamma")] == [
        f"gamma_{i}_{j}" for i, j in ((1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3))
    ]
    cross = (value(103, 113.3) - value(103, 106.7) - value(97, 113.3) + value(97, 106.7)) / (6 * 6.6)
    check(got, {"delta_1": (value(101.0) - value(99.0)) / 2, "gamma_1_2": cross}, slack=0.05)


def test_the_total_is_the_sum_and_cash_dividends_move_with_the_spot() -> None:
    markets = Markets([Market(100.0, 0.03, dividends=[CashDividend(0.5, 3.0)]), Market(95.0, 0.03)])
    book = [Spread(0.0, 1.0), BestOf((1.0, 1.0), 100.0, 1.0)]
    which = ["price", "delta_1", "gamma_1_2", "vega_2"]
    each, total = (greeks(MODEL, book, markets, FEW, which, total=t) for t in (False, True))
    torch.testing.assert_close(total.value[0], each.value.sum(0), rtol=1e-9, atol=1e-10)
    plain = greeks(MODEL, book, Markets([Market(100 - 3 * math.exp(-0.015), 0.03), Market(95.0, 0.03)]), FEW, which)
    torch.testing.assert_close(each.value, plain.value, rtol=1e-9, atol=1e-10)  # escrowed: the spot less the cash


def test_names_and_refusals() -> None:
    assert set(greeks_of(("_1", "_2"))) >= {"price", "rho", "theta", "delta_2", "gamma_1_2", "vanna_2_1", "charm_1"}
    assert "gamma_2_1" not in greeks_of(("_1", "_2"))
    with pytest.raises(InputError, match="delta_1"):
        greeks(MODEL, Spread(0.0, 1.0), MARKETS, FEW, ["delta"])
    with pytest.raises(InputError, match="2 underlyings, and there are 1 markets"):
        greeks(MODEL, Spread(0.0, 1.0), Market(100.0), FEW)
