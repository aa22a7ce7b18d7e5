"""Volatility as a free function of a factor: where it starts, martingales, gradients, training."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from qsde.calibration import neural_sv, train
from qsde.errors import InputError, ParameterError
from qsde.greeks import greeks
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models import BlackScholes, GridLeverage, Heston, JumpDiffusion, MertonJumps, NeuralStochasticVol
from qsde.noise import Sobol, Threefry
from qsde.payoffs import Barrier, European
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import model_vols, price_european
from qsde.pricing.montecarlo import price
from qsde.schemes import FreeVolatility, scheme_for

LEVEL = GridLeverage([0.0, 1.0], [0.0], [[0.2], [0.3]])


def model(seed: int = 0, size: float = 0.0, amplitude: float = 0.5) -> NeuralStochasticVol:
    """A model at its start, or with all weights moved at random."""
    start = NeuralStochasticVol.initialised(3.0, amplitude, -0.7, LEVEL, shortest=0.1, longest=2.0, width=16, seed=seed)
    source = torch.Generator().manual_seed(seed)
    moved = {n: w + size * torch.randn(w.shape, generator=source, dtype=w.dtype) for n, w in start.params.items()}
    return start.with_params({n: w for n, w in moved.items() if n.startswith("network.")})


def test_without_amplitude_it_is_black_scholes_with_its_level() -> None:
    """The variance between 0 and 1 of a volatility that rises from 0.2 to 0.3 is the integral of its square."""
    found = price(
        model(amplitude=1e-3), European(100.0, 1.0, "call"), Market(100.0), MonteCarlo(1 << 14, 1 / 64, noise=Sobol(1))
    )
    vol = math.sqrt((0.3**3 - 0.2**3) / 0.3)
    assert abs(float(found.value - price_european(BlackScholes(vol), 100.0, 1.0, 100.0).value)) < 0.06


def test_gradients_are_those_of_differences() -> None:
    engine = MonteCarlo(n_paths=1 << 10, max_dt=1 / 8, noise=Threefry(3), control_variate=False)
    some = model(1, 0.3)

    def value(outer: Tensor) -> Tensor:
        return price(
            some.with_params({"network.outer": outer}), European(95.0, 1.0, "put"), Market(100.0), engine
        ).value

    outer = some.params["network.outer"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(outer), outer)
    direction = torch.linspace(-1, 1, outer.numel(), dtype=torch.float64).view_as(outer)
    with torch.no_grad():
        difference = float(value(outer + 1e-6 * direction) - value(outer - 1e-6 * direction)) / 2e-6
    assert float((slope * direction).sum()) == pytest.approx(difference, rel=1e-3)


def test_volatility_is_bounded_and_correlation_inside() -> None:
    t, y = torch.tensor([0.01, 0.5, 3.0]).double(), torch.linspace(-1e6, 1e6, 101).double().expand(3, -1)
    vol, _, diffusion, rho = model(3, 5.0).functions(t, y)
    assert bool((vol > 0.2 * math.exp(-2.6)).all())
    assert bool((vol < 0.3 * math.exp(2.6)).all())
    assert bool((diffusion > 0).all())
    assert bool((rho.abs() < 1).all())


def test_it_takes_jumps_and_barriers() -> None:
    jumpy = JumpDiffusion(model(1, 0.3), MertonJumps(0.5, -0.1, 0.1))  # type: ignore[arg-type]
    barrier = Barrier(strike=100.0, barrier=80.0, expiry=1.0, style="down-and-out")
    out, whole = price(jumpy, [barrier, European(100.0, 1.0, "call")], Market(100.0), MonteCarlo(1 << 10, 1 / 16)).value
    assert 0 < float(out) < float(whole)


def test_training_fits_heston_from_a_start_that_is_not() -> None:
    truth, expiries, strikes = Heston(0.04, 1.5, 0.05, 0.5, -0.7), (0.25, 0.5, 1.0), 7
    t = np.repeat(expiries, strikes)
    k = np.exp(np.tile(np.linspace(-1.5, 1.2, strikes), len(expiries)) * 0.2 * np.sqrt(t))
    vol = np.concatenate([model_vols(truth, torch.tensor(x), torch.tensor(k[t == x]), 1.0).flatten() for x in expiries])
    surface = Surface.from_vols(t, k, vol, 1.0, 1.0, vol - 0.0005, vol + 0.0005)
    engine = MonteCarlo(n_paths=1 << 11, max_dt=1 / 16, noise=Sobol(0, scrambles=4))
    fit = train(neural_sv(surface, truth, width=16), surface, engine=engine, max_steps=6)
    assert fit.rmse_bp < 0.2 * fit.training.rounds[0].rmse_bp


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="one column"):
        NeuralStochasticVol.initialised(3.0, 0.5, -0.7, GridLeverage([0.0], [0.0, 1.0], [[1.0, 1.0]]), 0.1, 2.0)
    with pytest.raises(ParameterError, match="amplitude"):
        NeuralStochasticVol.initialised(3.0, -0.5, -0.7, LEVEL, 0.1, 2.0)
    with pytest.raises(InputError, match="weights must be"):
        NeuralStochasticVol(3.0, 0.5, -0.7, LEVEL, {}, 0.1, 2.0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="FreeVolatility steps"):
        FreeVolatility().check(BlackScholes(0.2))
    assert scheme_for(model()) == FreeVolatility()


def test_batches_of_the_numbers_share_the_network() -> None:
    """Barriers too, which look at the variance between the dates."""
    engine, some = MonteCarlo(1 << 10, 1 / 8), model(1, 0.3)
    book = [European(100.0, 1.0, "call"), Barrier(strike=100.0, barrier=80.0, expiry=1.0, style="down-and-out")]
    numbers = {
        name: torch.tensor(values, dtype=torch.float64)
        for name, values in {"speed": [2.0, 3.0, 4.0], "amplitude": [0.3, 0.5, 0.7], "rho": [-0.9, -0.7, 0.2]}.items()
    }
    together = price(some.with_params(numbers), book, Market(100.0), engine).value
    for i in range(3):
        alone = price(some.with_params({n: v[i] for n, v in numbers.items()}), book, Market(100.0), engine).value
        assert torch.allclose(together[i], alone, rtol=1e-12)


def test_several_networks_are_refused() -> None:
    many = model().with_params({n: w.expand(2, *w.shape) for n, w in model().params.items() if n.startswith("network")})
    with pytest.raises(InputError, match=r"got batch axes \[2\] in its weights.*one by one"):
        price(many, European(100.0, 1.0, "call"), Market(100.0), MonteCarlo(1 << 10, 1 / 8))


def test_greeks_are_those_of_moved_inputs() -> None:
    engine, some, option = MonteCarlo(1 << 12, 1 / 8, noise=Threefry(3)), model(1, 0.3), European(100.0, 1.0, "call")
    found = greeks(some, option, Market(100.0, rate=0.02), engine, which=["delta", "gamma", "theta", "d_amplitude"])

    def value(spot: float = 100.0, amplitude: float = 0.5) -> float:
        moved = some.with_params({"amplitude": torch.tensor(amplitude, dtype=torch.float64)})
        return float(price(moved, option, Market(spot, rate=0.02), engine).value)

    down, here, up = value(99.0), value(), value(101.0)
    assert float(found["delta"]) == pytest.approx((up - down) / 2, abs=0.01)
    assert float(found["gamma"]) == pytest.approx(up - 2 * here + down, rel=0.15)
    assert float(found["d_amplitude"]) == pytest.approx(
        (value(amplitude=0.51) - value(amplitude=0.49)) / 0.02, rel=0.05
    )
    assert float(found["theta"]) < 0
