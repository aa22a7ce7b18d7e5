"""Laws that every model with a characteristic function obeys, one table over all of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qsde.errors import ParameterError
from qsde.models import BlackScholes, FourierModel, Heston, JumpDiffusion, KouJumps, MertonJumps, bates, kou, merton

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.06, sigma=0.5, rho=-0.7)
MODELS = [
    BlackScholes(0.2),
    HESTON,
    Heston(v0=0.09, kappa=0.3, theta=0.01, sigma=1.5, rho=-0.95),  # Feller violated by a factor of 375
    merton(0.15, 0.5, -0.1, 0.2),
    kou(0.16, 1.0, 0.4, 10.0, 5.0),
    bates(0.04, 1.5, 0.06, 0.5, -0.7, 0.3, -0.2, 0.15),
    JumpDiffusion(HESTON, KouJumps(0.5, 0.3, 20.0, 6.0)),
    JumpDiffusion(JumpDiffusion(HESTON, KouJumps(0.5, 0.3, 20.0, 6.0)), MertonJumps(0.1, -0.4, 0.1)),
]
EXPIRIES = (1 / 365, 0.25, 2.0, 30.0)


def each(models: list[FourierModel] = MODELS) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("model", models, ids=lambda m: m.name)


def real(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


U = torch.linspace(-40, 40, 81, dtype=torch.float64)


@each()
@pytest.mark.parametrize("t", EXPIRIES)
def test_martingale_and_total_mass(model: FourierModel, t: float) -> None:
    assert abs(model.log_cf(torch.tensor(-1j), real(t))) < 1e-14
    assert abs(model.log_cf(torch.tensor(0j), real(t))) < 1e-14


@each()
@pytest.mark.parametrize("t", EXPIRIES)
def test_it_is_the_transform_of_a_real_distribution(model: FourierModel, t: float) -> None:
    value = torch.exp(model.log_cf(U + 0j, real(t)))
    assert (value.abs() <= 1 + 1e-14).all()
    torch.testing.assert_close(value.flip(0), value.conj(), rtol=1e-12, atol=1e-14)


@each()
@pytest.mark.parametrize("t", EXPIRIES)
def test_mean_is_minus_half_the_total_variance_of_the_diffusion(model: FourierModel, t: float) -> None:
    """D log cf / du at 0 is `i E[x]`, and `E[x] = -w/2` plus the jumps' `intensity t (E[J] - E[exp(J)] + 1)`."""
    u = torch.tensor(0.0 + 0j, requires_grad=True)
    (slope,) = torch.autograd.grad(model.log_cf(u, real(t)).imag, u)
    mean = slope.real.item()
    diffusion, jumps = model, 0.0
    while isinstance(diffusion, JumpDiffusion):
        law, h = diffusion.jumps, 1e-5
        first = float((law.mgf(real(h)) - law.mgf(real(-h))) / (2 * h))
        jumps += float(law.intensity) * t * (first - float(law.mgf(real(1.0))) + 1)
        diffusion = diffusion.diffusion
    assert mean == pytest.approx(-0.5 * float(diffusion.total_variance(real(t))) + jumps, rel=1e-6)


@each()
@pytest.mark.parametrize("t", EXPIRIES)
def test_closed_form_gradient_equals_forward_mode(model: FourierModel, t: float) -> None:
    u = torch.linspace(0, 60, 41, dtype=torch.float64) - 0.5j
    value, gradient = model.log_cf_gradient(u, real(t))
    _, expected = FourierModel.log_cf_gradient(model, u, real(t))
    torch.testing.assert_close(value, model.log_cf(u, real(t)), rtol=1e-12, atol=1e-13)
    for got, want in zip(gradient, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11 * float(want.abs().max()))


@each()
@pytest.mark.parametrize("t", EXPIRIES)
def test_moments_are_finite_and_real_inside_their_range_and_explode_beyond(model: FourierModel, t: float) -> None:
    lower, upper = (float(x) for x in model.moment_range(real(t)))
    assert lower < 0 < 1 < upper
    for end, inside in ((lower, 0.0), (upper, 1.0)):
        if math.isinf(end):
            continue
        near = [inside + share * (end - inside) for share in (0.9, 0.99, 0.999)]
        logs = [model.log_cf(torch.tensor(-1j * p, dtype=torch.complex128), real(t)).real.item() for p in near]
        if not all(math.isfinite(x) for x in logs):
            continue  # a normal jump law has overflowed float64 first
        assert logs[0] < logs[1] < logs[2]
        beyond = model.log_cf(torch.tensor(-1j * (end + 1e-3 * (end - inside)), dtype=torch.complex128), real(t))
        grew = not math.isfinite(beyond.real.item()) or beyond.real.item() < logs[2] or abs(beyond.imag.item()) > 1e-9
        assert grew, "a moment beyond the range looks finite"


@pytest.mark.parametrize("sigma", [0.0, 1e-9, 1e-6, 1e-4])
def test_heston_without_vol_of_vol_is_black_scholes(sigma: float) -> None:
    heston = Heston(v0=0.04, kappa=1.5, theta=0.09, sigma=sigma, rho=-0.7)
    t = real(0.7)
    flat = BlackScholes(torch.sqrt(heston.total_variance(t) / t))
    u = U - 0.5j
    gap = (heston.log_cf(u, t) - flat.log_cf(u, t)).abs().max()
    assert float(gap) <= 1e-12 + 300 * sigma


def test_heston_gradient_is_continuous_where_the_closed_form_hands_over() -> None:
    u, t = U - 0.5j, real(0.7)
    below, above = (
        Heston(v0=0.04, kappa=1.5, theta=0.09, sigma=s, rho=-0.7).log_cf_gradient(u, t)[1]
        for s in (0.999999e-3, 1.000001e-3)
    )
    torch.testing.assert_close(below, above, rtol=1e-5, atol=1e-6)


@each([HESTON, MODELS[5]])
def test_second_derivatives_are_finite_at_the_edges(model: FourierModel) -> None:
    edges = {"v0": 0.0, "kappa": 0.0, "theta": 0.0, "rho": -1.0}
    params = {k: real(edges.get(k, float(v))).requires_grad_() for k, v in model.params.items()}
    total = model.with_params(params).log_cf(U - 0.5j, real(0.5)).abs().sum()
    first = torch.autograd.grad(total, list(params.values()), create_graph=True)
    second = torch.autograd.grad(sum(first), list(params.values()))
    assert all(torch.isfinite(g).all() for g in (*first, *second))


def test_batch_axes_broadcast() -> None:
    many = Heston(torch.tensor([[0.04], [0.09]]), 1.5, 0.06, 0.5, torch.tensor([[-0.7], [0.2]]))
    assert many.batch_shape == (2, 1)
    t = real(1.0)
    alone = Heston(0.09, 1.5, 0.06, 0.5, 0.2).log_cf(U + 0j, t)
    torch.testing.assert_close(many.map(lambda p: p.double()).log_cf(U + 0j, t)[1], alone, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Heston(-0.04, 1.5, 0.06, 0.5, -0.7), r"Heston.v0 \(initial variance\) must be"),
        (lambda: Heston(0.04, 1.5, 0.06, 0.5, -1.2), "Heston.rho"),
        (lambda: Heston(0.04, math.nan, 0.06, 0.5, -0.7), "Heston.kappa must be finite"),
        (lambda: BlackScholes(-0.2), "BlackScholes.vol"),
        (lambda: KouJumps(1.0, 0.5, 0.9, 5.0), "KouJumps.eta_up"),
        (lambda: KouJumps(1.0, 1.5, 9.0, 5.0), "KouJumps.p_up"),
        (lambda: MertonJumps(-1.0, 0.0, 0.1), "MertonJumps.intensity"),
        (lambda: MertonJumps(1.0, 0.0, math.inf), "MertonJumps.std must be finite"),
        (lambda: HESTON.with_params({"vol": real(0.2)}), "Heston has no parameter"),
        (lambda: MODELS[5].with_params({"jump_eta_up": real(2.0)}), "Bates has no parameter"),
    ],
)
def test_bad_parameters_are_named(build: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        build()  # type: ignore[operator]


@settings(max_examples=150, deadline=None)
@given(
    v0=st.floats(0, 4), kappa=st.floats(0, 50), theta=st.floats(0, 4), sigma=st.floats(0, 10), rho=st.floats(-1, 1),
    t=st.floats(1e-4, 40), u=st.floats(0, 1e4),
)  # fmt: skip
def test_heston_never_leaves_the_unit_disc(
    v0: float, kappa: float, theta: float, sigma: float, rho: float, t: float, u: float
) -> None:
    """On the contour of Lewis, `|E exp((1/2 + iu) x)| <= E exp(x/2) <= 1` at any parameters of the domain."""
    value = Heston(v0, kappa, theta, sigma, rho).log_cf(torch.tensor(u - 0.5j, dtype=torch.complex128), real(t))
    assert torch.isfinite(value.real)
    assert value.real.item() <= 1e-9
