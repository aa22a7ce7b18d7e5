"""eSSVI surfaces: the formula, its limits, and the absence of static arbitrage for any unknowns."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsde.errors import ParameterError
from qsde.market.arbitrage import model_arbitrage
from qsde.market.black import black_price
from qsde.market.ssvi import ESSVI, slice_variance

T = torch.tensor([0.1, 0.5, 1.0, 2.0]).double()
K = torch.linspace(-1.5, 1.5, 31).double()


def test_formula_of_gatheral_and_jacquier() -> None:
    theta, rho, phi = 0.04, -0.7, 3.0
    k = K.numpy()
    wanted = theta / 2 * (1 + rho * phi * k + np.sqrt((phi * k + rho) ** 2 + 1 - rho**2))
    found = slice_variance(K, *(torch.tensor(x, dtype=torch.float64) for x in (theta, rho * theta * phi, theta * phi)))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-11)


def test_slices_and_times_between() -> None:
    surface = ESSVI(T, *torch.tensor([[0.01, 0.03, 0.05, 0.09], [-0.6] * 4, [0.1, 0.15, 0.2, 0.21]]).double())
    for i, t in enumerate(T):
        wanted = slice_variance(K, surface.theta[i], (surface.rho * surface.psi)[i], surface.psi[i])
        torch.testing.assert_close(surface.total_variance(K, t), wanted)
    zero = torch.zeros(()).double()
    at_the_money = surface.total_variance(zero, torch.tensor([0.3, 3.0]).double())
    torch.testing.assert_close(at_the_money, torch.tensor([0.02, 0.13]).double())  # linear, also beyond the last slice
    torch.testing.assert_close(surface.vol(K, T[0]), surface.vol(K, T[0] / 1000))  # vols stay towards time 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-4, 4), min_size=12, max_size=12))
def test_no_unknowns_have_arbitrage(x: list[float]) -> None:
    """The conditions are checked by the constructor; the prices by the test of static arbitrage."""
    unknowns = torch.tensor(x).double()
    unknowns[:4] *= 0.3  # skews that go from end to end would ask for variances of hundreds
    unknowns[4:8] -= 3.0  # variances grow by exp of these
    surface = ESSVI.from_unknowns(T, unknowns)

    def calls(t: torch.Tensor, forward: torch.Tensor, strike: torch.Tensor) -> torch.Tensor:
        k = torch.log(strike / forward.unsqueeze(-1))
        return black_price(forward.unsqueeze(-1), strike, t.unsqueeze(-1), surface.vol(k, t.unsqueeze(-1)))

    t = np.array([0.05, 0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0])
    found = model_arbitrage(calls, t, np.ones(9), np.ones(9), vol=math.sqrt(float(surface.theta[-1]) / 2))
    assert len(found) == 0, found.head()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"theta": [0.04, 0.03]}, "must not fall with time"),
        ({"psi": [0.2, 0.1]}, "must not fall with time"),
        ({"rho": [-0.6, 0.6]}, "must not fall with time"),
        ({"psi": [0.1, 0.25]}, "must not rise with time"),
        ({"theta": [0.001, 0.04]}, "at most 4 theta"),
        ({"rho": [-1.0, -0.5]}, "between -1 and 1"),
        ({"t": [1.0, 0.5]}, "increasing"),
    ],
)
def test_arbitrage_is_refused(change: dict[str, list[float]], text: str) -> None:
    good = {"t": [0.5, 1.0], "theta": [0.02, 0.04], "rho": [-0.6, -0.5], "psi": [0.2, 0.25]}
    ESSVI(**{name: torch.tensor(values).double() for name, values in good.items()})
    with pytest.raises(ParameterError, match=text):
        ESSVI(**{name: torch.tensor(values).double() for name, values in (good | change).items()})
