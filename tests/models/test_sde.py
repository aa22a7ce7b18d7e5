"""SDEs of plain functions and modules: parameters, checks, and what they are as pricing models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from qsde.errors import InputError, ParameterError
from qsde.market.underlying import Market
from qsde.models import SDE, BlackScholes
from qsde.payoffs import Asian, European
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.schemes import EulerMaruyama, scheme_for
from qsde.solve import sdeint

D = torch.float64


def gbm(vol: Tensor | float = 0.2) -> SDE:
    return SDE(
        lambda t, y, p: -0.5 * p["vol"] ** 2 * torch.ones_like(y),
        lambda t, y, p: p["vol"] * torch.ones_like(y),
        [0.0],
        {"vol": vol},
        martingale=True,
    )


class Line(nn.Module):
    """`a y + b`, with time ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2, dtype=D)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.layer(y)


def test_weights_of_modules_are_parameters_by_name() -> None:
    drift = Line()
    sde = SDE(drift, lambda t, y, p: p["vol"] * y, [0.0, 1.0], {"vol": 0.3})
    assert list(sde.params) == ["initial", "vol", "drift.layer.weight", "drift.layer.bias"]
    assert sde.params["drift.layer.weight"] is drift.layer.weight
    assert set(sde.table) == set(sde.params)


def test_with_params_replaces_without_touching_the_original() -> None:
    drift = Line()
    sde = SDE(drift, lambda t, y, p: p["vol"] * y, [0.0, 1.0], {"vol": 0.3})
    bias = torch.tensor([5.0, 6.0], dtype=D)
    start = torch.tensor([0.0, 2.0], dtype=D)
    new = sde.with_params({"drift.layer.bias": bias, "initial": start})
    y = torch.zeros(3, 2, dtype=D)
    dynamics = new.pricing_dynamics()
    equation = dynamics.at([new.params[name] for name in dynamics.names])
    assert torch.equal(equation.drift(torch.zeros((), dtype=D), y), bias.expand(3, 2))
    assert torch.equal(new.params["initial"], start)
    assert torch.equal(sde.params["initial"], torch.tensor([0.0, 1.0], dtype=D))
    assert not torch.equal(drift.layer.bias, bias)
    with pytest.raises(ParameterError, match="no parameter"):
        sde.with_params({"nonsense": bias})


@pytest.mark.parametrize(("noise", "factors"), [("diagonal", 2), ("scalar", 1), ("general", 3)])
def test_factors(noise: str, factors: int) -> None:
    def diffusion(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
        return y.unsqueeze(-1).expand(-1, -1, 3) if noise == "general" else y

    sde = SDE(lambda t, y, p: y, diffusion, [0.0, 1.0], noise=noise)  # type: ignore[arg-type]
    assert sde.pricing_dynamics().motions == factors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": "colourful"}, "noise must be"),
        ({"initial": []}, "vector of d numbers"),
        ({"initial": torch.zeros(2, 2)}, "vector of d numbers"),
        ({"initial": [float("nan")]}, r"SDE\.initial must be finite"),
        ({"parameters": {"k": float("inf")}}, r"SDE\.k must be finite"),
    ],
)
def test_bad_equations_are_refused(change: dict[str, object], message: str) -> None:
    good = {"drift": lambda t, y, p: y, "diffusion": lambda t, y, p: y, "initial": [0.0]}
    with pytest.raises(InputError, match=message):
        SDE(**(good | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("drift", "message"),
    [
        (lambda t, y, p: y.sum(-1), r"drift must return \[P, \*shape\]"),
        (lambda t, y, p: y[:1], r"drift must return \[P, \*shape\]"),
        (lambda t, y, p: 0.0, "got float"),
    ],
)
def test_wrong_shapes_are_refused(drift: object, message: str) -> None:
    sde = SDE(drift, lambda t, y, p: y, [0.0, 0.0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        price(sde, European(100.0, 1.0), Market(100.0), MonteCarlo(n_paths=64))


@pytest.mark.parametrize("role", ["drift", "diffusion"])
def test_closures_over_tensors_that_require_grad_are_refused(role: str) -> None:
    hidden = Line()
    functions = {"drift": lambda t, y, p: y, "diffusion": lambda t, y, p: y} | {role: lambda t, y, p: hidden(t, y)}
    with pytest.raises(InputError, match=f"{role} uses a tensor that requires grad"):
        price(SDE(**functions, initial=[0.0, 0.0]), European(100.0, 1.0), Market(100.0), MonteCarlo(n_paths=64))


def test_log_normal_functions_price_as_black_scholes() -> None:
    """Euler in log price is exact, and draws the very numbers of the exact scheme when it takes one step."""
    assert isinstance(scheme_for(gbm()), EulerMaruyama)
    book, market = [European(95.0, 1.0), Asian(100.0, (0.5, 1.0))], Market(100.0, 0.03)
    vol = torch.tensor(0.2, dtype=D, requires_grad=True)
    engine = MonteCarlo(n_paths=1 << 12, max_dt=0.5, control_variate=False)
    ours, theirs = (price(model, book, market, engine) for model in (gbm(vol), BlackScholes(vol)))
    torch.testing.assert_close(ours.value, theirs.value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.std_error, theirs.std_error, rtol=1e-9, atol=1e-12)
    vegas = [torch.autograd.grad(estimate.value.sum(), vol)[0] for estimate in (ours, theirs)]
    torch.testing.assert_close(*vegas, rtol=1e-10, atol=1e-10)


def test_a_martingale_has_the_forward_as_its_mean() -> None:
    engine = MonteCarlo(n_paths=1 << 14, max_dt=0.25, control_variate=False)
    forward = price(gbm(0.3), European(1e-6, 2.0), Market(100.0, 0.03, 0.01), engine)
    assert abs(float(forward.value) - 100.0 * math.exp(-0.02)) < 4 * float(forward.std_error)


def test_a_network_prices_and_learns() -> None:
    """The gradient of a price to every weight of a drift, against a bump of that weight."""
    torch.manual_seed(1)
    drift = Line()
    market, call = Market(100.0, 0.01), European(100.0, 0.5)
    sde = SDE(drift, lambda t, y, p: 0.2 + 0 * y, [0.0, 0.1])
    engine = MonteCarlo(n_paths=1 << 10, max_dt=0.125)
    names = ("drift.layer.weight", "drift.layer.bias")
    slopes = torch.autograd.grad(price(sde, call, market, engine).value, [sde.params[name] for name in names])
    for name, slope in zip(names, slopes, strict=True):
        weight, h = sde.params[name].detach(), 1e-6 * torch.ones_like(slope)
        with torch.no_grad():
            up, down = (price(sde.with_params({name: weight + e}), call, market, engine).value for e in (h, -h))
        assert float(slope.sum()) == pytest.approx(float(up - down) / 2e-6, rel=1e-6)
        assert bool((slope[0] != 0).all())


@pytest.mark.parametrize("start", [[100.0], [math.log(100.0), 0.04]])
def test_a_price_instead_of_its_logarithm_over_the_forward_is_refused(start: list[float]) -> None:
    sde = SDE(lambda t, y, p: 0.0 * y, lambda t, y, p: 0.2 * y, start)
    with pytest.raises(InputError, match=r"initial\[0\] is log\(S / F\) at time 0, so it must be 0, got"):
        price(sde, European(100.0, 1.0), Market(100.0))


def test_a_drift_that_changes_the_state_in_place_is_refused() -> None:
    sde = SDE(lambda t, y, p: y.mul_(-1.0), lambda t, y, p: torch.full_like(y, 0.2), [0.0])
    with pytest.raises(InputError, match="drift changes y in place"):
        sdeint(sde, torch.ones(4, 1, dtype=D), [0.0, 1.0], max_dt=0.5)
    with pytest.raises(InputError, match="drift changes y in place"):
        price(sde, European(100.0, 1.0), Market(100.0))


def test_a_drift_may_fill_a_tensor_of_its_own() -> None:
    def drift(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
        out = torch.zeros_like(y)
        out[:, 0] = -0.5 * p["vol"] ** 2
        return out

    sde = SDE(drift, lambda t, y, p: p["vol"] * torch.ones_like(y), [0.0], {"vol": 0.2}, martingale=True)
    engine = MonteCarlo(n_paths=1 << 10)
    assert price(sde, European(100.0, 1.0), Market(100.0), engine).value == pytest.approx(
        price(gbm(), European(100.0, 1.0), Market(100.0), engine).value
    )


@pytest.mark.parametrize(
    ("drift", "message"),
    [
        (lambda t, y: -y, r"drift is called as drift\(t, y, parameters\), a module as \(t, y\): .*takes 2 positional"),
        (lambda t, y, p: -p["speed"] * y, r"drift asks for 'speed', which is not among its parameters=\{...\}"),
    ],
)
def test_functions_that_do_not_fit_the_call_are_told_how_they_are_called(drift, message: str) -> None:
    sde = SDE(drift, lambda t, y, p: torch.full_like(y, 0.2), [0.0])
    with pytest.raises(InputError, match=message):
        price(sde, European(100.0, 1.0), Market(100.0))
