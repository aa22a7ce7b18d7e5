"""The result of a calibration: the model, how well it fits, and how sure one can be of each parameter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.calibration.penalties import Penalty
from qsde.calibration.quality import Simulated
from qsde.errors import FitStatus
from qsde.market.black import black_price
from qsde.market.surface import Surface
from qsde.models.base import Model


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """Parameters with their standard errors: what every calibration ends with.

    Attributes:
        model: the calibrated model (no batch axes).
        status: how the calibration ended; `status.converged` is the yes or no, the value is a sentence.
        free: names of the fitted parameters.
        jacobian: derivatives of what the model says of the quotes, [quotes, free], per 1.00.
        covariance: covariance of the free parameters [free, free]; NaN where the quotes do not determine them.
        at_bounds: free parameters that ended at a bound: their standard error means little.
        iterations: Levenberg-Marquardt iterations of the winning start, after the exploration.
        starts: number of starts tried.
        starts_agreeing: how many of the starts kept after the exploration reached the same minimum.
        seconds: wall-clock seconds of the calibration call divided by the number of surfaces in it.
        warnings: sentences a user should read.
    """

    model: Model
    status: FitStatus
    free: tuple[str, ...]
    jacobian: Tensor
    covariance: Tensor
    at_bounds: tuple[str, ...]
    iterations: int
    starts: int
    starts_agreeing: int
    seconds: float
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """The status, then a line for each parameter with its standard error."""
        rows = [(name, *self._shown(name, value)) for name, value in self.params.items()]
        wide, wider = (max((len(row[i]) for row in rows), default=0) for i in (0, 1))
        lines = [f"  {name:{wide}}  {value:{wider}}  {note}".rstrip() for name, value, note in rows]
        return "\n".join((f"{self.model.name}: {self.status.value}{self._quality}", *lines))

    def _shown(self, name: str, value: float) -> tuple[str, str]:
        """A parameter with its standard error, and a note."""
        if name not in self.free:
            return f"{value:.6g}", "held"
        return f"{value:.6g} ± {self.std_errors[name]:.2g}", "at bound" if name in self.at_bounds else ""

    @property
    def _quality(self) -> str:
        """How well it fits, after the status."""
        return ""

    @property
    def params(self) -> dict[str, float]:
        """The fitted model's parameters as floats; those of several numbers are in `model` only."""
        return {name: float(value) for name, value in self.model.params.items() if not value.dim()}

    @property
    def std_errors(self) -> dict[str, float]:
        """Standard error of each free parameter; NaN where the quotes do not determine it."""
        return dict(zip(self.free, self.covariance.diagonal().sqrt().tolist(), strict=True))

    @property
    def correlation(self) -> Tensor:
        """Correlation matrix of the free parameters."""
        scale = self.covariance.diagonal().sqrt()
        return self.covariance / torch.outer(scale, scale)


@dataclass(frozen=True, kw_only=True, repr=False)
class Fit(Estimated):
    """A calibrated model with its quality.

    Attributes:
        surface: the quotes it was fitted to.
        model_iv: implied vol of the model for each row of `surface.quotes`, by the verified quadrature
            (by `simulation` where there is one); `jacobian` is that of these vols, kept for quote sensitivities, and
            `covariance` follows from it and the weighted residuals.
        weight: weight of each quote in the objective, mean square 1; 0 for quotes that were left out.
        objective: what was minimised, "implied_vol" or "price".
        penalties: soft constraints of the objective; None if it is not known, as for a fit read from a file.
        simulation: what fresh random numbers say of a calibration by Monte Carlo, which `model_iv` is then from; None
            for Fourier prices, and for a fit read from a file.
    """

    surface: Surface
    model_iv: np.ndarray
    weight: np.ndarray
    objective: str = "implied_vol"
    penalties: tuple[Penalty, ...] | None = None
    simulation: Simulated | None = None

    @property
    def _quality(self) -> str:
        fitted = f"{len(self.surface):,} quotes over {len(self.surface.slices)} expiries"
        inside = f", {100 * self.inside_share:.0f} % inside bid/ask" if self.inside_share == self.inside_share else ""
        return f", {self.rmse_bp:.1f} bp of implied vol (RMSE) on {fitted}{inside}"

    @cached_property
    def residual_bp(self) -> np.ndarray:
        """Model minus market implied vol of each quote, basis points of vol."""
        market: np.ndarray = self.surface.quotes["iv"].to_numpy()
        gap: np.ndarray = self.model_iv - market
        return 1e4 * gap

    @property
    def rmse_bp(self) -> float:
        """Root mean square of `residual_bp` over all quotes, unweighted."""
        return float(np.sqrt(np.mean(self.residual_bp**2)))

    @property
    def weighted_rmse_bp(self) -> float:
        """Root mean square of `residual_bp` with the weights of the objective."""
        return float(np.sqrt(np.mean((self.weight * self.residual_bp) ** 2)))

    @property
    def sse_vol_percent(self) -> float:
        """Sum of squared implied-vol errors in percent points squared, as QuantLib's tests quote it."""
        return float((self.residual_bp**2).sum()) / 1e4

    @cached_property
    def quotes(self) -> pd.DataFrame:
        """One row per row of `surface.quotes`, in that order.

        Columns: `model_iv`, `model_price` (discounted), `residual_bp`, `weight`, and `inside` (model vol within bid and
        ask; NA where there is no two-sided quote).
        """
        q = self.surface.quotes
        forward, strike, t, df = (torch.tensor(q[c].to_numpy()) for c in ("forward", "strike", "t", "discount_factor"))
        is_call = torch.tensor((q["option_type"] == "C").to_numpy())
        price = black_price(forward, strike, t, torch.tensor(self.model_iv), df, is_call)
        two_sided = q["iv_bid"].notna() & q["iv_ask"].notna()
        inside = pd.Series((self.model_iv >= q["iv_bid"]) & (self.model_iv <= q["iv_ask"]))
        return pd.DataFrame(
            {
                "model_iv": self.model_iv,
                "model_price": price.numpy(),
                "residual_bp": self.residual_bp,
                "weight": self.weight,
                "inside": inside.astype("boolean").where(two_sided),
            }
        )

    @property
    def rmse_price(self) -> float:
        """Root mean square price error, discounted, in the currency of the strike."""
        return float(np.sqrt(np.mean((self.quotes["model_price"] - self.surface.quotes["mid"]) ** 2)))

    @property
    def inside_share(self) -> float:
        """Share of two-sided quotes whose bid and ask contain the model, NaN if none is two-sided."""
        inside = self.quotes["inside"].dropna()
        return float(inside.astype(float).mean()) if len(inside) else float("nan")
