"""Independent random numbers from given ones."""

from __future__ import annotations

import dataclasses

import torch

from qsde.errors import InputError
from qsde.noise import Antithetic, Noise, Sobol, Threefry
from qsde.noise.threefry import seed_key, threefry2x32


def other(noise: Noise, purpose: int) -> Noise:
    """Noise of the same kind with an independent seed for each purpose.

    Raises:
        InputError: noise of an unknown kind.

    Example:
        >>> other(Threefry(5), 1) == other(Threefry(5), 1), other(Threefry(5), 1) == other(Threefry(5), 2)
        (True, False)
    """
    if isinstance(noise, Antithetic):
        return Antithetic(other(noise.noise, purpose))
    if isinstance(noise, (Threefry, Sobol)):
        return dataclasses.replace(noise, seed=seed_of(noise, purpose))
    raise InputError(f"early exercise needs independent paths, for which {noise} has no seed; use Threefry or Sobol")


def seed_of(noise: Noise, purpose: int) -> int:
    """A seed that depends on that of the noise and on the purpose."""
    if isinstance(noise, Antithetic):
        return seed_of(noise.noise, purpose)
    seed = getattr(noise, "seed", 0)
    words = threefry2x32(torch.tensor(purpose, dtype=torch.int32), -7, seed_key(seed, "cpu"))
    high, low = (int(word) & 0xFFFFFFFF for word in words)
    return high << 32 | low
