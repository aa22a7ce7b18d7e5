"""Prices that plots are made of: by Fourier where a model has them, else from one set of paths."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from qsde.market.implied_vol import implied_vol
from qsde.models import Model
from qsde.noise import Sobol
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import Fourier, model_vols, price_european
from qsde.pricing.simulation import Simulation

#: Paths for models without Fourier prices; vols at the money are then good to about 5 bp.
PATHS = MonteCarlo(n_paths=1 << 15, max_dt=1 / 64, noise=Sobol(2, scrambles=4))


def calls(model: Model, t: Tensor, forward: Tensor, strike: Tensor, engine: Fourier) -> Tensor:
    """Undiscounted calls [E, K].

    Those of a simulation are means over one set of paths whose mean is made the forward: they have no butterfly
    arbitrage, and calendar arbitrage only as far as they are noise.
    """
    if model.has_cf:
        return price_european(model, strike, t, forward, engine=engine).value
    rows = zip(_growth(model, tuple(t.tolist())), (strike / forward.unsqueeze(-1)).unbind(0), strict=True)
    return torch.stack([_means(growth, ratio) for growth, ratio in rows]) * forward.unsqueeze(-1)


def vols(model: Model, t: Tensor, forward: Tensor, strike: Tensor, engine: Fourier) -> Tensor:
    """Implied vols [E, K]; 0 where an option has no time value."""
    if model.has_cf:
        return model_vols(model, t, strike, forward, engine)
    price = calls(model, t, forward, strike, engine)
    level = forward.unsqueeze(-1).expand_as(strike)
    call = strike >= level
    return implied_vol(torch.where(call, price, price - level + strike), level, strike, t.unsqueeze(-1), 1.0, call).vol


@lru_cache(maxsize=4)
def _growth(model: Model, t: tuple[float, ...]) -> tuple[Tensor, ...]:
    """`exp(x)` at each date [P]."""
    simulation = Simulation.of(model, t, PATHS)
    blocks = [simulation.block(i) for i in range(0, simulation.n_paths, simulation.block_size)]
    return tuple(torch.cat([b.grown(0, i) for b in blocks]).double() for i in range(len(t)))


def _means(growth: Tensor, ratio: Tensor) -> Tensor:
    """Means of `(S - K)+` over the forward for all strikes, from sums over sorted paths."""
    ordered = (growth / growth.mean()).sort().values
    above = torch.searchsorted(ordered, ratio.contiguous())
    tail = torch.cat([ordered.flip(0).cumsum(0).flip(0), ordered.new_zeros(1)])
    return (tail[above] - ratio * (len(ordered) - above)) / len(ordered)
