"""The result of a calibration: the model, how well it fits, and how sure one can be of each parameter."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from qsde.errors import FitStatus
from qsde.market.surface import Surface
from qsde.models.base import Model


@dataclass(frozen=True)
class Fit:
    """A calibrated model with its quality.

    Attributes:
        model: the calibrated model (no batch axes).
        surface: the quotes it was fitted to.
        status: how the calibration ended; `status.converged` is the yes or no, the value is a sentence.
        quotes: one row per quote of `surface.quotes`, in that order: `model_iv`, `model_price` (discounted),
            `residual_bp` (model minus market implied vol, basis points of vol), `weight` (as used, normalised to mean
            square 1), `inside` (model vol within bid and ask; NA where there is no two-sided quote).
        rmse_bp: root mean square of `residual_bp` over all quotes, unweighted.
        weighted_rmse_bp: the same with the weights of the objective.
        rmse_price: root mean square price error, discounted, currency.
        inside_share: share of two-sided quotes whose bid/ask contains the model, NaN if none is two-sided.
        free: names of the fitted parameters.
        jacobian: `d model_iv / d parameter`, [quotes, free], per 1.00; kept for quote sensitivities.
        covariance: covariance of the free parameters [free, free] from the weighted residuals and the Jacobian; NaN
            where the quotes do not determine the parameters.
        at_bounds: free parameters that ended at a bound: their standard error means little.
        iterations: Levenberg-Marquardt iterations of the winning start.
        starts: number of starts tried.
        starts_agreeing: starts kept to the end that reached the same minimum.
        seconds: wall-clock seconds of the calibration call divided by the number of surfaces in it.
        warnings: sentences a user should read.
    """

    model: Model
    surface: Surface
    status: FitStatus
    quotes: pd.DataFrame
    rmse_bp: float
    weighted_rmse_bp: float
    rmse_price: float
    inside_share: float
    free: tuple[str, ...]
    jacobian: Tensor
    covariance: Tensor
    at_bounds: tuple[str, ...]
    iterations: int
    starts: int
    starts_agreeing: int
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def params(self) -> dict[str, float]:
        """The fitted model's parameters as floats."""
        return {name: float(value) for name, value in self.model.params.items()}

    @property
    def std_errors(self) -> dict[str, float]:
        """Standard error of each free parameter; NaN where the quotes do not determine it."""
        return dict(zip(self.free, self.covariance.diagonal().sqrt().tolist(), strict=True))

    @property
    def correlation(self) -> Tensor:
        """Correlation matrix of the free parameters."""
        scale = self.covariance.diagonal().sqrt()
        return self.covariance / torch.outer(scale, scale)

    @property
    def sse_vol_percent(self) -> float:
        """Sum of squared implied-vol errors in percent points squared, as QuantLib's tests quote it."""
        return float((self.quotes["residual_bp"] ** 2).sum()) / 1e4
