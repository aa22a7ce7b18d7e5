"""Calibration by Monte Carlo: the Fourier fit comes back, known parameters do, and the stated errors are honest."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from qsde.calibration import Feller, Fit, Prior, calibrate
from qsde.calibration.objective import Data, Objective
from qsde.calibration.ramp import fresh
from qsde.calibration.simulated_surface import SimulatedObjective
from qsde.calibration.space import Space
from qsde.errors import InputError, QuoteError
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models import SDE, BlackScholes, Heston, JumpDiffusion, KouJumps, MertonJumps
from qsde.noise import Antithetic, Noise, Sobol, Threefry
from qsde.pricing.fourier import Fourier, model_vols
from qsde.pricing.montecarlo import MonteCarlo

HESTON = Heston(v0=0.04, kappa=2.0, theta=0.06, sigma=0.5, rho=-0.6)
BATES = JumpDiffusion(HESTON, MertonJumps(intensity=0.6, mean=-0.12, std=0.1))
MODELS = {
    "black_scholes": BlackScholes(0.23),
    "heston": HESTON,
    "bates": BATES,
    "kou": JumpDiffusion(BlackScholes(0.15), KouJumps(intensity=2.0, p_up=0.3, eta_up=25.0, eta_down=12.0)),
}
TIMES = (0.25, 0.5, 1.0)
ENGINE = MonteCarlo(n_paths=1 << 12, max_dt=1 / 24)


def noise_errors(fit: Any) -> dict[str, float]:
    """Standard error of each parameter by the paths alone."""
    return dict(zip(fit.free, fit.simulation.covariance.diagonal().sqrt().tolist(), strict=True))


def exact_rmse_bp(fit: Fit) -> float:
    """Error of the fitted model by Fourier prices."""
    q = fit.surface.quotes
    t, strike, forward = (torch.tensor(q[c].to_numpy()).unsqueeze(-1) for c in ("t", "strike", "forward"))
    vol = model_vols(fit.model, t.squeeze(-1), strike, forward.squeeze(-1)).squeeze(-1)
    return float(np.sqrt(np.mean((1e4 * (vol.numpy() - q["iv"].to_numpy())) ** 2)))


@pytest.fixture(scope="module")
def heston_fit(model_surface) -> Fit:
    surface = model_surface(HESTON, times=TIMES, strikes=9, width=2.0)
    return calibrate(Heston.typical(), surface, engine=ENGINE, starts=3)


@pytest.mark.parametrize(("name", "conditional"), [*((name, True) for name in MODELS), ("heston", False)])
def test_prices_and_derivatives_are_those_of_fourier(name: str, conditional: bool, model_surface) -> None:
    model = MODELS[name]
    data = Data.of([model_surface(model, times=(0.3, 1.0), strikes=7, width=2.0)], "equal")
    space = Space.of(model, None, ())
    engine = MonteCarlo(n_paths=1 << 12, max_dt=1 / 24, conditional=conditional)
    p = torch.stack(list(model.params.values()))
    exact, exact_slope = Objective(data, space, (), True, 256).prices(p[None, None], torch.arange(1))
    samples = [
        SimulatedObjective(data, space, (), True, e).prices(p[None, None], torch.arange(1)) for e in fresh(engine)
    ]
    for i, known in enumerate((exact, exact_slope)):
        found = torch.stack([sample[i] for sample in samples])
        error = found.std(0) / len(found) ** 0.5
        size = known.abs().amax((0, 1, 2, 3) if i else None)
        assert bool(((found.mean(0) - known).abs() <= 5 * error + 0.004 * size).all()), i
        assert bool((error <= 0.1 * size).all())


def test_parameter_sets_share_the_noise(model_surface) -> None:
    """A set priced with others has the digits it has alone; an SDE without batch axes is priced set by set."""
    data = Data.of([model_surface(HESTON, times=(0.3, 1.0), strikes=5)], "equal")
    objective = SimulatedObjective(data, Space.of(HESTON, None, ()), (), True, replace(ENGINE, n_paths=1 << 10))
    p = torch.stack([torch.stack(list(m.params.values())) for m in (HESTON, Heston.typical())])
    together, _ = objective.prices(p.unsqueeze(0), torch.arange(1))
    for i in range(2):
        torch.testing.assert_close(together[0, i], objective.values(p[i]), rtol=1e-12, atol=1e-14)


def test_many_quotes_cost_one_path_set(model_surface) -> None:
    """Strikes are worked on in pieces, and the pieces do not matter."""
    surface = model_surface(HESTON, times=(1.0,), strikes=301)
    every = SimulatedObjective(Data.of([surface], "equal"), Space.of(HESTON, None, ()), (), True, ENGINE)
    few = surface.select(np.arange(301) % 60 == 0)
    some = SimulatedObjective(Data.of([few], "equal"), Space.of(HESTON, None, ()), (), True, ENGINE)
    p = torch.stack(list(HESTON.params.values()))
    torch.testing.assert_close(every.values(p)[0, ::60], some.values(p)[0], rtol=1e-12, atol=1e-15)


def test_heston_comes_back_within_the_noise(heston_fit: Fit) -> None:
    fit = heston_fit
    assert fit.status.converged, fit.status
    error = noise_errors(fit)
    for name, value in HESTON.params.items():
        assert abs(fit.params[name] - float(value)) < 4 * error[name], name
    assert fit.rmse_bp < 15
    assert max(error["v0"], error["theta"]) < 2e-3
    assert set(fit.std_errors) == set(HESTON.params)


def test_reported_error_is_that_of_exact_prices(heston_fit: Fit) -> None:
    check = heston_fit.simulation
    assert check is not None
    assert abs(check.rmse - exact_rmse_bp(heston_fit)) < 4 * check.rmse_error + 1.5
    assert check.n_paths == ENGINE.n_paths
    assert (check.quote_error > 0).all()
    market = heston_fit.surface.quotes["iv"].to_numpy()
    assert np.sqrt(np.mean((1e4 * (heston_fit.model_iv - market)) ** 2)) == pytest.approx(heston_fit.rmse_bp)


def test_jacobian_is_that_of_fourier(heston_fit: Fit) -> None:
    space = Space.of(HESTON, None, ())
    objective = Objective(Data.of([heston_fit.surface], "equal"), space, (), True, 256)
    p = torch.tensor([[list(heston_fit.params.values())]], dtype=torch.float64)
    _, exact, _ = objective.vols(p)
    exact = exact[0, 0].flatten(0, 1)
    gap = (heston_fit.jacobian - exact).norm(dim=0) / exact.norm(dim=0)
    assert (gap < 0.12).all(), gap


def test_same_noise_same_digits(model_surface) -> None:
    surface = model_surface(BlackScholes(0.2), times=(0.5,), strikes=5)
    engine = MonteCarlo(n_paths=1 << 11)
    one, two = (calibrate(BlackScholes(0.3), surface, engine=engine) for _ in range(2))
    other = calibrate(BlackScholes(0.3), surface, engine=replace(engine, noise=Threefry(77)))
    assert one.params == two.params
    assert one.simulation.rmse == two.simulation.rmse
    assert one.params != other.params


@pytest.mark.parametrize("noise", [Antithetic(Threefry(3)), Sobol(3, scrambles=4)])
def test_any_noise_with_a_seed(noise: Noise, model_surface) -> None:
    surface = model_surface(BlackScholes(0.2), times=(0.5,), strikes=7)
    fit = calibrate(BlackScholes(0.3), surface, engine=MonteCarlo(n_paths=1 << 10, noise=noise))
    assert fit.status.converged
    assert abs(fit.params["vol"] - 0.2) < 4 * noise_errors(fit)["vol"]


def test_stated_noise_is_the_spread_over_seeds(model_surface) -> None:
    surface = model_surface(BlackScholes(0.2), times=(0.5, 1.0), strikes=5, width=1.5)
    fits = [
        calibrate(BlackScholes(0.25), surface, engine=MonteCarlo(n_paths=1 << 10, noise=Threefry(100 * i)))
        for i in range(8)
    ]
    spread = np.std([fit.params["vol"] for fit in fits], ddof=1)
    stated = np.mean([noise_errors(fit)["vol"] for fit in fits])
    assert 0.5 < stated / spread < 2
    assert all("raise n_paths" in " ".join(fit.warnings) for fit in fits)


def test_time_steps_that_are_too_long_are_told(model_surface) -> None:
    truth = Heston(v0=0.04, kappa=3.0, theta=0.06, sigma=1.2, rho=-0.7)
    surface = model_surface(truth, times=(0.5, 1.0), strikes=9, width=2.0, noise=0.001)
    engine = MonteCarlo(n_paths=1 << 12, max_dt=0.5)
    fit = calibrate(truth, surface, engine=engine, starts=1)
    assert any("lower max_dt" in warning for warning in fit.warnings)
    shift = dict(zip(fit.free, fit.simulation.step_shift.tolist(), strict=True))
    exact = calibrate(truth, surface, starts=1)
    assert shift["sigma"] * (exact.params["sigma"] - fit.params["sigma"]) > 0


def test_bates_with_its_intensity(model_surface) -> None:
    surface = model_surface(BATES, times=(0.25, 0.75), strikes=11, width=2.5)
    held = {name: float(BATES.params[name]) for name in ("kappa", "theta", "sigma", "rho")}
    start = JumpDiffusion(HESTON, MertonJumps(intensity=0.3, mean=-0.06, std=0.15))
    engine = MonteCarlo(n_paths=1 << 12, max_dt=1 / 16)
    fit = calibrate(start, surface, engine=engine, fixed=held, starts=1)
    assert fit.status.converged, fit.status
    error = noise_errors(fit)
    for name in fit.free:
        assert abs(fit.params[name] - float(BATES.params[name])) < 4 * error[name], name
    assert fit.simulation.rmse < 25


def test_penalties_bounds_and_fixed_parameters(model_surface) -> None:
    surface = model_surface(HESTON, times=(0.5, 1.0), strikes=7)
    engine = MonteCarlo(n_paths=1 << 10, max_dt=1 / 8)
    prior = Prior({"v0": 0.09}, {"v0": 1e-5}, noise=0.01)
    fit = calibrate(
        HESTON, surface, engine=engine, starts=1, fixed=("kappa", "theta"), bounds={"rho": (-0.5, 0.0)},
        penalties=(prior, Feller(1e-4)),
    )  # fmt: skip
    assert fit.free == ("v0", "sigma", "rho")
    assert fit.params["kappa"] == 2.0
    assert fit.params["v0"] == pytest.approx(0.09, rel=1e-2)
    assert -0.5 < fit.params["rho"] < 0
    assert "rho" in fit.at_bounds
    assert fit.penalties == (prior, Feller(1e-4))


def test_price_objective(model_surface) -> None:
    surface = model_surface(HESTON, times=(0.5, 1.0), strikes=7, width=1.5)
    fit = calibrate(HESTON, surface, engine=ENGINE, objective="price", starts=1)
    assert fit.status.converged
    error = noise_errors(fit)
    assert all(abs(fit.params[name] - float(value)) < 4 * error[name] for name, value in HESTON.params.items())


def time_dependent_vol(level: float, slope: float) -> SDE:
    """Black-Scholes with volatility `level + slope t`, as a user would write it."""

    def vol(t, y, p):
        return (p["level"] + p["slope"] * t) * torch.ones_like(y)

    return SDE(
        drift=lambda t, y, p: -0.5 * vol(t, y, p) ** 2, diffusion=vol, initial=[0.0],
        parameters={"level": level, "slope": slope}, martingale=True,
    )  # fmt: skip


def test_an_sde_without_characteristic_function() -> None:
    level, slope = 0.2, 0.1
    t = np.repeat([0.5, 1.0], 5)
    vol = np.sqrt(level**2 + level * slope * t + slope**2 * t**2 / 3)
    surface = Surface.from_vols(t, np.tile([85, 92, 100, 108, 117], 2), vol, 100.0)
    bounds = {"level": (0.05, 0.6), "slope": (-0.04, 0.5)}
    engine = MonteCarlo(n_paths=1 << 11, max_dt=1 / 16)
    fit = calibrate(time_dependent_vol(0.3, 0.0), surface, engine=engine, bounds=bounds, starts=1)
    assert fit.status.converged
    error = noise_errors(fit)
    assert abs(fit.params["level"] - level) < 4 * error["level"] + 0.001
    assert abs(fit.params["slope"] - slope) < 4 * error["slope"] + 0.002
    with pytest.raises(InputError, match=r"SDE says nothing of the size of level, slope: give bounds"):
        calibrate(time_dependent_vol(0.3, 0.0), surface, engine=engine)
    with pytest.raises(InputError, match=r"initial is a tensor of several numbers"):
        calibrate(time_dependent_vol(0.3, 0.0), surface, engine=engine, bounds={**bounds, "initial": (0.0, 1.0)})
    with pytest.raises(InputError, match=r"calibrate it by simulation: engine=MonteCarlo"):
        calibrate(time_dependent_vol(0.3, 0.0), surface, bounds=bounds)


def test_a_model_that_leaves_the_numbers_fails_without_a_raise(model_surface) -> None:
    surface = model_surface(BlackScholes(0.2), times=(0.5,), strikes=5)
    broken = SDE(
        drift=lambda t, y, p: p["a"] * torch.full_like(y, torch.nan), diffusion=lambda t, y, p: torch.ones_like(y),
        initial=[0.0], parameters={"a": 0.5},
    )  # fmt: skip
    fit = calibrate(broken, surface, engine=MonteCarlo(n_paths=1024), bounds={"a": (0.0, 1.0)})
    assert not fit.status.converged
    assert "failed" in fit.status


def test_progress_goes_up_to_the_end(model_surface) -> None:
    seen: list[tuple[int, int]] = []
    surface = model_surface(BlackScholes(0.2), times=(0.5,), strikes=5)
    calibrate(BlackScholes(0.3), surface, engine=MonteCarlo(n_paths=2048), progress=lambda *a: seen.append(a))
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (100, 100)


def test_bad_input(model_surface) -> None:
    surface = model_surface(BlackScholes(0.2), times=(0.5,), strikes=5)
    engine = MonteCarlo(n_paths=1024)
    with pytest.raises(InputError, match=r"engine must be Fourier.* or MonteCarlo.*got str"):
        calibrate(BlackScholes(0.2), surface, engine="montecarlo")  # type: ignore[call-overload]
    with pytest.raises(InputError, match=r"a surface brings its own forwards"):
        calibrate(BlackScholes(0.2), surface, engine=engine, market=Market(100.0))  # type: ignore[call-overload]
    with pytest.raises(InputError, match="starts must be at least 1"):
        calibrate(BlackScholes(0.2), surface, engine=engine, starts=0)
    with pytest.raises(InputError, match="objective must be"):
        calibrate(BlackScholes(0.2), surface, engine=engine, objective="vols")
    with pytest.raises(QuoteError, match="no quotes"):
        calibrate(BlackScholes(0.2), surface.select(np.zeros(5, dtype=bool)), engine=engine)
    with pytest.raises(InputError, match="single parameter set"):
        calibrate(BlackScholes(torch.tensor([0.2, 0.3])), surface, engine=engine)


def test_fourier_settings_are_those_of_the_exact_prices(model_surface) -> None:
    surface = model_surface(HESTON, times=(0.5,), strikes=7)
    fit = calibrate(Heston.typical(), surface, engine=Fourier(tolerance=1e-10))
    assert fit.simulation is None
    assert fit.params == calibrate(Heston.typical(), surface).params


def test_dax_agrees_with_the_fourier_fit(dax) -> None:
    """Mean reversion is 16 and sigma 3.4, so monthly steps leave an error; it stays well within the stated ones."""
    exact = calibrate(Heston.typical(), dax, weights="equal")
    fit = calibrate(Heston.typical(), dax, weights="equal", engine=MonteCarlo(n_paths=1 << 11), starts=1)
    assert fit.status.converged
    for name, value in exact.params.items():
        assert abs(fit.params[name] - value) < 3 * fit.std_errors[name], name
    assert fit.rmse_bp == pytest.approx(exact.rmse_bp, abs=12)


@pytest.mark.slow  # half a minute: steps short enough that noise is the only difference
def test_dax_agrees_with_the_fourier_fit_within_the_noise(dax) -> None:
    exact = calibrate(Heston.typical(), dax, weights="equal")
    engine = MonteCarlo(n_paths=1 << 13, max_dt=1 / 128)
    fit = calibrate(Heston.typical(), dax, weights="equal", engine=engine)
    assert fit.status.converged
    error = noise_errors(fit)
    for name, value in exact.params.items():
        assert abs(fit.params[name] - value) < 4 * error[name], name
    assert abs(fit.simulation.rmse - exact.rmse_bp) < 4 * fit.simulation.rmse_error


@pytest.mark.slow  # a quarter of a minute: the thin SPX surface with its bid/ask weights
def test_spx_agrees_with_the_fourier_fit(spx_thin) -> None:
    exact = calibrate(Heston.typical(), spx_thin)
    fit = calibrate(Heston.typical(), spx_thin, engine=MonteCarlo(n_paths=1 << 13, max_dt=1 / 64))
    assert fit.status.converged
    for name, value in exact.params.items():
        assert abs(fit.params[name] - value) < 3 * fit.std_errors[name], name
    assert fit.rmse_bp == pytest.approx(exact.rmse_bp, abs=8)
