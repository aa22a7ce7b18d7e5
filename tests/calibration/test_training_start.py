"""Where the training of a local-stochastic volatility begins."""

import numpy as np
import pytest

from qsde.calibration.evaluation import judge
from qsde.calibration.training_paths import Quoted, QuotedPaths
from qsde.calibration.training_start import neural_lsv
from qsde.models import Heston, JumpDiffusion, MertonJumps
from qsde.pricing.engine import MonteCarlo

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.5, rho=-0.7)
BACKBONES = {
    "Heston": Heston(v0=0.05, kappa=1.5, theta=0.04, sigma=0.3, rho=-0.4),
    "Bates": JumpDiffusion(
        Heston(v0=0.04, kappa=1.5, theta=0.04, sigma=0.3, rho=-0.4), MertonJumps(intensity=0.2, mean=-0.1, std=0.1)
    ),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_neural_lsv_starts_near_the_quotes(name: str, model_surface) -> None:
    """However far off the backbone is."""
    surface = model_surface(HESTON, times=(0.25, 0.5), strikes=7, width=1.5)
    start, quoted = neural_lsv(surface, BACKBONES[name]), Quoted.of(surface)
    paths = QuotedPaths(quoted, start, MonteCarlo(n_paths=1 << 13, max_dt=1 / 64))
    vol, _ = quoted.vols(paths.prices(start).value)
    assert float((vol - quoted.vol).square().mean().sqrt()) < 0.0015
    assert np.abs(judge(BACKBONES[name], surface).vol - quoted.vol.numpy()).max() > 0.015
