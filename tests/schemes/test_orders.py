"""Weak and strong orders of convergence, measured."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qsde.models import BlackScholes, Heston, Model
from qsde.noise import Threefry
from qsde.pricing.fourier import price_european
from qsde.schemes import Exact, HestonQE, LogEuler, Milstein, Scheme, State

MODERATE = Heston(0.06, 2.0, 0.06, 0.4, -0.6)
SMOOTH = Heston(0.09, 1.0, 0.09, 0.3, -0.6)
STRIKE = 1.2


def bias(simulate: Callable, scheme: Scheme, n_steps: int) -> tuple[float, float]:
    """Error of a one-year put and its standard error, with the forward as control variate."""
    s = torch.exp(simulate(MODERATE, scheme, 1.0, n_steps, 1_000_000, dtype=torch.float32)[0].double())
    value = (STRIKE - s).clamp(min=0)
    cov = torch.cov(torch.stack([value, s]))
    value = value - cov[0, 1] / cov[1, 1] * (s - 1)
    exact = float(price_european(MODERATE, STRIKE, 1.0, 1.0, is_call=False).value)
    return float(value.mean()) - exact, float(value.std()) / 1e3


# truncation makes the first halvings of full-truncation Euler better than its order
@pytest.mark.parametrize(("scheme", "low", "high"), [(LogEuler(), 0.8, 2.4), (Milstein(), 0.8, 1.2)], ids=repr)
def test_weak_order(scheme: Scheme, low: float, high: float, simulate: Callable) -> None:
    coarse, fine = (bias(simulate, scheme, n)[0] for n in (2, 8))
    assert low <= math.log2(coarse / fine) / 2 <= high


def test_quadratic_exponential_has_no_visible_bias(simulate: Callable) -> None:
    """Where Euler with four steps is off by 16 bp of the forward and Milstein by 34, QE is by less than 1.5."""
    assert abs(bias(simulate, HestonQE(), 4)[0]) < 1.5e-4
    assert bias(simulate, LogEuler(), 4)[0] > 1e-3


def coupled(model: Model, scheme: Scheme, n_steps: int) -> list[float]:
    """Root mean square distance of each state at year 1 between n and 2 n steps of the same Brownian motions."""
    n_paths = 10_000
    block = Threefry(3).block(torch.arange(n_paths), 2 * n_steps, *scheme.draws(model, 1.0), torch.float64, "cpu")
    wide, narrow = (
        scheme.coefficients(model, torch.tensor(1 / n, dtype=torch.float64)).unsqueeze(-1)
        for n in (n_steps, 2 * n_steps)
    )
    one: State = tuple(s.unsqueeze(-1).expand(n_paths) for s in scheme.initial(model))
    two = one
    for k in range(n_steps):
        (first, none), (second, _) = block.draw(2 * k), block.draw(2 * k + 1)
        two = scheme.step(scheme.step(two, narrow, first, none), narrow, second, none)
        one = scheme.step(one, wide, (first + second) / math.sqrt(2), none)
    return [_root_mean_square(a - b) for a, b in zip(one, two, strict=True)]


def _root_mean_square(x: Tensor) -> float:
    return float((x * x).mean().sqrt())


@pytest.mark.parametrize(
    ("scheme", "of_x", "of_v"), [(LogEuler(), 0.5, 0.5), (Milstein(), 0.5, 1.0), (HestonQE(), 0.5, 1.0)], ids=repr
)
def test_strong_order(scheme: Scheme, of_x: float, of_v: float) -> None:
    coarse, fine = coupled(SMOOTH, scheme, 16), coupled(SMOOTH, scheme, 64)
    slopes = [math.log2(a / b) / 2 for a, b in zip(coarse, fine, strict=True)]
    assert slopes == pytest.approx([of_x, of_v], abs=0.15)


@pytest.mark.parametrize("scheme", [Exact(), LogEuler()], ids=repr)
def test_geometric_brownian_motion_has_no_strong_error(scheme: Scheme) -> None:
    assert coupled(BlackScholes(0.4), scheme, 4)[0] < 1e-14
