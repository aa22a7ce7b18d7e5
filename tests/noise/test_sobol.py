"""Sobol points and the Brownian bridge."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.quasirandom import SobolEngine

from qsde.errors import InputError
from qsde.noise import BrownianBridge, Sobol


def bridge_matrix(times: Tensor) -> Tensor:
    n = len(times) - 1
    return BrownianBridge.over(times).increments(torch.eye(n, dtype=torch.float64))


@given(st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=40), st.floats(-5.0, 5.0))
@settings(deadline=None, max_examples=40)
def test_bridge_is_orthogonal_so_increments_are_independent(steps: list[float], start: float) -> None:
    times = start + torch.cat([torch.zeros(1), torch.tensor(steps)]).double().cumsum(0)
    matrix = bridge_matrix(times)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(steps)).double(), rtol=0, atol=1e-9)


def test_bridge_covariance_is_the_earlier_time() -> None:
    times = torch.tensor([0.0, 0.1, 0.3, 0.35, 1.0, 4.0, 4.5], dtype=torch.float64)
    motion = (bridge_matrix(times) * times.diff().sqrt()[:, None]).cumsum(0)
    expected = torch.minimum(times[1:, None], times[None, 1:])
    torch.testing.assert_close(motion @ motion.T, expected, rtol=1e-12, atol=1e-12)


def test_first_normals_are_the_coarsest() -> None:
    """The end point is the first normal's alone; the middle is that of the first two."""
    times = torch.linspace(0, 2, 9, dtype=torch.float64)
    motion = (bridge_matrix(times) * times.diff().sqrt()[:, None]).cumsum(0)
    assert torch.count_nonzero(motion[-1].abs() > 1e-12) == 1
    assert float(motion[-1, 0]) == pytest.approx(math.sqrt(2))
    assert torch.count_nonzero(motion[3].abs() > 1e-12) == 2


def test_points_are_those_of_the_engine() -> None:
    """Direct generation against torch's own sequence of the same scramble."""
    from qsde.noise.sobol import _scrambled

    noise, dimension = Sobol(5, scrambles=2, bridge=False), 6
    block = noise.block(torch.arange(512), 3, 0, 2, torch.float64, "cpu")
    ours = torch.cat([block.draw(step)[1] for step in range(3)])
    engine = SobolEngine(dimension)
    for scramble in range(2):
        shift, directions = _scrambled(5, scramble, dimension)
        engine.reset()
        engine.sobolstate, engine.shift = directions.t().long().contiguous(), shift.long()
        engine.quasi, engine._first_point = shift.long(), (shift.double() / 2**30).reshape(1, -1)
        theirs = engine.draw(256, dtype=torch.float64)
        assert torch.equal(ours[:, scramble::2], (theirs + 2.0**-31).T)


def test_points_are_balanced() -> None:
    """Every dyadic interval of length 2^-8 holds one of 256 points, in every dimension and scramble."""
    block = Sobol(1, scrambles=3, bridge=False).block(torch.arange(3 * 256), 4, 0, 3, torch.float64, "cpu")
    cells = (torch.stack([block.draw(k)[1] for k in range(4)]) * 256).long().view(12, 256, 3)
    assert torch.equal(cells.sort(1).values, torch.arange(256)[None, :, None].expand(12, 256, 3))


def asian_error(n_paths: int) -> float:
    """Error of the geometric average's exponential over 16 steps; root mean square over scrambles."""
    times = torch.linspace(0, 1, 17, dtype=torch.float64)
    noise = Sobol(11, scrambles=16)
    paths = torch.arange(16 * n_paths)
    block = noise.block(paths, 16, 1, 0, torch.float64, "cpu", times)
    motion = torch.stack([block.draw(step)[0][0] for step in range(16)]).cumsum(0) / 4
    values = torch.exp(0.3 * motion.mean(0))
    variance = 0.09 * float(torch.minimum(times[1:, None], times[None, 1:]).mean())
    means = torch.zeros(16, dtype=torch.float64).index_add(0, noise.groups(paths), values) / n_paths
    return float((means - math.exp(variance / 2)).square().mean().sqrt())


def test_integration_error_decays_faster_than_monte_carlo() -> None:
    sizes = [2**k for k in range(6, 14)]
    errors = torch.tensor([asian_error(n) for n in sizes]).log()
    x = torch.tensor(sizes).log()
    slope = float(((x - x.mean()) * (errors - errors.mean())).sum() / (x - x.mean()).square().sum())
    assert slope < -0.8


def end_point_error(bridge: bool) -> float:
    """Root mean square error over scrambles of E max(W(1), 0) from 64 steps and 256 points."""
    noise, paths = Sobol(11, scrambles=16, bridge=bridge), torch.arange(16 * 256)
    block = noise.block(paths, 64, 1, 0, torch.float64, "cpu")
    end = torch.stack([block.draw(step)[0][0] for step in range(64)]).sum(0) / 8
    means = torch.zeros(16, dtype=torch.float64).index_add(0, noise.groups(paths), end.clamp_min(0)) / 256
    return float((means - 1 / math.sqrt(2 * math.pi)).square().mean().sqrt())


def test_bridge_makes_the_end_point_one_dimensional() -> None:
    assert end_point_error(bridge=True) < 0.2 * end_point_error(bridge=False)


def test_scrambles_are_independent() -> None:
    """The spread of scramble means measures the error: unbiased and not repeated."""
    noise = Sobol(2, scrambles=64)
    paths = torch.arange(64 * 32)
    normals, _ = noise.block(paths, 1, 1, 0, torch.float64, "cpu").draw(0)
    means = torch.zeros(64, dtype=torch.float64).index_add(0, noise.groups(paths), torch.exp(normals[0])) / 32
    error = float(means.std()) / 8
    assert len(means.unique()) == 64
    assert abs(float(means.mean()) - math.exp(0.5)) < 4 * error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bridge", [True, False])
def test_draws_are_finite_and_inside(dtype: torch.dtype, bridge: bool) -> None:
    block = Sobol(3, scrambles=2, bridge=bridge).block(torch.arange(1 << 14), 5, 1, 1, dtype, "cpu")
    for step in range(5):
        normals, uniforms = block.draw(step)
        assert bool(normals.isfinite().all())
        assert float(uniforms.min()) > 0
        assert float(uniforms.max()) < 1


def test_last_points_exist() -> None:
    paths = torch.tensor([0, 2 * 2**30 - 1])
    normals, _ = Sobol(3, scrambles=2).block(paths, 2, 1, 0, torch.float64, "cpu").draw(1)
    assert bool(normals.isfinite().all())


def test_refusals() -> None:
    paths = torch.arange(4)
    with pytest.raises(InputError, match="use at most 7067 steps"):
        Sobol(1).block(paths, 8000, 2, 1, torch.float64, "cpu")
    with pytest.raises(InputError, match="at least 2"):
        Sobol(1, scrambles=1)
    with pytest.raises(InputError, match="second seed"):
        Sobol(1, scrambles=2).block(torch.tensor([2 * 2**30]), 2, 1, 0, torch.float64, "cpu")
    with pytest.raises(InputError, match="3 entries"):
        Sobol(1).block(paths, 2, 1, 0, torch.float64, "cpu", torch.tensor([0.0, 1.0]))
    with pytest.raises(InputError, match="strictly increasing"):
        Sobol(1).block(paths, 2, 1, 0, torch.float64, "cpu", torch.tensor([0.0, 1.0, 1.0]))
