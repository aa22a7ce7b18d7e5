"""Local-stochastic volatility: a calibrated Heston or Bates, and the leverage that makes it meet the quotes."""

from __future__ import annotations

import time
from dataclasses import replace

from qsde.calibration.calibrate import Progress, Weights, calibrate
from qsde.calibration.evaluation import judge
from qsde.calibration.fit import Fit
from qsde.calibration.local_vol import calibrate_local_vol
from qsde.calibration.particles import PARTICLES, leverage_by_particles
from qsde.market.surface import Surface
from qsde.models.base import Model
from qsde.models.heston import Heston
from qsde.models.leverage import GridLeverage
from qsde.models.lsv import LocalStochasticVol, leveraged
from qsde.pricing.engine import MonteCarlo
from qsde.schemes.layers import layers


def calibrate_lsv(
    surface: Surface,
    *,
    backbone: Model | None = None,
    engine: MonteCarlo = PARTICLES,
    weights: Weights = "spread",
    progress: Progress | None = None,
) -> Fit:
    """Dynamics of Heston or Bates with the vanillas of a local volatility.

    `calibrate_local_vol` under the jumps of the backbone, then `leverage_by_particles`.

    Args:
        surface: the quotes.
        backbone: a `Heston`, or one with jumps; None calibrates a Heston to the quotes.
        engine: particles and steps, by default 2^15 on Sobol points and 1/100. The model is judged with it, too.
        weights: as in `calibrate`.
        progress: called with (done, total).

    Returns:
        A fit whose model is the backbone times a leverage, and whose `model_iv` are of fresh paths.

    Raises:
        InputError: the backbone is no `Heston`, with jumps or without.
        QuoteError: the surface is empty.
    """
    began = time.perf_counter()
    tell = progress or (lambda done, total: None)
    own = calibrate(Heston.typical(), surface, weights=weights).model if backbone is None else backbone
    tell(1, 4)
    local = calibrate_local_vol(surface, weights=weights, jumps=layers(own)[1])
    tell(2, 4)
    model = leveraged(own, leverage_by_particles(own, table_of(local), engine))
    tell(3, 4)
    judged = judge(model, surface, engine)
    tell(4, 4)
    return replace(
        local,
        model=model,
        model_iv=judged.vol,
        simulation=judged.simulation,
        seconds=time.perf_counter() - began,
    )


def table_of(local: Fit) -> GridLeverage:
    """The local volatility of a fit of `calibrate_local_vol`."""
    model, _ = layers(local.model)
    assert isinstance(model, LocalStochasticVol)
    assert isinstance(model.leverage, GridLeverage)
    return model.leverage
