"""Local volatility through the quotes: the smoothest whose forward equation meets them within their errors."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import pandas as pd
import torch

from qsde.calibration.fit import Fit
from qsde.calibration.levenberg_marquardt import solve
from qsde.calibration.local_vol_problem import LocalVolProblem
from qsde.calibration.local_vol_shape import LocalVolatility
from qsde.calibration.ssvi import fit_ssvi
from qsde.errors import FitStatus, InputError
from qsde.market.surface import Surface
from qsde.models.base import Model
from qsde.models.black_scholes import BlackScholes
from qsde.models.jump_diffusion import JumpDiffusion
from qsde.models.jumps import JumpLaw
from qsde.models.lsv import leveraged

#: What a bend of the shape of 1 from node to node costs, in errors of a quote.
_STIFFNESS = 1.5


def calibrate_local_vol(
    surface: Surface,
    *,
    weights: str | Callable[[pd.DataFrame], np.ndarray] = "spread",
    stiffness: float = _STIFFNESS,
    max_iterations: int = 30,
    jumps: Sequence[JumpLaw] = (),
) -> Fit:
    """A local volatility that reprices the quotes: the one-factor model that fits every arbitrage-free surface.

    It is the forward vol at the money times `exp(c(t, z))`, `z = log(S / F) / sqrt(theta(t))`. The total variance at
    the money `theta` is at the expiries that of an eSSVI surface (`fit_ssvi`), between them that of `ForwardVariance`;
    `c` is linear between 11 points of z and the expiries and their geometric means. Levenberg-Marquardt finds `c` from
    the implied vols that Dupire's forward equation gives; it minimises

        sum(((vol - quote) / error)^2) + stiffness^2 (|c_zz|^2 + (|c_t|^2 + |c_tt|^2) / 9 + |0.02 c|^2) + |100 b|^2,

    in differences from node to node, with b what the smile in the middle between two expiries is off the mean of
    theirs, as functions of z and relative to the vol at the money. Bends that the quotes' errors do not warrant are
    noise, and would be wrong between the quotes. Prices that solve the equation have no static arbitrage, whatever the
    quotes.

    Args:
        surface: the quotes.
        weights: "spread" takes `sqrt(half_spread^2 + (3 bp)^2)` as the error of a quote, "equal" 5 bp, which fits the
            middle of wide quotes, too; a function of the quotes gives what 5 bp are divided by, on average 1.
        stiffness: see above; infinite leaves Dupire's local volatility of the eSSVI surface.
        max_iterations: Levenberg-Marquardt iterations of `c`.
        jumps: laws of jumps beside the diffusion, which is then what they leave to it (Andersen and Andreasen 2000).

    Returns:
        A fit whose model is a `LocalStochasticVol` on `BlackScholes(1.0)`, under the jumps, and whose `model_iv` are
        those of the forward equation. It has no free parameters in the sense of a handful that quotes determine: `free`
        is empty.

    Raises:
        InputError: jumps with infinite stiffness.
        QuoteError: the surface is empty.

    References:
        B. Dupire, Pricing with a smile, Risk 7 (1994); J. Andreasen and B. Huge, Volatility interpolation, Risk (March
        2011), which this shares the forward equation with.

    Example:
        >>> surface = Surface.from_vols([0.5, 0.5, 0.5, 1.0], [90.0, 100.0, 110.0, 100.0], 0.2, forward=100.0)
        >>> fit = calibrate_local_vol(surface)
        >>> fit.model.name, fit.rmse_bp < 2
        ('LocalVol', True)
    """
    began = time.perf_counter()
    if jumps and math.isinf(stiffness):
        raise InputError("jumps: Dupire's formula knows none; give a finite stiffness, or no jumps")
    smooth = fit_ssvi(surface, weights)
    start, status, iterations = LocalVolatility.flat(smooth), smooth.status, 0
    problem = LocalVolProblem.of(surface, start, weights, stiffness, tuple(jumps))
    found = replace(start, shape=None)
    if math.isfinite(stiffness):
        unknowns = torch.zeros(1, 1, problem.penalty.shape[-1], dtype=torch.float64)
        solution = solve(problem.residuals, unknowns, max_iterations, cost_tolerance=1e-3)
        found, iterations = problem.at(solution.x[0, 0]), int(solution.iterations)
        status = FitStatus.CONVERGED if bool(solution.converged) else FitStatus.MAX_ITERATIONS
    vols, _ = problem.vols(found)
    empty = torch.zeros(len(surface), 0, dtype=torch.float64)
    one: Model = BlackScholes(torch.tensor(1.0, dtype=torch.float64))
    return Fit(
        model=leveraged(reduce(JumpDiffusion, jumps, one), found.leverage()),
        surface=surface,
        status=status,
        model_iv=vols.numpy(),
        weight=smooth.weight,
        free=(),
        jacobian=empty,
        covariance=empty[:0],
        at_bounds=(),
        iterations=iterations,
        starts=1,
        starts_agreeing=1,
        seconds=time.perf_counter() - began,
        warnings=() if status.converged else (status.value,),
    )
