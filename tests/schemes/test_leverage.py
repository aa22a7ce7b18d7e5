"""The scheme of local and local-stochastic volatility: laws of its steps, the backbone, gradients, grids of calls."""

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from qsde.calibration.forward_equation import ForwardEquation
from qsde.calibration.training_paths import Quoted, QuotedPaths
from qsde.errors import InputError
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models import BlackScholes, GridLeverage, Heston, LocalStochasticVol, Model, bates, leveraged
from qsde.models.base import Parameter
from qsde.models.leverage import Leverage
from qsde.models.neural import NeuralLeverage
from qsde.noise import Sobol, Threefry
from qsde.payoffs import Barrier, European
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import price
from qsde.schemes import Leveraged, WithJumps, scheme_for

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.8, rho=-0.7)
JUMPS = bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.5, -0.1, 0.1)
ONE = GridLeverage([0.0], [0.0], [[1.0]])
SMILE = GridLeverage([0.0, 1.0], [-0.3, 0.0, 0.3], [[1.5, 1.0, 0.8], [1.2, 1.0, 0.9]])


def wild(seed: int) -> NeuralLeverage:
    """A network whose weights are far from where they start."""
    start = NeuralLeverage.initialised(scale=0.2, shortest=0.1, longest=2.0, width=16, seed=seed)
    source = torch.Generator().manual_seed(seed)
    return start.with_params(
        {n: w + 0.7 * torch.randn(w.shape, generator=source, dtype=w.dtype) for n, w in start.params.items()}
    )


@pytest.mark.parametrize("backbone", [BlackScholes(0.2), HESTON, JUMPS], ids=["black_scholes", "heston", "bates"])
def test_at_leverage_one_it_is_the_backbone(backbone: Model) -> None:
    payoffs = [European(k, 1.0, "call") for k in (80.0, 100.0, 120.0)]
    engine = MonteCarlo(n_paths=1 << 15, max_dt=1 / 32, noise=Sobol(1, scrambles=16))
    found = price(leveraged(backbone, ONE), payoffs, Market(100.0), engine)
    strike = torch.tensor([80.0, 100.0, 120.0]).double()
    exact = price_european(backbone, strike, torch.tensor(1.0).double(), 100.0, 1.0).value
    assert bool(((found.value - exact).abs() < 4 * found.std_error + 0.01).all())


def test_a_constant_leverage_is_another_volatility() -> None:
    model = leveraged(BlackScholes(0.2), GridLeverage([0.0], [0.0], [[1.5]]))
    found = price(model, European(110.0, 1.0, "call"), Market(100.0), MonteCarlo(n_paths=1 << 14, noise=Sobol(1)))
    exact = price_european(BlackScholes(0.3), 110.0, 1.0, 100.0).value
    assert abs(float(found.value - exact)) < 4 * float(found.std_error)


@pytest.mark.parametrize("backbone", [BlackScholes(0.2), HESTON, JUMPS], ids=["black_scholes", "heston", "bates"])
def test_gradients_are_those_of_differences(backbone: Model) -> None:
    # the gradient holds the regression on controls, the difference does not
    engine = MonteCarlo(n_paths=1 << 10, max_dt=1 / 8, noise=Threefry(3), control_variate=False)
    model = leveraged(backbone, wild(1))

    def value(outer: Tensor) -> Tensor:
        moved = model.with_params({"leverage.outer": outer})
        return price(moved, [European(k, 1.0, "put") for k in (90.0, 105.0)], Market(100.0), engine).value.sum()

    outer = model.params["leverage.outer"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(outer), outer)
    direction = torch.linspace(-1, 1, 16, dtype=torch.float64)
    h = 1e-6 * direction
    with torch.no_grad():
        difference = float(value(outer + h) - value(outer - h)) / 2e-6
    assert float(slope @ direction) == pytest.approx(difference, rel=1e-3)


def test_gradients_are_finite_in_float32_and_where_the_variance_is_zero() -> None:
    model = leveraged(Heston(v0=0.0, kappa=0.5, theta=0.01, sigma=1.5, rho=-0.9), wild(0))
    weights = model.params["leverage.inner"].clone().requires_grad_()
    engine = MonteCarlo(n_paths=1 << 10, max_dt=1 / 8, dtype=torch.float32)
    found = price(model.with_params({"leverage.inner": weights}), European(100.0, 1.0, "call"), Market(100.0), engine)
    (slope,) = torch.autograd.grad(found.value, weights)
    assert bool(torch.isfinite(slope).all())


def test_more_nodes_change_little() -> None:
    model, market = leveraged(BlackScholes(0.2), SMILE), Market(100.0)
    payoffs = [European(k, 1.0, "put") for k in (80.0, 100.0)]
    coarse, fine = (
        price(model, payoffs, market, MonteCarlo(n_paths=1 << 12, max_dt=1 / 16, scheme=Leveraged(nodes))).value
        for nodes in (129, 1025)
    )
    assert torch.allclose(coarse, fine, atol=3e-3)  # vega 30: 1 bp of vol


def test_a_local_volatility_is_of_second_order() -> None:
    """Against Dupire's forward equation: steps of a quarter are within 3 bp of vol, where log-Euler is 80 bp off."""
    model, t = leveraged(BlackScholes(0.2), GridLeverage([0.0], [-0.6, 0.6], [[1.8, 0.2]])), 1.0
    k = torch.linspace(-0.25, 0.2, 7, dtype=torch.float64)
    quoted = Quoted.of(Surface.from_vols(np.full(7, t), np.exp(k.numpy()), 0.2, 1.0))
    grid = ForwardEquation.of([t], 0.2)

    def variance(t: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        level = 0.2 * model.params["leverage.values"][0].numpy()
        return np.interp(x, [-0.6, 0.6], level) ** 2, np.zeros((len(x), 0))

    calls = torch.tensor(np.interp(np.exp(k.numpy()), grid.y, grid.solve(variance)[0][0]))
    exact = (calls - torch.where(k >= 0, 0.0, 1 - torch.exp(k))) / torch.exp(0.5 * k)
    engine = MonteCarlo(n_paths=1 << 15, max_dt=1 / 4, noise=Sobol(3, scrambles=4))
    with torch.no_grad():
        found = QuotedPaths(quoted, model, engine).prices(model).value
    gap = 1e4 * (quoted.vols(found)[0] - quoted.vols(exact)[0])
    assert float(gap.abs().max()) < 3


class Smooth(Leverage):
    """A leverage without parameters or kinks."""

    scale = 0.2
    params: ClassVar[dict[str, Tensor]] = {}
    table: ClassVar[dict[str, Parameter]] = {}

    def at(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.exp(-0.8 * torch.tanh(x)).expand(*t.shape, -1)


def generator(model: LocalStochasticVol, f: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """`A f`, the drift of `f(x, v)`."""
    kappa, theta, sigma, rho = (float(model.params[n]) for n in ("kappa", "theta", "sigma", "rho"))

    def slopes(y: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(y, (x, v), create_graph=True, materialize_grads=True)

    def drift(x: Tensor, v: Tensor) -> Tensor:
        level = model.leverage.at(x.new_zeros(1), x.reshape(1, 1)).squeeze()
        zero = 0 * x**5 * v**5  # keeps a graph where a derivative is constant
        by_x, by_v = (d + zero for d in slopes(f(x, v) + zero, x, v))
        (by_xx, by_xv), (_, by_vv) = slopes(by_x, x, v), slopes(by_v, x, v)
        return (
            0.5 * level**2 * v * (by_xx - by_x) + kappa * (theta - v) * by_v
            + 0.5 * sigma**2 * v * by_vv + rho * sigma * level * v * by_xv
        )  # fmt: skip

    return drift


@pytest.mark.parametrize(("p", "q"), [(1, 0), (2, 0), (1, 1), (3, 0), (2, 1), (1, 2), (4, 0)])
def test_moments_of_a_step_are_right_to_second_order(p: int, q: int) -> None:
    """`E[dx^p dv^q] = dt A f + dt^2 A^2 f / 2 + O(dt^3)` by quadrature: half of the step has an eighth of the rest."""
    model = LocalStochasticVol(Heston(v0=0.3, kappa=1.5, theta=0.2, sigma=0.8, rho=-0.6), Smooth())
    x, v = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (-0.1, 0.3))

    def f(at_x: Tensor, at_v: Tensor) -> Tensor:
        return (at_x + 0.1) ** p * (at_v - 0.3) ** q

    first = generator(model, f)
    linear, square = (float(g(x, v).detach()) for g in (first, generator(model, first)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    z, w = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    both = torch.stack([g.flatten() for g in torch.meshgrid(z, z, indexing="ij")])
    start = tuple(s.detach().expand(both.shape[1]) for s in (x, v))

    def rest(dt: float) -> float:
        scheme = Leveraged(nodes=4097)
        c = scheme.coefficients(model, torch.tensor(dt).double(), torch.tensor(0.0).double()).unsqueeze(-1)
        mean = (f(*scheme.step(start, c, both, both[:0])) * torch.outer(w, w).flatten()).sum()
        return float(mean) - linear * dt - 0.5 * square * dt**2

    assert math.log2(abs(rest(0.1) / rest(0.05))) == pytest.approx(3.0, abs=0.25)


def test_barriers_see_the_local_variance() -> None:
    """A leverage of 1 has the knock-out price of Black-Scholes; with jumps and a network it is at least priced."""
    barrier = Barrier(strike=100.0, barrier=80.0, expiry=1.0, style="down-and-out")
    engine = MonteCarlo(n_paths=1 << 14, max_dt=1 / 32, noise=Sobol(2))
    plain, same = (
        price(m, barrier, Market(100.0), engine) for m in (BlackScholes(0.2), leveraged(BlackScholes(0.2), ONE))
    )
    assert abs(float(plain.value - same.value)) < 4 * float(plain.std_error + same.std_error)
    vanilla = European(100.0, 1.0, "call")
    out, whole = price(leveraged(JUMPS, wild(1)), [barrier, vanilla], Market(100.0), engine).value
    assert 0 < float(out) < float(whole)


def test_batches_of_backbones_share_the_leverage() -> None:
    engine = MonteCarlo(n_paths=1 << 10, max_dt=1 / 8)
    vols = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    together = price(leveraged(BlackScholes(vols), SMILE), European(100.0, 1.0, "call"), Market(100.0), engine).value
    for vol, value in zip(vols, together, strict=True):
        alone = price(leveraged(BlackScholes(vol), SMILE), European(100.0, 1.0, "call"), Market(100.0), engine).value
        assert float(value) == pytest.approx(float(alone), rel=1e-12)


def test_the_scheme_is_the_default_and_refuses_others() -> None:
    assert scheme_for(leveraged(BlackScholes(0.2), ONE)) == Leveraged()
    assert isinstance(scheme_for(leveraged(JUMPS, ONE)), WithJumps)
    with pytest.raises(InputError, match="Leveraged steps a LocalStochasticVol"):
        Leveraged().check(BlackScholes(0.2))
