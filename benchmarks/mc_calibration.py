"""Calibration by Monte Carlo against the same calibration by Fourier prices, on DAX, SPX and on exotics.

The two share objective, optimiser and starts; only the prices differ. Differences of parameters are in stated standard
errors, and in those of the paths alone, which Gauss-Newton understates where the misfit is large (DAX). Root mean
square errors are those of exact prices. The Jacobian is timed against forward tangents of the same paths
(`torch.func.jacfwd`).
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from harness import Row, alternate, arguments, report, seconds
from surfaces import dax, spx_full, spx_thin
from torch import Tensor

from qsde.calibration import Fit, Instrument, InstrumentFit, calibrate
from qsde.calibration.bumps import Bumps
from qsde.calibration.objective import Data
from qsde.calibration.simulated_surface import SimulatedObjective
from qsde.calibration.space import Space
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models import Heston
from qsde.noise import Sobol, Threefry
from qsde.payoffs import Asian, Barrier, European, VarianceSwap
from qsde.pricing.fourier import model_vols
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.pricing.simulation import Simulation


def exact_rmse_bp(fit: Fit) -> float:
    """Error of the fitted model by Fourier prices."""
    q = fit.surface.quotes
    t, strike, forward = (torch.tensor(q[c].to_numpy()) for c in ("t", "strike", "forward"))
    vol = model_vols(fit.model, t, strike.unsqueeze(-1), forward).squeeze(-1)
    return float(np.sqrt(np.mean((1e4 * (vol.numpy() - q["iv"].to_numpy())) ** 2)))


def worst_gap(fit: Fit | InstrumentFit, truth: dict[str, float], covariance: Tensor) -> tuple[float, str]:
    """Largest difference of a parameter in standard errors of `covariance`, and all of them as text."""
    errors = covariance.diagonal().sqrt().tolist()
    gaps = {n: (fit.params[n] - truth[n]) / e for n, e in zip(fit.free, errors, strict=True)}
    text = ", ".join(f"{name} {gap:+.1f}" for name, gap in gaps.items())
    return max(abs(gap) for gap in gaps.values()), text


def surface_rows(name: str, surface: Surface, engine: MonteCarlo) -> list[Row]:
    """One surface, both ways."""
    exact = calibrate(Heston.typical(), surface)
    fit = calibrate(Heston.typical(), surface, engine=engine)
    label = f"{name} Heston, {engine.n_paths} paths, dt 1/{1 / engine.max_dt:.0f}, {type(engine.noise).__name__}"
    by_noise, text = worst_gap(fit, exact.params, fit.simulation.covariance)
    by_all, _ = worst_gap(fit, exact.params, fit.covariance)
    check = fit.simulation
    fresh = f"said from fresh paths: {check.rmse:.1f} +- {check.rmse_error:.1f} bp, on its own: {check.fitted_rmse:.1f}"
    return [
        Row(f"{label}: seconds (peer: Fourier)", fit.seconds, exact.seconds, note=f"{fit.status}; {fit.warnings}"),
        Row(f"{label}: RMSE (peer: Fourier)", exact_rmse_bp(fit), exact_rmse_bp(exact), 0.98, "bp", note=fresh),
        Row(f"{label}: largest gap in errors of the noise", by_noise, None, unit="", note=text),
        Row(f"{label}: largest gap in stated errors", by_all, 3.0, 1.0, ""),
    ]


def exotic_rows(engine: MonteCarlo) -> list[Row]:
    """Asians, barriers and variance swaps at prices of a known model give it back."""
    truth, market = Heston(v0=0.04, kappa=2.0, theta=0.06, sigma=0.5, rho=-0.6), Market(100.0, 0.03, 0.01)
    fixings = {t: tuple(t * i / 8 for i in range(1, 9)) for t in (0.5, 1.0)}
    payoffs = [
        *(Asian(strike, fixings[t]) for strike in (90.0, 100.0, 110.0) for t in (0.5, 1.0)),
        *(Barrier(100.0, level, t, style="down-and-out") for level in (75.0, 90.0) for t in (0.5, 1.0)),
        *(VarianceSwap(0.0, tuple(t * i / 12 for i in range(13)), notional=100.0) for t in (0.25, 0.5, 1.0)),
        *(European(strike, t, "put") for strike in (75.0, 90.0) for t in (0.25, 1.0)),
    ]
    made = price(truth, payoffs, market, MonteCarlo(n_paths=1 << 17, noise=Threefry(2024)))
    errors = (2 * made.std_error).clamp(min=0.01).tolist()
    terms = zip(payoffs, made.value.tolist(), errors, strict=True)
    instruments = [Instrument(payoff, price=value, uncertainty=error) for payoff, value, error in terms]
    fit = calibrate(Heston.typical(), instruments, market=market, engine=engine)
    worst, text = worst_gap(fit, {name: float(value) for name, value in truth.params.items()}, fit.covariance)
    label = f"{len(payoffs)} exotics, Heston, {engine.n_paths} paths, {type(engine.noise).__name__}"
    return [
        Row(f"{label}: seconds", fit.seconds, None, note=f"{fit.status}; RMSE {fit.rmse:.2f} uncertainties"),
        Row(f"{label}: largest gap in stated errors", worst, 3.5, 1.0, "", note=text),
    ]


def jacobian_rows(rounds: int) -> list[Row]:
    """Central differences of one batch against forward tangents, states of 4096 paths; and the largest surface."""
    model, surface = Heston.typical(), dax()
    data, space, engine = Data.of([surface], "equal"), Space.of(model, None, ()), MonteCarlo(n_paths=1 << 12)
    dates = data.t[0].tolist()
    p = torch.stack(list(model.params.values()))

    def states(q: Tensor) -> tuple[Tensor, ...]:
        return Simulation.of(space.with_free(q), dates, engine, averaged=True).block(0).states

    ours, theirs = alternate(
        lambda: states(Bumps.of(space).sets(p.unsqueeze(0))[0]), lambda: torch.func.jacfwd(states)(p), rounds
    )
    rows = [Row("derivatives of 4096 paths to 5 parameters (peer: forward tangents)", ours, theirs, 1.2)]
    full = spx_full()
    x = space.to_unknowns(p).expand(1, 1, -1)
    job = SimulatedObjective(Data.of([full], "spread"), space, (), True, engine)
    job.residuals(x, torch.arange(1))
    elapsed = seconds(lambda: job.residuals(x, torch.arange(1)))
    return [*rows, Row(f"SPX full, {len(full)} quotes: prices and Jacobian from 4096 paths", elapsed, None)]


def main() -> int:
    """Prints all figures; exit code 1 if one misses its floor."""
    options = arguments(__doc__)
    paths, max_dt, sobol = 1 << (12 if options.quick else 14), 1 / (64 if options.quick else 128), Sobol(0, scrambles=4)
    rows = jacobian_rows(3 if options.quick else 7)
    rows += surface_rows("DAX", dax(), MonteCarlo(n_paths=paths, max_dt=max_dt, noise=sobol))
    if not options.quick:
        rows += surface_rows("DAX", dax(), MonteCarlo(n_paths=paths, max_dt=max_dt))
        rows += surface_rows("SPX thin", spx_thin(), MonteCarlo(n_paths=paths, max_dt=1 / 64, noise=sobol))
    rows += exotic_rows(MonteCarlo(n_paths=paths // 2, noise=sobol))
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
