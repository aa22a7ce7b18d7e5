"""Several underlyings through the engine: closed forms, marginals, limits of correlation, gradients, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.market.dividends import CashDividend
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, Model, MultiAsset
from qsde.noise import Antithetic, Sobol, Threefry
from qsde.payoffs import Basket, BestOf, European, Spread, WorstOf
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price

FIRST = Heston(v0=0.04, kappa=1.5, theta=0.06, sigma=0.5, rho=-0.7)
SECOND = Heston(v0=0.09, kappa=1.0, theta=0.05, sigma=1.0, rho=0.3)
FLAT = BlackScholes(0.25)
MARKET = Markets([Market(100.0, 0.03, 0.01), Market(90.0, 0.03)])
ENGINE = MonteCarlo(n_paths=1 << 15, noise=Antithetic(Threefry(4)), compile="never")
SOBOL = replace(ENGINE, n_paths=1 << 17, noise=Sobol(4, scrambles=32))


def pair(first: Model, second: Model, rho: float | Tensor) -> MultiAsset:
    rho = torch.as_tensor(rho, dtype=torch.float64)
    one = torch.ones_like(rho)
    matrix = torch.stack([torch.stack([one, rho], -1), torch.stack([rho, one], -1)], -2)
    return MultiAsset([first, second], matrix)


def margrabe(spots: Tensor, yields: tuple[float, float], vols: Tensor, rho: Tensor, t: float) -> Tensor:
    """Margrabe (1978): the right to give the second for the first; the rate plays no part."""
    give, take = spots[1] * math.exp(-yields[1] * t), spots[0] * math.exp(-yields[0] * t)
    deviation = torch.sqrt((vols[0] ** 2 + vols[1] ** 2 - 2 * rho * vols[0] * vols[1]) * t)
    d = torch.log(take / give) / deviation + 0.5 * deviation
    return take * torch.special.ndtr(d) - give * torch.special.ndtr(d - deviation)


@pytest.mark.parametrize("rho", [-1.0, -0.4, 0.0, 0.7, 1.0])
def test_exchange_is_margrabes(rho: float) -> None:
    got = price(pair(BlackScholes(0.3), FLAT, rho), Spread(0.0, 2.0), MARKET, SOBOL)
    spots, vols = torch.tensor([[100.0, 90.0], [0.3, 0.25]], dtype=torch.float64)
    want = margrabe(spots, (0.01, 0.0), vols, torch.tensor(rho, dtype=torch.float64), 2.0)
    assert float(got.std_error) < 2e-3
    assert abs(float(got.value - want)) < 3 * float(got.std_error)


@pytest.mark.parametrize("rho", [0.0, 0.8])
@pytest.mark.parametrize("models", [(FIRST, SECOND), (SECOND, FLAT)], ids=["two Hestons", "Heston and Black-Scholes"])
def test_one_asset_of_several_has_its_own_price(models: tuple[Model, Model], rho: float) -> None:
    strikes = (80.0, 95.0, 110.0)
    book = [Basket(w, k, 1.0) for w in ((1.0, 0.0), (0.0, 1.0)) for k in strikes]
    got = price(pair(*models, rho), book, MARKET, replace(ENGINE, max_dt=1 / 32))
    want = torch.cat(
        [
            price_european(model, torch.tensor(strikes), 1.0, market.forward(1.0), market.discount(1.0)).value
            for model, market in zip(models, MARKET.markets, strict=True)
        ]
    )
    # 0.003 is what steps of 1/32 cost QE where Feller is violated by a lot
    assert ((got.value - want).abs() < 3 * got.std_error + 0.003).all(), (got.value - want) / got.std_error


def test_best_and_worst_of_two_are_both() -> None:
    one = (1.0, 1.0)
    book = [
        BestOf(one, 95.0, 1.0),
        WorstOf(one, 95.0, 1.0),
        Basket((1.0, 0.0), 95.0, 1.0),
        Basket((0.0, 1.0), 95.0, 1.0),
    ]
    plain = replace(ENGINE, control_variate=False)
    best, worst, first, second = price(pair(FIRST, SECOND, 0.5), book, MARKET, plain).value.tolist()
    assert best + worst == pytest.approx(first + second, rel=1e-13)
    assert best > max(first, second)
    assert worst < min(first, second)


def test_perfectly_correlated_twins_are_one() -> None:
    for twin in (FLAT, FIRST):
        full = torch.ones(2, 2, dtype=torch.float64)
        if isinstance(twin, Heston):  # the variances too
            full = torch.kron(torch.tensor([[1.0, -0.7], [-0.7, 1.0]], dtype=torch.float64), full)
        model, market = MultiAsset([twin, twin], full), Markets([MARKET.markets[0]] * 2)
        book = [
            Spread(0.0, 1.0),
            Basket((0.3, 0.7), 105.0, 1.0),
            WorstOf((1.0, 1.0), 105.0, 1.0),
            Basket((1.0, 0.0), 105.0, 1.0),
        ]
        nothing, *others = price(model, book, market, replace(ENGINE, control_variate=False)).value.tolist()
        assert nothing == pytest.approx(0, abs=1e-10)
        assert others == pytest.approx([others[0]] * 3, rel=1e-10)


def test_prices_move_with_correlation_as_they_must() -> None:
    """Spreads and best-ofs fall with correlation, baskets and worst-ofs rise; the batch is each model alone."""
    rho = torch.tensor([-0.9, -0.3, 0.3, 0.9], dtype=torch.float64)
    book = [
        Spread(5.0, 1.0),
        BestOf((1.0, 1.0), 95.0, 1.0),
        Basket((0.5, 0.5), 95.0, 1.0),
        WorstOf((1.0, 1.0), 95.0, 1.0),
    ]
    got = price(pair(FIRST, SECOND, rho), book, MARKET, ENGINE).value
    assert got.shape == (4, 4)
    assert (got.diff(dim=0) * torch.tensor([-1.0, -1.0, 1.0, 1.0]) > 0).all()
    alone = price(pair(FIRST, SECOND, 0.3), book, MARKET, ENGINE).value
    torch.testing.assert_close(got[2], alone, rtol=1e-12, atol=0)


FULL = torch.tensor(
    [[1.0, 0.5, -0.7, -0.1], [0.5, 1.0, -0.2, 0.3], [-0.7, -0.2, 1.0, 0.6], [-0.1, 0.3, 0.6, 1.0]], dtype=torch.float64
)


@pytest.mark.parametrize("full", [FULL, pair(FIRST, SECOND, 0.6).full_correlation], ids=["full", "prices"])
def test_two_hestons_as_eulers_scheme_written_out(full: Tensor) -> None:
    """Full-truncation Euler in numpy on small steps, its normals from the eigenvectors of the full matrix."""
    book = [Spread(5.0, 0.5), WorstOf((1.0, 1.0), 92.0, 0.5, "put"), Basket((0.5, 0.5), 95.0, 0.5)]
    got = price(MultiAsset([FIRST, SECOND], full), book, MARKET, ENGINE)
    values, vectors = np.linalg.eigh(full.numpy())
    root = vectors * np.sqrt(values.clip(min=0))
    rng, n, steps, dt = np.random.default_rng(5), 40_000, 100, 0.5 / 100
    x, v = np.zeros((2, n)), np.array([[0.04], [0.09]]) * np.ones(n)
    kappa, theta, sigma = (
        np.array([[float(m.params[k])] for m in (FIRST, SECOND)]) for k in ("kappa", "theta", "sigma")
    )
    for _ in range(steps):
        z = root @ rng.standard_normal((4, n))
        plus = v.clip(min=0)
        x += -0.5 * plus * dt + np.sqrt(plus * dt) * z[:2]
        v += kappa * (theta - plus) * dt + sigma * np.sqrt(plus * dt) * z[2:]
    s = torch.tensor(x).exp().unsqueeze(-1) * MARKET.forward(0.5).view(2, 1, 1)
    for payoff, value, error in zip(book, got.value, got.std_error, strict=True):
        samples = payoff(s) * MARKET.discount(0.5)
        both = math.hypot(float(error), float(samples.std()) / n**0.5)
        assert abs(float(value - samples.mean())) < 3.5 * both, payoff


def test_gradients_of_the_exchange_are_the_closed_form() -> None:
    def inputs() -> tuple[Tensor, ...]:
        return tuple(
            torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in ([100.0, 90.0], [0.3, 0.25], 0.4)
        )

    spots, vols, rho = inputs()
    model = pair(BlackScholes(vols[0]), BlackScholes(vols[1]), 0.0).with_params({"correlation_1_2": rho})
    market = Markets([Market(spots[0], 0.03, 0.01), Market(spots[1], 0.03)])
    found = torch.autograd.grad(price(model, Spread(0.0, 2.0), market, SOBOL).value, (spots, vols, rho))
    exact = inputs()
    want = torch.autograd.grad(margrabe(exact[0], (0.01, 0.0), exact[1], exact[2], 2.0), exact)
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-4)


def test_gradients_are_bumps_with_common_random_numbers() -> None:
    calm = Heston(v0=0.09, kappa=1.0, theta=0.09, sigma=0.2, rho=-0.5)
    model = MultiAsset([calm, FLAT], [[1.0, 0.4], [0.4, 1.0]])
    model = MultiAsset(model.models, model.full_correlation)
    engine = MonteCarlo(n_paths=2048, max_dt=1 / 8, compile="never", control_variate=False)
    book = [Basket((0.6, 0.4), 95.0, 1.0), WorstOf((1.0, 1.0), 90.0, 1.0, "put")]

    def value(params: dict[str, Tensor]) -> Tensor:
        return price(model.with_params(params), book, MARKET, engine).value.sum()

    leaves = {k: v.detach().clone().requires_grad_() for k, v in model.params.items()}
    slopes = dict(zip(leaves, torch.autograd.grad(value(leaves), list(leaves.values())), strict=True))
    assert {"correlation_1_2", "correlation_2_v1", "asset2_vol", "asset1_rho"} <= set(slopes)
    for name, slope in slopes.items():
        h = 1e-7  # so small that no path crosses a kink
        up, down = (float(value({**model.params, name: model.params[name] + s * h})) for s in (1, -1))
        assert float(slope) == pytest.approx((up - down) / (2 * h), rel=1e-4, abs=1e-5), name


def test_functional_gradients_of_several_correlations() -> None:
    """`torch.func.vmap` of `grad` over correlations gives the derivatives of a batch."""
    engine = MonteCarlo(n_paths=4096, compile="never")
    model = pair(FLAT, BlackScholes(0.3), 0.0)

    def value(rho: Tensor) -> Tensor:
        return price(model.with_params({"correlation_1_2": rho}), Spread(5.0, 1.0), MARKET, engine).value

    rho = torch.tensor([-0.5, 0.0, 0.6], dtype=torch.float64)
    together = torch.func.vmap(torch.func.grad(value))(rho)
    leaf = rho.clone().requires_grad_()
    (want,) = torch.autograd.grad(sum(value(r) for r in leaf), leaf)
    torch.testing.assert_close(together, want, rtol=1e-10, atol=1e-12)


def test_cash_dividends_of_one_asset_leave_the_other_alone() -> None:
    paying = Market(100.0, 0.03, dividends=[CashDividend(0.5, 4.0)])
    book = [Basket((1.0, 0.0), 100.0, 1.0), Basket((0.0, 1.0), 90.0, 1.0)]
    got = price(pair(FLAT, FLAT, 0.5), book, Markets([paying, MARKET.markets[1]]), SOBOL)
    for i, (market, strike) in enumerate(((paying, 100.0), (MARKET.markets[1], 90.0))):
        want = price_european(FLAT, strike, 1.0, market.forward(1.0), market.discount(1.0)).value
        assert abs(float(got.value[i] - want)) < 3 * float(got.std_error[i])


def test_numbers_of_underlyings_must_agree() -> None:
    model = pair(FLAT, FLAT, 0.5)
    for one, payoff, market in (
        (model, Basket((1.0, 1.0, 1.0), 100.0, 1.0), MARKET),
        (model, European(100.0, 1.0), MARKET),
        (model, Spread(1.0, 1.0), MARKET.markets[0]),
        (FLAT, Spread(1.0, 1.0), MARKET),
    ):
        with pytest.raises(InputError, match=r"underlyings, .* simulates"):
            price(one, payoff, market, ENGINE)


@pytest.mark.slow  # compiles a kernel
def test_compiled_prices_are_eager_ones() -> None:
    book = [Spread(5.0, 1.0), BestOf((1.0, 1.0), 95.0, 1.0)]
    model = pair(FIRST, SECOND, torch.tensor([0.2, 0.8], dtype=torch.float64))
    eager = price(model, book, MARKET, ENGINE)
    compiled = price(model, book, MARKET, replace(ENGINE, compile="always"))
    torch.testing.assert_close(compiled.value, eager.value, rtol=1e-10, atol=1e-10)
