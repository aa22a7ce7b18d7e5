"""Prices under torch.func: grad, jvp, vmap and their compositions give what autograd gives, to rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from qsde.errors import InputError
from qsde.market.underlying import Market
from qsde.models import SDE, Heston, bates
from qsde.noise import Sobol
from qsde.payoffs import Asian, European
from qsde.pricing.montecarlo import MonteCarlo, price

D = torch.float64
ENGINE = MonteCarlo(n_paths=512, max_dt=1 / 8)
CALL = European(100.0, 1.0)


def heston_rho(rho: Tensor) -> Tensor:
    return price(Heston(0.04, 1.5, 0.05, 0.4, rho), CALL, Market(100.0, 0.02), ENGINE).value


def heston_spot(spot: Tensor) -> Tensor:
    # without the geometric Asian as control, which a price inside a transform does without
    engine = replace(ENGINE, control_variate=False)
    months = Asian(100.0, [0.25, 0.5, 1.0])
    return price(Heston(0.04, 1.5, 0.05, 0.4, -0.6), months, Market(spot, 0.02), engine).value


def heston_all(p: Tensor) -> Tensor:
    return price(Heston(*p.unbind(-1)), CALL, Market(100.0, 0.02), ENGINE).value


def bates_mean(mean: Tensor) -> Tensor:
    return price(bates(0.04, 1.5, 0.05, 0.4, -0.6, 0.5, mean, 0.15), CALL, Market(100.0, 0.02), ENGINE).value


def sde_drift(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    v = y[:, 1]
    return torch.stack([-0.5 * p["base"] ** 2 * torch.exp(2 * v), -p["speed"] * v], -1)


def sde_diffusion(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    return torch.stack([p["base"] * torch.exp(y[:, 1]), 0.3 * (1 + t) + 0 * y[:, 1]], -1)


def exponential_vol(p: Tensor) -> Tensor:
    """A volatility `base exp(v)` whose logarithm reverts to 0."""
    base, speed = p.unbind(-1)
    model = SDE(sde_drift, sde_diffusion, [0.0, 0.0], {"base": base, "speed": speed}, martingale=True)
    return price(model, CALL, Market(100.0, 0.02), ENGINE).value


CASES = [
    pytest.param(heston_rho, [-0.6, -0.2], id="heston-rho"),
    pytest.param(heston_spot, [100.0, 110.0], id="heston-spot"),
    pytest.param(heston_all, [[0.04, 1.5, 0.05, 0.4, -0.6], [0.06, 1.0, 0.04, 0.3, -0.3]], id="heston-all"),
    pytest.param(bates_mean, [-0.1, 0.05], id="bates-jump-mean"),
    pytest.param(exponential_vol, [[0.2, 1.0], [0.3, 2.0]], id="sde"),
]
cases = pytest.mark.parametrize(("f", "points"), CASES)
Price = Callable[[Tensor], Tensor]


def slope(f: Price, x: Tensor) -> Tensor:
    """Gradient by `torch.autograd`."""
    leaf = x.clone().requires_grad_()
    (out,) = torch.autograd.grad(f(leaf), leaf)
    return out


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@cases
def test_derivatives_of_one(f: Price, points: list[float]) -> None:
    x = torch.tensor(points, dtype=D)[0]
    wanted = slope(f, x)
    close(torch.func.grad(f)(x), wanted)
    close(torch.func.jacrev(f)(x), wanted)
    close(torch.func.jacfwd(f)(x), wanted)
    direction = torch.linspace(1.0, 2.0, max(1, x.numel()), dtype=D).reshape(x.shape)
    value, pushed = torch.func.jvp(f, (x,), (direction,))
    close(value, f(x))
    close(pushed, (wanted * direction).sum())


@cases
def test_several_at_once(f: Price, points: list[float]) -> None:
    xs = torch.tensor(points, dtype=D)
    close(torch.func.vmap(f)(xs), torch.stack([f(x) for x in xs]))
    slopes = torch.stack([slope(f, x) for x in xs])
    close(torch.func.vmap(torch.func.grad(f))(xs), slopes)
    close(torch.func.vmap(torch.func.jacfwd(f))(xs), slopes)
    one = torch.ones_like(xs)
    close(torch.func.vmap(lambda x, d: torch.func.jvp(f, (x,), (d,))[1])(xs, one), slopes.reshape(2, -1).sum(-1))


@pytest.mark.parametrize(("f", "points"), [case for case in CASES if case.id != "heston-spot"])
def test_second_derivatives_are_refused(f: Price, points: list[float]) -> None:
    """Reverse over reverse through the paths would miss the kinks of the payoffs, and says so."""
    x = torch.tensor(points, dtype=D)[0]
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
    with pytest.raises(InputError, match="first order"):
        torch.autograd.grad(first.sum(), leaf)
    with pytest.raises(InputError, match="first order"):
        torch.func.grad(lambda y: torch.func.grad(f)(y).sum())(x)


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(
            MonteCarlo(n_paths=3000, max_dt=0.25, memory_budget=1 << 20),
            id="blocks",
        ),
        pytest.param(MonteCarlo(n_paths=512, max_dt=0.25, noise=Sobol(seed=2)), id="sobol"),
        pytest.param(MonteCarlo(n_paths=512, max_dt=0.25, dtype=torch.float32), id="float32"),
    ],
)
def test_engines(engine: MonteCarlo) -> None:
    def f(rho: Tensor) -> Tensor:
        return price(Heston(0.04, 1.5, 0.05, 0.4, rho), CALL, Market(100.0, 0.02), engine).value

    x = torch.tensor([-0.6, 0.1], dtype=D)
    wanted = torch.stack([slope(f, y) for y in x])
    rounding = 1e-3 if engine.dtype == torch.float32 else 1e-10
    got = torch.func.vmap(torch.func.grad(f))(x), torch.func.vmap(torch.func.jacfwd(f))(x)
    for ours in got:
        torch.testing.assert_close(ours, wanted, rtol=rounding, atol=rounding)


def test_a_book_has_a_jacobian() -> None:
    book = [European(k, 1.0) for k in (90.0, 100.0, 110.0)]

    def f(spot: Tensor) -> Tensor:
        return price(Heston(0.04, 1.5, 0.05, 0.4, -0.6), book, Market(spot, 0.02), ENGINE).value

    x = torch.tensor(100.0, dtype=D)
    leaf = x.clone().requires_grad_()
    values = f(leaf)
    wanted = torch.stack([torch.autograd.grad(v, leaf, retain_graph=True)[0] for v in values])
    close(torch.func.jacfwd(f)(x), wanted)
    close(torch.func.jacrev(f)(x), wanted)


def test_vmap_over_the_weights_of_networks() -> None:
    """An ensemble of drifts, priced and differentiated at once."""

    class Reverting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1, dtype=D)

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self.layer(y)

    model = SDE(Reverting(), lambda t, y, p: 0.2 + 0 * y, [0.0])

    def f(weight: Tensor, bias: Tensor) -> Tensor:
        changed = model.with_params({"drift.layer.weight": weight, "drift.layer.bias": bias})
        return price(changed, CALL, Market(100.0, 0.02), ENGINE).value

    weights = torch.tensor([-2.0, -0.5, 0.3], dtype=D).reshape(3, 1, 1)
    biases = torch.tensor([0.0, -0.1, 0.05], dtype=D).reshape(3, 1)
    got = torch.func.vmap(torch.func.grad(f, (0, 1)))(weights, biases)
    alone = [torch.func.grad(f, (0, 1))(w, b) for w, b in zip(weights, biases, strict=True)]
    for ours, theirs in zip(got, zip(*alone, strict=True), strict=True):
        close(ours, torch.stack(theirs))
        assert bool((ours != 0).all())
