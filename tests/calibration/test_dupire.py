"""Dupire's formula: against derivatives by autograd, on flat surfaces, and the rules of skew."""

import numpy as np
import torch

from qsde.calibration.dupire import dupire_variance
from qsde.calibration.ssvi import fit_ssvi
from qsde.market.ssvi import ESSVI

T = torch.tensor([0.1, 0.5, 1.0, 2.0]).double()
SURFACE = ESSVI(T, *torch.tensor([[0.01, 0.03, 0.05, 0.09], [-0.7, -0.6, -0.5, -0.5], [0.1, 0.15, 0.2, 0.21]]).double())


def test_derivatives_are_those_of_the_total_variance() -> None:
    """Gatheral's equation 1.10 as printed, all derivatives by autograd."""
    t = torch.tensor([0.05, 0.3, 0.7, 1.9, 2.5]).double().unsqueeze(-1).expand(5, 9).clone().requires_grad_()
    k = torch.linspace(-0.5, 0.5, 9).double().expand(5, 9).clone().requires_grad_()
    w = SURFACE.total_variance(k, t)
    w_t, w_k = torch.autograd.grad(w.sum(), (t, k), create_graph=True)
    (w_kk,) = torch.autograd.grad(w_k.sum(), k)
    bottom = 1 - k * w_k / w + 0.25 * (-0.25 - 1 / w + k**2 / w**2) * w_k**2 + 0.5 * w_kk
    torch.testing.assert_close(dupire_variance(SURFACE, t, k), (w_t / bottom).detach())


def test_a_term_structure_without_smile_is_the_forward_variance() -> None:
    flat = ESSVI(T, SURFACE.theta, 0 * T, 1e-9 * (1 + T))
    t, k = torch.tensor([[0.05], [0.3], [0.9]]).double(), torch.linspace(-1, 1, 5).double()
    forward = torch.tensor([[0.1], [0.05], [0.04]]).double().expand(3, 5)
    torch.testing.assert_close(dupire_variance(flat, t, k), forward, rtol=1e-6, atol=0)


def test_local_skew_is_twice_the_implied_skew() -> None:
    """At short times and at the money (Derman, Kani and Zou 1996)."""
    t, k = torch.tensor(1e-4).double(), torch.tensor([-1e-3, 1e-3]).double()
    implied = SURFACE.vol(k, t).diff()
    local = torch.sqrt(dupire_variance(SURFACE, t, k)).diff()
    assert abs(float(local / implied) - 2) < 0.01


def test_bounds_hold_far_out(spx_thin) -> None:
    surface = fit_ssvi(spx_thin).interpolated
    t = torch.tensor(np.geomspace(1e-4, 5.0, 40)).unsqueeze(-1)
    x = torch.linspace(-4, 4, 81).double()
    variance = dupire_variance(surface, t, x, bounds=(0.05, 2.0))
    assert float(variance.min()) >= 0.05**2
    assert float(variance.max()) <= 2.0**2
    near = dupire_variance(surface, t, torch.linspace(-2, 2, 21).double() * torch.sqrt(surface.slice_at(t)[0]))
    assert float(near.min()) > 0.05**2
    assert float(near.max()) < 1.0
