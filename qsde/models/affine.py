"""Models whose price and variance at several dates have a joint transform in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.base import Model
from qsde.numerics import broadcast_shape

#: Numbers of exponents that are worked on at a time.
TOGETHER = 1 << 14


Maps = tuple[Tensor, Tensor, Tensor, Tensor]
Riccati = tuple[Maps | None, Callable[[Tensor], Tensor]]


class Affine(Protocol):
    """A model with `E[exp(i u (x_{t+dt} - x_t) + b v_{t+dt}) | v_t] = exp(A + B v_t)`, `x = log(S/F)`, `v` a variance.

    A model of constant variance is the case `B = b`.
    """

    @property
    def batch_shape(self) -> torch.Size:
        """As `Model.batch_shape`."""

    @property
    def initial_variance(self) -> Tensor:
        """`v_0`."""

    def transition(self, u: Tensor, b: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """`A` and `B`, elementwise over broadcast `u`, `b` (both complex), `dt` and parameters."""

    def riccati(self, u: Tensor, dt: Tensor) -> Riccati:
        """`transition` for any `b`: p, q, r, s of `B = (p + q b) / (r + s b)`, None where `B = b`, and `A` of `b`."""

    def transition_exists(self, p: Tensor, b: Tensor, dt: Tensor) -> Tensor:
        """Whether the transform is finite at `u = -i p`, for real `p` and `b`."""


def is_affine(model: Model) -> bool:
    """Whether the model is an `Affine`; isinstance() of a protocol takes as long as thirty tensor operations."""
    return hasattr(model, "transition")


def affine(model: Model) -> Affine:
    """The model, as one with a transition transform.

    Raises:
        InputError: it has none.
    """
    if is_affine(model):
        return cast(Affine, model)
    raise InputError(
        f"{model.name} has no transition transform, so there are no exact prices of geometric averages; simulate it: "
        "qsde.pricing.montecarlo.price(model, payoffs, market, MonteCarlo(...))"
    )


def log_moment(model: Affine, exponents: Tensor, steps: Sequence[float] | Tensor) -> Tensor:
    """`log E[exp(sum_j z_j (x_{t_j} - x_{t_{j-1}}))]`, the joint transform of the increments of `x = log(S/F)`.

    The variance's exponents are chained from the last interval to the first, all else is done for many intervals at a
    time; `t_0 = 0`.

    Args:
        model: Black-Scholes, Heston, or one of them with jumps.
        exponents: complex `z_j`, [interval, ...]; the rest broadcasts with the parameters.
        steps: lengths of the intervals, years.

    Reference:
        Duffie, Pan and Singleton (2000), "Transform analysis and asset pricing for affine jump-diffusions", eq. 2.4.

    Example:
        >>> from qsde.models import BlackScholes
        >>> z = torch.tensor([0.5 + 0j, 1.0 + 0j], dtype=torch.complex128)
        >>> log_moment(BlackScholes(0.2), z, [1.0, 1.0]).real   # -vol^2 / 8: the second increment is a martingale's
        tensor(-0.0050, dtype=torch.float64)
    """
    shape = broadcast_shape(model.batch_shape, exponents.shape[1:])
    exponents = exponents.reshape(len(steps), *(1,) * (len(shape) - exponents.dim() + 1), *exponents.shape[1:])
    dt = torch.as_tensor(steps, dtype=exponents.real.dtype, device=exponents.device).reshape(-1, *(1,) * len(shape))
    b = total = torch.zeros_like(exponents[-1])
    together = max(1, TOGETHER // math.prod(shape))
    for u, length in zip(reversed((-1j * exponents).split(together)), reversed(dt.split(together)), strict=True):
        maps, a = model.riccati(u, length)
        after, b = _chained(maps, b)
        total = total + a(after).sum(0)
    return total + b * model.initial_variance


def _chained(maps: Maps | None, b: Tensor) -> tuple[Tensor, Tensor]:
    """What the variance's exponent is at the end of each interval, [interval, ...], and at the start of the first."""
    if maps is None:
        return b, b
    chain = [b]
    for p, q, r, s in zip(*(part.flip(0).unbind(0) for part in maps), strict=True):
        chain.append(torch.addcmul(p, q, chain[-1]) / torch.addcmul(r, s, chain[-1]))
    b = chain.pop()
    return torch.stack(torch.broadcast_tensors(*reversed(chain))), b


@torch.no_grad()
def moment_exists(model: Affine, exponents: Tensor, steps: Sequence[float] | Tensor) -> Tensor:
    """Whether `E[exp(sum_j z_j (x_{t_j} - x_{t_{j-1}}))]` is finite, for real exponents."""
    b = torch.zeros_like(exponents[-1])
    alive = torch.ones_like(b, dtype=torch.bool)
    for z, dt in zip(exponents.flip(0), reversed(steps), strict=True):
        length = torch.as_tensor(dt, dtype=z.dtype, device=z.device)
        alive = alive & model.transition_exists(z, b, length)
        b = model.transition(-1j * z, b + 0j, length)[1].real
    return alive
