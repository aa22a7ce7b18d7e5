"""Scores against their closed forms for normal forecasts, properness, and the size of the Diebold-Mariano test."""

import math

import pytest
import torch

from qsde.errors import InputError
from qsde.latent import crps, diebold_mariano, log_score, realised_volatility


def normals(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_crps_of_a_normal_forecast() -> None:
    came = torch.tensor([-2.0, -0.5, 0.0, 1.0, 3.0], dtype=torch.float64)
    cdf, pdf = torch.special.ndtr(came), torch.exp(-0.5 * came**2) / math.sqrt(2 * math.pi)
    exact = came * (2 * cdf - 1) + 2 * pdf - 1 / math.sqrt(math.pi)  # Gneiting, Raftery (2007), p. 367
    found = crps(normals(100_000, seed=0).unsqueeze(-1).expand(-1, 5), came)
    assert torch.allclose(found, exact, atol=0.01)


def test_crps_is_the_double_sum_over_pairs() -> None:
    ensemble, came = normals(9, 4, seed=1), normals(4, seed=2)
    pairs = (ensemble.unsqueeze(0) - ensemble.unsqueeze(1)).abs().sum((0, 1)) / (9 * 8)
    assert torch.allclose(crps(ensemble, came), (ensemble - came).abs().mean(0) - 0.5 * pairs)


def test_crps_does_not_favour_an_ensemble_for_its_size() -> None:
    came = normals(4000, seed=3)
    small, large = (crps(normals(m, 4000, seed=m), came) for m in (10, 500))
    found = diebold_mariano(small, large, lags=0)
    assert abs(found.statistic) < 3


def test_log_score_of_a_normal_forecast() -> None:
    came = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64)
    exact = -0.5 * came**2 - 0.5 * math.log(2 * math.pi)
    found = log_score(normals(100_000, seed=4).unsqueeze(-1).expand(-1, 3), came)
    assert torch.allclose(found, exact, atol=0.05)


@pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (0.0, 0.5), (0.0, 2.0)])
def test_the_true_forecast_wins(shift: float, scale: float) -> None:
    came = normals(500, seed=5)
    true, wrong = normals(400, 500, seed=6), shift + scale * normals(400, 500, seed=7)
    assert diebold_mariano(crps(true, came), crps(wrong, came), lags=0).statistic < -3
    assert diebold_mariano(log_score(true, came), log_score(wrong, came), lags=0).statistic > 3


def test_diebold_mariano_is_calibrated_where_errors_overlap() -> None:
    # sums over 5 dates of independent numbers: without lags the test would reject a third of the time
    rejected = {0: 0, 8: 0}
    for seed in range(300):
        overlapping = normals(404, seed=seed).unfold(0, 5, 1).sum(-1)
        for lags in rejected:
            found = diebold_mariano(overlapping, torch.zeros_like(overlapping), lags)
            rejected[lags] += found.p_value < 0.05
    assert rejected[0] > 90
    assert 5 < rejected[8] < 40


@pytest.mark.parametrize(
    ("ensemble", "came", "words"),
    [
        (torch.zeros(7, 3), torch.zeros(3), "M >= 8"),
        (torch.zeros(9, 3), torch.zeros(4), r"\[4\]"),
        (torch.full((9, 1), math.nan), torch.zeros(1), "finite"),
        (torch.zeros(9, 1), torch.full((1,), math.inf), "finite"),
    ],
)
def test_scores_refuse(ensemble: torch.Tensor, came: torch.Tensor, words: str) -> None:
    for score in (crps, log_score):
        with pytest.raises(InputError, match=words):
            score(ensemble, came)


def test_log_score_refuses_a_point_forecast() -> None:
    with pytest.raises(InputError, match="members differ"):
        log_score(torch.ones(9, 1), torch.ones(1))


def test_diebold_mariano_of_equal_forecasters_and_of_one_that_always_wins() -> None:
    scores = normals(50, seed=9)
    same = diebold_mariano(scores, scores, lags=1)
    assert (same.statistic, same.p_value) == (0.0, 1.0)
    worse = diebold_mariano(torch.ones(50), torch.zeros(50), lags=1)
    assert (worse.statistic, worse.p_value) == (math.inf, 0.0)


def test_diebold_mariano_refuses() -> None:
    with pytest.raises(InputError, match="two vectors"):
        diebold_mariano(torch.zeros(5), torch.zeros(6), 0)
    with pytest.raises(InputError, match="lags=2"):
        diebold_mariano(torch.zeros(5), torch.zeros(5), 2)


def test_realised_volatility_of_a_known_volatility() -> None:
    returns = 0.2 / math.sqrt(252) * normals(1000, 252, seed=8)
    assert abs(float(realised_volatility(returns).square().mean().sqrt()) - 0.2) < 4 * 0.2 / math.sqrt(2 * 252_000)
