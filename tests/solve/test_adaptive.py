"""Adaptive steps: error against tolerance, the right limits, stiffness, one path, replayed gradients, limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError, StepLimitError
from qsde.models import SDE
from qsde.noise import BrownianTree, Sobol, Threefry
from qsde.schemes import EulerMaruyama, Heun, ItoMilstein
from qsde.solve import PID, STRATEGIES, Adaptive, sdeint
from qsde.solve import adaptive as module

D = torch.float64
NOISE = Threefry(3)
VOL = 0.8


def gbm(interpretation: str, vol: Tensor | float = VOL) -> SDE:
    """`y(t) = y0 exp(-t / 4 + vol W)` in the sense of Stratonovich."""
    lift = 0.5 if interpretation == "ito" else 0.0
    return SDE(
        lambda t, y, p: (lift * p["vol"] ** 2 - 0.25) * y, lambda t, y, p: p["vol"] * y,
        parameters={"vol": vol}, interpretation=interpretation,
    )  # fmt: skip


def motion(paths: int, t: float, times: list[float], adaptive: Adaptive) -> Tensor:
    """The Brownian motion that the solver saw, at a time."""
    tree = module.tree_for(adaptive, torch.tensor(times, dtype=D), NOISE.seed, NOISE.rounds)
    return tree.block(torch.arange(paths), 1).at(t).value.squeeze(-1)


@pytest.mark.parametrize("per", ["shared", "path"])
@pytest.mark.parametrize("interpretation", ["ito", "stratonovich"])
def test_error_follows_the_tolerance_to_the_right_limit(per: Any, interpretation: str) -> None:
    times, tolerances, errors = [0.0, 0.3, 1.0], [1e-2, 1e-3, 2e-4], []
    for tolerance in tolerances:
        adaptive = Adaptive(rtol=tolerance, atol=tolerance, per=per)
        y = sdeint(gbm(interpretation), torch.ones(200, dtype=D), times, adaptive=adaptive, noise=NOISE)
        exact = torch.exp(-0.25 + VOL * motion(200, 1.0, times, adaptive))
        errors.append(float((y[-1] - exact).square().mean().sqrt()))
    slope = math.log(errors[0] / errors[-1]) / math.log(tolerances[0] / tolerances[-1])
    # an error of a step of order 3/2 and a global one of order 1 make 2/3
    assert 0.4 < slope < 0.9
    assert errors[-1] < 5e-3


def test_noise_that_depends_on_several_motions_converges_to_the_stratonovich_solution() -> None:
    # y = rotation by W1 of (1, 0), stretched by exp(W2 / 2): the two motions commute
    sde = SDE(
        lambda t, y, p: 0 * y,
        lambda t, y, p: torch.stack([torch.stack([-y[:, 1], y[:, 0]], -1), 0.5 * y], -1),
        noise="general", interpretation="stratonovich",
    )  # fmt: skip
    adaptive = Adaptive(rtol=1e-4, atol=1e-4)
    y0 = torch.tensor([1.0, 0.0], dtype=D).expand(20, 2)
    y = sdeint(sde, y0, [0.0, 1.0], adaptive=adaptive, noise=NOISE)[-1]
    tree = module.tree_for(adaptive, torch.tensor([0.0, 1.0], dtype=D), NOISE.seed, NOISE.rounds)
    w = tree.block(torch.arange(20), 2).at(1.0).value
    exact = torch.exp(0.5 * w[:, 1:]) * torch.stack([w[:, 0].cos(), w[:, 0].sin()], -1)
    assert float((y - exact).abs().max()) < 0.01


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The steps that the solver finds, as it finds them."""
    steps: list[Any] = []
    original = module.accepted_steps

    def watched(*args: Any) -> Any:
        steps.append(original(*args))
        return steps[-1]

    monkeypatch.setattr("qsde.solve.run.accepted_steps", watched)
    return steps


def test_stiff_start_needs_no_small_steps_later(found: list[Any]) -> None:
    # the drift falls from 3 * 50 * 10^2 per unit of time to almost nothing
    sde = SDE(lambda t, y, p: -50 * y**3, lambda t, y, p: 0.1 + 0 * y, noise="additive")
    y0 = torch.full((50,), 10.0, dtype=D)
    adaptive = Adaptive(rtol=1e-3, atol=1e-3, min_dt=2.0**-24)
    y = sdeint(sde, y0, [0.0, 1.0], adaptive=adaptive, noise=NOISE)[-1]
    sizes = found[0].ends - found[0].begins
    assert float(sizes.max() / sizes[0]) > 100
    assert len(sizes) < 2000
    with pytest.raises(NumericsError, match="not finite"):
        sdeint(sde, y0, [0.0, 1.0], max_dt=1 / len(sizes), noise=NOISE)
    fine = sdeint(sde, y0, [0.0, 1.0], adaptive=Adaptive(rtol=3e-4, atol=3e-4, min_dt=2.0**-24), noise=NOISE)[-1]
    assert float((y - fine).abs().max()) < 5e-3


@pytest.mark.parametrize("per", ["shared", "path"])
def test_steps_land_on_the_times_and_refused_steps_leave_the_path_alone(per: Any) -> None:
    # y = W whatever the steps are; the drift makes some of them too large
    times = [0.5, 0.61, 1.3, 1.30001, 2.0]
    sde = SDE(lambda t, y, p: 0 * y + torch.sin(40 * t), lambda t, y, p: 1 + 0 * y, noise="additive")
    adaptive = Adaptive(rtol=0.0, atol=1e-3, per=per)
    y = sdeint(sde, torch.zeros(30, dtype=D), times, adaptive=adaptive, noise=NOISE, scheme=EulerMaruyama())
    for k, t in enumerate(times):
        moved = (math.cos(20) - math.cos(40 * t)) / 40
        assert float((y[k] - moved - motion(30, t, times, adaptive)).abs().max()) < 0.02


def by_hand(y0: Tensor, vol: Tensor, times: list[float], steps: Any, tree: BrownianTree) -> Tensor:
    """Milstein's steps over the accepted grid on the tree's path."""
    starts, ends = steps.times(torch.tensor(times, dtype=D))
    motions, y = tree.block(torch.arange(len(y0)), 1), y0
    for a, b in zip(starts, ends, strict=True):
        dt, w = b - a, motions.between(a, b)[0].squeeze(-1)
        y = y + (0.5 * vol**2 - 0.25) * y * dt + vol * y * w + 0.5 * vol**2 * y * (w * w - dt)
    return y


@pytest.mark.parametrize("per", ["shared", "path"])
def test_the_gradient_is_that_of_the_replayed_grid(per: Any, found: list[Any]) -> None:
    times, adaptive = [0.0, 0.4, 1.0], Adaptive(rtol=1e-3, atol=1e-3, per=per)
    vol = torch.tensor(VOL, dtype=D, requires_grad=True)
    y0 = torch.linspace(0.5, 3.0, 12, dtype=D).requires_grad_()
    tree = module.tree_for(adaptive, torch.tensor(times, dtype=D), NOISE.seed, NOISE.rounds)
    exact: list[Tensor] = []
    for gradient in ("checkpoint", "direct", "forward"):
        y = sdeint(gbm("ito", vol), y0, times, adaptive=adaptive, noise=NOISE, scheme=ItoMilstein(), gradient=gradient)  # type: ignore[arg-type]
        wanted = by_hand(y0, vol, times, found[-1], tree)
        torch.testing.assert_close(y[-1], wanted, rtol=1e-11, atol=1e-12)
        exact = list(torch.autograd.grad(wanted.square().sum(), [y0, vol]))
        ours = list(torch.autograd.grad(y[-1].square().sum(), [y0, vol]))
        torch.testing.assert_close(ours, exact, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("per", ["shared", "path"])
def test_gradients_to_times_are_finite_and_those_of_direct(per: Any) -> None:
    def slope(gradient: Any) -> Tensor:
        times = torch.tensor([0.0, 0.4, 1.0], dtype=D, requires_grad=True)
        adaptive = Adaptive(rtol=1e-2, atol=1e-2, per=per)
        y = sdeint(
            gbm("stratonovich"), torch.ones(10, dtype=D), times, adaptive=adaptive, noise=NOISE, gradient=gradient
        )
        return torch.autograd.grad(y[-1].sum(), times)[0]

    exact = slope("direct")
    assert bool(exact.isfinite().all())
    torch.testing.assert_close(slope("checkpoint"), exact, rtol=1e-10, atol=1e-11)


def test_paths_of_their_own_steps_do_not_depend_on_each_other() -> None:
    adaptive = Adaptive(rtol=1e-3, atol=1e-3, per="path")
    y0 = torch.linspace(0.5, 3.0, 40, dtype=D).unsqueeze(-1)
    every = sdeint(gbm("ito"), y0, [0.0, 1.0], adaptive=adaptive, noise=NOISE)
    some = sdeint(gbm("ito"), y0[:15], [0.0, 1.0], adaptive=adaptive, noise=NOISE)
    torch.testing.assert_close(every[:, :15], some, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("per", ["shared", "path"])
def test_blocks_do_not_change_the_result(per: Any) -> None:
    adaptive = Adaptive(rtol=1e-2, atol=1e-2, per=per)
    y0 = torch.linspace(0.5, 3.0, 2100, dtype=D)
    parts = [
        sdeint(gbm("ito"), y0, [0.0, 0.5], adaptive=adaptive, noise=NOISE, memory_budget=budget)
        for budget in (1, 1 << 30)
    ]
    torch.testing.assert_close(parts[0], parts[1], rtol=1e-12, atol=1e-13)
    again = sdeint(gbm("ito"), y0, [0.0, 0.5], adaptive=adaptive, noise=NOISE)
    assert torch.equal(again, parts[1])


def test_float32_paths() -> None:
    adaptive = Adaptive(rtol=1e-3, atol=1e-3)
    y = sdeint(gbm("ito"), torch.ones(50), [0.0, 1.0], adaptive=adaptive, noise=NOISE)
    assert y.dtype == torch.float32
    exact = torch.exp(-0.25 + VOL * motion(50, 1.0, [0.0, 1.0], adaptive))
    assert float((y[-1] - exact).abs().max()) < 0.05


def test_step_sizes_stay_within_their_bounds() -> None:
    adaptive = Adaptive(rtol=1e-2, atol=1e-2, max_dt=0.1, first_step=0.01)
    y0 = torch.ones(3, dtype=D)
    with pytest.raises(StepLimitError, match=r"max_steps = 4 steps were tried and t = "):
        sdeint(gbm("ito"), y0, [0.0, 1.0], adaptive=Adaptive(max_steps=4))
    sde = SDE(lambda t, y, p: 0 * y, lambda t, y, p: 0 * y, noise="additive")
    assert torch.equal(sdeint(sde, y0, [0.0, 1.0], adaptive=adaptive)[-1], y0)


def test_a_tolerance_out_of_reach_says_so() -> None:
    adaptive = Adaptive(rtol=1e-12, atol=1e-12, min_dt=1e-2)
    with pytest.raises(NumericsError, match="lower min_dt, or raise rtol or atol"):
        sdeint(gbm("ito"), torch.ones(3, dtype=D), [0.0, 1.0], adaptive=adaptive)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": EulerMaruyama()}, r"strong order 1.*use ItoMilstein\(\)"),
        ({"noise": Sobol(1)}, r"use noise=Threefry\(seed\)"),
        ({"max_dt": 0.1}, "in place of max_dt"),
        ({"compile": "always"}, "not compiled"),
        ({"adaptive": None}, r"needs max_dt, the largest step, or adaptive=Adaptive"),
        ({"adaptive": Adaptive(min_dt=1e-12)}, "min_dt must be at least"),
        ({"adaptive": Adaptive(max_dt=1e-12)}, "half of max_dt must be at least"),
        ({"scheme": Heun()}, "use EulerMaruyama"),
    ],
)
def test_wrong_combinations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sdeint(gbm("ito"), torch.ones(3, dtype=D), [0.0, 1.0], **{"adaptive": Adaptive(), **options})


def test_transforms_are_refused() -> None:
    with pytest.raises(InputError, match=r"torch\.func"):
        torch.func.grad(lambda y: sdeint(gbm("ito"), y, [0.0, 1.0], adaptive=Adaptive()).sum())(torch.ones(3, dtype=D))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rtol": 0.0, "atol": 0.0}, "not both 0"),
        ({"rtol": math.nan}, "not both 0"),
        ({"first_step": 0.0}, "first_step must be positive"),
        ({"min_dt": -1.0}, "min_dt must be positive"),
        ({"min_dt": 0.01, "max_dt": 0.019}, "max_dt must be at least twice min_dt, got max_dt=0.019"),
        ({"per": "paths"}, "'shared' or 'path'"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Adaptive(**fields)


@pytest.mark.parametrize("limits", [{"max_dt": 2e-2, "min_dt": 1e-2}, {"max_dt": 0.1}, {"max_dt": 1.2e-2}])
def test_no_step_is_larger_than_max_dt(limits: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HALVINGS", 5)
    sde, adaptive = gbm("ito", 0.1), Adaptive(rtol=1.0, atol=1.0, **limits)
    sizes: list[float] = []
    original = module.Steps.between

    def between(counts: Any, begins: Tensor, ends: Tensor) -> Any:
        sizes.extend((ends - begins).flatten().tolist())
        return original(counts, begins, ends)

    monkeypatch.setattr(module.Steps, "between", between)
    sdeint(sde, torch.ones(2, dtype=D), [0.0, 1.0], adaptive=adaptive, noise=NOISE)
    assert 0.25 * limits["max_dt"] < max(sizes) <= limits["max_dt"]


def test_controllers() -> None:
    with pytest.raises(InputError, match="PID needs"):
        PID(safety=2.0)
    plain = PID(0.0, 1.0, 0.0, safety=1.0)
    factor = plain.factor(torch.tensor([1.0, 8.0, 1e9], dtype=D), torch.ones(2, 3, dtype=D), 1.5)
    torch.testing.assert_close(factor, torch.tensor([1.0, 0.25, 0.125], dtype=D))
    assert set(STRATEGIES) == {"checkpoint", "direct", "forward", "reversible", "stochastic_adjoint"}
