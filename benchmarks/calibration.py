"""Calibration: quality on DAX and SPX from many starts, time against QuantLib's Heston calibration, full SPX chain.

Both sides minimise implied-vol errors of the same 104 DAX quotes from the same start; QuantLib uses its own test's
set-up (64-point Gauss-Laguerre, Levenberg-Marquardt 1e-8). The batch is 256 surfaces with different random scalings of
the vols, fitted by us in one call and by QuantLib one after the other (timed on a few of them).
"""

from __future__ import annotations

import importlib.util
import statistics
import sys

import numpy as np
import torch
from harness import Row, alternate, arguments, report, seconds
from surfaces import START, QuantLibHeston, dax, quantlib_bates, spx_full, spx_thin

from qsde.calibration import calibrate, calibrate_many
from qsde.models import Heston, JumpDiffusion, KouJumps, MertonJumps, Model

HESTON = Heston(*START)
BATES = JumpDiffusion(HESTON, MertonJumps.typical())
HESTON_KOU = JumpDiffusion(HESTON, KouJumps.typical())


def random_start(model: Model, seed: int) -> Model:
    """A random parameter set, uniform (log-uniform where positive) over wide ranges."""
    ranges = {"v0": (0.005, 0.8), "kappa": (0.1, 30), "theta": (0.005, 0.8), "sigma": (0.05, 5), "rho": (-0.95, 0.8),
              "jump_intensity": (0.01, 5), "jump_mean": (-0.6, 0.4), "jump_std": (0.01, 0.8)}  # fmt: skip
    rng = np.random.default_rng(seed)
    drawn = {}
    for name in model.params:
        low, high = ranges[name]
        u = rng.uniform()
        drawn[name] = torch.tensor(low * (high / low) ** u if low > 0 else low + (high - low) * u, dtype=torch.float64)
    return model.with_params(drawn)


def quality(n_starts: int) -> list[Row]:
    """Worst fit over random starts with the default settings, as floor / result."""
    rows = []
    for name, model, bound in (("Heston", HESTON, 177.24), ("Bates", BATES, quantlib_bates() * (1 + 1e-9))):
        worst = max(calibrate(random_start(model, i), dax()).sse_vol_percent for i in range(n_starts))
        rows.append(Row(f"DAX {name} SSE, worst of {n_starts} starts", worst, bound, 1.0, "vol%^2"))
    for name, model, bound in (("Heston", HESTON, 41.1), ("Bates", BATES, 24.7)):
        worst = max(calibrate(random_start(model, i), spx_thin()).rmse_bp for i in range(n_starts))
        rows.append(Row(f"SPX thin {name} RMSE, worst of {n_starts} starts", worst, bound, 1.0, "bp"))
    return rows


def speed(rounds: int, batch: int, peers: int) -> list[Row]:
    """Time against QuantLib on one surface and on a batch."""
    if importlib.util.find_spec("QuantLib") is None:
        return [Row("Heston DAX calibration", seconds(lambda: calibrate(HESTON, dax(), starts=1)), None, 5.0)]
    surface, peer = dax(), QuantLibHeston()
    rows = [
        Row("DAX Heston SSE, same start", calibrate(HESTON, surface, starts=1).sse_vol_percent,
            peer.calibrate() * (1 + 1e-6), 1.0, "vol%^2"),
    ]  # fmt: skip
    for label, starts, floor in (("same single start", 1, 5.0), ("our default of 8 starts", None, None)):
        ours, theirs = alternate(lambda s=starts: calibrate(HESTON, surface, starts=s), peer.calibrate, rounds)
        rows.append(Row(f"DAX Heston calibration, {label}", ours, theirs, floor))
    rng = np.random.default_rng(1)
    scales = rng.uniform(0.8, 1.25, batch)
    surfaces = [dax(float(s)) for s in scales]
    others = [QuantLibHeston(float(s)) for s in scales[:peers]]
    calibrate_many(HESTON, surfaces[:8], starts=1)
    ours_all, theirs_all = [], []
    for other in others:
        ours_all.append(seconds(lambda: calibrate_many(HESTON, surfaces, starts=1)) / batch)
        theirs_all.append(seconds(other.calibrate))
    fits = calibrate_many(HESTON, surfaces, starts=1)
    gap = [fit.sse_vol_percent / other.calibrate() for fit, other in zip(fits[:peers], others, strict=True)]
    rows.append(Row(f"batch of {batch} surfaces, per surface", statistics.median(ours_all),
                    statistics.median(theirs_all), 30.0,
                    note=f"{sum(f.status.converged for f in fits)} of {batch} converged; "
                         f"largest SSE ratio to QuantLib {max(gap):.6f}"))  # fmt: skip
    return rows


def full_chain() -> list[Row]:
    """Seconds for every two-sided quote of SPX 2023-02-15."""
    surface = spx_full()
    rows = []
    for model in (HESTON, BATES):
        fits = []
        elapsed = seconds(lambda model=model, fits=fits: fits.append(calibrate(model, surface)))
        fit = fits[0]
        note = f"{fit.status}; RMSE {fit.rmse_bp:.1f} bp, weighted {fit.weighted_rmse_bp:.1f} bp"
        rows.append(Row(f"SPX full, {len(surface)} quotes, {model.name}", elapsed, None, note=note))
    return rows


def main() -> int:
    """Prints all figures; exit code 1 if one misses its floor."""
    options = arguments(__doc__)
    rows = quality(5 if options.quick else 20)
    rows += speed(3 if options.quick else 7, 64 if options.quick else 256, 2 if options.quick else 5)
    rows += full_chain()
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
