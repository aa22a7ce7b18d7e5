"""`E[exp(x)] = 1` at every step size, for every scheme and model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss

from qsde.models import BlackScholes, Heston, JumpDiffusion, KouJumps, Model, bates, kou, merton
from qsde.schemes import Exact, HestonNearExact, HestonQE, LogEuler, Milstein, Scheme, WithJumps, scheme_for

MILD = Heston(0.04, 1.5, 0.05, 0.4, -0.7)
ROUGH = Heston(0.04, 0.5, 0.04, 1.0, -0.9)
UPWARD = Heston(0.04, 1.0, 0.04, 0.5, 0.5)
BATES = bates(0.04, 0.5, 0.04, 1.0, -0.9, 0.3, -0.1, 0.15)
KOU = kou(0.2, 1.5, 0.4, 10.0, 5.0)
NESTED = JumpDiffusion(BATES, KouJumps(0.5, 0.4, 10.0, 5.0))

PAIRS: list[tuple[Model, Scheme]] = [
    (BlackScholes(0.3), Exact()),
    (BlackScholes(0.3), LogEuler()),
    *((h, s) for h in (MILD, ROUGH, UPWARD) for s in (LogEuler(), Milstein(), HestonQE(), HestonNearExact())),
    *((m, scheme_for(m)) for m in (merton(0.2, 0.8, -0.1, 0.15), KOU, BATES, NESTED)),
    (BATES, WithJumps(LogEuler())),
    (BATES, WithJumps(Milstein())),
]


@pytest.mark.parametrize("dt", [1 / 365, 1 / 12, 1.0, 3.0])
@pytest.mark.parametrize(("model", "scheme"), PAIRS, ids=lambda p: p.name if isinstance(p, Model) else repr(p))
def test_discrete_martingale(
    model: Model, scheme: Scheme, dt: float, simulate: Callable, mean_and_error: Callable
) -> None:
    x = simulate(model, scheme, 2 * dt, 2, 100_000, seed=7)[0]
    mean, error = mean_and_error(torch.exp(x))
    assert abs(mean - 1) < 4 * error


@pytest.mark.parametrize("rho", [-1.0, -0.9, 0.0, 0.9, 1.0])
@pytest.mark.parametrize("sigma", [0.0, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("dt", [0.01, 1.0, 5.0])
def test_correction_is_exact(rho: float, sigma: float, dt: float) -> None:
    """By quadrature over both normals, in both branches and where the moment condition has to be forced."""
    model = Heston(0.04, 0.7, 0.05, sigma, rho)
    c = HestonQE().coefficients(model, torch.tensor(dt, dtype=torch.float64)).unsqueeze(-1)
    nodes, weights = (torch.tensor(a) for a in hermegauss(24))
    z_v = torch.linspace(-14, 14, 40_001, dtype=torch.float64)
    step = z_v[1] - z_v[0]
    density = torch.exp(-0.5 * z_v * z_v) * step / (2 * torch.pi) ** 0.5
    for v in (0.0, 1e-4, 0.05, 1.0):
        state = torch.zeros(1, dtype=torch.float64), torch.tensor([v], dtype=torch.float64)
        total = 0.0
        for z, weight in zip(nodes, weights / weights.sum(), strict=True):
            x = HestonQE().step(state, c, torch.stack([z.expand_as(z_v), z_v]), z_v[:0])[0]
            total += float(weight * (torch.exp(x) * density).sum())
        assert total == pytest.approx(1, abs=2e-4)
