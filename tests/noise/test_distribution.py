"""Whether the draws have the law they claim, within four standard errors at fixed seeds."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from qsde.noise import Noise, Sobol, Threefry

N_PATHS, N_STEPS = 1 << 15, 8
#: Four standard errors: two-sided probability 6e-5 per figure.
WIDTH = 4.0


def table(noise: Noise, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Normals `[steps, 3, P]` and uniforms `[steps, 3, P]` as float64."""
    block = noise.block(torch.arange(N_PATHS), N_STEPS, 3, 3, dtype, "cpu")
    draws = [block.draw(step) for step in range(N_STEPS)]
    return torch.stack([n for n, _ in draws]).double(), torch.stack([u for _, u in draws]).double()


CASES = [
    (seed, rounds, dtype)
    for seed, rounds, dtype in (
        (0, 13, torch.float32),
        (1, 13, torch.float64),
        (2**63 + 5, 13, torch.float32),
        (0, 20, torch.float32),
    )
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def draws(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    seed, rounds, dtype = request.param
    return table(Threefry(seed, rounds), dtype)


def test_moments(draws: tuple[Tensor, Tensor]) -> None:
    """Mean, variance, skewness and kurtosis of normals; the same moments of uniforms."""
    normals, uniforms = draws
    root = math.sqrt(normals.numel())
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((normals**power).mean()) - mean) < WIDTH * math.sqrt(variance) / root
    for power in (1, 2, 3, 4):
        mean, variance = 1 / (power + 1), 1 / (2 * power + 1) - 1 / (power + 1) ** 2
        assert abs(float((uniforms**power).mean()) - mean) < WIDTH * math.sqrt(variance) / root


def test_kolmogorov_smirnov(draws: tuple[Tensor, Tensor]) -> None:
    normals, uniforms = draws
    assert stats.kstest(normals.flatten().numpy(), "norm").pvalue > 1e-4
    assert stats.kstest(uniforms.flatten().numpy(), "uniform").pvalue > 1e-4


def test_every_factor_and_step_alone(draws: tuple[Tensor, Tensor]) -> None:
    normals, uniforms = draws
    for values, law in ((normals, "norm"), (uniforms, "uniform")):
        worst = min(stats.kstest(row.numpy(), law).pvalue for row in values.flatten(0, 1))
        assert worst > 1e-5


def correlations(left: Tensor, right: Tensor) -> float:
    """Correlation in units of its standard error."""
    pair = torch.stack([left.flatten(), right.flatten()])
    return float(torch.corrcoef(pair)[0, 1]) * math.sqrt(pair.shape[1])


@pytest.mark.parametrize("power", [1, 2])
def test_no_correlation_across_steps_paths_factors(draws: tuple[Tensor, Tensor], power: int) -> None:
    """Levels and squares: Box-Muller partners would show in the squares."""
    for values in (draws[0] ** power, (draws[1] - 0.5) ** power):
        assert abs(correlations(values[1:], values[:-1])) < WIDTH
        assert abs(correlations(values[2:], values[:-2])) < WIDTH
        for lag in (1, 2, 4096):
            assert abs(correlations(values[..., lag:], values[..., :-lag])) < WIDTH
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert abs(correlations(values[:, i], values[:, j])) < WIDTH
    assert abs(correlations(draws[0] ** power, (draws[1] - 0.5) ** power)) < WIDTH


def test_no_correlation_across_seeds() -> None:
    """Neighbouring seeds, seeds that differ in one bit of either word."""
    base, _ = table(Threefry(0), torch.float32)
    for seed in (1, 2, 2**31, 2**32, 2**63):
        other, _ = table(Threefry(seed), torch.float32)
        assert abs(correlations(base, other)) < WIDTH
        assert abs(correlations(base**2, other**2)) < WIDTH


def test_high_path_numbers_are_as_good() -> None:
    """Across the sign bit of the path word and at its end."""
    for start in (2**31 - N_PATHS // 2, 2**32 - N_PATHS):
        block = Threefry(5).block(torch.arange(start, start + N_PATHS), 2**20, 1, 1, torch.float32, "cpu")
        normals, uniforms = block.draw(2**20 - 1)
        assert stats.kstest(normals[0].numpy(), "norm").pvalue > 1e-4
        assert stats.kstest(uniforms[0].numpy(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize(("bridge", "distance"), [(True, 1.2), (False, 0.1)])
def test_sobol_has_the_law_too(bridge: bool, distance: float) -> None:
    """Every factor and step; points without the bridge are balanced one by one, far closer than chance."""
    normals, uniforms = table(Sobol(4, bridge=bridge), torch.float32)
    for values, law in ((normals, "norm"), (uniforms, "uniform")):
        worst = max(stats.kstest(row.numpy(), law).statistic for row in values.flatten(0, 1))
        assert worst < distance / math.sqrt(N_PATHS)
    everything = torch.cat([normals, torch.special.ndtri(uniforms)], dim=1).flatten(0, 1)
    off_diagonal = torch.corrcoef(everything) - torch.eye(len(everything), dtype=torch.float64)
    assert off_diagonal.abs().max() < WIDTH / math.sqrt(N_PATHS)
