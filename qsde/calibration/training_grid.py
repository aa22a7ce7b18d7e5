"""Call prices of a whole grid from one set of paths, without static arbitrage among them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.base import Model
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.simulation import Simulation


@torch.no_grad()
def call_grid(model: Model, times: Sequence[float], k: Tensor, engine: MonteCarlo) -> Tensor:
    """Undiscounted calls over the forward, [T, K], that no static portfolio can profit from.

    All are means over the same paths, scaled to their exact mean at each date, so that at one date they decrease and
    are convex in the strike, however few the paths. Between dates the model is a martingale, but a finite set of paths
    is one but for its noise: where a later call comes out below an earlier one, it takes the earlier price. The larger
    of two functions that decrease and are convex does both, so nothing else is lost.

    Args:
        model: any model of one underlying that can be simulated and is a martingale.
        times: increasing dates, years.
        k: log(strike / forward), [K], the same for all dates.
        engine: settings.

    Raises:
        InputError: dates that do not increase.

    Example:
        >>> from qsde.models import BlackScholes
        >>> k = torch.linspace(-0.2, 0.2, 5, dtype=torch.float64)
        >>> calls = call_grid(BlackScholes(0.2), [0.5, 1.0], k, MonteCarlo(n_paths=1 << 12))
        >>> bool((calls.diff(dim=0) >= 0).all()), bool((calls.diff(dim=1) < 0).all())
        (True, True)
    """
    if list(times) != sorted(set(times)):
        raise InputError(f"times must increase, got {list(times)}")
    simulation = Simulation.of(model, times, engine)
    columns = [simulation.job.grid.column(t) for t in times]
    blocks = range(0, simulation.n_paths, simulation.block_size)
    growth = torch.cat([torch.exp(simulation.block(first).states[0][columns].double()) for first in blocks], -1)
    growth = growth / growth.mean(-1, keepdim=True)
    strikes = torch.exp(k).to(growth)
    calls = torch.stack([(growth - strike).clamp(min=0).mean(-1) for strike in strikes], -1)
    return calls.cummax(0).values
