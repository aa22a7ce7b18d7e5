"""Data of the paper's first experiment: a stochastic Lorenz attractor seen with noise."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qsde.latent.series import Series
from qsde.models.sde import SDE
from qsde.noise import Noise
from qsde.noise.seeds import other
from qsde.solve import sdeint

_STARTS, _SEEN = 1, 2
_RATES = {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3}
_NOISE = (0.1, 0.28, 0.3)


def stochastic_lorenz(
    n_series: int, times: Tensor, noise: Noise, *, seen_noise: float = 0.01, max_dt: float = 0.005
) -> Series:
    """Series of a Lorenz attractor with noise in every component, in units of their mean and standard deviation.

        dx = 10 (y - x) dt           + 0.10 x dW_1
        dy = (x (28 - z) - y) dt     + 0.28 y dW_2
        dz = (x y - 8/3 z) dt        + 0.30 z dW_3

    from standard normal starts at the first time, plus N(0, seen_noise^2) on what is seen.

    Args:
        n_series: number of series B.
        times: [N], increasing.
        noise: random numbers, a value: same noise, same digits.
        seen_noise: standard deviation of the noise of observation, after standardising.
        max_dt: largest step of the simulation.

    Reference:
        Li, Wong, Chen, Duvenaud (2020), "Scalable Gradients for Stochastic Differential Equations", section 7.2;
        coefficients as in the experiment published with it.

    Example:
        >>> from qsde.noise import Threefry
        >>> stochastic_lorenz(4, torch.linspace(0.0, 1.0, 41), Threefry(0))
        Series(4 series, 41 times from 0 to 1, 3 channels, 492 values)
    """
    n = len(times)
    block = other(noise, _STARTS).block(torch.arange(n_series), 1, 3, 0, torch.float64, "cpu")
    y0 = block.draw(0)[0].movedim(0, -1).contiguous()
    sde = SDE(_drift, _diffusion, [0.0, 0.0, 0.0], _RATES)
    y = sdeint(sde, y0, times.double(), max_dt=max_dt, noise=noise)
    standard = (y - y.mean((0, 1))) / y.std((0, 1))
    errors = other(noise, _SEEN).block(torch.arange(n_series), n, 3, 0, torch.float64, "cpu")
    seen = standard + seen_noise * torch.stack([errors.draw(i)[0].movedim(0, -1) for i in range(n)])
    return Series(times, seen.movedim(0, 1))


def _drift(t: Tensor, y: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    x, y_, z = y.unbind(-1)
    return torch.stack([p["sigma"] * (y_ - x), x * (p["rho"] - z) - y_, x * y_ - p["beta"] * z], -1)


def _diffusion(t: Tensor, y: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    return y * y.new_tensor(_NOISE)
