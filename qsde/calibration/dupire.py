"""Local volatility of an arbitrage-free surface by Dupire's formula in total variance."""

from __future__ import annotations

import torch
from torch import Tensor

from qsde.market.ssvi import ESSVI


def dupire_variance(surface: ESSVI, t: Tensor, x: Tensor, bounds: tuple[float, float] = (0.0, torch.inf)) -> Tensor:
    """Local variance `L^2` at years t and points `x = log(S / F)`.

    With `w(k, t)` the total implied variance, all at `k = x`,

        L^2 = w_t / (1 - k w_k / w + (-1/4 - 1/w + k^2 / w^2) w_k^2 / 4 + w_kk / 2).

    The derivatives are those of the formula of `ESSVI`; at the time of a slice `w_t` is that of the stretch which ends
    there. The numerator is a calendar spread and the denominator a butterfly, so that neither is negative on a surface
    without arbitrage; towards time 0 the quotient stays finite because the surface's implied vols do.

    Args:
        surface: the surface.
        t: years, positive.
        x: points, broadcast against t.
        bounds: least and largest local volatility; where the denominator is nearly 0, far out, the quotient is huge.

    Reference:
        J. Gatheral, The Volatility Surface (Wiley 2006), equation 1.10.

    Example:
        A flat surface has a flat local volatility:

        >>> times = torch.tensor([0.5, 1.0]).double()
        >>> flat = ESSVI(times, theta=0.04 * times, rho=0 * times, psi=1e-9 * times)
        >>> torch.sqrt(dupire_variance(flat, torch.tensor(0.7).double(), torch.tensor([-0.5, 0.0, 0.5]).double()))
        tensor([0.2000, 0.2000, 0.2000], dtype=torch.float64)
    """
    t, k = torch.broadcast_tensors(t, x)
    (theta, rho_psi, psi), slopes = surface.slice_at(t), surface.slopes_at(t)
    linear, spread = theta + rho_psi * k, psi * psi - rho_psi * rho_psi
    root = torch.sqrt(linear * linear + spread * k * k)
    w = 0.5 * (linear + root)
    w_k = 0.5 * (rho_psi + (linear * rho_psi + spread * k) / root)
    w_kk = 0.5 * spread * theta * theta / root**3
    by_theta, by_rho_psi, by_psi = 0.5 * (1 + linear / root), 0.5 * k * (1 + theta / root), 0.5 * psi * k * k / root
    w_t = by_theta * slopes[0] + by_rho_psi * slopes[1] + by_psi * slopes[2]
    convexity = (1 - 0.5 * k * w_k / w) ** 2 - 0.25 * w_k * w_k * (0.25 + 1 / w) + 0.5 * w_kk
    low, high = (bound * bound for bound in bounds)
    # a butterfly of 0 that rounding makes negative is the upper bound
    variance: Tensor = (w_t / convexity.clamp(min=1e-12)).clamp(low, high)
    return variance
