"""Gradients of every strategy against closed forms: the paper's three problems in ten dimensions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from qsde.noise import Threefry
from qsde.schemes import Heun, ItoMilstein, ReversibleHeun, SDEScheme
from qsde.solve import sdeint

D = torch.float64
NOISE = Threefry(8)


def exact_gradient(problem: Any, y0: Tensor, params: dict[str, Tensor], steps: int) -> Tensor:
    """That of the mean of the solution at 1, a function of the Brownian motion there."""
    block = NOISE.block(torch.arange(len(y0)), steps, y0.shape[1], 0, D, "cpu")
    w = torch.stack([block.draw(k)[0] for k in range(steps)]).sum(0).T / math.sqrt(steps)
    value = problem.solution(y0, 1.0, w, params).sum() / len(y0)
    return together(torch.autograd.grad(value, [y0, *params.values()]))


def together(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])


@pytest.mark.parametrize(
    ("gradient", "interpretation", "scheme"),
    [
        ("checkpoint", "ito", ItoMilstein()),
        ("forward", "stratonovich", Heun()),
        ("reversible", "stratonovich", ReversibleHeun()),
        ("stochastic_adjoint", "ito", ItoMilstein()),
        ("stochastic_adjoint", "stratonovich", Heun()),
        ("stochastic_adjoint", "stratonovich", ReversibleHeun()),
    ],
)
def test_closed_forms_in_ten_dimensions(problem: Any, gradient: str, interpretation: str, scheme: SDEScheme) -> None:
    gaps = []
    for steps in (8, 128):
        params, y0 = problem.params(), problem.start(64)
        sde = problem.sde(params, interpretation)
        y = sdeint(sde, y0, [0.0, 1.0], max_dt=1 / steps, scheme=scheme, noise=NOISE, gradient=gradient)
        found = torch.autograd.grad(y[-1].sum() / len(y0), [y0, *params.values()])
        exact = exact_gradient(problem, y0, params, steps)
        gaps.append(float((together(found) - exact).norm() / exact.norm()))
    assert gaps[1] < 0.02
    assert gaps[1] < gaps[0] / 4  # strong order 1 would be 16, order 1/2 would be 4
