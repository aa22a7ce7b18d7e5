"""Picked elements give what the whole tensor gives, with gradients, in transforms too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qsde.payoffs.picked import Picked

VALUES = torch.linspace(-1.0, 2.0, 24, dtype=torch.float64).reshape(4, 2, 3).movedim(0, -1)


def roots(values: Tensor, before: int = 0, after: int = 0) -> Tensor:
    """Square roots of what is positive, 7 elsewhere."""
    some = Picked(values > 0)
    return some.back(torch.sqrt(some.of(values)), 7.0, before, after)


@pytest.mark.parametrize("pads", [(0, 0), (1, 0), (0, 1), (1, 2)])
def test_they_go_back_to_their_places(pads: tuple[int, int]) -> None:
    whole = torch.where(VALUES > 0, VALUES.clamp(min=0).sqrt(), 7.0)
    expected = torch.nn.functional.pad(whole, pads, value=7.0)
    torch.testing.assert_close(roots(VALUES, *pads), expected, rtol=0, atol=0)


def test_nothing_picked() -> None:
    assert roots(-VALUES.abs()).eq(7.0).all()


def test_gradients_plain_and_mapped() -> None:
    def total(scale: Tensor) -> Tensor:
        return roots(VALUES * scale + 0.01, 1, 0).sum()

    scales = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    plain = torch.stack([torch.autograd.functional.jacobian(total, scale) for scale in scales])
    apart = torch.stack([torch.func.grad(total)(scale) for scale in scales])
    tangents = torch.stack([torch.func.jvp(total, (scale,), (torch.ones_like(scale),))[1] for scale in scales])
    for found in (apart, tangents):
        torch.testing.assert_close(found, plain, rtol=1e-14, atol=0)
    mapped = torch.func.vmap(lambda scale: roots(VALUES.abs() * scale + 0.01).sum())(scales)
    torch.testing.assert_close(mapped, torch.stack([roots(VALUES.abs() * s + 0.01).sum() for s in scales]))
