"""Leverage of a local-stochastic volatility by the particle method."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.base import Model
from qsde.models.heston import Heston
from qsde.models.leverage import GridLeverage
from qsde.models.lsv import leveraged
from qsde.noise import Sobol
from qsde.pricing.engine import MonteCarlo
from qsde.schemes.layers import layers
from qsde.schemes.table import scheme_for
from qsde.solve import TimeGrid

#: Particles, and their steps, unless told.
PARTICLES = MonteCarlo(n_paths=1 << 15, max_dt=1 / 100, noise=Sobol(0, scrambles=4))
#: Points of a row of the leverage, and its ends in deviations of the local volatility.
_POINTS, _REACH = 101, 6.0
#: Bins in which particles are counted, and the bandwidth of the kernel in deviations at one particle.
_BINS, _BANDWIDTH = 1024, 1.5
#: Beyond the point with fewer particles under the kernel the mean stays what it is there.
_FEWEST = 30.0


def leverage_by_particles(backbone: Model, local: GridLeverage, engine: MonteCarlo = PARTICLES) -> GridLeverage:
    """The leverage `L(t, x)` with which a stochastic volatility has the vanillas of a local volatility.

    By Gyongy's lemma that is `L^2 = sigma^2(t, x) / E[v_t | x_t = x]`. The expectation depends on the law of the paths
    that `L` steers, and is found along the way: all paths move together, and at the start of each step a kernel
    regression of their variances on their prices gives the leverage of that step. The same holds under jumps, if both
    have the same: prices are then of one law at each time (Bentata and Cont).

    Args:
        backbone: `Heston`, whose `v` is the variance, with jumps or without.
        local: local volatility `sigma(t, x)` under the jumps of the backbone, such as
            `calibrate_local_vol(surface, jumps=...)` has; its last time is the end of the simulation.
        engine: particles (`n_paths`), steps (`max_dt`) and noise; price with steps of the same size. By default 2^15
            on Sobol points and 1/100.

    Returns:
        The leverage, with a row at each time of `local`.

    Raises:
        InputError: the backbone is no `Heston`.

    References:
        J. Guyon and P. Henry-Labordere, Being particular about calibration, Risk (January 2012), and Nonlinear Option
        Pricing (Chapman and Hall 2014), chapter 11; I. Gyongy, Mimicking the one-dimensional marginal distributions of
        processes having an Ito differential, Probability Theory and Related Fields 71 (1986); A. Bentata, R. Cont,
        Mimicking the marginal distributions of a semimartingale (2009), arXiv:0910.4621.

    Example:
        With a volatility of variance of nearly 0 the leverage is the local over the backbone's volatility:

        >>> local = GridLeverage([0.0, 0.5], [-0.1, 0.1], [[0.3, 0.2], [0.3, 0.2]])
        >>> still = Heston(v0=0.04, kappa=1.0, theta=0.04, sigma=1e-3, rho=0.0)
        >>> found = leverage_by_particles(still, local, MonteCarlo(n_paths=1 << 10, max_dt=0.1))
        >>> found.at(torch.tensor([0.3]).double(), torch.tensor([[-0.1, 0.02, 0.1]]).double()).round(decimals=1)
        tensor([[1.5000, 1.2000, 1.0000]], dtype=torch.float64)
    """
    heston, _ = layers(backbone)
    if not isinstance(heston, Heston):
        raise InputError(
            f"leverage_by_particles: the backbone must be a Heston, with jumps or not, got {backbone.name}"
        )
    grid = TimeGrid.of(local.times.tolist(), engine.max_dt)
    times = torch.tensor(grid.times, dtype=torch.float64)
    flat = leveraged(backbone, GridLeverage([0.0], [0.0], [[1.0]], local.scale))  # type: ignore[arg-type]
    scheme = scheme_for(flat)
    draws = scheme.draws(flat, engine.max_dt)
    noise = engine.noise.block(
        torch.arange(engine.n_paths), len(times) - 1, *draws, engine.dtype, engine.device, times
    )  # fmt: skip
    state = tuple(s.to(engine.device, engine.dtype).expand(engine.n_paths).contiguous() for s in scheme.initial(flat))
    points = torch.linspace(-_REACH, _REACH, _POINTS).to(times)
    rows, values = [], []
    with torch.no_grad():
        for k, (t, dt) in enumerate(zip(times, [*times.diff(), times.new_zeros(())], strict=True)):
            x = local.scale * torch.sqrt(t + dt) * points
            price, v = (s.double().cpu() for s in state)
            mean = conditional_mean(price, v, x)
            if k in grid.observed_after:
                rows.append(x)
                values.append(local.at(t.reshape(1), x.unsqueeze(0))[0] / torch.sqrt(mean))
            if dt == 0:
                break
            level = local.at((t + 0.5 * dt).reshape(1), x.unsqueeze(0)) / torch.sqrt(_expected(heston, mean, dt))
            model = leveraged(backbone, GridLeverage(t.reshape(1), x, level, local.scale))
            c = scheme.coefficients(model, dt, t).unsqueeze(-1).to(engine.device, engine.dtype)
            state = scheme.step(state, c, *noise.draw(k))
    return GridLeverage(local.times, torch.stack(rows), torch.stack(values), local.scale)


def _expected(heston: Heston, v: Tensor, dt: Tensor) -> Tensor:
    """Mean variance over the next step, given that at its start."""
    speed = heston.kappa * dt
    return heston.theta - torch.expm1(-speed) / speed * (v - heston.theta)


def conditional_mean(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """`E[y | x]` at increasing points, by kernel regression over a sample [N] (Nadaraya 1964; Watson 1964).

    The kernel is quartic with a bandwidth of `1.5 std(x) N^(-1/5)`; samples are counted in bins first.

    Example:
        >>> x = torch.linspace(-1, 1, 4001).double()
        >>> conditional_mean(x, x**2, torch.tensor([-0.5, 0.0, 0.5]).double()).round(decimals=2)
        tensor([0.2500, 0.0000, 0.2500], dtype=torch.float64)
    """
    spread = x.std()
    if float(spread) < 1e-9:
        return y.mean().expand(len(at)).clone()
    low, high = x.min(), x.max()
    width = (high - low) / (_BINS - 1)
    position = (x - low) / width
    left = position.floor().clamp(max=_BINS - 2).long()
    share = position - left
    count, total = (
        torch.zeros(_BINS, dtype=x.dtype)
        .index_add(0, left, weight * (1 - share))
        .index_add(0, left + 1, weight * share)
        for weight in (torch.ones_like(y), y)
    )
    bandwidth = torch.maximum(_BANDWIDTH * spread * len(x) ** -0.2, 2 * width)
    reach = math.ceil(float(bandwidth / width))
    offset = torch.arange(-reach, reach + 1).to(x) * width / bandwidth
    kernel = (1 - offset.square()).clamp(min=0).square()
    smooth_count, smooth_total = (
        torch.nn.functional.conv1d(v.reshape(1, 1, -1), kernel.reshape(1, 1, -1), padding=reach).flatten()
        for v in (count, total)
    )
    known = torch.nonzero(smooth_count >= min(_FEWEST, float(smooth_count.max()))).flatten()
    nodes, means = low + width * known, smooth_total[known] / smooth_count[known]
    if len(nodes) == 1:
        return means.expand(len(at)).clone()
    right = torch.searchsorted(nodes, at.contiguous()).clamp(1, len(nodes) - 1)
    fraction = ((at - nodes[right - 1]) / (nodes[right] - nodes[right - 1])).clamp(0, 1)
    return means[right - 1] + fraction * (means[right] - means[right - 1])
