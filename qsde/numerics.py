"""Guarded elementary functions: finite values and finite gradients at the points where the plain formula divides by 0.

The rule everywhere: make the input of a branch safe first, then select with `torch.where`. A bare `where` over an
expression that is NaN on the unused side has NaN gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

#: Added to divisors and logarithms that may be exactly 0: it changes no other number.
_TINY = 1e-150
#: Below this a quotient is its series, whose fifth-order rest is under 1e-17.
_SERIES = 1e-3


def norm_pdf(x: Tensor) -> Tensor:
    """Standard normal density."""
    return torch.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """A polynomial of two or more coefficients, highest power first, by Horner's rule.

    Example:
        >>> polynomial((1.0, -3.0, 2.0), torch.tensor([0.0, 1.0, 3.0]))
        tensor([2., 0., 2.])
    """
    value = coefficients[0] * x + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


def exp_quotient(y: Tensor) -> Tensor:
    """`(1 - exp(-y)) / y` for real y, which is 1 at 0, with finite derivatives everywhere.

    Example:
        >>> exp_quotient(torch.tensor([0.0, 1.0], dtype=torch.float64))
        tensor([1.0000, 0.6321], dtype=torch.float64)
    """
    small = y.abs() < _SERIES
    away = torch.where(small, 1.0, y)
    near = torch.where(small, y, 0.0)
    # the quotient's derivative cancels near 0, the series does not
    series = 1 - near / 2 * (1 - near / 3 * (1 - near / 4 * (1 - near / 5)))
    return torch.where(small, series, -torch.expm1(-away) / away)


def log1p_quotient(y: Tensor) -> Tensor:
    """`log(1 + y) / y` for complex y (principal branch), which is 1 at 0, with finite derivatives everywhere."""
    safe = y + _TINY
    return complex_log1p(safe) / safe


# torch's complex exp, log and sqrt run one number at a time; on large tensors these work on vectors of reals and are
# two to six times faster, with the same accuracy (relative to the modulus). On small ones fewer operations win.
FEW = 2048
_ONE_BY_ONE = ContextVar("one_by_one", default=False)


@contextmanager
def one_by_one() -> Iterator[None]:
    """Complex functions of tensors of any size work as on small ones, of fewer than `FEW` numbers: to the same digits.

    Example:
        >>> z = torch.linspace(0.0, 9.0, FEW, dtype=torch.float64) * 1j
        >>> with one_by_one():
        ...     bool((complex_exp(z) == torch.exp(z)).all())
        True
    """
    token = _ONE_BY_ONE.set(True)
    try:
        yield
    finally:
        _ONE_BY_ONE.reset(token)


def _few(z: Tensor) -> bool:
    return z.numel() < FEW or _ONE_BY_ONE.get()


def complex_exp(z: Tensor) -> Tensor:
    """`exp(z)` of a complex tensor."""
    if _few(z):
        return torch.exp(z)
    size, angle = torch.exp(z.real), z.imag
    return torch.complex(size * torch.cos(angle), size * torch.sin(angle))


def complex_expm1(z: Tensor) -> Tensor:
    """`exp(z) - 1` of a complex tensor without cancellation near 0."""
    if _few(z):
        return torch.expm1(z)
    half = 0.5 * z.imag
    grow, sin, cos = torch.expm1(z.real), torch.sin(half), torch.cos(half)
    turn = -2 * sin * sin  # cos(y) - 1
    return torch.complex(grow + (grow + 1) * turn, 2 * (grow + 1) * sin * cos)


def complex_log1p(z: Tensor) -> Tensor:
    """`log(1 + z)` of a complex tensor, principal branch, without cancellation near 0.

    Example:
        >>> complex_log1p(torch.tensor([1e-20 + 1e-21j], dtype=torch.complex128))
        tensor([1.0000e-20+1.0000e-21j], dtype=torch.complex128)
    """
    if _few(z):
        return torch.log1p(z)
    x, y = z.real, z.imag
    excess = x * (2 + x) + y * y  # |1 + z|^2 - 1
    one = 1 + x
    far = torch.log(one * one + y * y + _TINY)
    size = torch.where(excess > -0.5, torch.log1p(excess.clamp(min=-0.75)), far)
    return torch.complex(0.5 * size, torch.atan2(y, one))


def complex_log(z: Tensor) -> Tensor:
    """`log(z)` of a complex tensor, principal branch."""
    if _few(z):
        return torch.log(z)
    x, y = z.real, z.imag
    return torch.complex(0.5 * torch.log(x * x + y * y), torch.atan2(y, x))


def complex_sqrt(z: Tensor) -> Tensor:
    """Principal square root of `z + 1e-30`: what is added keeps derivatives finite at 0.

    Example:
        >>> complex_sqrt(torch.tensor([-4.0 + 0j, 3.0 - 4.0j], dtype=torch.complex128))
        tensor([0.+2.j, 2.-1.j], dtype=torch.complex128)
    """
    if _few(z):
        return torch.sqrt(z + 1e-30)
    x, y = z.real + 1e-30, z.imag
    modulus = torch.sqrt(x * x + y * y)
    large = torch.sqrt(0.5 * (modulus + x.abs()))
    small = 0.5 * y / large
    right = x >= 0
    return torch.complex(
        torch.where(right, large, small.abs()), torch.where(right, small, torch.where(y < 0, -large, large))
    )


def broadcast_shape(*shapes: tuple[int, ...]) -> torch.Size:
    """`torch.broadcast_shapes` in a tenth of its time."""
    return torch.Size(np.broadcast_shapes(*shapes)) if any(shapes) else torch.Size()


def nonzero(y: Tensor) -> Tensor:
    """`y` with moduli below 1e-100 replaced by 1e-100, so that it can be a divisor (and the quotient be times 0)."""
    return torch.where(y.abs() < 1e-100, torch.full_like(y, 1e-100), y)


def constant(*tensors: Tensor) -> bool:
    """Whether no derivative to these is under way, be it in reverse or in forward mode; False in any transform.

    Then the call of an `autograd.Function`, which takes as long as thirty operations, may be saved.

    Example:
        >>> constant(torch.ones(2)), constant(torch.ones(2, requires_grad=True))
        (True, False)
    """
    plain = torch._C._functorch.peek_interpreter_stack() is None and forward_ad._current_level < 0
    return plain and not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))


def largest(values: Tensor) -> float:
    """Largest of the values; in a transform of those of all that it maps over.

    Example:
        >>> largest(torch.tensor([1.0, 2.0]))
        2.0
    """
    while torch._C._functorch.is_functorch_wrapped_tensor(values):
        values = torch._C._functorch.get_unwrapped(values)
    return float(values.detach().max())


def holds(condition: Tensor) -> bool:
    """Whether `condition` is true everywhere; taken to be inside `torch.func.vmap`, where no value can be looked at.

    Example:
        >>> holds(torch.tensor([1.0, 2.0]) > 0)
        True
    """
    try:
        return bool(condition.all())
    except RuntimeError as reason:
        if "vmap" not in str(reason):
            raise
        return True
