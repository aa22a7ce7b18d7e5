"""Calibration as a user sees it: known parameters come back, published fits are met, and doubts are spoken out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from qsde.calibration import Feller, Fit, Prior, calibrate, calibrate_many, fourier
from qsde.errors import FitStatus, InputError, NumericsError, QuoteError
from qsde.market.surface import Surface
from qsde.models import BlackScholes, Heston, JumpDiffusion, KouJumps, MertonJumps, bates
from qsde.pricing.fourier import model_vols
from qsde.spec import template

HESTON = Heston(v0=0.04, kappa=2.0, theta=0.06, sigma=0.5, rho=-0.6)
TRUTHS = {
    "black_scholes": BlackScholes(0.23),
    "heston": HESTON,
    "merton": JumpDiffusion(BlackScholes(0.15), MertonJumps(intensity=0.8, mean=-0.12, std=0.15)),
    "kou": JumpDiffusion(BlackScholes(0.15), KouJumps(intensity=2.0, p_up=0.3, eta_up=25.0, eta_down=12.0)),
    "bates": JumpDiffusion(HESTON, MertonJumps(intensity=0.4, mean=-0.1, std=0.12)),
    "heston_kou": JumpDiffusion(HESTON, KouJumps(intensity=1.0, p_up=0.25, eta_up=25.0, eta_down=9.0)),
}


@pytest.fixture(scope="module")
def heston_fit(model_surface) -> Fit:
    return calibrate(Heston.typical(), model_surface(HESTON, noise=0.002, half_spread=0.003))


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize("objective", ["implied_vol", "price"])
def test_known_parameters_come_back(name: str, objective: str, model_surface) -> None:
    truth = TRUTHS[name]
    times = (0.03, 0.08, 0.25, 0.5, 1.0, 2.0)
    fit = calibrate(template(name), model_surface(truth, times=times, strikes=17, width=3.5), objective=objective)
    assert fit.status.converged, fit.status
    assert fit.rmse_bp < 0.01
    tolerance = 1e-2 if "kou" in name else 1e-3
    for parameter, value in truth.params.items():
        assert fit.params[parameter] == pytest.approx(float(value), rel=tolerance), parameter
    assert not fit.at_bounds


@pytest.mark.parametrize("seed", range(3))
def test_dax_heston_is_no_worse_than_quantlib(seed: int, dax) -> None:
    fit = calibrate(Heston.typical(), dax, weights="equal", objective="implied_vol", seed=seed)
    assert fit.status.converged
    assert fit.sse_vol_percent <= 177.24


@pytest.mark.parametrize("seed", range(3))
def test_dax_bates_is_no_worse_than_quantlib(seed: int, dax, quantlib) -> None:
    fit = calibrate(template("bates"), dax, weights="equal", seed=seed)
    assert fit.status.converged
    assert fit.sse_vol_percent <= next(r["sse"] for r in quantlib["runs"] if r["name"].startswith("Bates"))


@pytest.mark.parametrize("seed", range(20))
def test_dax_from_twenty_random_starts(seed: int, dax, quantlib) -> None:
    rng = np.random.default_rng(seed)
    for name, least in (("heston", 177.24), ("bates", None)):
        limit = least or next(r["sse"] for r in quantlib["runs"] if r["name"].startswith("Bates"))
        start = template(name)
        ranges = {k: start.table[k].search for k in start.params}
        values = {k: low + (high - low) * rng.random() for k, (low, high) in ranges.items()}
        for level in ("v0", "theta"):
            values[level] *= 0.06
        start = start.with_params({k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()})
        fit = calibrate(start, dax, weights="equal", seed=seed)
        assert fit.status.converged
        assert fit.sse_vol_percent <= limit


def test_spx_thin(spx_thin) -> None:
    heston = calibrate(Heston.typical(), spx_thin, weights="equal")
    bates = calibrate(template("bates"), spx_thin, weights="equal")
    assert heston.status.converged
    assert bates.status.converged
    assert heston.rmse_bp <= 41.1
    assert bates.rmse_bp <= 24.7  # plain multi-start least squares stays at 39.7


def test_many_at_once_equal_one_by_one(model_surface, dax, spx_thin) -> None:
    surfaces = [dax, model_surface(HESTON, times=(0.5, 1.0), noise=0.003), spx_thin]
    together = calibrate_many(Heston.typical(), surfaces)
    for surface, fit in zip(surfaces, together, strict=True):
        alone = calibrate(Heston.typical(), surface)
        assert fit.surface is surface
        assert fit.status is alone.status
        np.testing.assert_allclose(fit.model_iv, alone.model_iv, atol=1e-6)
        assert fit.params == pytest.approx(alone.params, rel=1e-3)
        assert fit.std_errors == pytest.approx(alone.std_errors, rel=1e-3)


def test_a_hopeless_neighbour_costs_only_itself(model_surface, dax) -> None:
    absurd = Surface.from_vols([0.001, 0.001, 20.0], [1.0, 1e4, 100.0], [10.0, 0.001, 9.0], 100.0)
    fit, _ = calibrate_many(Heston.typical(), [dax, absurd])
    alone = calibrate(Heston.typical(), dax)
    assert fit.status.converged
    np.testing.assert_allclose(fit.model_iv, alone.model_iv, atol=1e-6)


def test_exact_prices_that_fail_cost_only_their_surface(dax, model_surface, monkeypatch: pytest.MonkeyPatch) -> None:
    def moody(model: Any, t: torch.Tensor, *rest: Any) -> torch.Tensor:
        if bool((t == 7.0).any()):
            raise NumericsError("Heston: 1 slices did not converge")
        return model_vols(model, t, *rest)

    monkeypatch.setattr(fourier, "model_vols", moody)
    good, bad = calibrate_many(Heston.typical(), [dax, model_surface(HESTON, times=(0.5, 7.0))])
    assert good.status.converged
    assert bad.status is FitStatus.INACCURATE
    assert any("exact prices did not converge" in w for w in bad.warnings)
    assert bad.rmse_bp < 0.1


def test_no_surfaces_no_fits() -> None:
    assert calibrate_many(Heston.typical(), []) == []


def test_same_seed_same_digits(dax) -> None:
    first, again = (calibrate(Heston.typical(), dax, seed=7) for _ in range(2))
    assert first.params == again.params
    assert torch.equal(first.covariance, again.covariance)


def test_progress_rises_to_the_end(model_surface) -> None:
    told: list[tuple[int, int]] = []
    calibrate_many(Heston.typical(), [model_surface(HESTON)] * 2, progress=lambda *step: told.append(step))
    done = [d for d, _ in told]
    assert done == sorted(done)
    assert len({total for _, total in told}) == 1
    assert told[-1][0] == told[-1][1]
    assert len(told) > 5


def test_feller_penalty_moves_the_ratio_to_one(dax) -> None:
    def ratio(fit: Fit) -> float:
        p = fit.params
        return 2 * p["kappa"] * p["theta"] / p["sigma"] ** 2

    free = calibrate(Heston.typical(), dax)
    soft, hard = (calibrate(Heston.typical(), dax, penalties=[Feller(s)]) for s in (0.01, 10.0))
    assert ratio(free) < ratio(soft) < ratio(hard)
    assert ratio(hard) == pytest.approx(1.0, abs=0.01)
    assert free.rmse_bp < soft.rmse_bp < hard.rmse_bp


def test_prior_pulls_as_hard_as_it_is_sure(dax) -> None:
    free = calibrate(Heston.typical(), dax).params["kappa"]
    fits = [calibrate(Heston.typical(), dax, penalties=[Prior({"kappa": 2.0}, {"kappa": s})]) for s in (100, 0.5, 1e-4)]
    found = [fit.params["kappa"] for fit in fits]
    assert abs(found[0] - free) < 0.05 * free
    assert free > found[1] > found[2]
    assert found[2] == pytest.approx(2.0, abs=0.01)


def test_penalties_that_do_not_fit_the_model_are_refused(dax) -> None:
    with pytest.raises(InputError, match="Feller penalty needs a Heston model"):
        calibrate(template("merton"), dax, penalties=[Feller()])
    with pytest.raises(InputError, match=r"the prior names \['kapa'\]"):
        calibrate(Heston.typical(), dax, penalties=[Prior({"kapa": 1.0}, {"kapa": 1.0})])


def test_fixed_and_bounds_hold(dax) -> None:
    fit = calibrate(Heston.typical(), dax, fixed={"kappa": 3.0}, bounds={"sigma": (0.1, 0.4)})
    assert fit.params["kappa"] == 3.0
    assert fit.free == ("v0", "theta", "sigma", "rho")
    assert fit.jacobian.shape == (104, 4)
    assert fit.params["sigma"] == pytest.approx(0.4, abs=1e-3)
    assert fit.at_bounds == ("sigma", "rho")
    assert "at a bound: sigma, rho; widen the bound or fix the parameter" in fit.warnings


def test_fields_of_a_fit_are_consistent(heston_fit: Fit) -> None:
    fit, q = heston_fit, heston_fit.surface.quotes
    assert fit.status.converged
    exact = model_vols(fit.model, torch.tensor(fit.surface.slices["t"].to_numpy()),
                       torch.tensor(q["strike"].to_numpy()).reshape(5, 13), 100.0)  # fmt: skip
    np.testing.assert_allclose(fit.model_iv, exact.flatten(), atol=1e-9)
    np.testing.assert_allclose(fit.residual_bp, 1e4 * (fit.model_iv - q["iv"]))
    assert fit.rmse_bp == pytest.approx(np.sqrt(np.mean(fit.residual_bp**2)))
    assert fit.sse_vol_percent == pytest.approx(np.sum((fit.residual_bp / 100) ** 2))
    assert np.mean(fit.weight**2) == pytest.approx(1.0)
    table = fit.quotes
    inside = (fit.model_iv >= q["iv_bid"]) & (fit.model_iv <= q["iv_ask"])
    assert table["inside"].tolist() == inside.tolist()
    assert fit.inside_share == pytest.approx(inside.mean())
    assert fit.rmse_price == pytest.approx(np.sqrt(np.mean((table["model_price"] - q["mid"]) ** 2)))
    assert (q["bid"] <= table["model_price"])[inside].all()
    torch.testing.assert_close(fit.correlation.diagonal(), torch.ones(5, dtype=torch.float64))
    assert (fit.correlation.abs() <= 1 + 1e-12).all()
    assert fit.std_errors["rho"] == pytest.approx(float(fit.covariance[4, 4]) ** 0.5)
    assert 1 <= fit.starts_agreeing <= fit.starts == 8
    assert fit.iterations >= 1
    assert fit.seconds > 0


def test_quotes_without_a_market_are_not_inside_or_outside(model_surface) -> None:
    fit = calibrate(BlackScholes(0.2), model_surface(HESTON))
    assert fit.quotes["inside"].isna().all()
    assert np.isnan(fit.inside_share)


def test_jacobian_equals_bumps_of_exact_vols(heston_fit: Fit) -> None:
    fit = heston_fit
    t = torch.tensor(fit.surface.slices["t"].to_numpy())
    strike = torch.tensor(fit.surface.quotes["strike"].to_numpy()).reshape(5, 13)
    for i, name in enumerate(fit.free):
        bump = 1e-5 * abs(fit.params[name])
        up, down = (
            model_vols(fit.model.with_params({name: fit.model.params[name] + s * bump}), t, strike, 100.0)
            for s in (1, -1)
        )
        slope = ((up - down) / (2 * bump)).flatten()
        torch.testing.assert_close(fit.jacobian[:, i], slope, rtol=1e-3, atol=1e-4 * float(slope.abs().max()))


@pytest.mark.slow  # 300 fits, about 10 s
@pytest.mark.parametrize("weights", ["equal", "spread"])
def test_standard_errors_are_the_spread_of_refits(weights: str, model_surface) -> None:
    surfaces = [model_surface(HESTON, noise=0.003, half_spread=0.002, seed=s) for s in range(300)]
    fits = calibrate_many(Heston.typical(), surfaces, weights=weights)
    assert all(fit.status.converged for fit in fits)
    found = pd.DataFrame([fit.params for fit in fits])
    told = pd.DataFrame([fit.std_errors for fit in fits])
    np.testing.assert_allclose(told.median() / found.std(), 1.0, atol=0.3)
    np.testing.assert_allclose(found.mean(), list(HESTON.params.values()), rtol=0.1)
    np.testing.assert_allclose(fits[0].correlation, np.corrcoef(found.T), atol=0.25)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_too_few_quotes_are_fitted_with_a_warning(n: int) -> None:
    surface = Surface.from_vols(0.5, np.linspace(90, 110, n), np.linspace(0.25, 0.2, n), 100.0)
    fit = calibrate(Heston.typical(), surface)
    assert fit.rmse_bp < 5
    assert any("need more quotes than parameters" in w for w in fit.warnings)
    assert all(np.isnan(e) for e in fit.std_errors.values())
    assert set(fit.params) == set(HESTON.params)


def test_one_expiry_is_fitted(model_surface) -> None:
    fit = calibrate(Heston.typical(), model_surface(HESTON, times=(0.5,), strikes=21))
    assert fit.rmse_bp < 0.5
    assert np.isfinite(fit.model_iv).all()


def test_parameters_without_influence_have_no_standard_error(model_surface) -> None:
    def no_skew(q: pd.DataFrame) -> Any:  # five weighted quotes beside sixty without weight
        return (np.arange(len(q)) % 13 == 6).astype(float)

    fit = calibrate(Heston.typical(), model_surface(HESTON), weights=no_skew)
    assert any("60 quotes have weight 0" in w for w in fit.warnings)
    assert any("quotes in the fit: 5, parameters: 5" in w for w in fit.warnings)
    assert np.isfinite(fit.model_iv).all()


def test_the_iteration_limit_is_spoken_out(dax) -> None:
    fit = calibrate(Heston.typical(), dax, starts=1, max_iterations=1)
    assert fit.status is FitStatus.MAX_ITERATIONS
    assert not fit.status.converged
    assert "raise max_iterations" in fit.status.value
    assert fit.iterations == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "vega"}, "objective must be 'implied_vol' or 'price', got 'vega'"),
        ({"starts": 0}, "starts must be at least 1, got 0"),
        ({"max_iterations": 0}, "max_iterations must be at least 1, got 0"),
        ({"weights": "vega"}, "weights must be"),
        ({"weights": lambda q: np.full(len(q), np.nan)}, "finite numbers"),
        ({"fixed": ["kapa"]}, "no parameter 'kapa'"),
        ({"bounds": {"rho": (0.5, -0.5)}}, "low < high"),
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, Any], message: str, dax) -> None:
    with pytest.raises(InputError, match=message):
        calibrate(Heston.typical(), dax, **options)


def test_templates_with_batch_axes_are_refused(dax) -> None:
    with pytest.raises(InputError, match="without batch axes"):
        calibrate(HESTON.map(lambda p: p.expand(2)), dax)


def test_empty_surfaces_are_refused_by_name(dax) -> None:
    empty = replace(dax, quotes=dax.quotes.iloc[:0], underlying="DAX", quote_time="2002-07-05")
    with pytest.raises(QuoteError, match="DAX 2002-07-05: the surface has no quotes"):
        calibrate_many(Heston.typical(), [dax, empty])


def test_extreme_smiles_end_with_finite_numbers() -> None:
    strike = np.array([20.0, 60.0, 95.0, 100.0, 105.0, 180.0, 600.0])
    for vol in (4.0 - 0.004 * strike, np.full(7, 0.01), np.array([9.0, 0.1, 3.0, 0.2, 0.9, 0.05, 2.0])):
        surface = Surface.from_vols(np.repeat([0.003, 5.0], 7), np.tile(strike, 2), np.tile(vol, 2), 100.0)
        fit = calibrate(Heston.typical(), surface)
        assert np.isfinite(fit.model_iv).all()
        assert fit.status is not FitStatus.FAILED


def test_jump_sizes_may_be_fixed() -> None:
    """The batch of starts then moves the intensity alone among the parameters of the jumps."""
    surface = Surface.from_vols(0.5, [80.0, 90.0, 100.0, 110.0, 120.0], [0.26, 0.23, 0.2, 0.19, 0.19], forward=100.0)
    fit = calibrate(
        bates(0.04, 2.0, 0.05, 0.5, -0.6, 0.2, -0.1, 0.1), surface, fixed=("jump_mean", "jump_std"), starts=2
    )
    assert fit.params["jump_mean"] == -0.1
    assert np.isfinite(fit.rmse_bp)
