"""A time loop of a few lines, so that the schemes are tested without the solver."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qsde.models import Model
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


def _exact_moments(v: float, kappa: float, theta: float, sigma: float, dt: float) -> tuple[float, float]:
    decay = math.exp(-kappa * dt)
    span = (1 - decay) / kappa if kappa else dt
    mean = theta + (v - theta) * decay
    return mean, sigma * sigma * (v * decay * span + 0.5 * theta * span * (1 - decay))


@pytest.fixture(scope="session")
def exact_moments() -> Callable[..., tuple[float, float]]:
    """Mean and variance of the square-root process (Cox, Ingersoll and Ross 1985)."""
    return _exact_moments
