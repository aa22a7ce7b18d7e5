"""One law for every scheme of functions and every noise it takes: strategies agree, adaptive steps replay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from qsde.models import SDE
from qsde.noise import Threefry
from qsde.schemes import sde as schemes
from qsde.schemes.sde import Components, SDEScheme
from qsde.solve import Adaptive, Jumps, sdeint

D = torch.float64
DIFFUSIONS = {
    "diagonal": lambda t, y, p: p["vol"] * torch.sqrt(1 + y * y) * (1 + 0.1 * t),
    "scalar": lambda t, y, p: p["vol"] * torch.sqrt(1 + y * y),
    "additive": lambda t, y, p: torch.stack([p["vol"] * (1 + t) + 0 * y, 0.3 * p["vol"] + 0 * y], -1),
    "general": lambda t, y, p: torch.stack([p["vol"] * y, 0.2 * torch.cos(y.sum(-1, keepdim=True) + p["vol"])], -1),
}
#: Those of equations of a certain form have tests of their own.
APART = {"Strang", "UBU", "SDEScheme"}


def found() -> list[SDEScheme]:
    named = [getattr(schemes, name) for name in schemes.__all__ if name not in APART]
    return [c() for c in named if isinstance(c, type) and issubclass(c, SDEScheme) and c is not Components]


CASES = [pytest.param(s, noise, id=f"{type(s).__name__}-{noise}") for s in found() for noise in s.orders]


def gradients(scheme: SDEScheme, noise: str, gradient: Any, **steps: Any) -> tuple[Tensor, list[Tensor]]:
    speed = torch.tensor(0.7, dtype=D, requires_grad=True)
    vol = torch.tensor([0.3, 0.2], dtype=D, requires_grad=True)
    y0 = torch.linspace(-1, 1, 14, dtype=D).view(7, 2).requires_grad_()
    sde = SDE(
        lambda t, y, p: p["speed"] * (torch.sin(t) - y), DIFFUSIONS[noise], parameters={"speed": speed, "vol": vol},
        noise=noise, interpretation=scheme.interpretation,
    )  # type: ignore[arg-type]  # fmt: skip
    y = sdeint(sde, y0, [0.0, 0.3, 1.0], scheme=scheme, noise=Threefry(2), gradient=gradient, **steps)
    return y.detach(), list(torch.autograd.grad(y.square().sum(), [y0, speed, vol]))


def close(ours: tuple[Tensor, list[Tensor]], theirs: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("scheme", "noise"), CASES)
def test_strategies_agree(scheme: SDEScheme, noise: str) -> None:
    exact = gradients(scheme, noise, "direct", max_dt=0.35)
    names = ["checkpoint", "forward", *(["reversible"] if scheme.reversible else [])]
    for gradient in names:
        close(gradients(scheme, noise, gradient, max_dt=0.35), exact)


@pytest.mark.parametrize("per", ["shared", "path"])
@pytest.mark.parametrize(
    ("scheme", "noise"),
    [c for c in CASES if c.values[0].interpretation == "stratonovich" or c.values[0].orders[c.values[1]].strong >= 1],  # type: ignore[union-attr, index]
)
def test_adaptive_steps_replay(scheme: SDEScheme, noise: str, per: Any) -> None:
    adaptive = Adaptive(rtol=0.2, atol=0.1, per=per)
    exact = gradients(scheme, noise, "direct", adaptive=adaptive)
    close(gradients(scheme, noise, "checkpoint", adaptive=adaptive), exact)
    assert bool(exact[0].isfinite().all())


@pytest.mark.parametrize(("scheme", "noise"), [c for c in CASES if c.id and "Reversible" not in c.id])
def test_jumps_go_with_every_scheme(scheme: SDEScheme, noise: str) -> None:
    jumps = Jumps(1.0, lambda t, y, z, p: p["vol"] * z[0] * torch.ones_like(y))
    exact = gradients(scheme, noise, "direct", max_dt=0.5, jumps=jumps)
    close(gradients(scheme, noise, "checkpoint", max_dt=0.5, jumps=jumps), exact)
