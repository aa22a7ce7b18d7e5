"""The ends of the range of random words, and the polynomials that compiled steps use."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from qsde.noise.transforms import _half_turn, _polynomial_turn, box_muller, word_uniform

EXTREMES = torch.tensor([-(2**31), -(2**31) + 511, -(2**31) + 512, -512, -1, 0, 1, 511, 2**31 - 512, 2**31 - 1]).int()


def pairs() -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(list(itertools.product(EXTREMES.tolist(), repeat=2))).int().unbind(1))  # type: ignore[return-value]


def test_all_float32_uniforms_lie_strictly_inside() -> None:
    """All 2^23 values, each once, symmetric about 1/2."""
    words = (torch.arange(2**23) * 512 - 2**31).int()
    uniforms = word_uniform(words)
    assert float(uniforms[0]) == 2.0**-24
    assert float(uniforms[-1]) == 1 - 2.0**-24
    assert bool((uniforms.diff() > 0).all())
    assert torch.equal(1 - uniforms, uniforms.flip(0))
    assert torch.equal(word_uniform(words + 511), uniforms)


def test_float64_uniforms_lie_strictly_inside() -> None:
    high, low = pairs()
    uniforms = word_uniform(high, low)
    assert float(uniforms.min()) == 2.0**-53
    assert float(uniforms.max()) == 1 - 2.0**-53
    assert torch.equal(1 - (1 - uniforms), uniforms)
    assert bool(((high.double() + 2.0**31) * 2.0**-32 <= uniforms).all())
    assert bool((uniforms < (high.double() + 2.0**31 + 1) * 2.0**-32).all())


def test_normals_are_finite_at_every_extreme() -> None:
    high = pairs()
    single = torch.stack(box_muller(high))
    assert bool(single.isfinite().all())
    assert float(single.abs().max()) == pytest.approx(math.sqrt(48 * math.log(2)), rel=1e-6)
    for fill in EXTREMES.tolist():
        low = (torch.full_like(high[0], fill), torch.full_like(high[1], fill))
        double = torch.stack(box_muller(high, low))
        assert bool(double.isfinite().all())
        assert double.dtype == torch.float64
        assert float(double.abs().max()) < math.sqrt(106 * math.log(2)) + 1e-12


def test_pairs_lie_on_the_circle_of_their_radius() -> None:
    high = pairs()
    cosine, sine = box_muller(high)
    torch.testing.assert_close(cosine**2 + sine**2, -2 * torch.log(word_uniform(high[0])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_polynomials_are_cosine_and_sine(dtype: torch.dtype) -> None:
    angle = torch.linspace(-math.pi / 2, math.pi / 2, 100_001, dtype=torch.float64).to(dtype)
    cosine, sine = _polynomial_turn(angle)
    eps = torch.finfo(dtype).eps
    assert float((cosine.double() - torch.cos(angle.double())).abs().max()) < 2 * eps
    assert float((sine.double() - torch.sin(angle.double())).abs().max()) < 2 * eps
    small = (angle != 0) & (angle.abs() < 0.1)
    assert float((sine.double() / torch.sin(angle.double()) - 1)[small].abs().max()) < 2 * eps


def test_angles_stay_in_half_a_turn() -> None:
    for low in (None, EXTREMES):
        angles = _half_turn(EXTREMES << 1, low)
        assert float(angles.abs().max()) <= math.pi / 2 * (1 + 1e-7)
