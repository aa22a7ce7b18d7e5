"""Strong and weak orders of the schemes of functions, measured on problems with closed forms.

A closed form needs the path's own Brownian motion: the sum of the normals that the noise gave to its steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qsde.models import SDE
from qsde.noise import Threefry
from qsde.schemes import EulerMaruyama, ItoMilstein, Scheme
from qsde.solve import sdeint

D = torch.float64
NOISE = Threefry(7)
Exact = Callable[[Tensor], Tensor]

MU, SIGMA = 0.3, 0.6
GBM = SDE(lambda t, y, p: MU * y, lambda t, y, p: SIGMA * y, [1.0])


def gbm(w: Tensor) -> Tensor:
    """`exp((mu - sigma^2 / 2) + sigma W_1)`."""
    return torch.exp(MU - SIGMA**2 / 2 + SIGMA * w)


# by Ito's formula for sinh(W / 2) and arctan(W / 2)
PAIR = SDE(
    lambda t, y, p: torch.stack([y[:, 0] / 8, torch.sin(2 * y[:, 1]) * torch.cos(y[:, 1]) ** 2 * -0.125], -1),
    lambda t, y, p: torch.stack([torch.sqrt(1 + y[:, 0] ** 2) / 2, torch.cos(y[:, 1]) ** 2 * 0.5], -1),
    [0.0, 0.0],
)


def pair(w: Tensor) -> Tensor:
    """`sinh(W / 2)` and `arctan(W / 2)`."""
    return torch.stack([torch.sinh(w[:, 0] / 2), torch.arctan(w[:, 1] / 2)], -1)


COMMON = SDE(
    lambda t, y, p: torch.stack([y[:, 0] / 8, MU * y[:, 1]], -1),
    lambda t, y, p: torch.stack([torch.sqrt(1 + y[:, 0] ** 2) / 2, SIGMA * y[:, 1]], -1),
    [0.0, 1.0],
    noise="scalar",
)


def common(w: Tensor) -> Tensor:
    """Both components on one Brownian motion."""
    return torch.cat([torch.sinh(w / 2), gbm(w)], -1)


# y_i = exp(mu + A_i W - |A_i|^2 / 2): noise that commutes, so that there is a closed form
MATRIX = torch.tensor([[0.4, -0.2, 0.3], [0.1, 0.5, -0.3]], dtype=D)
GENERAL = SDE(lambda t, y, p: MU * y, lambda t, y, p: MATRIX.to(y) * y.unsqueeze(-1), [1.0, 1.0], noise="general")


def several(w: Tensor) -> Tensor:
    """Each component is log-normal in a combination of three Brownian motions."""
    return torch.exp(MU - MATRIX.square().sum(-1) / 2 + w @ MATRIX.T)


def brownian(n_paths: int, n_steps: int, factors: int) -> Tensor:
    """W at time 1 [P, m] of the noise that `sdeint` draws with n steps."""
    block = NOISE.block(torch.arange(n_paths), n_steps, factors, 0, D, "cpu")
    return sum(block.draw(k)[0] for k in range(n_steps)).T / math.sqrt(n_steps)  # type: ignore[union-attr]


def solved(sde: SDE, scheme: Scheme, n_steps: int, n_paths: int) -> Tensor:
    y0 = sde.params["initial"].expand(n_paths, -1)
    return sdeint(sde, y0, [0.0, 1.0], max_dt=1 / n_steps, scheme=scheme, noise=NOISE)[-1]


def strong_error(sde: SDE, exact: Exact, scheme: Scheme, factors: int, n_steps: int) -> Tensor:
    """Root mean square error of each component at time 1."""
    n_paths = 4000
    gap = solved(sde, scheme, n_steps, n_paths) - exact(brownian(n_paths, n_steps, factors))
    return gap.square().mean(0).sqrt()


CASES = [
    pytest.param(GBM, gbm, 1, EulerMaruyama(), 0.5, id="gbm-euler"),
    pytest.param(GBM, gbm, 1, ItoMilstein(), 1.0, id="gbm-milstein"),
    pytest.param(PAIR, pair, 2, EulerMaruyama(), 0.5, id="diagonal-euler"),
    pytest.param(PAIR, pair, 2, ItoMilstein(), 1.0, id="diagonal-milstein"),
    pytest.param(COMMON, common, 1, EulerMaruyama(), 0.5, id="scalar-euler"),
    pytest.param(COMMON, common, 1, ItoMilstein(), 1.0, id="scalar-milstein"),
    pytest.param(GENERAL, several, 3, EulerMaruyama(), 0.5, id="general-euler"),
]


@pytest.mark.parametrize(("sde", "exact", "factors", "scheme", "order"), CASES)
def test_strong_order(sde: SDE, exact: Exact, factors: int, scheme: Scheme, order: float) -> None:
    coarse, fine = (strong_error(sde, exact, scheme, factors, n) for n in (16, 128))
    slopes = (torch.log2(coarse / fine) / 3).tolist()
    assert slopes == pytest.approx([order] * len(slopes), abs=0.12)
    assert scheme.strong_order == order


@pytest.mark.parametrize("scheme", [EulerMaruyama(), ItoMilstein()], ids=repr)
def test_weak_order(scheme: Scheme) -> None:
    """Bias of the mean square of geometric Brownian motion; the exact solution on the same path takes out the noise."""
    n_paths = 200_000
    biases = []
    for n in (2, 8):
        exact = gbm(brownian(n_paths, n, 1)).square()
        sample = solved(GBM, scheme, n, n_paths).square() - exact
        bias, error = float(sample.mean()), float(sample.std()) / math.sqrt(n_paths)
        known = second_moment(scheme, n) - math.exp(2 * MU + SIGMA**2)
        assert abs(bias - known) < 4 * error
        biases.append(known)
        assert abs(known) > 20 * error  # the slope below is not noise
    slope = math.log2(biases[0] / biases[1]) / 2
    assert 0.8 < slope < 1.2
    assert scheme.weak_order == 1.0


def second_moment(scheme: Scheme, n: int) -> float:
    """E[y^2] after n steps, in closed form: a step multiplies y by an independent factor."""
    h = 1 / n
    step = (1 + MU * h) ** 2 + SIGMA**2 * h
    if isinstance(scheme, ItoMilstein):
        step += SIGMA**4 * h * h / 2  # variance of sigma^2 (dW^2 - h) / 2, which is uncorrelated with dW
    return step**n


@pytest.mark.parametrize("scheme", [EulerMaruyama(), ItoMilstein()], ids=repr)
def test_additive_noise_leaves_only_the_drift_to_the_scheme(scheme: Scheme) -> None:
    """Ornstein-Uhlenbeck: mean and variance of the recursion in closed form."""
    sde = SDE(lambda t, y, p: -2.0 * y, lambda t, y, p: 0.5 + 0 * y, [1.0])
    n, n_paths = 8, 100_000
    y = solved(sde, scheme, n, n_paths)[:, 0]
    factor = 1 - 2.0 / n
    mean = factor**n
    variance = 0.25 / n * (1 - factor ** (2 * n)) / (1 - factor**2)
    assert abs(float(y.mean()) - mean) < 4 * math.sqrt(variance / n_paths)
    assert abs(float(y.var()) / variance - 1) < 4 * math.sqrt(2 / n_paths)
