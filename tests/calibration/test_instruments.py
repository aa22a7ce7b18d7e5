"""Calibration to priced contracts of any kind: known parameters come back, and wrong requests are told what to do."""

from typing import Any

import numpy as np
import pytest
import torch

from qsde.calibration import Instrument, InstrumentFit, Prior, calibrate
from qsde.errors import InputError
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, JumpDiffusion, MertonJumps
from qsde.noise import Threefry
from qsde.payoffs import Asian, Barrier, Digital, European, Payoff, VarianceSwap
from qsde.pricing.fourier import Fourier, price_european
from qsde.pricing.montecarlo import MonteCarlo, price

MARKET = Market(100.0, rate=0.03, dividend_yield=0.01)
HESTON = Heston(v0=0.04, kappa=2.0, theta=0.06, sigma=0.5, rho=-0.6)
ENGINE = MonteCarlo(n_paths=1 << 12, max_dt=1 / 12)
EXOTICS = (
    *(Asian(strike, fixings=(0.125, 0.25, 0.375, 0.5), kind=kind) for strike, kind in ((95.0, "put"), (105.0, "call"))),
    *(Barrier(100.0, barrier, 0.5, style="down-and-out") for barrier in (80.0, 90.0)),
    *(VarianceSwap(0.05, tuple(t * i / 6 for i in range(7)), notional=100.0) for t in (0.5, 1.0)),
    *(European(strike, 1.0, "put" if strike < 100 else "call") for strike in (75.0, 100.0, 125.0)),
)


def quoted(model: Any, payoffs: tuple[Payoff, ...], engine: MonteCarlo, uncertainty: float = 0.01) -> list[Instrument]:
    """The payoffs at the model's own prices, from other random numbers and more of them."""
    sure = MonteCarlo(n_paths=1 << 15, max_dt=engine.max_dt, noise=Threefry(12345))
    estimate = price(model, payoffs, MARKET, sure)
    errors = (2 * estimate.std_error).clamp(min=uncertainty)
    terms = zip(payoffs, estimate.value.tolist(), errors.tolist(), strict=True)
    return [Instrument(payoff, price=value, uncertainty=error) for payoff, value, error in terms]


@pytest.fixture(scope="module")
def exotic_fit() -> InstrumentFit:
    instruments = quoted(HESTON, EXOTICS, ENGINE)
    return calibrate(Heston.typical(), instruments, market=MARKET, engine=ENGINE, fixed={"kappa": 2.0}, starts=2)


def test_asians_barriers_and_variance_swaps_give_the_parameters_back(exotic_fit: InstrumentFit) -> None:
    fit = exotic_fit
    assert fit.status.converged, fit.status
    assert fit.free == ("v0", "theta", "sigma", "rho")
    for name, error in fit.std_errors.items():
        assert 0 < error < 0.3 * abs(float(HESTON.params[name])), name
        assert abs(fit.params[name] - float(HESTON.params[name])) < 3.5 * error, name


def test_what_a_fit_says_of_its_instruments(exotic_fit: InstrumentFit) -> None:
    fit, table = exotic_fit, exotic_fit.quotes
    assert list(table["payoff"]) == [payoff.name for payoff in EXOTICS]
    np.testing.assert_allclose(table["residual"], (table["model_price"] - table["target"]) / table["uncertainty"])
    assert fit.rmse == pytest.approx(float(np.sqrt(np.mean(table["residual"] ** 2))))
    estimate = price(fit.model, EXOTICS, MARKET, MonteCarlo(n_paths=1 << 14, max_dt=1 / 12, noise=Threefry(7)))
    error = np.sqrt(table["std_error"] ** 2 + estimate.std_error.numpy() ** 2)
    assert (np.abs(table["model_price"] - estimate.value.numpy()) < 5 * error + 1e-4).all()
    assert fit.simulation.sets == 8
    assert fit.jacobian.shape == (len(EXOTICS), 4)


def test_jacobian_of_vanillas_is_that_of_fourier(exotic_fit: InstrumentFit) -> None:
    fit = exotic_fit
    strikes, t = torch.tensor([75.0, 100.0, 125.0], dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    terms = strikes, t, MARKET.forward(t), MARKET.discount(t), strikes >= 100

    def prices(values: torch.Tensor) -> torch.Tensor:
        return price_european(fit.model.with_params(dict(zip(fit.free, values, strict=True))), *terms).value

    exact = torch.autograd.functional.jacobian(prices, torch.stack([fit.model.params[n] for n in fit.free]))
    gap = (fit.jacobian[-3:] - exact).norm(dim=0) / exact.norm(dim=0)
    assert (gap < 0.15).all(), gap


def test_implied_vols_of_europeans() -> None:
    vols = [Instrument(European(k, 0.5), implied_vol=0.25, uncertainty=0.01) for k in (90.0, 110.0)]
    fit = calibrate(BlackScholes(0.4), vols, market=MARKET, engine=MonteCarlo(n_paths=1 << 12))
    noise = float(fit.simulation.covariance.sqrt())
    assert abs(fit.params["vol"] - 0.25) < 4 * noise
    assert fit.std_errors["vol"] ** 2 == pytest.approx(0.01**2 / 2 + noise**2, rel=0.1)


def test_payoffs_that_jump() -> None:
    digitals = [Digital(k, 0.5, cash=10.0) for k in (85.0, 115.0)]
    truth = BlackScholes(0.25)
    instruments = quoted(truth, tuple(digitals), ENGINE, uncertainty=0.05)
    fit = calibrate(BlackScholes(0.4), instruments, market=MARKET, engine=MonteCarlo(n_paths=1 << 12))
    assert fit.status.converged
    assert abs(fit.params["vol"] - 0.25) < 4 * fit.std_errors["vol"]


def test_jump_intensities() -> None:
    truth = JumpDiffusion(BlackScholes(0.15), MertonJumps(intensity=0.8, mean=-0.15, std=0.1))
    strikes = (70.0, 80.0, 90.0, 100.0, 110.0)
    payoffs = tuple(European(k, t, "put" if k < 100 else "call") for k in strikes for t in (0.5, 1.0))
    instruments = quoted(truth, payoffs, ENGINE, uncertainty=0.02)
    start = JumpDiffusion(BlackScholes(0.2), MertonJumps(intensity=0.4, mean=-0.15, std=0.1))
    held = ("jump_mean", "jump_std")
    fit = calibrate(start, instruments, market=MARKET, engine=ENGINE, fixed=held, starts=1)
    assert fit.status.converged
    for name, error in fit.std_errors.items():
        assert abs(fit.params[name] - float(truth.params[name])) < 4 * error, name


def test_a_prior_weighs_as_in_other_calibrations() -> None:
    vols = [Instrument(European(100.0, 0.5), implied_vol=0.25)]
    prior = Prior({"vol": 0.35}, {"vol": 0.005}, noise=0.005)  # as sure of 0.35 as the quote is of 0.25
    fit = calibrate(BlackScholes(0.2), vols, market=MARKET, engine=ENGINE, penalties=[prior])
    assert fit.params["vol"] == pytest.approx(0.30, abs=0.005)


def test_too_few_instruments_are_told() -> None:
    one = [Instrument(European(100.0, 0.5), implied_vol=0.25)]
    engine = MonteCarlo(n_paths=1 << 10, max_dt=0.25)
    fit = calibrate(HESTON, one, market=MARKET, engine=engine, fixed=("kappa", "sigma", "rho"), starts=1)
    assert any("standard errors are not available" in warning for warning in fit.warnings)
    assert all(np.isnan(error) for error in fit.std_errors.values())


VANILLA = European(100.0, 1.0)


@pytest.mark.parametrize(
    ("payoff", "values", "message"),
    [
        (VANILLA, {}, "either its price or its implied_vol"),
        (VANILLA, {"price": 5.0, "implied_vol": 0.2}, "either its price or its implied_vol"),
        (VANILLA, {"price": 5.0}, "give the uncertainty of its price"),
        (VANILLA, {"price": -1.0, "uncertainty": 0.1}, "price is -1.0, and an option is worth 0 or more"),
        (VANILLA, {"price": float("nan"), "uncertainty": 0.1}, "price must be finite, got nan"),
        (VANILLA, {"price": 1.0, "uncertainty": 0.0}, "uncertainty must be positive and finite, got 0.0"),
        (VANILLA, {"implied_vol": -0.2}, "implied_vol must be positive and finite, got -0.2"),
        (EXOTICS[0], {"implied_vol": 0.2}, "only a European has an implied_vol"),
        (
            "call",
            {"price": 1.0, "uncertainty": 0.1},
            "payoff must be a Payoff of qsde.payoffs, without early exercise, got str",
        ),
    ],
)
def test_bad_instruments(payoff: Any, values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Instrument(payoff, **values)


@pytest.mark.parametrize(
    ("instrument", "message"),
    [
        (Instrument(European(3000.0, 1.0), implied_vol=0.2), r"European.*because its strike is far from the forward"),
        (Instrument(European(100.0, 1.0), price=8.0, uncertainty=1e-300), "nothing beside a spot of 100"),
    ],
)
def test_instruments_that_would_outweigh_all_others(instrument: Instrument, message: str) -> None:
    sound = Instrument(European(100.0, 1.0), implied_vol=0.25)
    with pytest.raises(InputError, match=message):
        calibrate(BlackScholes(0.2), [sound, instrument], market=MARKET, engine=ENGINE)


def test_a_swap_may_be_worth_less_than_nothing() -> None:
    assert Instrument(EXOTICS[4], price=-0.3, uncertainty=0.1).target(MARKET) == (-0.3, 0.1)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ([], {"market": MARKET}, "there are no instruments"),
        ([VANILLA], {"market": MARKET}, r"instruments\[0\] must be an Instrument"),
        ([Instrument(VANILLA, implied_vol=0.2)], {}, "instruments need a market"),
        ([Instrument(VANILLA, implied_vol=0.2)], {"market": MARKET, "engine": Fourier()}, "priced by simulation"),
        ([Instrument(VANILLA, implied_vol=0.2)], {"market": MARKET, "weights": "equal"}, "their own uncertainty"),
        ([Instrument(VANILLA, implied_vol=0.2)], {"market": MARKET, "objective": "price"}, "their own uncertainty"),
        ([Instrument(VANILLA, implied_vol=0.2)], {"market": MARKET, "engine": 3}, "engine must be Fourier"),
    ],
)
def test_bad_requests(target: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibrate(BlackScholes(0.2), target, **options)


def test_surfaces_and_instruments_agree() -> None:
    """The same vanillas as a surface and as instruments give the same parameters within the noise."""
    strikes, vols = np.array([90.0, 100.0, 110.0]), np.array([0.24, 0.22, 0.21])
    market = Market(100.0)
    instruments = [Instrument(European(k, 0.5), implied_vol=v) for k, v in zip(strikes, vols, strict=True)]
    fit = calibrate(BlackScholes(0.3), instruments, market=market, engine=ENGINE)
    other = calibrate(BlackScholes(0.3), Surface.from_vols(0.5, strikes, vols, 100.0), engine=ENGINE)
    assert fit.params["vol"] == pytest.approx(other.params["vol"], abs=4e-4)
