"""Fit of eSSVI: exact on its own vols, close on the market's."""

import numpy as np
import pytest
import torch

from qsde.calibration.ssvi import fit_ssvi
from qsde.errors import QuoteError
from qsde.market.ssvi import ESSVI
from qsde.market.surface import Surface


def test_its_own_vols_come_back() -> None:
    t = torch.tensor([0.1, 0.5, 1.0, 2.0]).double()
    truth = ESSVI(
        t, *torch.tensor([[0.01, 0.03, 0.05, 0.09], [-0.7, -0.6, -0.5, -0.5], [0.1, 0.15, 0.2, 0.21]]).double()
    )
    k = torch.linspace(-0.4, 0.3, 9).double()
    vols = truth.vol(k, t.unsqueeze(-1)).numpy()
    strikes = np.tile(100 * np.exp(k.numpy()), 4)
    fit = fit_ssvi(Surface.from_vols(np.repeat(t.numpy(), 9), strikes, vols.ravel(), 100.0))
    assert fit.status.converged
    assert fit.rmse_bp < 0.01
    torch.testing.assert_close(fit.interpolated.rho, truth.rho, rtol=1e-3, atol=0)


def test_spx_thin(spx_thin) -> None:
    """Three numbers per expiry: closer than Bates (24.7 bp)."""
    fit = fit_ssvi(spx_thin)
    assert fit.status.converged
    assert fit.rmse_bp < 12


def test_quotes_that_contradict_each_other_give_a_surface_without_arbitrage() -> None:
    """The second expiry is quoted below the first: the constructor would refuse what such quotes say."""
    surface = Surface.from_vols([0.5, 0.5, 0.6, 0.6], [90.0, 110.0] * 2, [0.3, 0.28, 0.2, 0.18], 100.0)
    fit = fit_ssvi(surface)
    assert 100 < fit.rmse_bp < 800


def test_an_empty_surface_is_refused(spx_thin) -> None:
    with pytest.raises(QuoteError, match="no quotes"):
        fit_ssvi(spx_thin.select(np.zeros(96, dtype=bool)))
