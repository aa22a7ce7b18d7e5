"""The search with ever more paths: what it does where prices fail."""

import torch
from torch import Tensor

from qsde.calibration.levenberg_marquardt import Residuals
from qsde.calibration.ramp import ramp
from qsde.errors import FitStatus
from qsde.pricing.engine import MonteCarlo


def test_prices_that_fail_beside_the_starts_are_a_failed_fit() -> None:
    def residuals(engine: MonteCarlo) -> Residuals:
        def at(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            return x.new_ones(*x.shape[:2], 3), x.new_full((*x.shape[:2], 3, x.shape[2]), torch.nan)

        return at

    found = ramp(residuals, torch.zeros(1, 2, 2, dtype=torch.float64), MonteCarlo(), 10, lambda share: None)
    assert found.status is FitStatus.FAILED
