"""Black's formula on the forward, with first and second derivatives that stay finite in the whole domain."""

from __future__ import annotations

import torch
from torch import Tensor

from qsde.numerics import norm_cdf, norm_pdf


def _as_tensors(*values: float | Tensor) -> list[Tensor]:
    return [torch.as_tensor(v, dtype=torch.float64) for v in values]


def black_price(
    forward: float | Tensor,
    strike: float | Tensor,
    t: float | Tensor,
    vol: float | Tensor,
    discount_factor: float | Tensor = 1.0,
    is_call: bool | Tensor = True,
) -> Tensor:
    """Discounted Black price of a European option."""
    f, k, t, vol, df = _as_tensors(forward, strike, t, vol, discount_factor)
    sign = torch.where(torch.as_tensor(is_call), 1.0, -1.0).to(torch.float64)
    s = vol * torch.sqrt(torch.clamp(t, min=1e-300))
    safe = torch.where(s > 1e-150, s, 1e-150)
    x = torch.log(f / k)
    d1 = x / safe + 0.5 * safe
    price = df * sign * (f * norm_cdf(sign * d1) - k * norm_cdf(sign * (d1 - safe)))
    return torch.where(torch.isnan(s), s, price)


def black_vega(
    forward: float | Tensor,
    strike: float | Tensor,
    t: float | Tensor,
    vol: float | Tensor,
    discount_factor: float | Tensor = 1.0,
) -> Tensor:
    """Discounted Black vega: change of price per 1.00 of volatility."""
    f, k, t, vol, df = _as_tensors(forward, strike, t, vol, discount_factor)
    s = vol * torch.sqrt(t)
    safe = torch.where(s > 1e-150, s, 1e-150)
    d1 = torch.log(f / k) / safe + 0.5 * safe
    return df * f * norm_pdf(d1) * torch.sqrt(t)
