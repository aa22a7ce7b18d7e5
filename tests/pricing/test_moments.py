"""Regression on control variates: closed forms against the pseudo-inverse, and what they do at the edges."""

from __future__ import annotations

import pytest
import torch

from qsde.pricing.moments import Control, Moments


def regressed(y: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Coefficients of least squares of the smallest norm, in units of the controls' deviations."""
    y, c = y - y.mean(), c - c.mean(-1, keepdim=True)
    scale = c.square().sum(-1).sqrt()
    inverse = torch.where(scale > 0, 1 / torch.where(scale > 0, scale, 1.0), 0.0)
    return torch.linalg.pinv((c * inverse[:, None]).T, rtol=1e-6) @ y * inverse


@pytest.mark.parametrize("case", ["apart", "alike", "opposite", "one still", "both still", "three"])
def test_coefficients_are_those_of_least_squares(case: str) -> None:
    generator = torch.Generator().manual_seed(1)
    a, b, noise = torch.randn(3, 400, generator=generator, dtype=torch.float64)
    still = torch.zeros_like(a)
    controls = {
        "apart": [a, 0.5 * a + 2 * b],
        "alike": [a, 3 * a],
        "opposite": [a, -0.1 * a],
        "one still": [still, b],
        "both still": [still, still],
        "three": [a, b, a + b],
    }[case]
    c, y = torch.stack(controls), 2 * a - b + 0.1 * noise
    found = Moments.of(y, Control.of(c)).beta()
    torch.testing.assert_close(found, regressed(y, c), rtol=1e-9, atol=1e-12)
