"""Judgement on fresh paths, quotes held out, and models compared."""

import numpy as np
import pytest
import torch

from qsde.calibration import calibrate
from qsde.calibration.evaluation import HeldOut, evaluate, exotic_book, judge
from qsde.calibration.local_vol import calibrate_local_vol
from qsde.calibration.lsv import calibrate_lsv
from qsde.errors import InputError
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models import BlackScholes, GridLeverage, Heston, LocalStochasticVol
from qsde.noise import Antithetic, Threefry
from qsde.pricing.engine import MonteCarlo

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.5, rho=-0.7)
ENGINE = MonteCarlo(n_paths=1 << 12, max_dt=1 / 32, noise=Antithetic(Threefry(4)))


@pytest.fixture(scope="module")
def surface(model_surface) -> Surface:
    return model_surface(HESTON, times=(0.25, 0.5, 1.0), strikes=9, width=2.0, half_spread=0.001)


def test_simulated_vols_are_those_of_fourier_within_their_errors(surface: Surface) -> None:
    flat = LocalStochasticVol(HESTON, GridLeverage([0.0], [0.0], [[1.0]], scale=0.2))
    exact, found = judge(HESTON, surface), judge(flat, surface, ENGINE)
    assert exact.simulation is None
    assert float(exact.std_error.max()) == 0
    np.testing.assert_allclose(exact.vol, surface.quotes["iv"], atol=1e-6)
    gap = np.abs(found.vol - exact.vol)
    assert float((gap / np.sqrt(found.std_error**2 + 2e-4**2)).max()) < 4  # 2 bp for the steps
    assert found.simulation is not None
    everything = np.ones(len(surface), dtype=bool)
    rmse, error = found.rmse_bp(surface.quotes["iv"].to_numpy(), everything)
    assert rmse < 12
    assert 0 < error < 5
    assert np.isnan(found.rmse_bp(surface.quotes["iv"].to_numpy(), ~everything)[0])


def test_held_out_quotes_are_inner_strikes_and_one_expiry(surface: Surface) -> None:
    held = HeldOut.of(surface, every=4, expiry=1)
    rows = surface.quotes["slice"].to_numpy()
    assert np.flatnonzero(held.expiry).tolist() == np.flatnonzero(rows == 1).tolist()
    assert not (held.strikes & held.expiry).any()
    ends = surface.quotes.groupby("slice")["strike"].agg(["idxmin", "idxmax"]).to_numpy().ravel()
    assert not held.strikes[ends].any()
    assert held.strikes.sum() == 4
    assert HeldOut.of(surface, expiry=None).expiry.sum() == 0
    for options in ({"every": 1}, {"expiry": 3}):
        with pytest.raises(InputError, match=next(iter(options))):
            HeldOut.of(surface, **options)


def test_models_that_fit_the_same_vanillas_are_compared(surface: Surface) -> None:
    fitters = {
        "Black-Scholes": lambda s, seed: calibrate(BlackScholes(0.2), s),
        "Heston": lambda s, seed: calibrate(Heston.typical(), s),
        "local vol": lambda s, seed: calibrate_local_vol(s),
    }
    found = evaluate(
        surface, fitters, held_out=HeldOut.of(surface, every=4, expiry=1), seeds=(0, 1), engine=ENGINE,
        exotics=exotic_book(100.0, 1.0), market=Market(100.0),
        pricing=MonteCarlo(n_paths=1 << 11, max_dt=1 / 32),
    )  # fmt: skip
    models = found.models.set_index("model")
    assert len(models.loc["local vol"]) == 2  # one row for each seed, one only where nothing is simulated
    assert models.loc["Heston", "rmse_bp"] < 0.1
    assert models.loc["Heston", "held_expiry_bp"] < 0.1
    assert models.loc["Black-Scholes", "rmse_bp"] > 100
    assert models.loc["local vol", "held_strikes_bp"].max() < 25
    assert models.loc["Heston", "inside_share"] == 1
    values = found.exotics.pivot_table(index="payoff", columns="model", values="value")
    assert values.loc["forward-start call", "local vol"] != pytest.approx(
        values.loc["forward-start call", "Heston"], rel=1e-3
    )
    assert (found.spread["spread"] >= 0).all()
    assert len(found.spread) == 5


def test_leverage_by_particles_as_a_fit(surface: Surface) -> None:
    backbone = HESTON.with_params({"sigma": torch.tensor(0.3, dtype=torch.float64)})
    fit = calibrate_lsv(surface, backbone=backbone, engine=MonteCarlo(n_paths=1 << 12, max_dt=1 / 50))
    assert fit.model.name == "LocalHeston"
    assert fit.simulation is not None
    assert fit.rmse_bp < 40
    assert fit.params["sigma"] == pytest.approx(0.3)


def test_nothing_to_compare_is_refused(surface: Surface) -> None:
    with pytest.raises(InputError, match="at least one model"):
        evaluate(surface, {})
    with pytest.raises(InputError, match="exotics need a market"):
        evaluate(surface, {"x": lambda s, seed: calibrate(BlackScholes(0.2), s)}, exotics=exotic_book(100.0, 1.0))
