"""Gradient strategies: the exact ones against autograd, the stochastic adjoint against closed forms, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qsde.errors import InputError
from qsde.models import SDE
from qsde.noise import Antithetic, Sobol, Threefry
from qsde.schemes import EulerMaruyama, Heun, ItoMilstein, ReversibleHeun, SDEScheme
from qsde.solve import STRATEGIES, Adaptive, sdeint

D = torch.float64
NOISE = Threefry(8)
TIMES = [0.25, 0.5, 1.25]
DIFFUSIONS = {
    "diagonal": lambda t, y, p: p["vol"] * torch.sqrt(1 + y * y) * (1 + 0.1 * t),
    "scalar": lambda t, y, p: p["vol"] * torch.sqrt(1 + y * y),
    "additive": lambda t, y, p: torch.stack([p["vol"] * (1 + t), 0.3 * p["vol"]], -1),
    "general": lambda t, y, p: torch.stack([p["vol"] * y, 0.2 * torch.cos(y.sum(-1, keepdim=True) + p["vol"])], -1),
}
SCHEMES: dict[str, SDEScheme] = {"ito": EulerMaruyama(), "stratonovich": Heun()}


def leaves() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    y0 = torch.randn(21, 3, generator=g, dtype=D)
    shift = torch.randn(21, 3, generator=g, dtype=D)
    return (
        y0.requires_grad_(),
        torch.tensor(0.7, dtype=D, requires_grad=True),
        torch.tensor([0.3, 0.2, 0.4], dtype=D, requires_grad=True),
        shift.requires_grad_(),
    )


def solved(
    kind: str, interpretation: str, gradient: str, *, times: Any = TIMES, max_dt: float = 1 / 32, **options: Any
) -> tuple[Tensor, list[Tensor]]:
    """Paths, and the gradient of a weighted sum to starts, shared parameters and parameters of each path."""
    y0, speed, vol, shift = leaves()
    sde = SDE(
        lambda t, y, p: p["speed"] * (torch.sin(t) + p["shift"] - y),
        DIFFUSIONS[kind],
        parameters={"speed": speed, "vol": vol},
        noise=kind,
        interpretation=interpretation,
    )
    given = {"scheme": SCHEMES[interpretation], "noise": NOISE, **options}
    if "adaptive" not in given:
        given["max_dt"] = max_dt
    y = sdeint(sde, y0, times, per_path={"shift": shift}, gradient=gradient, **given)
    w = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=D)
    wanted = [y0, speed, vol, shift]
    if isinstance(times, Tensor):
        wanted.append(times)
    return y.detach(), list(torch.autograd.grad((y * w).sum(), wanted))


def gap(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Largest relative distance of the gradients."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("noise", DIFFUSIONS)
@pytest.mark.parametrize("interpretation", ["ito", "stratonovich"])
@pytest.mark.parametrize("gradient", ["checkpoint", "forward"])
def test_exact_strategies_have_the_gradient_of_autograd(noise: str, interpretation: str, gradient: str) -> None:
    y, exact = solved(noise, interpretation, "direct")
    ours, found = solved(noise, interpretation, gradient)
    torch.testing.assert_close(ours, y, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("noise", DIFFUSIONS)
@pytest.mark.parametrize("gradient", ["checkpoint", "forward", "reversible"])
def test_reversible_heun_is_undone_exactly(noise: str, gradient: str) -> None:
    y, exact = solved(noise, "stratonovich", "direct", scheme=ReversibleHeun())
    ours, found = solved(noise, "stratonovich", gradient, scheme=ReversibleHeun())
    torch.testing.assert_close(ours, y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("noise", DIFFUSIONS)
@pytest.mark.parametrize(("interpretation", "most"), [("ito", 0.08), ("stratonovich", 4e-3)])
def test_the_stochastic_adjoint_approaches_the_exact_gradient(noise: str, interpretation: str, most: float) -> None:
    gaps = []
    for max_dt in (1 / 16, 1 / 128):
        exact = solved(noise, interpretation, "checkpoint", max_dt=max_dt)[1]
        gaps.append(gap(solved(noise, interpretation, "stochastic_adjoint", max_dt=max_dt)[1], exact))
    assert gaps[1] < most
    assert gaps[1] < 0.5 * gaps[0]


@pytest.mark.parametrize("gradient", ["checkpoint", "direct", "stochastic_adjoint"])
def test_gradients_to_times(gradient: str) -> None:
    times = torch.tensor(TIMES, dtype=D, requires_grad=True)
    exact = solved("diagonal", "stratonovich", "direct", times=times, max_dt=1 / 256)[1]
    found = solved("diagonal", "stratonovich", gradient, times=times, max_dt=1 / 256)[1]
    assert gap(found, exact) < (2e-3 if gradient == "stochastic_adjoint" else 1e-12)


def test_gradient_to_the_end_of_a_mean_is_its_drift() -> None:
    # E y(T) = exp(a T) y0 for geometric Brownian motion
    end = torch.tensor([0.0, 1.0], dtype=D, requires_grad=True)
    sde = SDE(lambda t, y, p: 0.3 * y, lambda t, y, p: 0.2 * y)
    y = sdeint(sde, torch.ones(20_000, dtype=D), end, max_dt=0.05, scheme=ItoMilstein(), noise=Antithetic(NOISE))
    (slope,) = torch.autograd.grad(y[-1].mean(), end)
    assert float(slope[1]) == pytest.approx(0.3 * math.exp(0.3), abs=0.01)
    assert float(slope[0]) == pytest.approx(-float(slope[1]), rel=1e-9)


class Net(nn.Module):
    def __init__(self, positive: bool) -> None:
        super().__init__()
        self.inner, self.outer, self.positive = nn.Linear(4, 6, dtype=D), nn.Linear(6, 3, dtype=D), positive

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        out = self.outer(torch.tanh(self.inner(torch.cat([y, t.expand(len(y), 1)], -1))))
        return torch.sigmoid(out) if self.positive else out


@pytest.mark.parametrize("gradient", ["direct", "forward", "reversible", "stochastic_adjoint"])
@pytest.mark.parametrize("per", [None, "shared", "path"])
def test_networks_learn_with_every_strategy(gradient: str, per: str | None) -> None:
    torch.manual_seed(0)
    sde = SDE(Net(False), Net(True), noise="scalar", interpretation="stratonovich")
    y0 = leaves()[0].detach()
    steps: dict[str, Any] = {"adaptive": Adaptive(rtol=1e-2, atol=1e-3, per=per)} if per else {"max_dt": 1 / 64}

    def found(gradient: str) -> list[Tensor]:
        y = sdeint(sde, y0, [0.0, 1.0], scheme=ReversibleHeun(), noise=NOISE, gradient=gradient, **steps)
        return list(torch.autograd.grad(y[-1].square().mean(), list(sde.parameters.values())))

    most = 0.1 if gradient == "stochastic_adjoint" else 1e-9
    assert gap(found(gradient), found("checkpoint")) < most


def test_second_derivatives_are_those_of_direct_alone() -> None:
    def curvature(gradient: str) -> Tensor:
        a = torch.tensor(0.5, dtype=D, requires_grad=True)
        sde = SDE(lambda t, y, p: -p["a"] * y, lambda t, y, p: 0.1 + 0 * y, parameters={"a": a})
        y = sdeint(sde, torch.ones(2000, dtype=D), [0.0, 1.0], max_dt=0.01, noise=NOISE, gradient=gradient)
        (slope,) = torch.autograd.grad(y[-1].mean(), a, create_graph=True)
        return torch.autograd.grad(slope, a)[0]

    assert float(curvature("direct")) == pytest.approx(math.exp(-0.5), abs=0.01)
    for gradient in ("forward", "stochastic_adjoint"):
        with pytest.raises(InputError, match="gradient='direct'"):
            curvature(gradient)


@pytest.mark.parametrize("noise", [NOISE, Sobol(1, scrambles=4), Antithetic(NOISE)])
def test_every_noise_is_drawn_again_backwards(noise: Any) -> None:
    exact = solved("diagonal", "stratonovich", "direct", scheme=ReversibleHeun(), noise=noise)[1]
    found = solved("diagonal", "stratonovich", "reversible", scheme=ReversibleHeun(), noise=noise)[1]
    assert gap(found, exact) < 1e-10


@pytest.mark.parametrize("gradient", STRATEGIES)
def test_blocks_of_paths_do_not_change_the_gradient(gradient: str) -> None:
    def found(budget: int) -> list[Tensor]:
        g = torch.Generator().manual_seed(1)
        y0 = torch.randn(2500, generator=g, dtype=D).requires_grad_()
        a = torch.tensor(0.5, dtype=D, requires_grad=True)
        own = torch.randn(2500, generator=g, dtype=D).requires_grad_()
        sde = SDE(
            lambda t, y, p: p["a"] * (p["own"] - y), lambda t, y, p: 0.1 + 0 * y,
            parameters={"a": a}, interpretation="stratonovich",
        )  # fmt: skip
        y = sdeint(
            sde, y0, [0.0, 1.0], max_dt=0.1, noise=NOISE, gradient=gradient, scheme=ReversibleHeun(),
            per_path={"own": own}, memory_budget=budget,
        )  # fmt: skip
        return list(torch.autograd.grad(y[-1].sin().sum(), [y0, a, own]))

    torch.testing.assert_close(found(1), found(1 << 30), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("gradient", ["reversible", "stochastic_adjoint"])
def test_compiled_backward_steps_are_the_plain_ones(gradient: str) -> None:
    plain, compiled = (
        solved("diagonal", "stratonovich", gradient, scheme=ReversibleHeun(), max_dt=0.5, compile=how)[1]
        for how in ("never", "always")
    )
    assert gap(compiled, plain) < 1e-12


@pytest.mark.parametrize(
    ("gradient", "options", "message"),
    [
        ("adjoint", {}, "gradient must be one of 'checkpoint', 'direct'"),
        ("reversible", {}, r"use scheme=ReversibleHeun\(\)"),
        ("forward", {"times": torch.tensor(TIMES, dtype=D, requires_grad=True)}, "no gradient to ts"),
    ],
)
def test_wrong_combinations_are_refused(gradient: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        solved("diagonal", "ito", gradient, **options)


def test_too_many_tangents_are_refused() -> None:
    w = torch.zeros(600, dtype=D, requires_grad=True)
    sde = SDE(lambda t, y, p: p["w"].sum() - y, lambda t, y, p: 0.1 + 0 * y, parameters={"w": w})
    with pytest.raises(InputError, match="600 tangents"):
        sdeint(sde, torch.ones(4, dtype=D), [0.0, 1.0], max_dt=0.5, gradient="forward")


@pytest.mark.parametrize("gradient", ["forward", "reversible", "stochastic_adjoint"])
def test_transforms_are_refused_where_they_do_not_work(gradient: str) -> None:
    sde = SDE(lambda t, y, p: -y, lambda t, y, p: 0.1 + 0 * y, interpretation="stratonovich")

    def total(y0: Tensor) -> Tensor:
        return sdeint(sde, y0, [0.0, 1.0], max_dt=0.5, scheme=ReversibleHeun(), gradient=gradient).sum()  # type: ignore[arg-type]

    with pytest.raises(InputError, match=r"torch\.func"):
        torch.func.grad(total)(torch.ones(4, dtype=D))


def test_direct_works_inside_transforms() -> None:
    sde = SDE(lambda t, y, p: -y, lambda t, y, p: 0.1 * y)

    def total(y0: Tensor, gradient: str) -> Tensor:
        return sdeint(sde, y0, [0.0, 1.0], max_dt=0.1, noise=NOISE, gradient=gradient)[-1].square().sum()  # type: ignore[arg-type]

    y0 = torch.linspace(0.5, 2.0, 5, dtype=D)
    ours, theirs = (torch.func.grad(lambda y: total(y, g))(y0) for g in ("direct", "checkpoint"))  # noqa: B023
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
