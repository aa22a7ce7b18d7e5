"""Neural models of a surface before training: a backbone, what it misses of the quotes, and a network of 1."""

from __future__ import annotations

import math

import numpy as np
import torch

from qsde.calibration.calibrate import calibrate
from qsde.calibration.local_vol import calibrate_local_vol
from qsde.calibration.lsv import table_of
from qsde.calibration.particles import leverage_by_particles
from qsde.market.surface import Surface
from qsde.models.base import Model
from qsde.models.black_scholes import BlackScholes
from qsde.models.heston import Heston
from qsde.models.leverage import GridLeverage, Leverage
from qsde.models.lsv import leveraged
from qsde.models.neural import NeuralLeverage
from qsde.models.neural_sv import NeuralStochasticVol
from qsde.pricing.fourier import model_vols
from qsde.schemes.layers import layers

#: The leverage of the term structure stays between these.
_LOWEST, _HIGHEST = 0.2, 5.0
#: A step of the leverage in time is a rise over this share of a year.
_RISE = 1e-8


def neural_local_vol(
    surface: Surface, base: Leverage | None = None, width: int = 32, seed: int = 0, weights: str = "spread"
) -> Model:
    """A local volatility `vol L(t, x)` with a network in L, ready for `train`.

    Args:
        surface: the quotes that it will be trained on; they say how far it has to look.
        base: what the network multiplies; None takes the local volatility of `calibrate_local_vol`, which is near the
            quotes already, so that training begins there.
        width: units of each hidden layer.
        seed: seed of the hidden layers.
        weights: of the quotes in that local volatility, "spread" or "equal"; best those of `train`.

    Example:
        >>> surface = Surface.from_vols([0.5, 1.0], [100.0, 100.0], [0.2, 0.25], forward=100.0)
        >>> neural_local_vol(surface).name
        'LocalVol'
    """
    vol = float(at_the_money(surface)[1][-1])
    if base is None:
        local = table_of(calibrate_local_vol(surface, weights=weights))
        base = GridLeverage(local.times, local.x, local.values / vol, scale=local.scale)
    return _with_network(surface, BlackScholes(torch.tensor(vol, dtype=torch.float64)), base, width, seed)


def neural_lsv(
    surface: Surface,
    backbone: Model | None = None,
    base: Leverage | None = None,
    width: int = 32,
    seed: int = 0,
    weights: str = "spread",
) -> Model:
    """A local-stochastic volatility: Heston, or Bates, with a network in its leverage, ready for `train`.

    Args:
        surface: as for `neural_local_vol`.
        backbone: a calibrated `Heston`, or one with jumps; None calibrates a Heston.
        base: what the network multiplies; None takes the leverage of `leverage_by_particles` towards
            `calibrate_local_vol`, which is near the quotes already. `term_structure(surface, backbone)` gives what the
            backbone misses at the money only: the network then learns the smile as well.
        width: units of each hidden layer.
        seed: seed of the hidden layers.
        weights: of the quotes in that local volatility, "spread" or "equal"; best those of `train`.
    """
    backbone = calibrate(Heston.typical(), surface, seed=seed).model if backbone is None else backbone
    if base is None:
        local = calibrate_local_vol(surface, weights=weights, jumps=layers(backbone)[1])
        base = leverage_by_particles(backbone, table_of(local))
    return _with_network(surface, backbone, base, width, seed)


def neural_sv(surface: Surface, start: Heston | None = None, width: int = 32, seed: int = 0) -> Model:
    """A stochastic volatility whose functions are a network, ready for `train`.

    At the start the logarithm of the volatility reverts with Heston's speed and has its correlation and, at its
    long-run level, its volatility; the level is the vol at the money as a function of time.

    Args:
        surface: as for `neural_local_vol`.
        start: a calibrated Heston; None calibrates one.
        width: units of each hidden layer.
        seed: seed of the hidden layers.
    """
    heston = calibrate(Heston.typical(), surface, seed=seed).model if start is None else start
    p = {name: float(value) for name, value in heston.params.items()}
    speed = min(max(p["kappa"], 0.5), 20.0)
    amplitude = min(max(p["sigma"] / (2 * math.sqrt(2 * speed * p["theta"])), 0.1), 1.0)
    rho = min(max(p["rho"], -0.95), 0.95)
    t, vol = at_the_money(surface)
    one = term_structure(surface, BlackScholes(torch.tensor(vol[-1])))
    level = GridLeverage(one.times, one.x, one.values * vol[-1], scale=one.scale)
    return NeuralStochasticVol.initialised(
        speed, amplitude, rho, level, shortest=float(t[0]), longest=float(t[-1]), width=width, seed=seed
    )


def term_structure(surface: Surface, backbone: Model) -> GridLeverage:
    """The leverage that is a function of time only and about repeats the vols at the money, constant between expiries.

    `L^2` between two expiries is the quotients of the increments of the total variances at the money of market and
    backbone.
    """
    t, vol = at_the_money(surface)
    at = torch.tensor(t)
    own = model_vols(backbone, at, torch.ones_like(at).unsqueeze(-1), 1.0).squeeze(-1).numpy()
    market, model = (np.diff(v * v * t, prepend=0.0) for v in (vol, own))
    level = np.sqrt((market / model).clip(_LOWEST**2, _HIGHEST**2))
    times = np.stack([np.concatenate([[0.0], t[:-1]]), t - _RISE], 1).ravel()
    values = np.repeat(level, 2)[:, None]
    return GridLeverage(torch.tensor(times), torch.zeros(1), torch.tensor(values), scale=float(vol[-1]))


def at_the_money(surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Expiries, and vols at the forward, linear in log(strike) between the two nearest quotes."""
    q = surface.quotes.assign(k=np.log(surface.quotes["strike"] / surface.quotes["forward"]))
    vols = [np.interp(0.0, part["k"], part["iv"]) for _, part in q.groupby("slice")]
    return surface.slices["t"].to_numpy(), np.array(vols)


def _with_network(surface: Surface, backbone: Model, base: Leverage, width: int, seed: int) -> Model:
    t, vol = at_the_money(surface)
    network = NeuralLeverage.initialised(
        scale=float(vol[-1]), shortest=float(t[0]), longest=float(t[-1]), width=width, seed=seed, base=base
    )
    return leveraged(backbone, network)
