"""eSSVI: a volatility surface in a formula that has no static arbitrage at any time or strike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import ParameterError
from qsde.numerics import holds

#: Rounding that the conditions of a surface may miss by, relative.
_ROUNDING = 1e-9
#: Largest `|rho|`: the bounds of `psi` of neighbouring slices have `1 - |rho|` as a divisor.
_MOST_RHO = 0.999


@dataclass(frozen=True)
class ESSVI:
    """Extended surface SVI: implied variance in log-moneyness and time, three numbers per expiry.

    The total implied variance at log-moneyness `k = log(K / F)` and time `t` is

        w(k, t) = (theta + rho psi k + sqrt((psi k + theta rho)^2 + theta^2 (1 - rho^2))) / 2,

    with `theta` the total variance at the money, `psi` its curvature (`theta phi` in Gatheral's notation) and `rho` the
    skew. Between slices `theta`, `psi` and `rho psi` are linear in time; before the first they are proportional to
    time but for `rho`, so that implied vols stay; after the last `theta` goes on with its last slope.

    There is no butterfly arbitrage if `psi (1 + |rho|) <= 4` and `psi^2 (1 + |rho|) <= 4 theta`, and no calendar
    arbitrage if from slice to slice `psi (1 + rho)` and `psi (1 - rho)` do not fall and `psi / theta` does not rise;
    `from_unknowns` has all of these by construction.

    Args:
        t: years of the slices [E], positive, increasing.
        theta, rho, psi: parameters of the slices [E].

    Raises:
        ParameterError: a condition does not hold.

    References:
        J. Gatheral and A. Jacquier, Arbitrage-free SVI volatility surfaces, Quantitative Finance 14 (2014), theorems
        4.1 and 4.2; S. Hendriks and C. Martini, The extended SSVI volatility surface, Journal of Computational Finance
        22 (2019); A. Mingone, No arbitrage global parametrization for the eSSVI volatility surface, Quantitative
        Finance 22 (2022).

    Example:
        >>> surface = ESSVI(*torch.tensor([[0.5, 1.0], [0.02, 0.04], [-0.6, -0.5], [0.2, 0.25]]).double())
        >>> surface.vol(torch.tensor([-0.1, 0.0, 0.1]).double(), torch.tensor(1.0).double())
        tensor([0.2338, 0.2000, 0.1768], dtype=torch.float64)
    """

    t: Tensor
    theta: Tensor
    rho: Tensor
    psi: Tensor

    def __post_init__(self) -> None:
        t, theta, rho, psi = self.t, self.theta, self.rho, self.psi
        slack, more = 1 + _ROUNDING, theta.diff()
        conditions = {
            "t must be positive and increasing": (t > 0) & (t.diff(prepend=t.new_zeros(1)) > 0),
            "theta and psi must be positive, rho between -1 and 1": (theta > 0) & (psi > 0) & (rho.abs() < 1),
            "psi (1 + |rho|) must be at most 4, against butterflies": psi * (1 + rho.abs()) <= 4 * slack,
            "psi^2 (1 + |rho|) must be at most 4 theta, against butterflies": psi**2 * (1 + rho.abs())
            <= 4 * theta * slack,
            "theta, psi (1 + rho) and psi (1 - rho) must not fall with time": torch.stack(
                [more + _ROUNDING * theta[1:], *((psi * (1 + s * rho)).diff() + _ROUNDING * psi[1:] for s in (1, -1))]
            )
            >= 0,
            "psi / theta must not rise with time": (psi / theta).diff() <= _ROUNDING * (psi / theta)[1:],
        }
        for text, condition in conditions.items():
            if not holds(condition):
                raise ParameterError(f"ESSVI: {text}")

    @classmethod
    def from_unknowns(cls, t: Tensor, x: Tensor) -> ESSVI:
        """The surface of any 3 E real numbers: a map onto all surfaces whose `psi / theta` does not rise.

        Args:
            t: years of the slices [E].
            x: unknowns [3 E]: of `rho`, of what `theta` grows by, and of where between its bounds `psi` is.
        """
        theta, rho, psi = essvi_parameters(x)
        return cls(t, theta, rho, psi)

    def total_variance(self, k: Tensor, t: Tensor) -> Tensor:
        """`w(k, t)`, elementwise over broadcast log-moneyness and years (positive)."""
        theta, rho_psi, psi = self.slice_at(t)
        return slice_variance(k, theta, rho_psi, psi)

    def vol(self, k: Tensor, t: Tensor) -> Tensor:
        """Implied vol, annualised decimal."""
        return torch.sqrt(self.total_variance(k, t) / t)

    def slice_at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`theta`, `rho psi` and `psi` at years t, each in the shape of t."""
        i, share = self._stretch(t)
        held = share.clamp(max=1.0)
        theta, rho_psi, psi = self._padded()
        return _line(theta, i, share), _line(rho_psi, i, held), _line(psi, i, held)

    def slopes_at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Derivatives of `slice_at` to t; at a slice those of the stretch that ends there."""
        i, share = self._stretch(t)
        years = self._nodes().diff()[i - 1]
        inside = (share <= 1).to(t)
        theta, rho_psi, psi = ((values[i] - values[i - 1]) / years for values in self._padded())
        return theta, inside * rho_psi, inside * psi

    def _nodes(self) -> Tensor:
        return torch.cat([self.t.new_zeros(1), self.t])

    def _padded(self) -> tuple[Tensor, Tensor, Tensor]:
        zero = self.t.new_zeros(1)
        theta, rho_psi, psi = (torch.cat([zero, v]) for v in (self.theta, self.rho * self.psi, self.psi))
        return theta, rho_psi, psi

    def _stretch(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Number of the slice that ends the stretch of t, and how much of the stretch has passed."""
        nodes = self._nodes()
        i = torch.searchsorted(nodes, t.contiguous()).clamp(1, len(self.t))
        return i, (t - nodes[i - 1]) / (nodes[i] - nodes[i - 1])


def _line(values: Tensor, i: Tensor, share: Tensor) -> Tensor:
    return values[i - 1] + share * (values[i] - values[i - 1])


def slice_variance(k: Tensor, theta: Tensor, rho_psi: Tensor, psi: Tensor) -> Tensor:
    """The formula of `ESSVI` in `theta`, `rho psi` and `psi`, elementwise."""
    linear = theta + rho_psi * k
    # (psi k + theta rho)^2 + theta^2 (1 - rho^2), without a division by psi
    return 0.5 * (linear + torch.sqrt(linear * linear + (psi * psi - rho_psi * rho_psi) * k * k))


def essvi_parameters(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`theta`, `rho`, `psi` of unknowns [3 E] (Mingone 2022, section 3)."""
    raw_rho, raw_theta, raw_psi = x.reshape(3, -1)
    rho = _MOST_RHO * torch.tanh(raw_rho)
    p = torch.maximum((1 + rho[:-1]) / (1 + rho[1:]), (1 - rho[:-1]) / (1 - rho[1:]))
    theta = [torch.exp(raw_theta[0])]
    for i in range(len(p)):
        theta.append(theta[-1] * p[i] + torch.exp(raw_theta[i + 1]))
    most = [
        torch.minimum(4 / (1 + r.abs()), torch.sqrt(4 * v / (1 + r.abs())))
        for r, v in zip(rho.unbind(), theta, strict=True)
    ]
    for i in reversed(range(len(p))):  # psi of the next slice is at least p times this one
        most[i] = torch.minimum(most[i], most[i + 1] / p[i])
    share = torch.sigmoid(raw_psi)
    psi = [share[0] * most[0]]
    for i in range(len(p)):
        low = psi[-1] * p[i]
        high = torch.minimum(psi[-1] / theta[i] * theta[i + 1], most[i + 1])
        psi.append(low + share[i + 1] * (high - low))
    return torch.stack(theta), rho, torch.stack(psi)
