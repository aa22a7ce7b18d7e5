"""Bridges against densities integrated numerically, and their gradients against bumps and at the edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from qsde.payoffs.bridge import (
    reach,
    sampled_maximum,
    sampled_minimum,
    survival,
    survival_between,
    time_to_exit,
    time_to_hit,
    variance_to,
)

Function = Callable[..., Tensor]


@cache
def nodes(low: float, high: float, panels: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights, twenty in each panel."""
    x, w = (torch.tensor(a) for a in np.polynomial.legendre.leggauss(20))
    edges = torch.linspace(low, high, panels + 1, dtype=torch.float64)[:-1, None]
    step = (high - low) / panels
    return (edges + step * (x + 1) / 2).flatten(), (step / 2 * w).repeat(panels)


def values(*numbers: float) -> list[Tensor]:
    return [torch.tensor(x, dtype=torch.float64) for x in numbers]


def density(x: Tensor, variance: Tensor | float) -> Tensor:
    variance = torch.as_tensor(variance, dtype=torch.float64)
    return torch.exp(-0.5 * x * x / variance) / torch.sqrt(2 * math.pi * variance)


@pytest.mark.parametrize("variance", [0.001, 0.01, 0.04, 0.3, 5.0])
@pytest.mark.parametrize("end", [0.3, 0.05, 1e-4, 0.0, -0.02, -0.3])
def test_time_to_hit_is_the_mean_of_the_first_passage_density(end: float, variance: float) -> None:
    start = 0.15
    # share of the interval s = 1 / (1 + exp(-t)), which resolves both of its ends
    t, weight = nodes(-60.0, 60.0, 90)
    s, rest = torch.sigmoid(t), torch.sigmoid(-t)
    args = values(start, end, variance)
    passage = start / s * density(args[0], s * variance)
    hits = passage * density(args[1], rest * variance) / density(args[0] - args[1], variance) * s * rest
    hit = float((hits * weight).sum())
    assert float(time_to_hit(*args)) == pytest.approx(float((hits * s * weight).sum()), rel=1e-9, abs=1e-14)
    if end != 0:
        assert float(1 - survival(*args)) == pytest.approx(hit, rel=1e-9, abs=1e-14)


def killed(x: Tensor, y: Tensor, width: float, variance: float) -> Tensor:
    """Density of Brownian motion from x to y that has not left (0, width)."""
    return density(y - x, variance) * survival_between(x, y, *values(width, variance))


@pytest.mark.parametrize("share", [0.2, 0.59, 0.61, 1.0, 3.0, 12.0])
def test_corridor_survival_composes(share: float) -> None:
    """Chapman-Kolmogorov: from variance so small that one image tells all, by doubling, to `share` widths squared."""
    width = 0.3
    z, weight = nodes(0.0, width, 8)
    variance = share * width**2 / 64
    one = density(z - z[:, None], variance) * survival(z, z[:, None], torch.tensor(variance, dtype=torch.float64))
    one = one * survival(width - z, width - z[:, None], torch.tensor(variance, dtype=torch.float64))
    if variance > width**2 / 100:  # both barriers matter within one step: nothing simpler to start from
        one = killed(z[:, None], z, width, variance)
    kernel = one
    for _ in range(6):
        kernel = kernel * weight @ kernel
    torch.testing.assert_close(killed(z[:, None], z, width, 64 * variance), kernel, rtol=1e-9, atol=1e-12)


def test_both_series_agree_where_they_meet() -> None:
    x = torch.linspace(0.001, 0.999, 23, dtype=torch.float64)
    below, above = (survival_between(x[:, None], x, *values(1.0, 0.6 + e)) for e in (-1e-15, 1e-15))
    torch.testing.assert_close(below, above, rtol=1e-11, atol=1e-15)
    assert not torch.equal(below, above)


def test_short_series_are_as_good() -> None:
    """Where all variances are small fewer images are taken; one large variance in the batch takes them all."""
    x = torch.linspace(0.001, 0.999, 23, dtype=torch.float64)
    end, one = torch.linspace(-0.3, 1.3, 33, dtype=torch.float64)[:, None], torch.tensor(1.0, dtype=torch.float64)
    for function, small, tolerance in ((survival_between, 0.1, 1e-15), (time_to_exit, 0.24, 1e-7)):
        few = function(x, end, one, torch.tensor([small], dtype=torch.float64))
        many = function(x, end, one, torch.tensor([small, 1.0], dtype=torch.float64).reshape(2, 1, 1))[0]
        torch.testing.assert_close(few, many, rtol=0, atol=tolerance)
        mapped = torch.func.vmap(lambda w, f=function: f(x, end, one, w))(torch.tensor([small], dtype=torch.float64))
        torch.testing.assert_close(mapped[0], many, rtol=0, atol=0)


def test_corridor_with_one_barrier_far_away_is_one_barrier() -> None:
    x = torch.tensor([0.01, 0.1, 0.4], dtype=torch.float64)
    y, w = torch.tensor(0.2, dtype=torch.float64), torch.tensor(0.05, dtype=torch.float64)
    torch.testing.assert_close(survival_between(x, y, *values(5.0), w), survival(x, y, w), rtol=1e-14, atol=0)
    torch.testing.assert_close(time_to_exit(x, y, *values(5.0), w), time_to_hit(x, y, w), rtol=1e-13, atol=0)
    torch.testing.assert_close(survival_between(5 - x, 5 - y, *values(5.0), w), survival(x, y, w), rtol=1e-12, atol=0)


@pytest.mark.parametrize("share", [0.05, 0.5, 1.9, 4.0, 20.0])
@pytest.mark.parametrize("end", [0.5, 0.05, 1.0, 1.3, -0.4])
def test_time_to_exit_integrates_the_survival(end: float, share: float) -> None:
    """E[share; exit] = integral of P(inside up to s) over s in (0, 1), less P(inside at the end)."""
    x, y, width, variance = values(0.4, end, 1.0, share)
    angle, weight = nodes(0.0, math.pi / 2, 5)
    s, ds = torch.sin(angle) ** 2, 2 * torch.sin(angle) * torch.cos(angle) * weight
    z, dz = nodes(0.0, 1.0, 100)
    inside = torch.stack([
        (killed(x, z, 1.0, float(t * variance)) * density(y - z, (1 - t) * variance) * dz).sum() for t in s
    ])  # fmt: skip
    whole = (inside * ds).sum() / density(y - x, variance) - survival_between(x, y, width, variance)
    tolerance = 1e-6 if share <= 2 else 0.01
    assert float(time_to_exit(x, y, width, variance)) == pytest.approx(float(whole), abs=tolerance)


FUNCTIONS: list[tuple[Function, tuple[float, ...]]] = [
    (survival, (0.2, 0.1, 0.04)),
    (time_to_hit, (0.2, 0.1, 0.04)),
    (time_to_hit, (0.2, -0.1, 0.04)),
    (survival_between, (0.2, 0.1, 0.35, 0.03)),
    (survival_between, (0.2, 0.1, 0.35, 0.3)),
    (time_to_exit, (0.2, 0.1, 0.35, 0.03)),
    (time_to_exit, (0.2, 0.4, 0.35, 0.03)),
    (sampled_maximum, (4.6, 4.55, 0.04, 0.3)),
    (sampled_minimum, (4.6, 4.55, 0.04, 0.3)),
]


@pytest.mark.parametrize(("function", "at"), FUNCTIONS)
def test_gradient_is_the_bump(function: Function, at: tuple[float, ...]) -> None:
    assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in values(*at)], eps=1e-7, atol=1e-6)


EDGES = [0.0, 1e-300, 1e-30, 1e-14, 1e-8, 0.1, 1.0, 30.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [survival, time_to_hit, survival_between, time_to_exit])
def test_finite_values_and_gradients_at_the_edges(function: Function, dtype: torch.dtype) -> None:
    distance = torch.tensor([-3.0, -1e-9, 0.0, 1e-9, 0.1, 0.2, 0.2 + 1e-9, 3.0], dtype=dtype)
    grid = (
        [distance, distance]
        if function in (survival, time_to_hit)
        else [distance, distance, distance.new_tensor([0.2])]
    )
    args = [a.clone().requires_grad_() for a in torch.meshgrid(*grid, torch.tensor(EDGES, dtype=dtype), indexing="ij")]
    value = function(*args)
    assert torch.isfinite(value).all()
    assert (value >= -1e-5).all()
    assert (value <= 1 + 1e-5).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(value.sum(), args))


def test_no_variance_means_a_straight_line() -> None:
    start, none = torch.tensor([0.2, 0.2, 0.2], dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    end = torch.tensor([0.1, -0.2, -0.6], dtype=torch.float64)
    assert survival(start, end, none).tolist() == [1.0, 0.0, 0.0]
    torch.testing.assert_close(time_to_hit(start, end, none), torch.tensor([0.0, 0.5, 0.25], dtype=torch.float64))
    width = torch.tensor(0.3, dtype=torch.float64)
    assert survival_between(start, end, width, none).tolist() == [1.0, 0.0, 0.0]
    exits = time_to_exit(start, torch.tensor([0.1, -0.2, 0.5], dtype=torch.float64), width, none)
    torch.testing.assert_close(exits, torch.tensor([0.0, 0.5, 1 / 3], dtype=torch.float64))


def test_extremes_invert_their_distribution() -> None:
    """P(max < B) is the survival under B: the uniform 1 - P draws just B."""
    a, b, variance, level = values(4.6, 4.55, 0.04, 4.7)
    uniform = 1 - survival(level - a, level - b, variance)
    torch.testing.assert_close(sampled_maximum(a, b, variance, uniform), level)
    torch.testing.assert_close(sampled_minimum(-a, -b, variance, uniform), -level)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("slope", [None, -0.01, 0.01])
def test_far_bridges_are_left_out(slope: float | None, side: float) -> None:
    """Where nothing is near the constant is what the function gives, to 1e-13."""
    starts, ends = values(*[i / 200 for i in range(300)]), values(*[i / 200 - 0.1 for i in range(300)])
    grid = [torch.stack(starts), torch.stack(ends), torch.stack(values(1e-14, 1e-3, 0.05))]
    start, end, variance = torch.meshgrid(*grid, indexing="ij")
    tilt = None if slope is None else torch.tensor(slope, dtype=torch.float64)
    near = torch.minimum(start, end) <= reach(variance, tilt, side)
    assert 0.1 < float(near.double().mean()) < 0.9
    for function, far in ((survival, 1.0), (time_to_hit, 0.0)):
        full = function(start, end, variance_to(variance, tilt, 0.5 * side * (start + end)))
        torch.testing.assert_close(torch.where(near, full, far), full, rtol=0, atol=1e-13)


def test_extremes_at_the_edges() -> None:
    a = torch.tensor([100.0, 100.0, 90.0, 100.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([100.0, 90.0, 100.0, 100.0], dtype=torch.float64, requires_grad=True)
    variance = torch.tensor([0.0, 0.0, 0.0, 0.04], dtype=torch.float64, requires_grad=True)
    uniform = torch.tensor([0.5, 0.5, 0.5, 0.0], dtype=torch.float64)
    top, bottom = sampled_maximum(a, b, variance, uniform), sampled_minimum(a, b, variance, uniform)
    torch.testing.assert_close(top[:3], torch.maximum(a, b)[:3])
    torch.testing.assert_close(bottom[:3], torch.minimum(a, b)[:3])
    grads = torch.autograd.grad((top + bottom).sum(), [a, b, variance])
    assert all(torch.isfinite(g).all() for g in grads)


def test_variance_to_a_level_is_that_of_the_natural_scale() -> None:
    # where the variance is linear in the log price, dx / sqrt(variance) is the coordinate of a Brownian motion
    w, slope, near = 0.04, -0.02, 0.02
    for side in (1.0, -1.0):
        level = side * near
        x, weight = nodes(0.0, near, 4)
        distance = (weight / torch.sqrt(w + slope * side * x)).sum()
        found = variance_to(*values(w, slope, level))
        assert float(near**2 / found) == pytest.approx(float(distance**2), rel=1e-4)


def test_variance_to_a_level_without_slope_is_the_variance() -> None:
    w, none, level = values(0.04, 0.0, 0.3)
    assert torch.equal(variance_to(w, None, level), w)
    assert float(variance_to(w, none, level)) == pytest.approx(float(w), rel=1e-15)


def test_variance_to_a_level_is_positive_with_finite_gradients() -> None:
    w = torch.tensor([0.0, 1e-14, 0.01, 0.01], dtype=torch.float64, requires_grad=True)
    slope = torch.tensor([-0.1, 0.1, -1.0, 1.0], dtype=torch.float64, requires_grad=True)
    found = variance_to(w, slope, torch.tensor(0.5, dtype=torch.float64))
    assert bool((found > 0).all())
    assert all(bool(torch.isfinite(g).all()) for g in torch.autograd.grad(found.sum(), [w, slope]))
