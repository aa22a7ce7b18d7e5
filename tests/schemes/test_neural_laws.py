"""Laws of all models with a leverage or a network, in one table: martingales, bounds, arbitrage, where they start.

At any weights: those of the start, far from it, and absurd ones, where every unit is saturated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from qsde.calibration.training_grid import call_grid
from qsde.market.underlying import Market
from qsde.models import (
    BlackScholes,
    GridLeverage,
    Heston,
    JumpDiffusion,
    KouJumps,
    MertonJumps,
    Model,
    NeuralStochasticVol,
    bates,
    leveraged,
    merton,
    unleveraged,
)
from qsde.models.neural import NeuralLeverage
from qsde.noise import Threefry
from qsde.payoffs import Asian, European
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.montecarlo import price
from qsde.pricing.simulation import Simulation
from qsde.schemes import HestonTQ, LogEuler, WithJumps, scheme_for
from qsde.schemes.layers import layers

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.8, rho=-0.7)
UPWARD = Heston(v0=0.01, kappa=0.5, theta=0.04, sigma=1.5, rho=0.9)
STILL = Heston(v0=0.04, kappa=0.0, theta=0.05, sigma=1e-3, rho=-1.0)
BATES = bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.5, -0.1, 0.1)
BACKBONES: dict[str, Model] = {
    "local vol": BlackScholes(0.2),
    "local vol, Merton": merton(0.2, 0.5, -0.1, 0.1),
    "Heston": HESTON,
    "Heston, upward": UPWARD,
    "Heston, still": STILL,
    "Bates": BATES,
    "Heston, Kou": JumpDiffusion(HESTON, KouJumps(0.5, 0.3, 20.0, 6.0)),
}
LEVEL = GridLeverage([0.0, 1.0], [0.0], [[0.2], [0.3]])
NAMES = (*BACKBONES, "free", "free, Merton")
#: Deviations of the weights from the start.
START, FAR, ABSURD = 0.0, 0.7, 1e6


def moved(weights: dict[str, Tensor], size: float, seed: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {n: w + size * torch.randn(w.shape, generator=source, dtype=w.dtype) for n, w in weights.items()}


def built(name: str, size: float, seed: int = 0, shortest: float = 0.1, longest: float = 2.0) -> Model:
    """A model with its weights so far from the start."""
    if name not in BACKBONES:
        start = NeuralStochasticVol.initialised(3.0, 0.5, -0.7, LEVEL, shortest, longest, width=16, seed=seed)
        own = {n: w for n, w in start.params.items() if n.startswith("network.")}
        model = start.with_params(moved(own, size, seed))
        return JumpDiffusion(model, MertonJumps(0.5, -0.1, 0.1)) if name == "free, Merton" else model  # type: ignore[arg-type]
    leverage = NeuralLeverage.initialised(0.2, shortest, longest, width=16, seed=seed)
    return leveraged(BACKBONES[name], leverage.with_params(moved(leverage.params, size, seed)))


Z = torch.linspace(-60, 60, 24_001, dtype=torch.float64)
LOG_DENSITY = -0.5 * Z**2 - 0.5 * math.log(2 * math.pi) + math.log(float(Z[1] - Z[0]))


def log_mean(model: Model, x: float, second: float, dt: float, t: float) -> float:
    """`log E[exp(x' - x)]` of a step of the diffusion: the price's own normal in closed form, the other by quadrature.

    Given the other, the step is a quadratic of the price's normal.
    """
    model, _ = layers(model)
    scheme = scheme_for(model)
    c = scheme.coefficients(model, torch.tensor(dt).double(), torch.tensor(t).double()).unsqueeze(-1)
    state = tuple(torch.full_like(Z, s) for s in (x, second))[: len(scheme.initial(model))]
    if len(state) == 1:
        return float(torch.logsumexp(scheme.step(state, c, Z.unsqueeze(0), Z[:0])[0] - x + LOG_DENSITY, 0))
    here, up, down = (
        scheme.step(state, c, torch.stack([torch.full_like(Z, own), Z]), Z[:0])[0] - x for own in (0.0, 1.0, -1.0)
    )
    bend, slope = 0.5 * (up + down - 2 * here), 0.5 * (up - down)
    rest = 1 - 2 * bend
    return float(torch.logsumexp(here + 0.5 * slope**2 / rest - 0.5 * torch.log(rest) + LOG_DENSITY, 0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [START, FAR, ABSURD])
@pytest.mark.parametrize("dt", [1e-4, 0.01, 0.25, 2.0])
def test_every_step_is_a_martingale(name: str, size: float, dt: float) -> None:
    for seed in (0, 1):
        model = built(name, size, seed)
        for x, second in ((0.0, 0.04), (-0.6, 0.3), (0.4, 0.0)):
            assert abs(log_mean(model, x, second, dt, 0.3)) < 2e-7


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [START, FAR, ABSURD])
@pytest.mark.parametrize("dt", [1e-4, 0.01, 0.25, 2.0])
def test_single_precision_is_double_but_for_rounding(name: str, size: float, dt: float) -> None:
    """So the law of steps in float64 is that of steps in float32."""
    model, _ = layers(built(name, size))
    scheme = scheme_for(model)
    c = scheme.coefficients(model, torch.tensor(dt).double(), torch.tensor(0.3).double()).unsqueeze(-1)
    z = torch.randn(2, 4096, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = torch.stack([torch.full_like(z[0], -0.3), torch.full_like(z[0], 0.09)])[: len(scheme.initial(model))]
    normals = z[: len(start)]
    double, single = (
        scheme.step(tuple(start.to(d)), c.to(d), normals.to(d), normals[:0].to(d))[0].double()
        for d in (torch.float64, torch.float32)
    )
    assert bool(((double - single).abs() <= 2e-4 * (1 + double.abs())).all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("max_dt", [math.inf, 1 / 12, 1 / 100])
def test_forwards_are_kept_at_all_dates(name: str, dtype: torch.dtype, max_dt: float) -> None:
    """From the fewest steps to many, jumps and all."""
    engine = MonteCarlo(n_paths=1 << 13, max_dt=max_dt, noise=Threefry(5), dtype=dtype)
    growth = torch.exp(Simulation.of(built(name, FAR, 2), [0.1, 0.3, 0.6], engine).block(0).states[0].double())
    error = growth.std(-1) / math.sqrt(growth.shape[-1])
    assert bool(((growth.mean(-1) - 1).abs() < 4 * error).all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("expiry", [1 / 365, 30.0])
def test_volatility_is_bounded_and_paths_are_finite_at_absurd_weights(name: str, expiry: float) -> None:
    """Dates of a day and of thirty years."""
    model = built(name, ABSURD, 3, shortest=1 / 365, longest=30.0)
    inner, _ = layers(model)
    t = torch.tensor([0.0, 1e-6, 1 / 365, 1.0, 30.0, 1e3], dtype=torch.float64)
    far = torch.tensor([-1e300, -1e9, -1.0, 0.0, 1.0, 1e9, 1e300], dtype=torch.float64).expand(len(t), -1)
    cap, level = (2.5, 0.3) if isinstance(inner, NeuralStochasticVol) else (1.5, 1.0)
    vol = inner.functions(t, far)[0] if isinstance(inner, NeuralStochasticVol) else inner.leverage.at(t, far)  # type: ignore[attr-defined]
    assert bool((vol >= 0.2 / 0.3 * level * math.exp(-cap) * (1 - 1e-9)).all())
    assert bool((vol <= level * math.exp(cap) * (1 + 1e-9)).all())
    for dtype in (torch.float32, torch.float64):
        engine = MonteCarlo(n_paths=1 << 10, max_dt=expiry / 8, dtype=dtype)
        x = Simulation.of(model, [expiry], engine).block(0).states[0]
        assert bool(torch.isfinite(x).all())


@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_a_network_are_alike_on_short_and_long_dates(name: str) -> None:
    """Scaling time by 10,000 and distances by 100 changes nothing that the network sees but its first expiry."""
    inners = [layers(built(name, FAR, 1, shortest=s, longest=100 * s))[0] for s in (1 / 365, 10_000 / 365)]
    t = torch.tensor([1.0, 10.0, 90.0], dtype=torch.float64) / 365
    y = torch.linspace(-0.5, 0.5, 7, dtype=torch.float64).expand(3, -1)
    if isinstance(inners[0], NeuralStochasticVol):  # the level is a function of time, not of the network
        flat = [replace(m, level=GridLeverage([0.0], [0.0], [[0.2]])) for m in inners]  # type: ignore[type-var]
        seen = [m.functions(s, y)[0] for m, s in zip(flat, (t, 10_000 * t), strict=True)]  # type: ignore[attr-defined]
    else:
        seen = [m.leverage.at(s, w) for m, s, w in zip(inners, (t, 10_000 * t), (y, 100 * y), strict=True)]  # type: ignore[attr-defined]
    assert torch.allclose(seen[0], seen[1], rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [FAR, ABSURD])
def test_grid_of_calls_has_no_static_arbitrage(name: str, size: float) -> None:
    """50 dates and 50 strikes from one small set of paths."""
    k = torch.linspace(-1.0, 0.8, 50, dtype=torch.float64)
    times = np.linspace(0.04, 2.0, 50).tolist()
    calls = call_grid(built(name, size, 4), times, k, MonteCarlo(n_paths=1 << 10, max_dt=1 / 16))
    slope = calls.diff(dim=1) / torch.exp(k).diff()
    assert bool((calls.diff(dim=0) >= 0).all()), "calendar"
    assert bool(((slope <= 1e-12) & (slope >= -1 - 1e-12)).all()), "monotone"
    assert bool((slope.diff(dim=1) >= -1e-9).all()), "butterfly"


def _same_noise(name: str) -> MonteCarlo:
    """The scheme of the backbone that draws as that of the leverage does."""
    inner: dict[str, Callable[[], object]] = {"local vol": LogEuler, "local vol, Merton": LogEuler}
    scheme = inner.get(name, HestonTQ)()
    jumps = tuple(type(law) for law in layers(BACKBONES[name])[1])
    return MonteCarlo(
        n_paths=1 << 10,
        max_dt=1 / 8,
        noise=Threefry(3),
        scheme=WithJumps(scheme, jumps) if jumps else scheme,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", BACKBONES)
def test_an_untrained_network_is_its_backbone_on_the_same_noise(name: str) -> None:
    """Path by path: on the same steps, prices agree to rounding."""
    own = _same_noise(name)
    model = built(name, START)
    dates = sorted({*scheme_for(model).knots(model), *np.linspace(0.125, 1.0, 8).tolist()})
    book = [European(95.0, 1.0), Asian(100.0, [d for d in dates if d > 0.5])]
    conditional = replace(own, conditional=False, control_variate=False)
    pair = [
        Simulation.of(m, dates, e).block(0).states[0]
        for m, e in ((model, replace(conditional, scheme=None)), (unleveraged(model), conditional))
    ]
    assert float((pair[0] - pair[1]).abs().max()) < 2e-6
    assert bool(torch.isfinite(price(model, book, Market(100.0), replace(own, scheme=None)).value).all())
