"""First passage: probabilities, times and rewards in closed form, with gradients; frozen states; refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from qsde.errors import InputError
from qsde.models import SDE
from qsde.noise import Threefry
from qsde.schemes import Heun
from qsde.solve import killed, stopped

D = torch.float64
NOISE = Threefry(12)
PATHS = 20_000


def normal(x: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-x / math.sqrt(2))


def hit_probability(level: Tensor, drift: Tensor, vol: Tensor, t: float) -> Tensor:
    """That `drift t + vol W` meets a level above 0 by time t (Borodin, Salminen, 2.1.1.4)."""
    root = vol * math.sqrt(t)
    far = normal((drift * t - level) / root)
    return far + torch.exp(2 * drift * level / vol**2) * normal((-drift * t - level) / root)


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.tensor(v, dtype=D, requires_grad=True) for v in (0.8, 0.3, 0.9))  # type: ignore[return-value]


def moving(level: Tensor, drift: Tensor, vol: Tensor) -> SDE:
    return SDE(
        lambda t, y, p: p["drift"] + 0 * y, lambda t, y, p: p["vol"] + 0 * y,
        parameters={"level": level, "drift": drift, "vol": vol},
    )  # fmt: skip


def below(t: Tensor, y: Tensor, p: Any) -> Tensor:
    return p["level"] - y


@pytest.mark.parametrize("max_dt", [2.0, 0.125])
@pytest.mark.parametrize("gradient", ["checkpoint", "direct", "forward"])
def test_probability_and_its_gradient_at_any_step(max_dt: float, gradient: Any) -> None:
    # with constant coefficients the bridge is exact however long the steps are
    params = leaves()
    y0 = torch.zeros(PATHS if max_dt > 1 else 4000, dtype=D)
    out = killed(moving(*params), y0, [0.0, 2.0], below, max_dt=max_dt, noise=NOISE, gradient=gradient)
    hit, exact = 1 - out.survival[-1].mean(), hit_probability(*params, 2.0)
    error = float(out.survival[-1].detach().std()) / math.sqrt(len(y0))
    assert float(hit.detach()) == pytest.approx(float(exact.detach()), abs=4 * error)
    ours, theirs = (torch.autograd.grad(v, params) for v in (hit, exact))
    for a, b in zip(ours, theirs, strict=True):
        assert float(a) == pytest.approx(float(b), abs=0.05)


def test_paths_that_stop_do_so_as_often_and_when_they_should() -> None:
    with torch.no_grad():
        params = leaves()
        out = stopped(moving(*params), torch.zeros(PATHS, dtype=D), [0.0, 0.5, 2.0], below, max_dt=0.5, noise=NOISE)
        exact = [float(hit_probability(*params, t)) for t in (0.5, 2.0)]
    assert torch.equal(out.hit, out.time <= 2.0)
    for t, p in zip((0.5, 2.0), exact, strict=True):
        assert float((out.time <= t).double().mean()) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / PATHS))
    torch.testing.assert_close(out.y[-1][out.hit], torch.full_like(out.y[-1][out.hit], 0.8))
    early = out.time <= 0.5
    assert torch.equal(out.y[1][early], out.y[2][early])
    assert bool((out.y[-1][~out.hit] < 0.8).all())

    # the law of the time, given that it comes, in one long step
    def law(t: Any) -> Any:
        with torch.no_grad():
            t = torch.as_tensor(t, dtype=D)
            root = 0.9 * t.sqrt()
            far = normal((0.3 * t - 0.8) / root) + math.exp(0.48 / 0.81) * normal((-0.3 * t - 0.8) / root)
            return (far / exact[1]).numpy()

    assert stats.kstest(out.time[out.hit].numpy(), law).pvalue > 1e-3


def test_mean_time_of_the_event_or_the_end() -> None:
    # Brownian motion from x in (0, 1): E tau = x (1 - x), long before the end
    sde = SDE(lambda t, y, p: 0 * y, lambda t, y, p: 1 + 0 * y)
    y0 = torch.full((2500,), 0.3, dtype=D).requires_grad_()

    def inside(t: Tensor, y: Tensor, p: Any) -> Tensor:
        return y * (1 - y)

    out = killed(sde, y0, [0.0, 3.0], inside, lambda t, y, p: t, max_dt=1 / 128, noise=NOISE)
    time = (out.reward[-1] + 3.0 * out.survival[-1]).mean()
    assert float(time.detach()) == pytest.approx(0.21, abs=0.012)
    (slope,) = torch.autograd.grad(time, y0)
    assert float(slope.sum()) == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize("noise", ["diagonal", "scalar", "general"])
def test_a_sphere_in_three_dimensions(noise: Any) -> None:
    # exit of Brownian motion from a ball of radius 1: E |y_tau - e|^2 = 2 by symmetry, E tau = (1 - r^2) / 3
    diffusions = {
        "diagonal": lambda t, y, p: torch.ones_like(y),
        "scalar": lambda t, y, p: torch.tensor([1.0, 0.0, 0.0], dtype=D).expand_as(y),
        "general": lambda t, y, p: torch.eye(3, dtype=D).expand(len(y), 3, 3),
    }
    sde = SDE(lambda t, y, p: 0 * y, diffusions[noise], noise=noise)
    y0 = torch.tensor([0.2, 0.3, 0.0], dtype=D).expand(1500, 3)

    def inside(t: Tensor, y: Tensor, p: Any) -> Tensor:
        return 1 - y.square().sum(-1)

    out = stopped(sde, y0, [0.0, 4.0], inside, max_dt=1 / 100, noise=NOISE)
    assert float(out.hit.double().mean()) > 0.98
    assert float((out.y[-1][out.hit].square().sum(-1) - 1).abs().max()) < 0.1
    # along a line the chord from 0.2 has half-length sqrt(1 - 0.09): E tau = 0.91 - 0.04
    expected = 0.87 if noise == "scalar" else (1 - 0.13) / 3
    assert float(out.time.clamp(max=4.0).mean()) == pytest.approx(expected, abs=0.04)
    assert float(out.y[-1].mean(0)[0]) == pytest.approx(0.2, abs=0.05)


def test_a_barrier_option_under_geometric_brownian_motion() -> None:
    # down-and-out call, Merton (1973): no rates, strike above the barrier
    spot, strike, level, t = (torch.tensor(v, dtype=D) for v in (100.0, 100.0, 90.0, 0.5))
    vol = torch.tensor(0.25, dtype=D, requires_grad=True)

    def call(s: Tensor) -> Tensor:
        root = vol * t.sqrt()
        d1 = torch.log(s / strike) / root + root / 2
        return s * normal(d1) - strike * normal(d1 - root)

    exact = call(spot) - (spot / level) * call(level**2 / spot)
    sde = SDE(
        lambda t, y, p: -0.5 * p["vol"] ** 2 + 0 * y, lambda t, y, p: p["vol"] + 0 * y, parameters={"vol": vol}
    )  # fmt: skip
    y0 = torch.full((PATHS,), math.log(100.0), dtype=D)
    out = killed(sde, y0, [0.0, 0.5], lambda t, y, p: y - math.log(90.0), max_dt=0.25, noise=NOISE)
    pays = (out.y[-1].exp() - strike).clamp(min=0) * out.survival[-1]
    error = float(pays.detach().std()) / math.sqrt(PATHS)
    assert float(pays.detach().mean()) == pytest.approx(float(exact.detach()), abs=4 * error)
    ours, theirs = (torch.autograd.grad(v, vol)[0] for v in (pays.mean(), exact))
    assert float(ours) == pytest.approx(float(theirs), abs=2.0)


def test_a_rebate_has_a_gradient_to_the_barrier() -> None:
    params = leaves()
    out = killed(
        moving(*params), torch.zeros(PATHS, dtype=D), [0.0, 2.0], below, lambda t, y, p: y, max_dt=0.5, noise=NOISE
    )  # fmt: skip
    exact = params[0] * hit_probability(*params, 2.0)
    assert float(out.reward[-1].detach().mean()) == pytest.approx(float(exact.detach()), abs=0.01)
    ours, theirs = (torch.autograd.grad(v, params[0])[0] for v in (out.reward[-1].mean(), exact))
    assert float(ours) == pytest.approx(float(theirs), abs=0.03)


def test_a_start_at_the_barrier_has_stopped() -> None:
    sde = SDE(lambda t, y, p: 1 + 0 * y, lambda t, y, p: 1 + 0 * y)
    y0 = torch.tensor([1.0, 2.0, 0.0], dtype=D)
    out = stopped(sde, y0, [0.5, 1.0], lambda t, y, p: 1 - y, max_dt=0.25, noise=NOISE)
    assert out.time[:2].tolist() == [0.5, 0.5]
    assert torch.equal(out.y[-1][:2], y0[:2])
    later = killed(sde, y0, [0.5, 1.0], lambda t, y, p: 1 - y, max_dt=0.25, noise=NOISE)
    assert later.survival[-1][:2].tolist() == [0.0, 0.0]


def test_deterministic_paths_meet_the_barrier_where_they_cross_it() -> None:
    sde = SDE(lambda t, y, p: 1 + 0 * y, lambda t, y, p: 0 * y, interpretation="stratonovich")
    out = stopped(
        sde, torch.tensor([0.0, -5.0], dtype=D), [0.0, 1.0], lambda t, y, p: 0.62 - y, max_dt=0.25, scheme=Heun()
    )
    assert out.hit.tolist() == [True, False]
    assert float(out.time[0]) == pytest.approx(0.62, abs=1e-12)
    assert float(out.y[-1][0]) == pytest.approx(0.62, abs=1e-12)


def test_blocks_do_not_change_the_result() -> None:
    params = [p.detach() for p in leaves()]
    y0 = torch.linspace(-1.0, 0.5, 2100, dtype=D)
    parts = [
        stopped(moving(*params), y0, [0.0, 1.0], below, max_dt=0.25, noise=NOISE, memory_budget=b) for b in (1, 1 << 30)
    ]
    torch.testing.assert_close(parts[0].time, parts[1].time)
    torch.testing.assert_close(parts[0].y, parts[1].y)


def test_gradients_that_do_not_exist_are_refused() -> None:
    params = leaves()
    with pytest.raises(InputError, match=r"qsde\.solve\.killed"):
        stopped(moving(*params), torch.zeros(3, dtype=D), [0.0, 1.0], below, max_dt=0.5)
    ts = torch.tensor([0.0, 1.0], dtype=D, requires_grad=True)
    with pytest.raises(InputError, match=r"qsde\.solve\.killed"):
        stopped(moving(*(p.detach() for p in params)), torch.zeros(3, dtype=D), ts, below, max_dt=0.5)
    with pytest.raises(InputError, match="use gradient='checkpoint'"):
        killed(moving(*params), torch.zeros(3, dtype=D), [0.0, 1.0], below, max_dt=0.5, gradient="stochastic_adjoint")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"distance must return \[P\]"):
        killed(moving(*params), torch.zeros(3, 2, dtype=D), [0.0, 1.0], below, max_dt=0.5)
