"""A time loop of a few lines, so that the schemes are tested without the solver, and corners for those of Heston."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qsde.models import Heston, Model
from qsde.noise import Threefry
from qsde.schemes import Scheme, State

Simulate = Callable[..., State]


def _simulate(
    model: Model,
    scheme: Scheme,
    t: float,
    n_steps: int,
    n_paths: int,
    seed: int = 1,
    dtype: torch.dtype = torch.float64,
) -> State:
    scheme.check(model)
    n_steps *= max(1, math.ceil(t / n_steps / scheme.longest(model)))
    dt = t / n_steps
    block = Threefry(seed).block(torch.arange(n_paths), n_steps, *scheme.draws(model, dt), dtype, "cpu")
    c = scheme.coefficients(model, torch.tensor(dt, dtype=torch.float64)).unsqueeze(-1).to(dtype)
    state = tuple(s.unsqueeze(-1).expand(*s.shape, n_paths).to(dtype) for s in scheme.initial(model))
    for k in range(n_steps):
        state = scheme.step(state, c, *block.draw(k))
    return state


@pytest.fixture(scope="session")
def simulate() -> Simulate:
    return _simulate


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    values = values.double()
    return float(values.mean()), float(values.std()) / values.shape[-1] ** 0.5


@pytest.fixture(scope="session")
def mean_and_error() -> Callable[[Tensor], tuple[float, float]]:
    """Mean and its standard error."""
    return _mean_and_error


#: v0, kappa, theta, sigma, rho
EDGES = {
    "feller violated by a lot": (0.04, 0.1, 0.01, 3.0, -0.9),
    "v = 0": (0.0, 1.5, 0.05, 0.4, -0.7),
    "v = 0 for ever": (0.0, 1.5, 0.0, 0.4, -0.7),
    "no reversion": (0.04, 0.0, 0.05, 0.4, -0.7),
    "nothing at all": (0.0, 0.0, 0.0, 0.0, 0.0),
    "sigma = 0": (0.04, 1.5, 0.05, 0.0, -0.7),
    "sigma = 0 and v = 0": (0.0, 1.5, 0.05, 0.0, -0.7),
    "tiny sigma": (0.04, 1.5, 0.05, 1e-7, -0.7),
    "rho = 1": (0.04, 1.5, 0.05, 0.4, 1.0),
    "rho = -1": (0.04, 1.5, 0.05, 0.4, -1.0),
    "huge v": (1e6, 1.5, 0.05, 0.4, -0.7),
    "huge sigma": (0.04, 1.5, 0.05, 100.0, 0.9),
}


@pytest.fixture(scope="session")
def edges() -> dict[str, tuple[float, ...]]:
    return EDGES


@pytest.fixture(params=EDGES.values(), ids=list(EDGES))
def edge(request: pytest.FixtureRequest) -> tuple[float, ...]:
    found: tuple[float, ...] = request.param
    return found


@pytest.fixture(scope="session")
def few_steps() -> Callable[[Scheme, dict[str, Tensor], Tensor, torch.dtype], State]:
    def run(scheme: Scheme, leaves: dict[str, Tensor], dt: Tensor, dtype: torch.dtype) -> State:
        model = Heston(**leaves)
        generator = torch.Generator().manual_seed(5)
        c = scheme.coefficients(model, dt).unsqueeze(-1)
        state = tuple(s.unsqueeze(-1) for s in scheme.initial(model))
        for _ in range(4):
            count, _ = scheme.draws(model, float(dt.detach()))
            normals = torch.randn(count, 4096, dtype=torch.float64, generator=generator).to(dtype)
            state = scheme.step(state, c, normals, normals[:0])
        return state

    return run
