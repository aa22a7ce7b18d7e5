"""The equations that torchsde tests itself on, solved here: small networks with each kind of noise, and the basic ones.

Gradients are those of plain autograd through an explicit loop, and of differences, to 1e-6 and better. torchsde asks
1e-2 of its adjoint and 1e-4 of reversible Heun for the same networks (tests/test_adjoint.py, release 0.2.6).
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from qsde.models import SDE
from qsde.noise import Threefry
from qsde.schemes import (
    SRA1,
    SRID2,
    EulerMaruyama,
    Heun,
    ItoMilstein,
    LogODE,
    Midpoint,
    ReversibleHeun,
    SDEScheme,
)
from qsde.schemes.sde import Step
from qsde.solve import sdeint

D = torch.float64
BATCH, DIM, MOTIONS, N = 4, 3, 2, 16
NOISE = Threefry(11)


class Net(nn.Module):
    """One hidden layer of three units on time and state, as torchsde has it."""

    def __init__(self, inputs: int, shape: tuple[int, ...], squashed: bool) -> None:
        super().__init__()
        last = [nn.Sigmoid()] if squashed else []
        self.layers = nn.Sequential(
            nn.Linear(inputs + 1, 3), nn.Softplus(), nn.Linear(3, torch.Size(shape).numel()), *last
        ).double()
        self.inputs, self.shape = inputs, shape

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        ty = torch.cat([t.expand(len(y), 1), y], -1) if self.inputs else t.expand(len(y), 1)
        return self.layers(ty).unflatten(-1, self.shape)


def neural(noise: str, interpretation: str) -> SDE:
    torch.manual_seed(1147481649)
    shape = (DIM, MOTIONS) if noise in ("additive", "general") else (DIM,)
    drift, diffusion = Net(DIM, (DIM,), False), Net(0 if noise == "additive" else DIM, shape, True)
    return SDE(drift, diffusion, noise=noise, interpretation=interpretation)  # type: ignore[arg-type]


CASES = [
    (noise, scheme)
    for scheme in (EulerMaruyama(), ItoMilstein(), SRA1(), SRID2(), Midpoint(), Heun(), ReversibleHeun(), LogODE())
    for noise in scheme.orders
]
YOUNG = pytest.mark.parametrize(("noise", "scheme"), CASES, ids=[f"{n}-{type(s).__name__}" for n, s in CASES])


def by_hand(sde: SDE, scheme: SDEScheme, y0: Tensor) -> Tensor:
    """An explicit loop over the scheme's own steps with stored noise; plain autograd differentiates it."""
    t0 = torch.zeros((), dtype=D)
    bound = scheme.bound(sde.dynamics(y0.detach(), t0))
    assert bound.dynamics is not None
    dynamics, dt = bound.dynamics, torch.tensor(0.5 / N, dtype=D)
    equation = dynamics.at(bound.constants(sde))
    block = NOISE.block(torch.arange(BATCH), N, bound.normals(dynamics), 0, D, "cpu")
    state = bound.start(equation, t0, y0)
    for k in range(N):
        w, h = (dt.sqrt() * block.draw(k)[0].T).split(dynamics.motions, 1) if bound.levy else (
            dt.sqrt() * block.draw(k)[0].T, None
        )  # fmt: skip
        area = None if h is None else equation.increments(h / 12**0.5)
        state = bound.advance(equation, state, Step(k * dt, dt, equation.increments(w), area))
    return state[0]


@YOUNG
def test_gradients_are_those_of_autograd(noise: str, scheme: SDEScheme) -> None:
    sde = neural(noise, scheme.interpretation)
    y0 = torch.full((BATCH, DIM), 0.1, dtype=D, requires_grad=True)
    inputs = [y0, *sde.params.values()]
    ours = sdeint(sde, y0, [0.0, 0.25, 0.5], max_dt=0.5 / N, scheme=scheme, noise=NOISE)[-1]
    theirs = by_hand(sde, scheme, y0)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    got, wanted = (torch.autograd.grad(y.square().sum(1).mean(), inputs) for y in (ours, theirs))
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@YOUNG
def test_gradients_are_differences(noise: str, scheme: SDEScheme) -> None:
    """`torch.autograd.gradcheck`, as torchsde has it, over the start and all weights."""
    sde = neural(noise, scheme.interpretation)
    y0 = torch.full((BATCH, DIM), 0.1, dtype=D, requires_grad=True)
    names = list(sde.params)

    def loss(start: Tensor, *weights: Tensor) -> Tensor:
        model = sde.with_params(dict(zip(names, weights, strict=True)))
        y = sdeint(model, start, [0.0, 0.5], max_dt=0.5 / 4, scheme=scheme, noise=NOISE)
        return y[-1].square().sum(1).mean()

    weights = [sde.params[name].detach().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(loss, (y0, *weights), eps=1e-6, rtol=1e-6, atol=1e-8, fast_mode=True)


class Basic(nn.Module):
    """Parameters of `BasicSDE1`: shared by drift and diffusion, without gradient, and unused."""

    def __init__(self, role: str, shared: nn.Parameter, fixed: nn.Parameter) -> None:
        super().__init__()
        self.role, self.shared, self.fixed = role, shared, fixed
        self.unused = nn.Parameter(torch.randn(1, 10, dtype=D))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        if self.role == "drift":
            return self.shared * torch.sin(y) * 0.2 + torch.cos(y**2) * 0.1 + torch.cos(t) + self.fixed * y
        return torch.sigmoid(self.shared * torch.cos(y) * 0.3 + torch.sin(t)) + torch.sigmoid(self.fixed * y) + 0.1


@pytest.mark.parametrize("scheme", [ItoMilstein(), SRID2()], ids=repr)
def test_parameters_that_are_shared_fixed_or_unused(scheme: SDEScheme) -> None:
    """A weight used by both functions gets both gradients, a fixed one none, an unused one zero."""
    torch.manual_seed(0)
    shared = nn.Parameter(torch.randn(1, 10, dtype=D))
    fixed = nn.Parameter(torch.randn(1, 10, dtype=D), requires_grad=False)
    sde = SDE(Basic("drift", shared, fixed), Basic("diffusion", shared, fixed))
    y0 = torch.full((BATCH, 10), 0.1, dtype=D)
    sdeint(sde, y0, [0.0, 0.5], max_dt=0.5 / N, scheme=scheme, noise=NOISE)[-1].sum(1).mean().backward()
    got = shared.grad
    assert got is not None
    (wanted,) = torch.autograd.grad(by_hand(sde, scheme, y0).sum(1).mean(), shared)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)
    assert fixed.grad is None
    assert all(bool((m.unused.grad == 0).all()) for m in (sde.drift, sde.diffusion))  # type: ignore[union-attr]
