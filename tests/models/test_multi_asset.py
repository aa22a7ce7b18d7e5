"""Correlation matrices and their factors, and the model of several underlyings: what it refuses and what it names."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qsde.errors import InputError, ParameterError
from qsde.models import BlackScholes, Heston, MultiAsset, merton, nearest_correlation
from qsde.models.correlation import correlation_factor

FIRST = Heston(0.04, 1.5, 0.06, 0.5, -0.7)
SECOND = Heston(0.09, 1.0, 0.05, 0.8, 0.4)
FLAT = BlackScholes(0.2)
PAIR = [[1.0, 0.6], [0.6, 1.0]]
IMPOSSIBLE = torch.tensor([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]], dtype=torch.float64)


def random_correlation(n: int, seed: int, rank: int | None = None) -> Tensor:
    a = torch.randn(n, rank or n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    c = a @ a.mT
    d = c.diagonal().rsqrt()
    return (c * d * d[:, None]).fill_diagonal_(1)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1.0, 0.5], [0.4, 1.0]], "symmetric"),
        ([[1.0, 0.5], [0.5, 0.9]], "ones on the diagonal"),
        ([[1.0, 50.0], [50.0, 1.0]], "from -1 to 1"),
        ([[1.0, math.nan], [math.nan, 1.0]], "finite"),
        ([[1.0, 0.5]], "square"),
        (torch.eye(3, dtype=torch.float64), "2 x 2 or 4 x 4 for 2 assets of which 2 .* got 3 x 3"),
    ],
)
def test_bad_matrices(matrix: list[list[float]] | Tensor, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        MultiAsset([FIRST, SECOND], matrix)  # type: ignore[arg-type]


def test_a_matrix_that_no_variables_have_is_refused_with_its_eigenvalue_and_the_cure() -> None:
    smallest = float(torch.linalg.eigvalsh(IMPOSSIBLE).min())
    with pytest.raises(ParameterError, match=rf"smallest eigenvalue is {smallest:.4g}.*nearest_correlation"):
        MultiAsset([FLAT] * 3, IMPOSSIBLE)
    MultiAsset([FLAT] * 3, nearest_correlation(IMPOSSIBLE))


def test_bad_models() -> None:
    with pytest.raises(InputError, match=r"models\[1\] must be a BlackScholes or a Heston, got Merton"):
        MultiAsset([FLAT, merton(0.2, 0.3, -0.1, 0.1)], PAIR)
    with pytest.raises(InputError, match="at least two"):
        MultiAsset([FLAT], [[1.0]])


def test_a_full_matrix_must_agree_with_rho() -> None:
    full = MultiAsset([FIRST, FLAT], PAIR).full_correlation
    MultiAsset([FIRST, FLAT], full)
    full[0, 2] = full[2, 0] = -0.6
    with pytest.raises(ParameterError, match=r"correlation\[0\]\[2\].*asset 1.*-0.7.*-0.6"):
        MultiAsset([FIRST, FLAT], full)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_price_correlations_alone_make_a_full_matrix_that_exists(c: float, rho1: float, rho2: float) -> None:
    models = [Heston(0.04, 1.0, 0.04, 0.5, rho1), FLAT, Heston(0.04, 1.0, 0.04, 0.5, rho2)]
    prices = torch.eye(3, dtype=torch.float64)
    prices[0, 2] = prices[2, 0] = c
    full = MultiAsset(models, prices).full_correlation
    assert torch.linalg.eigvalsh(full).min() > -1e-12
    torch.testing.assert_close(full[:3, :3], prices)
    for (i, j), value in {(0, 3): rho1, (2, 4): rho2, (0, 4): c * rho2, (2, 3): c * rho1}.items():
        assert float(full[i, j]) == pytest.approx(value, abs=1e-15)
    assert float(full[3, 4]) == pytest.approx(rho1 * c * rho2, abs=1e-15)
    MultiAsset(models, full)


def test_parameters_have_names_and_come_back() -> None:
    model = MultiAsset([FIRST, FLAT, SECOND], random_correlation(3, 1))
    assert list(model.params)[:6] == [*(f"asset1_{k}" for k in FIRST.params), "asset2_vol"]
    assert list(model.params)[-3:] == ["correlation_1_2", "correlation_1_3", "correlation_2_3"]
    assert set(model.table) == set(model.params)
    assert model.assets == 3
    assert model.name == "MultiAsset(Heston, BlackScholes, Heston)"
    new = model.with_params({"correlation_1_3": torch.tensor(0.1), "asset2_vol": torch.tensor(0.5)})
    assert float(new.full_correlation[2, 0]) == pytest.approx(0.1)
    assert float(new.params["asset2_vol"]) == 0.5
    torch.testing.assert_close(new.params["correlation_1_2"], model.params["correlation_1_2"])
    with pytest.raises(ParameterError, match="correlation_2_1"):
        model.with_params({"correlation_2_1": torch.tensor(0.1)})


def test_a_full_matrix_follows_rho() -> None:
    pair = MultiAsset([FIRST, SECOND], PAIR)
    model = MultiAsset([FIRST, SECOND], pair.full_correlation)
    assert set(model.params) - set(pair.params) == {"correlation_1_v2", "correlation_2_v1", "correlation_v1_v2"}
    moved = model.with_params({"asset1_rho": torch.tensor(-0.2, dtype=torch.float64)}).full_correlation
    assert float(moved[0, 2]) == float(moved[2, 0]) == -0.2
    torch.testing.assert_close(moved[1:, 1:], pair.full_correlation[1:, 1:])


def test_batches_of_matrices_and_parameters() -> None:
    rho = torch.tensor([[-0.3], [0.2], [0.9]], dtype=torch.float64)
    matrices = torch.stack(
        [torch.stack([torch.ones_like(rho), rho], -1), torch.stack([rho, torch.ones_like(rho)], -1)], -2
    )
    vols = torch.tensor([0.1, 0.4], dtype=torch.float64)
    model = MultiAsset([Heston(0.04, 1.0, 0.04, 0.5, [-0.5, 0.1]), BlackScholes(vols)], matrices)  # type: ignore[arg-type]
    assert model.batch_shape == (3, 2)
    assert model.full_correlation.shape == (3, 2, 3, 3)
    assert float(model.full_correlation[2, 1, 1, 2]) == pytest.approx(0.9 * 0.1)
    flat = model.map(lambda p: p.expand(3, 2).reshape(6))
    torch.testing.assert_close(flat.full_correlation, model.full_correlation.reshape(6, 3, 3))
    with pytest.raises(ParameterError, match="smallest eigenvalue"):
        MultiAsset([FLAT] * 3, torch.stack([torch.eye(3, dtype=torch.float64), IMPOSSIBLE]))


def test_nearest_correlation_of_the_paper() -> None:
    """Higham (2002), section 4: a tridiagonal matrix of order 4."""
    given = 2 * torch.eye(4) - torch.diag(torch.ones(3), 1) - torch.diag(torch.ones(3), -1)
    want = [[1, -0.8084, 0.1916, 0.1068], [-0.8084, 1, -0.6562, 0.1916], [0.1916, -0.6562, 1, -0.8084]]
    got = nearest_correlation(given)
    torch.testing.assert_close(got[:3], torch.tensor(want, dtype=torch.float64), atol=5e-5, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_nearest_correlation_is_one_and_no_other_is_nearer(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    given = (random_correlation(6, seed) + 0.4 * (noise + noise.mT)).fill_diagonal_(1)
    nearest = nearest_correlation(given)
    torch.testing.assert_close(nearest.diagonal(), torch.ones(6, dtype=torch.float64))
    assert torch.linalg.eigvalsh(nearest).min() > -1e-14
    # the set is convex, so the gap is normal to it: no other point lies on the near side
    for other in (random_correlation(6, 100 + k) for k in range(200)):
        assert float(((given - nearest) * (other - nearest)).sum()) < 1e-7


def test_nearest_correlation_leaves_correlations_alone_and_takes_batches() -> None:
    two = torch.stack([random_correlation(4, 1), random_correlation(4, 2, rank=2)])
    torch.testing.assert_close(nearest_correlation(two), two, atol=1e-9, rtol=0)
    with pytest.raises(ParameterError, match="symmetric"):
        nearest_correlation(torch.tensor([[1.0, 0.5], [0.2, 1.0]]))
    with pytest.raises(ParameterError, match="square"):
        nearest_correlation(torch.ones(2, 3))


def test_the_factor_is_choleskys_where_there_is_one() -> None:
    many = torch.stack([random_correlation(7, seed) for seed in range(5)])
    torch.testing.assert_close(correlation_factor(many), torch.linalg.cholesky(many), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_factor_exists_for_singular_matrices(rank: int) -> None:
    matrix = random_correlation(8, 3, rank=rank)
    factor = correlation_factor(matrix)
    torch.testing.assert_close(factor @ factor.mT, matrix, atol=1e-6, rtol=0)
    assert int((factor.diagonal() > 0).sum()) == rank
    assert (factor.triu(1) == 0).all()


def test_gradients_of_the_factor() -> None:
    matrix = random_correlation(4, 2).requires_grad_()

    def lower(m: Tensor) -> Tensor:
        return correlation_factor(0.5 * (m + m.mT))

    assert torch.autograd.gradcheck(lower, matrix)
    singular = torch.ones(3, 3, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(correlation_factor(singular).sum(), singular)
    assert torch.isfinite(slope).all()
