"""Jumps at exact times: laws of counts and times, means and variances in closed form, gradients, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from qsde.errors import InputError
from qsde.models import SDE
from qsde.noise import Sobol, Threefry
from qsde.schemes import Heun, ItoMilstein, ReversibleHeun
from qsde.solve import Adaptive, Jumps, sdeint
from qsde.solve.jumps import jump_times

D = torch.float64
NOISE = Threefry(6)
TIMES = [0.0, 0.5, 2.0]
RATE = 3.0
STILL = SDE(lambda t, y, p: 0 * y, lambda t, y, p: 0 * y)


def test_counts_are_poisson_and_times_uniform() -> None:
    one = Jumps(RATE, lambda t, y, z, p: torch.ones_like(y), marks=0)
    y = sdeint(STILL, torch.zeros(5000, dtype=D), TIMES, max_dt=0.25, jumps=one, noise=NOISE)
    for k, t in enumerate(TIMES[1:], 1):
        counts = y[k].long()
        top = int(counts.max())
        seen = torch.bincount(counts, minlength=top + 1).double()
        expected = torch.tensor(stats.poisson.pmf(range(top + 1), RATE * t), dtype=D) * len(counts)
        big = expected > 5
        chi = float(((seen - expected)[big] ** 2 / expected[big]).sum())
        assert stats.chi2.sf(chi, int(big.sum()) - 1) > 1e-3
    times = jump_times(one, NOISE, torch.arange(5000), 0.0, 2.0)
    inside = times[times < 2.0]
    assert stats.kstest(inside.numpy() / 2.0, "uniform").pvalue > 1e-3
    assert float(y[-1].sum()) == len(inside)


def test_shot_noise_has_its_mean_and_variance() -> None:
    # y' = -k y with jumps of 1: mean (rate / k) (1 - exp(-k t)), variance (rate / 2k) (1 - exp(-2 k t))
    k = 1.5
    sde = SDE(lambda t, y, p: -k * y, lambda t, y, p: 0 * y, interpretation="stratonovich")
    one = Jumps(RATE, lambda t, y, z, p: torch.ones_like(y), marks=0)
    y = sdeint(sde, torch.zeros(8000, dtype=D), TIMES, max_dt=0.1, jumps=one, noise=NOISE)
    for i, t in enumerate(TIMES[1:], 1):
        mean, variance = RATE / k * (1 - math.exp(-k * t)), RATE / (2 * k) * (1 - math.exp(-2 * k * t))
        assert float(y[i].mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / 8000))
        assert float(y[i].var()) == pytest.approx(variance, rel=0.08)


def test_one_path_is_exact_at_its_own_jump_times() -> None:
    sde = SDE(lambda t, y, p: -2.0 * y, lambda t, y, p: 0 * y, interpretation="stratonovich")
    jumps = Jumps(RATE, lambda t, y, z, p: torch.cos(t) + 0 * y, marks=0)
    y = sdeint(sde, torch.zeros(25, dtype=D), TIMES, max_dt=1e-3, jumps=jumps, noise=NOISE, scheme=Heun())
    times = jump_times(jumps, NOISE, torch.arange(25), 0.0, 2.0)
    exact = (torch.where(times < 2.0, torch.cos(times) * torch.exp(-2 * (2.0 - times)), 0.0)).sum(0)
    torch.testing.assert_close(y[-1], exact, rtol=1e-5, atol=1e-6)


def merton(mean: Tensor, sd: Tensor) -> tuple[SDE, Jumps]:
    sde = SDE(lambda t, y, p: 0.1 * y, lambda t, y, p: 0.2 * y, parameters={"mean": mean, "sd": sd})
    return sde, Jumps(2.0, lambda t, y, z, p: y * torch.expm1(p["mean"] + p["sd"] * z[0]))


def test_mertons_mean_and_its_gradient() -> None:
    mean, sd = (torch.tensor(v, dtype=D, requires_grad=True) for v in (-0.1, 0.2))
    sde, jumps = merton(mean, sd)
    y0 = torch.ones(8000, 1, dtype=D).requires_grad_()
    y = sdeint(sde, y0, [0.0, 1.0], max_dt=0.05, jumps=jumps, noise=NOISE, scheme=ItoMilstein())[-1]
    growth = torch.exp(mean + 0.5 * sd * sd)
    exact = torch.exp(0.1 + 2.0 * (growth - 1))
    error = float(y.detach().std()) / math.sqrt(8000)
    assert float(y.detach().mean()) == pytest.approx(float(exact.detach()), abs=4 * error)
    ours = torch.autograd.grad(y.mean(), [mean, sd, y0])
    theirs = torch.autograd.grad(exact, [mean, sd])
    assert float(ours[0]) == pytest.approx(float(theirs[0]), rel=0.07)
    assert float(ours[1]) == pytest.approx(float(theirs[1]), abs=0.06)
    assert float(ours[2].sum()) == pytest.approx(float(exact.detach()), abs=4 * error)


@pytest.mark.parametrize("gradient", ["direct", "forward"])
def test_gradients_are_those_of_autograd(gradient: Any) -> None:
    def found(gradient: Any) -> list[Tensor]:
        mean, sd = (torch.tensor(v, dtype=D, requires_grad=True) for v in (-0.1, 0.2))
        sde, jumps = merton(mean, sd)
        y0 = torch.linspace(0.5, 2.0, 30, dtype=D).view(-1, 1).requires_grad_()
        y = sdeint(sde, y0, TIMES, max_dt=0.1, jumps=jumps, noise=NOISE, gradient=gradient)
        return list(torch.autograd.grad(y.square().sum(), [mean, sd, y0]))

    torch.testing.assert_close(found(gradient), found("checkpoint"), rtol=1e-11, atol=1e-12)


def test_paths_do_not_depend_on_blocks_or_on_each_other() -> None:
    sde, jumps = merton(torch.tensor(-0.1), torch.tensor(0.2))
    y0 = torch.linspace(0.5, 2.0, 2100, dtype=D)
    every, blocks = (
        sdeint(sde, y0, TIMES, max_dt=0.25, jumps=jumps, noise=NOISE, memory_budget=budget) for budget in (1 << 30, 1)
    )
    some = sdeint(sde, y0[:50], TIMES, max_dt=0.25, jumps=jumps, noise=NOISE)
    torch.testing.assert_close(blocks, every, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(some, every[:, :50], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adaptive": Adaptive(), "max_dt": None}, "not with adaptive steps"),
        ({"noise": Sobol(1)}, r"use noise=Threefry\(seed\)"),
        ({"gradient": "stochastic_adjoint"}, "use gradient='checkpoint'"),
        ({"compile": "always"}, "not compiled"),
        ({"ts": torch.tensor([0.0, 1.0], dtype=D, requires_grad=True)}, "no gradient to ts"),
    ],
)
def test_wrong_combinations_are_refused(options: dict[str, Any], message: str) -> None:
    jumps = Jumps(1.0, lambda t, y, z, p: z[0] + 0 * y)
    given = {"ts": [0.0, 1.0], "max_dt": 0.5, "jumps": jumps, **options}
    with pytest.raises(InputError, match=message):
        sdeint(STILL, torch.zeros(3, dtype=D), **given)


def test_schemes_that_carry_more_are_refused() -> None:
    sde = SDE(STILL.drift, STILL.diffusion, interpretation="stratonovich")
    with pytest.raises(InputError, match=r"use Heun\(\)"):
        sdeint(
            sde, torch.zeros(3, dtype=D), [0.0, 1.0], max_dt=0.5, scheme=ReversibleHeun(),
            jumps=Jumps(1.0, lambda t, y, z, p: 0 * y),
        )  # fmt: skip


def test_bad_jumps_are_refused() -> None:
    with pytest.raises(InputError, match="no gradient to its rate"):
        Jumps(torch.tensor(1.0, requires_grad=True), lambda t, y, z, p: y)
    rates: list[Any] = [0.0, math.nan, torch.ones(2), "often"]
    for rate in rates:
        with pytest.raises(InputError, match="rate must be one positive number"):
            Jumps(rate, lambda t, y, z, p: y)
    with pytest.raises(InputError, match="makes 1e\\+06 jumps of each path"):
        sdeint(STILL, torch.zeros(3, 2, dtype=D), [0.0, 1.0], max_dt=0.5, jumps=Jumps(1e6, lambda t, y, z, p: 0 * y))
    with pytest.raises(InputError, match=r"effect must return \[P, \*shape\]"):
        sdeint(STILL, torch.zeros(3, 2, dtype=D), [0.0, 1.0], max_dt=0.5, jumps=Jumps(1.0, lambda t, y, z, p: y[:, 0]))
