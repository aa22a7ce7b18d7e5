"""Variance swaps under any affine model: the exact mean of the variance realised on dates."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.market.underlying import Market
from qsde.models.affine import affine
from qsde.models.base import Model, fourier_model
from qsde.numerics import complex_exp
from qsde.payoffs import VarianceSwap
from qsde.pricing.fourier import FourierPrice

#: Points on a circle around 0, a multiple of 4, and halvings of its radius that are tried.
_POINTS, _HALVINGS = 128, 40
#: Largest transform on a circle of twice the radius: that of a normal increment is 7.
_LARGEST = 50.0


def price_variance_swap(model: Model, swap: VarianceSwap, market: Market) -> FourierPrice:
    """The exact price of a variance swap, `D N (E[R] - K)` with `R` realised on the swap's observations.

    The log return between two observations is `c + y`, `c = log(F_i / F_{i-1})` and `y` the increment of
    `x = log(S/F)`, whose first two moments are the derivatives at 0 of `m(z) = E[exp(z y)]`. The transform is analytic,
    so that Cauchy's integrals over a circle, by equidistant points, give them to rounding. Differentiable in the
    parameters, the market, strike and notional.

    Args:
        model: Black-Scholes, Heston, or one of them with jumps; parameters may have batch axes.
        swap: the contract.
        market: spot, rates and dividends.

    Returns:
        Price `[*batch]` and error estimate.

    Raises:
        InputError: a model without a transition transform, or cash dividends between the observations.
        NumericsError: no circle around 0 on which the moments are finite.

    References:
        Broadie and Jain (2008), "The effect of jumps and discrete sampling on volatility and variance swaps"; Trefethen
        and Weideman (2014), "The exponentially convergent trapezoidal rule", section 3.

    Example:
        >>> from qsde.models import BlackScholes
        >>> swap = VarianceSwap(strike=0.0, observations=(0.0, 0.5, 1.0))
        >>> price = price_variance_swap(BlackScholes(0.2), swap, Market(100.0, rate=0.02))
        >>> round(float(price.value) * math.exp(0.02), 12)         # vol^2, for the drift is 0
        0.04
    """
    times = torch.tensor(swap.times, dtype=torch.float64)
    scale, shift = market.affine(times, horizon=times[-1])
    if bool((shift != 0).any()):
        raise InputError(
            "dividends: a variance swap has no exact price with cash dividends between its observations; simulate it, "
            "or give the dividends as ProportionalDividend"
        )
    drift = torch.log(scale).diff()
    first, second, error = _moments(model, market.years(times))
    squares = drift.square() + 2 * drift * first + second
    periods = swap.periods_per_year
    per_year = 1 / (swap.times[-1] - swap.times[0]) if periods is None else periods / (len(swap.times) - 1)
    realised, slack = (x.sum(-1) * per_year for x in (squares, error))
    strike, notional = (torch.as_tensor(x, dtype=torch.float64) for x in (swap.strike, swap.notional))
    paid = notional * market.discount(swap.maturity)
    return FourierPrice(paid * (realised - strike), (paid * slack).detach())


def _moments(model: Model, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First and second moments `[*batch, interval]` of the increments of `x`, and the error of the second."""
    shaped = model.map(lambda p: p.unsqueeze(-1).unsqueeze(-1)) if model.batch_shape else model
    start, step = times[:-1].unsqueeze(-1), times.diff().unsqueeze(-1)
    radius = _radius(shaped, start, step)
    angle = torch.linspace(0, math.pi, _POINTS // 2 + 1, dtype=torch.float64)
    circle = torch.polar(torch.ones_like(angle), angle)
    transform = _transform(shaped, start, step, radius * circle)
    # the lower half of the circle mirrors the upper one
    weight = torch.full_like(angle, 2 / _POINTS)
    weight[[0, -1]] = 1 / _POINTS
    terms = transform / circle
    first = (weight * terms.real).sum(-1) / radius.squeeze(-1)
    terms = 2 * terms / circle
    second, half = ((weight * terms.real)[..., ::n].sum(-1) * n / radius.squeeze(-1).square() for n in (1, 2))
    rounding = 4e-16 * terms.detach().abs().amax(-1) / radius.squeeze(-1).square()
    return first, second, (second - half).detach().abs() + rounding


def _transform(model: Model, start: Tensor, step: Tensor, z: Tensor) -> Tensor:
    """`E[exp(z y)]` of the increment over `step` from `start` on."""
    law = affine(model)
    a, b = law.transition(-1j * z, torch.zeros_like(z), step)
    before, b = law.transition(torch.zeros_like(z), b, start)
    return complex_exp(a + before + b * law.initial_variance)


@torch.no_grad()
def _radius(model: Model, start: Tensor, step: Tensor) -> Tensor:
    """One over the deviation of the increment, or less: twice as far out, moments must be finite and of that size."""
    law, fourier = affine(model), fourier_model(model)
    variance = fourier.total_variance(start + step) - fourier.total_variance(start)
    trial = torch.rsqrt(variance.clamp(min=1e-24)) * 0.5 ** torch.arange(_HALVINGS, dtype=torch.float64)
    alive = torch.ones_like(trial, dtype=torch.bool)
    for end in (2 * trial, -2 * trial):
        none = torch.zeros_like(end)
        alive = alive & law.transition_exists(end, none, step)
        b = law.transition(-1j * end, none + 0j, step)[1].real
        alive = alive & law.transition_exists(none, b, start)
        alive = alive & (_transform(model, start, step, end + 0j).real < _LARGEST)  # False for NaN
    if not bool(alive.any(-1).all()):
        raise NumericsError(f"{model.name}: the increments of log S have no exponential moments; simulate the swap")
    return trial.gather(-1, alive.to(torch.int8).argmax(-1, keepdim=True))
