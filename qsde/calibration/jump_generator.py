"""Jumps in the forward equation: how fast they move the prices of all vanillas, as a matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from qsde.errors import InputError
from qsde.models.jumps import JumpLaw, KouJumps, MertonJumps

Floats = NDArray[np.float64]
#: Vanillas beyond the jumps' reach are worth less than this for a year of one jump each, over the forward.
_NOTHING = 1e-7


def jump_generator(law: JumpLaw, y: Floats) -> Floats:
    """Matrix [N, N] of the speed at which compensated jumps move puts on a grid of strikes over the forward.

    With `m = E[exp(J)]` and undiscounted puts `u(y)` over the forward

        `B u = intensity ((m - 1) y u_y - m u + E[exp(J) u(y exp(-J))])`.

    `u` is linear between the points and beyond the last, and 0 before the first, so that it is a sum of puts struck
    at the points and the expectation one of puts on `exp(J)`, which have closed forms; `u_y` is a central difference.
    Straight lines stand still. The first and the last price stay.

    Reference:
        L. Andersen, J. Andreasen, Jump-diffusion processes: volatility smile fitting and numerical methods for option
        pricing, Review of Derivatives Research 4 (2000).

    Example:
        A parabola `y^2` rises with `intensity (m - 2 + E[exp(-J)])`:

        >>> y = np.exp(np.linspace(-4, 4, 401))
        >>> speed = jump_generator(MertonJumps(0.5, -0.1, 0.2), y) @ y**2
        >>> round(float(speed[200]), 3), round(float(0.5 * (np.exp(-0.08) - 2 + np.exp(0.12))), 3)
        (0.025, 0.025)
    """
    intensity, mean, gap = float(law.intensity), _mean(law), np.diff(y)
    n = len(y)
    rise = (np.eye(n)[1:] - np.eye(n)[:-1]) / gap[:, None]  # slopes between the points
    kinks = np.concatenate([rise[:1], np.diff(rise, axis=0), np.zeros((1, n))])
    slope = np.zeros((n, n))
    slope[1:-1] = (gap[1:, None] * rise[:-1] + gap[:-1, None] * rise[1:]) / (gap[1:] + gap[:-1])[:, None]
    jumped = (y * _vanillas(law, y[:, None] / y)[0]) @ kinks
    speed: Floats = intensity * ((mean - 1) * y[:, None] * slope - mean * np.eye(n) + jumped)
    speed[[0, -1]] = 0.0
    return speed


def jump_reach(law: JumpLaw) -> float:
    """The distance in log-price from which on vanillas are next to nothing, if nothing but these jumps moves.

    Example:
        >>> jump_reach(MertonJumps(0.5, -0.1, 0.2)), jump_reach(KouJumps(0.5, 0.4, 20.0, 2.0))
        (1.0, 4.75)
    """
    reach = np.arange(0.0, 60.0, 0.25)
    (put, _), (_, call) = (_vanillas(law, np.exp(side * reach)) for side in (-1, 1))
    return 0.25 * int((float(law.intensity) * np.maximum(put, call) > _NOTHING).sum())


def _vanillas(law: JumpLaw, k: Floats) -> tuple[Floats, Floats]:
    if type(law) not in _VANILLAS:
        known = ", ".join(one.__name__ for one in _VANILLAS)
        raise InputError(f"jumps: vanillas on one jump are known of {known}, not of {type(law).__name__}")
    return _VANILLAS[type(law)](law, k)


def _mean(law: JumpLaw) -> float:
    return float(law.mgf(law.intensity.new_ones(())))


def _merton(law: JumpLaw, k: Floats) -> tuple[Floats, Floats]:
    mean, std = float(law.params["mean"]), max(float(law.params["std"]), 1e-9)
    d, forward = (np.log(k) - mean) / std, _mean(law)
    return k * ndtr(d) - forward * ndtr(d - std), forward * ndtr(std - d) - k * ndtr(-d)


def _kou(law: JumpLaw, k: Floats) -> tuple[Floats, Floats]:
    p, up, down = (float(law.params[name]) for name in ("p_up", "eta_up", "eta_down"))
    x, forward = np.log(k), _mean(law)
    below = (1 - p) / (down + 1) * np.exp((down + 1) * np.minimum(x, 0))
    above = p / (up - 1) * np.exp((1 - up) * np.maximum(x, 0))
    return np.where(x < 0, below, above + k - forward), np.where(x > 0, above, below + forward - k)


#: `E[(k - exp(J))+]` and `E[(exp(J) - k)+]` of each law; a new law adds a row.
_VANILLAS: dict[type[JumpLaw], Callable[[JumpLaw, Floats], tuple[Floats, Floats]]] = {
    MertonJumps: _merton,
    KouJumps: _kou,
}
