"""The batched least-squares solver: right answers, honest flags, and neighbours that do not matter."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor

from qsde.calibration.levenberg_marquardt import Solution, solve

Residuals = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def rosenbrock(a: Tensor, b: Tensor) -> Residuals:
    """Residuals `(a - x, b (y - x^2))` with `a`, `b` [S]: the minimum is at (a, a^2)."""

    def residuals(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        a_, b_ = a[rows, None], b[rows, None]
        u, v = x.unbind(-1)
        r = torch.stack([a_ - u, b_ * (v - u * u)], -1)
        one, zero = torch.ones_like(u), torch.zeros_like(u)
        jacobian = torch.stack([torch.stack([-one, zero], -1), torch.stack([-2 * b_ * u, b_ * one], -1)], -2)
        return r, jacobian

    return residuals


def linear(matrix: Tensor, target: Tensor) -> Residuals:
    """Residuals `A x - y` with A [S, Q, P] and y [S, Q]."""

    def residuals(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        a = matrix[rows].unsqueeze(1)
        r = (a @ x.unsqueeze(-1)).squeeze(-1) - target[rows].unsqueeze(1)
        return r, a.expand(*x.shape[:2], -1, -1)

    return residuals


def exponentials(times: Tensor, target: Tensor) -> Residuals:
    """Residuals of fitting `c exp(-k t)` to target [S, Q]."""

    def residuals(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        c, k = (x[..., i : i + 1] for i in (0, 1))
        decay = torch.exp(-k * times)
        return c * decay - target[rows].unsqueeze(1), torch.stack([decay, -times * c * decay], -1)

    return residuals


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def only(solution: Solution, i: int) -> tuple[Tensor, ...]:
    return tuple(x[i] for x in (solution.x, solution.cost, solution.converged, solution.stalled, solution.iterations))


def test_rosenbrock_valleys_of_any_steepness_and_start() -> None:
    a, b = 1 + draws(20).abs(), 10 ** draws(20, seed=1)
    x = 3 * draws(20, 5, 2, seed=2)
    found = solve(rosenbrock(a, b), x, 500)
    torch.testing.assert_close(x, 3 * draws(20, 5, 2, seed=2), rtol=0, atol=0)  # the caller's tensor stays
    assert found.converged.all()
    assert not found.stalled.any()
    torch.testing.assert_close(found.x, torch.stack([a, a * a], -1)[:, None].expand(20, 5, 2), rtol=1e-6, atol=1e-6)


def test_linear_problems_in_one_batch_agree_with_scipy() -> None:
    matrix, target = draws(30, 12, 4), draws(30, 12, seed=1)
    found = solve(linear(matrix, target), torch.zeros(30, 1, 4, dtype=torch.float64), 100, max_step=100.0)
    assert found.converged.all()
    for i in range(30):
        peer = least_squares(lambda x, i=i: matrix[i].numpy() @ x - target[i].numpy(), np.zeros(4), xtol=1e-14)
        np.testing.assert_allclose(found.x[i, 0], peer.x, rtol=1e-5, atol=1e-6)
        assert float(found.cost[i, 0]) == pytest.approx(2 * peer.cost, rel=1e-8)


def test_nonlinear_problems_in_one_batch_agree_with_scipy() -> None:
    times = torch.linspace(0, 3, 15, dtype=torch.float64)
    truth = torch.stack([1 + draws(20).abs(), 0.2 + draws(20, seed=1).abs()], -1)
    target = truth[:, :1] * torch.exp(-truth[:, 1:] * times) + 0.05 * draws(20, 15, seed=2)
    found = solve(exponentials(times, target), torch.ones(20, 1, 2, dtype=torch.float64), 200)
    assert found.converged.all()
    for i in range(20):
        t, y = times.numpy(), target[i].numpy()
        peer = least_squares(lambda x, t=t, y=y: x[0] * np.exp(-x[1] * t) - y, np.ones(2), xtol=1e-14, ftol=1e-14)
        np.testing.assert_allclose(found.x[i, 0], peer.x, rtol=1e-4)
        assert float(found.cost[i, 0]) == pytest.approx(2 * peer.cost, rel=1e-8)


def test_a_problem_does_not_depend_on_its_neighbours() -> None:
    a, b, x = 1 + draws(6).abs(), 10 ** draws(6, seed=1), 2 * draws(6, 3, 2, seed=2)
    together = solve(rosenbrock(a, b), x, 300)
    for i in range(6):
        alone = solve(rosenbrock(a[i : i + 1], b[i : i + 1]), x[i : i + 1], 300)
        for one, other in zip(only(alone, 0), only(together, i), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        for j in range(3):  # nor on the other starts
            start = solve(rosenbrock(a[i : i + 1], b[i : i + 1]), x[i : i + 1, j : j + 1], 300)
            torch.testing.assert_close(start.x[0, 0], together.x[i, j], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e200])
@pytest.mark.parametrize("where", ["residuals", "jacobian"])
def test_a_broken_neighbour_is_left_to_itself(bad: float, where: str) -> None:
    sound = rosenbrock(torch.ones(4, dtype=torch.float64), torch.full((4,), 10.0, dtype=torch.float64))

    def residuals(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        r, jacobian = sound(x, rows)
        broken = rows == 2
        if where == "residuals":
            return torch.where(broken[:, None, None], bad, r), jacobian
        return r, torch.where(broken[:, None, None, None], bad, jacobian)

    x = draws(4, 3, 2)
    healthy, mixed = solve(sound, x, 200), solve(residuals, x, 200)
    for i in (0, 1, 3):
        for one, other in zip(only(healthy, i), only(mixed, i), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert torch.isfinite(mixed.x).all()
    assert not mixed.converged[2].any()


def test_a_start_without_finite_residuals_is_never_tried_again() -> None:
    def residuals(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        r = torch.where(x > 0, x - 1, torch.nan)
        return r, torch.ones_like(x).unsqueeze(-1)

    found = solve(residuals, torch.tensor([[[2.0], [-2.0]]], dtype=torch.float64), 50)
    assert found.converged.tolist() == [[True, False]]
    assert found.cost[0, 1] == torch.inf
    assert found.x[0].flatten().tolist() == pytest.approx([1.0, -2.0])
    assert found.iterations[0, 1] == 0


def test_steps_into_nan_are_shortened() -> None:
    def residuals(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        inside = x < 1.5
        return torch.where(inside, torch.log(2 - x), torch.nan), (-1 / (2 - x)).unsqueeze(-1)

    found = solve(residuals, torch.tensor([[[-30.0]]], dtype=torch.float64), 200, max_step=50.0)
    assert found.converged.all()
    assert found.x.item() == pytest.approx(1.0, abs=1e-6)


def test_the_iteration_limit_is_neither_converged_nor_stalled() -> None:
    one = torch.ones(1, dtype=torch.float64)
    start = torch.tensor([[[-1.2, 1.0]]], dtype=torch.float64)
    found = solve(rosenbrock(one, 10 * one), start, 3)
    assert not found.converged.any()
    assert not found.stalled.any()
    assert found.iterations.tolist() == [[3]]


def test_a_wrong_jacobian_stalls_and_says_so() -> None:
    def residuals(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, -torch.ones_like(x).unsqueeze(-1)

    found = solve(residuals, torch.ones(1, 1, 1, dtype=torch.float64), 500)
    assert found.stalled.all()
    assert not found.converged.any()
    assert found.x.item() == 1.0


def test_unknowns_without_influence_stay() -> None:
    def residuals(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        jacobian = torch.stack([torch.ones_like(x[..., 0]), torch.zeros_like(x[..., 0])], -1).unsqueeze(-2)
        return x[..., :1] - 3, jacobian

    found = solve(residuals, torch.full((1, 1, 2), 0.5, dtype=torch.float64), 50)
    assert found.converged.all()
    assert found.x[0, 0].tolist() == pytest.approx([3.0, 0.5], abs=1e-6)


def test_steps_are_limited_and_progress_is_told() -> None:
    told: list[int] = []
    far = linear(torch.eye(1, dtype=torch.float64)[None], torch.tensor([[100.0]], dtype=torch.float64))
    solve(far, torch.zeros(1, 1, 1, dtype=torch.float64), 5, max_step=2.0, on_iteration=told.append)
    found = solve(far, torch.zeros(1, 1, 1, dtype=torch.float64), 5, max_step=2.0)
    assert found.x.item() == pytest.approx(10.0)
    assert told == [1, 2, 3, 4, 5]
