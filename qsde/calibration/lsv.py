"""Local-stochastic volatility: a calibrated Heston, and the leverage that makes it meet the quotes."""

from __future__ import annotations

import time
from dataclasses import replace

from qsde.calibration.calibrate import Progress, Weights, calibrate
from qsde.calibration.evaluation import judge
from qsde.calibration.fit import Fit
from qsde.calibration.local_vol import calibrate_local_vol
from qsde.calibration.particles import leverage_by_particles
from qsde.market.surface import Surface
from qsde.models.base import Model
from qsde.models.heston import Heston
from qsde.models.leverage import GridLeverage
from qsde.models.lsv import LocalStochasticVol
from qsde.pricing.engine import MonteCarlo


def calibrate_lsv(
    surface: Surface,
    *,
    backbone: Model | None = None,
    engine: MonteCarlo | None = None,
    weights: Weights = "spread",
    progress: Progress | None = None,
) -> Fit:
    """Heston's dynamics with the vanillas of a local volatility: `calibrate_local_vol`, then `leverage_by_particles`.

    Args:
        surface: the quotes.
        backbone: a `Heston`; None calibrates it to the quotes.
        engine: particles and steps; None takes 2^15 and 1/100. The model is judged with steps of this size.
        weights: as in `calibrate`.
        progress: called with (done, total).

    Returns:
        A fit whose model is a `LocalStochasticVol` on the backbone, and whose `model_iv` are of fresh paths.

    Raises:
        InputError: the backbone is no `Heston`.
        QuoteError: the surface is empty.
    """
    began = time.perf_counter()
    tell = progress or (lambda done, total: None)
    local = calibrate_local_vol(surface, weights=weights)
    tell(1, 4)
    own = calibrate(Heston.typical(), surface, weights=weights).model if backbone is None else backbone
    tell(2, 4)
    engine = engine or MonteCarlo(n_paths=1 << 15, max_dt=1 / 100)
    assert isinstance(local.model, LocalStochasticVol)
    assert isinstance(local.model.leverage, GridLeverage)
    model = LocalStochasticVol(own, leverage_by_particles(own, local.model.leverage, engine))
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
