"""Random words to uniforms and normals, free of 0, 1, infinities and NaN by construction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qsde.numerics import polynomial

#: Taylor coefficients in x^2 of sin(x) / x and cos(x), highest first; on |x| < pi / 2 the remainder is below rounding.
_SIN = {n: [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(n, -1, -1)] for n in (6, 10)}
_COS = {n: [(-1.0) ** k / math.factorial(2 * k) for k in range(n, -1, -1)] for n in (6, 10)}


def word_uniform(high: Tensor, low: Tensor | None = None) -> Tensor:
    """Uniform on (0, 1) from random int32 words.

    From one word the float32 odd multiples of 2^-24; with `low` the float64 odd multiples of 2^-53 next to them. All
    are exact, neither 0 nor 1 is among them, and `1 - u` is one of them too.

    Example:
        >>> word_uniform(torch.tensor([-(2**31), 0, 2**31 - 1], dtype=torch.int32)) * 2**24
        tensor([1.0000e+00, 8.3886e+06, 1.6777e+07])
    """
    if low is None:
        return (high >> 9).float() * 2.0**-23 + (0.5 + 2.0**-24)
    fine = ((low >> 12) & 0xFFFFF).double()
    return (high.double() * 2.0**-32 + fine * 2.0**-52) + (0.5 + 2.0**-53)


def box_muller(
    high: tuple[Tensor, Tensor], low: tuple[Tensor, Tensor] | tuple[None, None] = (None, None)
) -> tuple[Tensor, Tensor]:
    """Two independent standard normals `sqrt(-2 log u) (cos t, sin t)` from two (float64: four) random words.

    The top bit of the second word is the sign of both, so that half a turn of angles suffices.

    Reference:
        Box, Muller: A note on the generation of random normal deviates. Ann. Math. Stat. 29 (1958).

    Example:
        >>> word = torch.tensor(0, dtype=torch.int32)  # u = 1/2 and no turn
        >>> box_muller((word, word))[0] ** 2 / 2, -torch.log(torch.tensor(0.5))
        (tensor(0.6931), tensor(0.6931))
    """
    radius = torch.sqrt(-2.0 * torch.log(word_uniform(high[0], low[0])))
    radius = radius * ((high[1] >> 31) | 1).to(radius.dtype)
    cosine, sine = _turn(_half_turn(high[1] << 1, low[1]))
    return radius * cosine, radius * sine


def _half_turn(word: Tensor, low: Tensor | None) -> Tensor:
    """Uniform on (-pi/2, pi/2) from the upper 31 bits of a word, and the upper 21 of a second one."""
    if low is None:
        return ((word >> 9).float() * 2.0**-22 + 2.0**-23) * (math.pi / 2)
    fine = ((low >> 11) & 0x1FFFFF).double()
    return ((word.double() * 2.0**-31 + fine * 2.0**-51) + 2.0**-52) * (math.pi / 2)


def _turn(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine. Compiled, short polynomials beat the library's range reduction; eagerly, fewer kernels do."""
    return _polynomial_turn(angle) if torch.compiler.is_compiling() else (torch.cos(angle), torch.sin(angle))


def _polynomial_turn(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine on |angle| < pi/2 to rounding."""
    single = angle.dtype == torch.float32
    square = angle * angle
    return polynomial(_COS[6 if single else 10], square), angle * polynomial(_SIN[6 if single else 10], square)
