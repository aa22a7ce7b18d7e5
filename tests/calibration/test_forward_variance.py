"""Forward variance: through what is given, smooth where that is, in steps where that is, never negative."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsde.calibration.forward_variance import ForwardVariance
from qsde.models import Heston
from qsde.pricing.fourier import model_vols

T = torch.tensor([0.05, 0.1, 0.25, 0.5, 1.0, 2.0], dtype=torch.float64)
MIDDLE = 0.5 * (T[1:] + T[:-1])


def linear(t: torch.Tensor, total: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    nodes, values = (np.concatenate([[0.0], v.numpy()]) for v in (t, total))
    return torch.tensor(np.interp(at.numpy(), nodes, values))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 0.7), st.floats(1e-4, 4.0)), min_size=1, max_size=12))
def test_it_goes_through_what_is_given_and_rises(stretches: list[tuple[float, float]]) -> None:
    gap, forward = torch.tensor(stretches, dtype=torch.float64).unbind(1)
    t, total = gap.cumsum(0), (gap * forward).cumsum(0)
    level = ForwardVariance.through(t, total)
    torch.testing.assert_close(level.total(t), total, rtol=1e-9, atol=0)
    assert bool((level.values > 0).all())
    assert bool((level.total(torch.linspace(0.0, 2 * float(t[-1]), 500).double()).diff() > 0).all())


def test_what_is_flat_stays_flat() -> None:
    level = ForwardVariance.through(T, 0.04 * T)
    torch.testing.assert_close(level.at(torch.linspace(0.01, 3.0, 99).double()), torch.full((99,), 0.04).double())


@pytest.mark.parametrize("v0", [0.02, 0.16])
def test_reversion_to_a_mean_is_found_between_expiries(v0: float) -> None:
    """Total variances of Heston without volatility of variance: straight lines miss them by far more."""

    def truth(t: torch.Tensor) -> torch.Tensor:
        return 0.06 * t + (v0 - 0.06) * -torch.expm1(-3 * t) / 3

    error = (ForwardVariance.through(T, truth(T)).total(MIDDLE) - truth(MIDDLE)).abs()
    straight = (linear(T, truth(T), MIDDLE) - truth(MIDDLE)).abs()
    assert bool((error < torch.tensor([0.1, 0.1, 0.1, 0.15, 0.8]) * straight).all())


def test_steps_stay_steps() -> None:
    """Forward variances that go up and down by events say nothing of what is within a stretch."""
    forward = torch.tensor([0.04, 0.11, 0.05, 0.13, 0.04, 0.12]).double()
    total = (forward * T.diff(prepend=torch.zeros(1).double())).cumsum(0)
    found = ForwardVariance.through(T, total)
    middle = 0.5 * (found.edges[1:] + found.edges[:-1])
    own = forward[torch.searchsorted(T, middle)]
    assert float((found.values / own - 1).abs().max()) < 0.15


def test_it_agrees_with_a_model_at_the_money() -> None:
    heston = Heston(v0=0.09, kappa=2.0, theta=0.04, sigma=0.4, rho=-0.5)

    def vol(t: torch.Tensor) -> torch.Tensor:
        return model_vols(heston, t, torch.ones(len(t), 1).double(), 1.0).squeeze(-1)

    level = ForwardVariance.through(T, vol(T) ** 2 * T)
    assert float((torch.sqrt(level.total(MIDDLE) / MIDDLE) - vol(MIDDLE)).abs().max()) < 6e-4
