"""The first contour for strikes that stay: trigonometry once, then each model costs its characteristic function."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.pricing.contours import Integral, black_otm, half_rule, sinh_nodes


@dataclass(frozen=True)
class LewisGrid:
    """Out-of-the-money prices over `sqrt(F K)` as `base - matrix [Re phi; Im phi]`, `phi` at the nodes `u`.

    Attributes:
        u: nodes `y - i/2`, [..., E, N] complex.
        matrix: [..., E, K, 2 N].
        base: [..., E, K], the Black-Scholes part.
    """

    u: Tensor
    matrix: Tensor
    base: Tensor

    @classmethod
    def of(cls, k: Tensor, variance: Tensor, scale: Tensor, reach: Tensor, nodes: int) -> LewisGrid:
        """For log strikes [..., E, K]; variance (of the Black-Scholes part), scale and reach are [..., E, 1]."""
        y, weight = sinh_nodes(scale, reach, nodes)
        q = y * y + 0.25
        angle = k.unsqueeze(-1) * y.unsqueeze(-2)
        factor = (weight / (math.pi * q)).unsqueeze(-2)
        matrix = torch.cat([torch.cos(angle) * factor, torch.sin(angle) * factor], -1)
        gauss = torch.exp(-0.5 * q * variance).unsqueeze(-1)
        base = black_otm(k, torch.sqrt(variance)) + (matrix[..., :nodes] @ gauss).squeeze(-1)
        return cls(torch.complex(y, torch.full_like(y, -0.5)), matrix, base)

    def with_half_rule(self, k: Tensor, variance: Tensor) -> LewisGrid:
        """The same with the rule of every second node appended to the strikes: K becomes 2 K."""
        n = self.u.shape[-1]
        coarse = self.matrix * half_rule(n, self.matrix.dtype, self.matrix.device)
        q = (self.u.real**2 + 0.25).unsqueeze(-1)
        gauss = torch.exp(-0.5 * q * variance.unsqueeze(-1))
        base = black_otm(k, torch.sqrt(variance)) + (coarse[..., :n] @ gauss).squeeze(-1)
        return LewisGrid(self.u, torch.cat([self.matrix, coarse], -2), torch.cat([self.base, base], -1))

    def integral(self, phi: Tensor) -> Integral:
        """Values, gaps and tails for characteristic functions [B, E, N], from a grid `with_half_rule`."""
        parts = torch.cat([phi.real, phi.imag], -1)
        both = self.base - (self.matrix @ parts.permute(1, 2, 0)).permute(2, 0, 1)
        n = both.shape[-1] // 2
        value, coarse = both[..., :n], both.detach()[..., n:]
        y = self.u[..., -1:].real
        tail = phi.detach()[..., -1:].abs() / (math.pi * y)
        return Integral(value, (value.detach() - coarse).abs(), tail)
