"""Jumps: counts, sizes and prices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from qsde.models import Heston, JumpDiffusion, KouJumps, MertonJumps, Model, bates, kou, merton
from qsde.pricing.fourier import price_european
from qsde.schemes import scheme_for
from qsde.schemes.jump_samplers import SAMPLERS, _poisson, poisson_bound

MODELS: dict[str, Model] = {
    "merton": merton(0.2, 0.8, -0.1, 0.15),
    "merton, many jumps": merton(0.1, 30.0, 0.01, 0.03),
    "kou": kou(0.16, 1.0, 0.4, 10.0, 5.0),
    "kou, many jumps": kou(0.1, 12.0, 0.4, 40.0, 25.0),
    "bates": bates(0.04, 1.15, 0.04, 0.39, -0.64, 0.3, -0.12, 0.15),
    "heston-kou": JumpDiffusion(Heston(0.04, 1.15, 0.04, 0.39, -0.64), KouJumps(1.0, 0.4, 10.0, 5.0)),
    "nested": JumpDiffusion(merton(0.15, 0.8, -0.1, 0.1), KouJumps(1.0, 0.4, 20.0, 10.0)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", MODELS)
def test_prices_are_the_fourier_prices(
    case: str, dtype: torch.dtype, simulate: Callable, mean_and_error: Callable
) -> None:
    model, t = MODELS[case], 0.5
    scheme = scheme_for(model)
    s = torch.exp(simulate(model, scheme, t, 1 if scheme.exact else 8, 100_000, dtype=dtype)[0].double())
    for strike in (0.85, 1.0, 1.15):
        exact = float(price_european(model, strike, t, 1.0, is_call=False).value)
        mean, error = mean_and_error((strike - s).clamp(min=0))
        assert abs(mean - exact) < 4 * error


@pytest.mark.parametrize("mean", [0.0, 1e-3, 0.3, 1.0])
def test_count_is_the_inverse_cdf(mean: float) -> None:
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    count = _poisson(torch.tensor(mean, dtype=torch.float64), u, 15)
    assert float(count.mean()) == pytest.approx(mean, abs=2e-5)
    assert float((count * count).mean()) == pytest.approx(mean + mean * mean, abs=1e-4)
    assert bool((count[1:] >= count[:-1]).all())


@pytest.mark.parametrize("mean", [1e-4, 0.1, 1.0, 30.0])
def test_bound_of_the_count(mean: float) -> None:
    n = poisson_bound(mean)
    beyond = torch.special.gammainc(torch.tensor([n + 1.0, float(n)]).double(), torch.tensor(mean).double())
    assert float(beyond[0]) < 1e-13 <= float(beyond[1])


def test_kou_size_by_inverse_cdf() -> None:
    law = KouJumps(1.0, 0.3, 10.0, 4.0)
    sampler = SAMPLERS[KouJumps]
    c = torch.stack(sampler.coefficients(law, torch.tensor(1.0))).unsqueeze(-1)
    n = 400_000
    u = torch.stack([torch.full((n,), 0.5, dtype=torch.float64), (torch.arange(n) + 0.5).double() / n])
    size = sampler.sum(c, u[:0], u) + c[1]  # u = 0.5 is one jump
    assert float(torch.exp(size).mean()) == pytest.approx(float(law.mgf(torch.tensor(1.0).double())), rel=1e-4)
    assert float((size * size).mean()) == pytest.approx(float(law.mean_square()), rel=1e-3)


def test_no_jumps_is_the_diffusion(simulate: Callable) -> None:
    plain = simulate(Heston(0.04, 1.0, 0.04, 0.5, -0.5), scheme_for(Heston.typical()), 1.0, 2, 100)[0]
    model = JumpDiffusion(Heston(0.04, 1.0, 0.04, 0.5, -0.5), KouJumps(0.0, 0.4, 10.0, 5.0))
    torch.testing.assert_close(simulate(model, scheme_for(model), 1.0, 2, 100)[0], plain, rtol=0, atol=0)


def test_splitting_a_large_count() -> None:
    assert SAMPLERS[MertonJumps].uniforms(0.2) == 1
    assert SAMPLERS[MertonJumps].uniforms(3.5) == 4
