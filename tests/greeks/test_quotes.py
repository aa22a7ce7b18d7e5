"""Sensitivities to quotes against recalibration to moved quotes, laws they obey, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from qsde.calibration import Feller, Fit, Prior, calibrate
from qsde.errors import FitStatus, InputError, NumericsError
from qsde.greeks import market_of, parameter_gradient, quote_jacobian, quote_sensitivities, recalibrated
from qsde.market.black import black_price
from qsde.market.curves import PillarCurve
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, Model
from qsde.noise import Sobol
from qsde.payoffs import Asian, Barrier, Digital, European, Payoff
from qsde.pricing.engine import Auto
from qsde.pricing.fourier import Fourier, model_vols, price_european
from qsde.pricing.geometric import price_geometric_asian
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.spec import dump_fits, load_fits

CASES = [("spx", "heston"), ("spx", "bates"), ("dax", "heston"), ("dax", "bates")]
ENGINE = MonteCarlo(n_paths=1 << 16, noise=Sobol(0, scrambles=16), compile="never")
FIXINGS = (0.25, 0.5, 0.75, 1.0)


def moves(surface: Surface, t: float = 1.0) -> dict[str, np.ndarray]:
    """One quote at the money `t` years out, one in the wing, one expiry, and all quotes."""
    q, one = surface.quotes, np.eye(len(surface))
    near = int(np.argmin(np.abs(q["t"] - t) + 3 * np.abs(q["strike"] / q["forward"] - 1)))
    expiry = (q["slice"] == q["slice"].iloc[near]).to_numpy(float)
    return {"near": one[near], "wing": one[5], "expiry": expiry, "all": np.ones(len(surface))}


def european(model: Model, payoff: European, market: Market) -> Tensor:
    t = payoff.expiry
    is_call = payoff.kind == "call"
    return price_european(model, payoff.strike, t, market.forward(t), market.discount(t), is_call).value


def recalibration(fit: Fit, move: np.ndarray, worth, size: float = 1e-3) -> Tensor:
    """Price change per vol point of the move, by central difference of two recalibrations."""
    up, down = (worth(recalibrated(fit, sign * size * move)) for sign in (1, -1))
    return 0.01 * (up - down) / (2 * size)


@pytest.mark.parametrize("case", CASES, ids="-".join)
@pytest.mark.parametrize("size", [1e-4, 1e-3])
def test_a_european_moves_as_recalibration_moves_it(case: tuple[str, str], size: float, fits) -> None:
    fit = fits[case]
    option = European(1.02 * fit.surface.spot, expiry=1.0)
    market = market_of(fit.surface)
    found = quote_sensitivities(fit, option)
    assert float(found.std_error.abs().max()) == 0
    for name, move in moves(fit.surface).items():
        want = recalibration(fit, move, lambda m: european(m, option, market), size)
        assert float(found.value[0] @ torch.tensor(move)) == pytest.approx(float(want), rel=5e-3), name


def test_an_asian_and_a_barrier_move_as_recalibration_moves_them(fits) -> None:
    fit = fits["spx", "heston"]
    strike, market = 1.02 * fit.surface.spot, market_of(fit.surface)
    book: list[Payoff] = [
        Asian(strike, fixings=(0.125, 0.25, 0.375, 0.5)),
        Barrier(strike, barrier=0.85 * fit.surface.spot, expiry=0.5, style="down-and-out"),
    ]
    found = quote_sensitivities(fit, book, engine=ENGINE)

    def worth(model: Model) -> Tensor:
        with torch.no_grad():
            return price(model, book, market, ENGINE).value

    for name, move in moves(fit.surface, 0.5).items():
        want = recalibration(fit, move, worth)
        gap = (found.value @ torch.tensor(move) / want - 1).abs()
        assert float(gap[0]) < 0.01, (name, gap)
        assert float(gap[1]) < 0.03, (name, gap)


def test_an_automatic_engine_integrates_what_it_can_and_simulates_the_rest_as_it_is_told() -> None:
    surface = Surface.from_vols([0.5, 0.5, 1.0], [90.0, 110.0, 100.0], 0.2, forward=100.0, spot=100.0)
    fit = calibrate(BlackScholes(0.3), surface, weights="equal")
    book, few = [Asian(100.0, (0.5, 1.0)), European(100.0, 1.0)], MonteCarlo(n_paths=256, compile="never")
    found = quote_sensitivities(fit, book, engine=Auto(few))
    assert found.gradient.methods == ("pathwise", "fourier")
    assert found.gradient.n_paths == 256
    alone = quote_sensitivities(fit, book[0], engine=few)
    torch.testing.assert_close(found.value[0], alone.value[0])
    assert found.std_error[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.slow(reason="eight parameters and a difference quotient by simulation: half a minute")
@pytest.mark.parametrize("surface", ["spx", "dax"])
def test_simulated_ladders_under_bates_agree_with_exact_ones(surface: str, fits) -> None:
    fit = fits[surface, "bates"]
    strike, market = 1.02 * fit.surface.spot, market_of(fit.surface)
    book = [Asian(strike, FIXINGS, average="geometric"), European(strike, 1.0)]
    found = quote_sensitivities(fit, book, engine=MonteCarlo(n_paths=1 << 16, compile="never"))
    assert any("jump_intensity" in text for text in found.warnings)
    exact = quote_sensitivities(fit, book[1]).value[0]
    assert ((found.value[1] - exact).abs() <= 5 * found.std_error[1]).all()
    for name, move in moves(fit.surface).items():
        want = recalibration(fit, move, lambda m: price_geometric_asian(m, market, strike, FIXINGS).value)
        samples = found.gradient.samples[:, 0, 2:] @ found.quote_jacobian @ torch.tensor(move) * 0.01
        error = float(samples.std()) / len(samples) ** 0.5
        assert abs(float(samples.mean() - want)) < 4 * error + 0.002 * abs(float(want)), name


@pytest.mark.parametrize("objective", ["implied_vol", "price"])
@pytest.mark.parametrize("penalties", [(), (Feller(0.02), Prior({"kappa": 2.0}, {"kappa": 0.5}))], ids=["free", "soft"])
@pytest.mark.parametrize("fixed", [(), {"kappa": 2.0}], ids=["all", "kappa fixed"])
def test_parameters_move_as_recalibration_moves_them(objective: str, penalties, fixed, spx, fits) -> None:
    if penalties and fixed:
        penalties = penalties[:1]
    near = fits["spx", "heston"].model
    fit = calibrate(near, spx, objective=objective, penalties=penalties, fixed=fixed, starts=1)
    jacobian = quote_jacobian(fit)
    for name, move in moves(spx).items():
        up, down = (recalibrated(fit, sign * 1e-4 * move) for sign in (1, -1))
        want = torch.stack([(up.params[p] - down.params[p]) / 2e-4 for p in fit.free])
        got = jacobian @ torch.tensor(move)
        assert float((got - want).norm() / want.norm()) < 1e-3, name


def test_gauss_newton_is_right_only_where_the_fit_is(spx, fits) -> None:
    vague = fits["spx", "heston"]
    move = torch.ones(len(spx), dtype=torch.float64)
    full, short = (quote_jacobian(vague, hessian) @ move for hessian in ("full", "gauss-newton"))
    assert float((short - full).norm() / full.norm()) > 0.1
    perfect = calibrate(Heston.typical(), replace(spx, quotes=spx.quotes.assign(iv=vague.model_iv)))
    full, short = (quote_jacobian(perfect, hessian) @ move for hessian in ("full", "gauss-newton"))
    assert float((short - full).norm() / full.norm()) < 1e-3


@pytest.mark.parametrize("penalties", [(), (Prior({"kappa": 2.0}, {"kappa": 0.5}),)], ids=["free", "prior"])
def test_a_fit_by_simulation_takes_the_jacobian_it_brings(penalties, spx) -> None:
    fit = calibrate(Heston.typical(), spx, penalties=penalties, starts=1)
    simulated = replace(fit, simulation=object())
    short = quote_jacobian(fit, "gauss-newton")
    torch.testing.assert_close(quote_jacobian(simulated, "gauss-newton"), short, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="gauss-newton"):
        quote_jacobian(simulated)
    with pytest.raises(InputError, match="calibrate it again"):
        recalibrated(simulated, 0.001)


def test_black_scholes_shares_vega_by_squared_weights() -> None:
    surface = Surface.from_vols(
        [0.5, 0.5, 1.0], [90.0, 110.0, 100.0], 0.2, 100.0, 0.98, [0.19, 0.195, 0.18], [0.21, 0.205, 0.22], spot=99.0
    )
    fit = calibrate(BlackScholes(0.3), surface)
    found = quote_sensitivities(fit, European(105.0, 1.0), units="raw")
    vol = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    t, df = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.98, dtype=torch.float64)
    forward, strike = (torch.tensor(x, dtype=torch.float64) for x in (100.0, 105.0))
    (vega,) = torch.autograd.grad(black_price(forward, strike, t, vol, df, True), vol)
    share = torch.tensor(fit.weight) ** 2 / (fit.weight**2).sum()
    torch.testing.assert_close(found.value[0], share * vega, rtol=1e-5, atol=0)
    assert float(found.parallel) == pytest.approx(float(vega), rel=1e-6)


def test_a_quoted_option_that_is_fitted_exactly_has_its_own_vega_and_no_other() -> None:
    truth = Heston(v0=0.04, kappa=2.0, theta=0.06, sigma=0.5, rho=-0.6)
    t, strike = np.array([0.25, 0.25, 0.25, 1.0, 1.0]), np.array([80.0, 100.0, 115.0, 85.0, 120.0])
    vol = np.array([float(model_vols(truth, a, b, 100.0)) for a, b in zip(t, strike, strict=True)])
    surface = Surface.from_vols(t, strike, vol, 100.0, spot=100.0)
    fit = calibrate(truth, surface, weights="equal")
    book = [European(k, a, "call" if k >= 100 else "put") for a, k in zip(t, strike, strict=True)]
    found = quote_sensitivities(fit, book, units="raw").value
    x = torch.tensor(vol, requires_grad=True)
    f, k, years = (torch.tensor(y) for y in (np.full(5, 100.0), strike, t))
    (vega,) = torch.autograd.grad(black_price(f, k, years, x, torch.ones_like(x), k >= 100).sum(), x)
    torch.testing.assert_close(found, torch.diag(vega), rtol=1e-4, atol=1e-3)


def test_quotes_of_weight_0_and_parameters_at_a_bound(spx) -> None:
    used = np.array(spx.quotes["slice"] > 1)
    fit = calibrate(Heston.typical(), spx, weights=lambda quotes: used.astype(float), bounds={"kappa": (1.8, 10.0)})
    found = quote_sensitivities(fit, European(4200.0, 1.0))
    assert fit.at_bounds == ("kappa",)
    assert (found.value[0, ~used] == 0).all()
    assert (found.value[0, used] != 0).all()
    assert (found.quote_jacobian[fit.free.index("kappa")] == 0).all()
    assert any("kappa" in text for text in found.warnings)


def test_the_parallel_shift_is_the_sum_and_a_shift_of_all_quotes(fits) -> None:
    fit = fits["spx", "bates"]
    option, market = European(4000.0, 0.7, "put"), market_of(fit.surface)
    found = quote_sensitivities(fit, option)
    ladder = found.ladder()
    assert float(found.parallel) == pytest.approx(float(found.value.sum()))
    assert ladder.total == pytest.approx(float(found.parallel))
    shifted = recalibration(fit, np.ones(len(fit.surface)), lambda m: european(m, option, market))
    assert float(found.parallel) == pytest.approx(float(shifted), rel=1e-3)
    own_vega = 0.01 * float(_vega(option, fit, market))
    assert float(found.parallel) == pytest.approx(own_vega, rel=0.15)  # as far as the model can shift its vols


def _vega(option: European, fit: Fit, market: Market) -> Tensor:
    t = torch.tensor(option.expiry, dtype=torch.float64)
    vol = model_vols(fit.model, t, option.strike, market.forward(t)).detach().requires_grad_()
    strike = torch.tensor(option.strike, dtype=torch.float64)
    worth = black_price(market.forward(t), strike, t, vol, market.discount(t), option.kind == "call")
    return torch.autograd.grad(worth, vol)[0]


def test_frame_and_ladder_hold_the_same_numbers(fits) -> None:
    fit = fits["spx", "heston"]
    found = quote_sensitivities(fit, [European(4000.0, 0.5), European(4400.0, 1.5)])
    frame = found.frame()
    assert list(frame.columns) == [
        "payoff", "expiry", "t", "strike", "kind", "iv_bid", "iv", "iv_ask", "sensitivity", "std_error",
    ]  # fmt: skip
    assert frame["payoff"].unique().tolist() == ["European 1", "European 2"]
    second = frame[frame["payoff"] == "European 2"]
    np.testing.assert_allclose(second["sensitivity"], found.value[1].numpy())
    ladder = found.ladder(expiries=(0.3, 1.0), strike_buckets=(3900.0, 4300.0), by="strike", payoff=1)
    assert list(ladder.value.columns) == ["below 3900", "3900 to 4300", "above 4300", "total"]
    assert list(ladder.value.index) == ["below 0.3y", "0.3y to 1y", "above 1y", "total"]
    row = pd.cut(second["t"], [0, 0.3, 1, 9], right=False, labels=False)
    column = pd.cut(second["strike"], [0, 3900, 4300, 1e9], right=False, labels=False)
    want = pd.crosstab(row.to_numpy(), column.to_numpy(), second["sensitivity"].to_numpy(), aggfunc="sum", margins=True)
    np.testing.assert_allclose(ladder.value, want)
    both = found.ladder()
    assert both.total == pytest.approx(float(found.value.sum()))
    assert np.isnan(both.value.loc[str(fit.surface.slices["expiry"].iloc[0]), "below 0.8"])
    assert both.unit == "per vol point"


def test_errors_of_a_simulated_ladder_shrink_with_the_paths_and_know_of_each_other(spx) -> None:
    fit = calibrate(BlackScholes(0.2), spx)
    option = European(4200.0, 1.0)
    few, many = (
        quote_sensitivities(fit, [option, option], engine=MonteCarlo(n_paths=n, compile="never"))
        for n in (1 << 12, 1 << 16)
    )
    assert 2.5 < float((few.std_error / many.std_error).median()) < 6.5
    # the same option twice has the same errors: they add up, they do not average out
    both, one = (many.ladder(payoff=payoff).std_error.to_numpy()[-1, -1] for payoff in (None, 0))
    assert both == pytest.approx(2 * one)
    exact = quote_sensitivities(fit, option).value[0]
    assert ((many.value[0] - exact).abs() <= 4 * many.std_error[0]).all()


def test_exact_and_simulated_payoffs_in_one_book(fits) -> None:
    fit = fits["spx", "heston"]
    book = [European(4200.0, 1.0), Asian(4200.0, FIXINGS), Digital(4200.0, 1.0)]
    found = quote_sensitivities(fit, book)
    assert found.gradient.methods == ("fourier", "pathwise", "fourier")
    assert (found.std_error[0] == 0).all()
    assert (found.std_error[1] > 0).all()
    alone = quote_sensitivities(fit, book[0])
    torch.testing.assert_close(found.value[0], alone.value[0])


def test_units_are_a_hundredth_apart(fits) -> None:
    fit = fits["spx", "heston"]
    points, raw = (quote_sensitivities(fit, European(4200.0, 1.0), units=u) for u in ("trader", "raw"))
    torch.testing.assert_close(100 * points.value, raw.value)


def test_the_market_of_a_surface_has_its_forwards(dax) -> None:
    market = market_of(dax)
    t = dax.slices["t"].tolist()
    np.testing.assert_allclose(market.forward(t).numpy(), dax.slices["forward"])
    np.testing.assert_allclose(market.discount(t).numpy(), dax.slices["discount_factor"])


def test_a_fit_of_unknown_penalties_gives_the_same_and_says_what_it_does_not_know(spx) -> None:
    fit = calibrate(Heston.typical(), spx)
    again = replace(load_fits(dump_fits([fit]))[0], penalties=None)
    option = European(4200.0, 1.0)
    one, two = (quote_sensitivities(f, option) for f in (fit, again))
    torch.testing.assert_close(one.value, two.value, rtol=1e-9, atol=1e-12)
    assert not one.warnings
    assert any("penalties" in text for text in two.warnings)


def test_a_ladder_that_is_mostly_noise_says_so(spx) -> None:
    fit = calibrate(Heston.typical(), spx)
    option = Asian(4200.0, FIXINGS)
    few, many = (quote_sensitivities(fit, option, engine=MonteCarlo(n, compile="never")) for n in (64, 1 << 13))
    assert any("take more paths" in text for text in few.warnings)
    assert not any("take more paths" in text for text in many.warnings)


@pytest.mark.parametrize("options", [{"objective": "price"}, {"penalties": [Prior({"kappa": 4.0}, {"kappa": 0.1})]}])
def test_a_file_keeps_what_was_minimised_and_a_fit_that_forgot_it_is_noticed(options, spx) -> None:
    fit = calibrate(Heston.typical(), spx, starts=1, **options)
    (again,) = load_fits(dump_fits([fit]))
    torch.testing.assert_close(quote_jacobian(again), quote_jacobian(fit), rtol=1e-9, atol=1e-9)
    with pytest.raises(InputError, match="not a minimum"):
        quote_jacobian(replace(again, objective="implied_vol", penalties=None))


def test_what_is_refused(fits, spx) -> None:
    fit, option = fits["spx", "heston"], European(4200.0, 1.0)
    with pytest.raises(InputError, match="did not converge"):
        quote_sensitivities(replace(fit, status=FitStatus.MAX_ITERATIONS), option)
    with pytest.raises(InputError, match="market: its forward at"):
        quote_sensitivities(fit, option, Market(4000.0))
    t = spx.slices["t"].tolist()
    same_forwards = PillarCurve(
        t, [0.05 - math.log(f / spx.spot) / s for s, f in zip(t, spx.slices["forward"], strict=True)]
    )
    with pytest.raises(InputError, match="market: its discount_factor at"):
        quote_sensitivities(fit, option, Market(spx.spot, rate=0.05, dividend_yield=same_forwards))
    with pytest.raises(InputError, match="no spot"):
        quote_sensitivities(replace(fit, surface=replace(spx, spot=float("nan"))), option)
    with pytest.raises(InputError, match="Fourier"):
        quote_sensitivities(fit, Asian(4200.0, FIXINGS), engine=Fourier())
    with pytest.raises(InputError, match="hessian"):
        quote_sensitivities(fit, option, hessian="exact")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="units"):
        quote_sensitivities(fit, option, units="bp")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no payoffs"):
        quote_sensitivities(fit, [])
    with pytest.raises(InputError, match="no parameter 'vol'"):
        parameter_gradient(fit.model, [option], market_of(spx), names=["vol"])
    with pytest.raises(InputError, match="positive"):
        recalibrated(fit, -1.0)
    found = quote_sensitivities(fit, option)
    with pytest.raises(InputError, match="strike_buckets"):
        found.ladder(strike_buckets=(1.1, 0.9))
    with pytest.raises(InputError, match="expiries must be a list of numbers"):
        found.ladder(expiries="abc")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="by must be"):
        found.ladder(by="delta")  # type: ignore[arg-type]


def test_a_payoff_beyond_the_last_expiry_comes_with_a_warning(fits) -> None:
    found = quote_sensitivities(fits["spx", "heston"], European(4200.0, 3.0))
    assert any("beyond the last quoted expiry" in text for text in found.warnings)


def test_parameters_that_the_quotes_do_not_determine() -> None:
    surface = Surface.from_vols([1.0, 1.0], [95.0, 105.0], [0.21, 0.2], 100.0, spot=100.0)
    fit = calibrate(Heston.typical(), surface, weights="equal")
    with pytest.raises(NumericsError, match="do not determine"):
        quote_jacobian(replace(fit, status=FitStatus.CONVERGED, at_bounds=()))
