"""Models whose price and variance at several dates have a joint transform in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.base import Model


@runtime_checkable
class Affine(Protocol):
    """A model with `E[exp(i u (x_{t+dt} - x_t) + b v_{t+dt}) | v_t] = exp(A + B v_t)`, `x = log(S/F)`, `v` a variance.

    A model of constant variance is the case `B = b`.
    """

    @property
    def initial_variance(self) -> Tensor:
        """`v_0`."""

    def transition(self, u: Tensor, b: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """`A` and `B`, elementwise over broadcast `u`, `b` (both complex), `dt` and parameters."""

    def transition_exists(self, p: Tensor, b: Tensor, dt: Tensor) -> Tensor:
        """Whether the transform is finite at `u = -i p`, for real `p` and `b`."""


def affine(model: Model) -> Affine:
    """The model, as one with a transition transform.

    Raises:
        InputError: it has none.
    """
    if isinstance(model, Affine):
        return model
    raise InputError(
        f"{model.name} has no transition transform, so there are no exact prices of geometric averages; simulate it: "
        "qsde.pricing.montecarlo.price(model, payoffs, market, MonteCarlo(...))"
    )


def log_moment(model: Affine, exponents: Sequence[Tensor], steps: Sequence[float]) -> Tensor:
    """`log E[exp(sum_j z_j (x_{t_j} - x_{t_{j-1}}))]`, the joint transform of the increments of `x = log(S/F)`.

    Transitions are chained from the last interval to the first; `t_0 = 0`.

    Args:
        model: Black-Scholes, Heston, or one of them with jumps.
        exponents: complex `z_j`, one tensor per interval; they broadcast with the parameters.
        steps: lengths of the intervals, years.

    Reference:
        Duffie, Pan and Singleton (2000), "Transform analysis and asset pricing for affine jump-diffusions", eq. 2.4.

    Example:
        >>> from qsde.models import BlackScholes
        >>> z = [torch.tensor(0.5 + 0j, dtype=torch.complex128), torch.tensor(1.0 + 0j, dtype=torch.complex128)]
        >>> log_moment(BlackScholes(0.2), z, [1.0, 1.0]).real   # -vol^2 / 8: the second increment is a martingale's
        tensor(-0.0050, dtype=torch.float64)
    """
    b = torch.zeros_like(exponents[-1])
    total = torch.zeros_like(b)
    for z, dt in zip(reversed(exponents), reversed(steps), strict=True):
        a, b = model.transition(-1j * z, b, torch.as_tensor(dt, dtype=z.real.dtype, device=z.device))
        total = total + a
    return total + b * model.initial_variance


@torch.no_grad()
def moment_exists(model: Affine, exponents: Sequence[Tensor], steps: Sequence[float]) -> Tensor:
    """Whether `E[exp(sum_j z_j (x_{t_j} - x_{t_{j-1}}))]` is finite, for real exponents."""
    b = torch.zeros_like(exponents[-1])
    alive = torch.ones_like(b, dtype=torch.bool)
    for z, dt in zip(reversed(exponents), reversed(steps), strict=True):
        length = torch.as_tensor(dt, dtype=z.dtype, device=z.device)
        alive = alive & model.transition_exists(z, b, length)
        b = model.transition(-1j * z, b + 0j, length)[1].real
    return alive
