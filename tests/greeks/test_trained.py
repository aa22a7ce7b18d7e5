"""Sensitivities of a trained network to its quotes, and its Greeks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qsde.calibration.evaluation import judge
from qsde.calibration.training import TrainedFit, train
from qsde.calibration.training_start import neural_local_vol
from qsde.errors import InputError
from qsde.greeks import greeks
from qsde.greeks.quotes import quote_sensitivities
from qsde.market.black import black_vega
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models import GridLeverage, bates, leveraged
from qsde.noise import Threefry
from qsde.payoffs import Asian, Digital, European, FixedLookback
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import Fourier
from qsde.pricing.montecarlo import price

ENGINE = MonteCarlo(n_paths=1 << 12, max_dt=1 / 16, noise=Threefry(3))
FLAT = GridLeverage([0.0], [0.0], [[1.0]])


def skewed(shift: float | np.ndarray = 0.0) -> Surface:
    t, k = np.repeat([0.5, 1.0], 5), np.tile([80.0, 90.0, 100.0, 110.0, 120.0], 2)
    vol = 0.2 - 0.1 * np.log(k / 100) + shift
    return Surface.from_vols(t, k, vol, 100.0, 1.0, vol - 0.001, vol + 0.001, spot=100.0)


@pytest.fixture(scope="module")
def fit() -> TrainedFit:
    surface = skewed()
    return train(neural_local_vol(surface, FLAT, width=16), surface, engine=ENGINE, max_steps=8)


def moved(fit: TrainedFit, shift: np.ndarray):
    """The model after the step that follows a move of its quotes."""
    step = fit.training.response() @ torch.tensor(shift)
    params, at = {}, 0
    for name in fit.training.names:
        value = fit.model.params[name]
        params[name] = value + step[at : at + value.numel()].view_as(value)
        at += value.numel()
    return fit.model.with_params(params)


def test_the_model_follows_its_quotes(fit: TrainedFit) -> None:
    """All quotes up by 20 bp: so are the vols of the model, within the damping."""
    before, after = (judge(model, fit.surface, ENGINE).vol for model in (fit.model, moved(fit, np.full(10, 2e-3))))
    np.testing.assert_allclose(after - before, 2e-3, atol=5e-4)


def test_ladder_is_the_move_of_the_price(fit: TrainedFit) -> None:
    """Against prices of the moved model on the same paths."""
    book = [European(100.0, 1.0), FixedLookback(100.0, 1.0, monitoring=(0.25, 0.5, 0.75, 1.0))]
    found = quote_sensitivities(fit, book, engine=ENGINE, units="raw")
    shift = np.array([0, 0, 0, 0, 0, 1e-3, 2e-3, 2e-3, 1e-3, 0])
    up, down = (price(moved(fit, s), book, Market(100.0), ENGINE) for s in (shift, -shift))
    predicted = found.value @ torch.tensor(shift)
    error = found.std_error.norm(dim=-1) * float(np.linalg.norm(shift))
    assert bool(((up.value - down.value) / 2 - predicted).abs().max() < 4 * error.max())
    assert "training" in found.warnings[0]


def test_ladder_is_what_retraining_says() -> None:
    """Quotes of an expiry 30 bp up and down, each trained anew from the fit; one alone would drown in noise."""
    surface = skewed()
    fit = train(neural_local_vol(surface, FLAT, width=16), surface, engine=ENGINE, max_steps=8, weights="equal")
    book, h = [European(100.0, 1.0), FixedLookback(100.0, 1.0, monitoring=(0.25, 0.5, 0.75, 1.0))], 0.003
    ladder = quote_sensitivities(fit, book, engine=ENGINE, units="raw")
    late = np.arange(10) >= 5
    up, down = (
        price(
            train(fit.model, skewed(side * h * late), engine=ENGINE, max_steps=4, weights="equal").model,
            book, Market(100.0), ENGINE,
        ).value
        for side in (1, -1)
    )  # fmt: skip
    expected, error = ladder.value[:, late].sum(-1), ladder.std_error[:, late].norm(dim=-1)
    assert bool((((up - down) / (2 * h) - expected).abs() < 2 * error).all())
    assert bool((error < 0.15 * expected.abs()).all())


def test_vega_of_a_quoted_option_is_that_of_its_expiry(fit: TrainedFit) -> None:
    found = quote_sensitivities(fit, European(100.0, 1.0), engine=ENGINE, units="raw")
    vega = float(black_vega(100.0, 100.0, 1.0, torch.tensor(0.2)))
    at_expiry = float(found.value[0, 5:].sum())
    assert at_expiry == pytest.approx(vega, rel=0.15)
    assert float(found.value[0, :5].sum().abs()) < 0.15 * vega
    ladder = found.ladder()
    assert ladder is not None


def test_greeks_are_those_of_moved_spots(fit: TrainedFit) -> None:
    option = European(100.0, 1.0)
    found = greeks(fit.model, option, Market(100.0), ENGINE, which=["delta", "gamma"])
    down, here, up = (float(price(fit.model, option, Market(s), ENGINE).value) for s in (98.0, 100.0, 102.0))
    assert float(found["delta"]) == pytest.approx((up - down) / 4, abs=0.02)
    assert float(found["gamma"]) == pytest.approx((up - 2 * here + down) / 4, rel=0.15)


JUMPY = leveraged(bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.3, -0.1, 0.1), GridLeverage([0.5], [-0.2, 0.2], [[1.2, 0.9]]))


@pytest.mark.parametrize("t", [1 / 52, 1.0])
def test_greeks_with_jumps_around_a_leverage(t: float) -> None:
    """Moves of the spot are measured in deviations, which such a model has no formula for."""
    engine = replace(ENGINE, n_paths=1 << 13, max_dt=t / 8)
    book = [European(100.0, t), Asian(100.0, (0.5 * t, t))]
    found = greeks(JUMPY, book, Market(100.0), engine, which=["delta", "gamma"])
    h = 0.2 * 10 * t**0.5
    down, here, up = (price(JUMPY, book, Market(100.0 + s), engine).value for s in (-h, 0.0, h))
    for i in range(2):
        assert float(found["delta"][i]) == pytest.approx(float(up[i] - down[i]) / (2 * h), abs=0.03)
        assert float(found["gamma"][i]) == pytest.approx(float(up[i] - 2 * here[i] + down[i]) / h**2, rel=0.15)


def test_what_cannot_be_is_refused(fit: TrainedFit) -> None:
    with pytest.raises(InputError, match="no Fourier prices"):
        quote_sensitivities(fit, European(100.0, 1.0), engine=Fourier())
    with pytest.raises(InputError, match=r"no Greek 'vega'.*quote_sensitivities\(fit, payoffs\)"):
        greeks(fit.model, European(100.0, 1.0), Market(100.0), ENGINE, which=["vega"])
    with pytest.raises(InputError, match="Digital"):
        quote_sensitivities(fit, [Digital(100.0, 0.5), FixedLookback(100.0, 1.0)], engine=ENGINE)
