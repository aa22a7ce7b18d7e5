"""Leverage functions: interpolation, where a network starts, bounds, parameters."""

import pytest
import torch

from qsde.errors import InputError, ParameterError
from qsde.models import BlackScholes, GridLeverage, Heston, LocalStochasticVol, bates, leveraged, unleveraged
from qsde.models.neural import NeuralLeverage

T = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64)
X = torch.linspace(-1.0, 1.0, 9, dtype=torch.float64).expand(4, -1)


def network(seed: int = 0, size: float = 0.0) -> NeuralLeverage:
    """A network at its start, or with all weights moved at random."""
    start = NeuralLeverage.initialised(scale=0.2, shortest=0.1, longest=2.0, width=16, seed=seed)
    source = torch.Generator().manual_seed(seed)
    moved = {name: w + size * torch.randn(w.shape, generator=source, dtype=w.dtype) for name, w in start.params.items()}
    return start.with_params(moved)


def test_grid_is_exact_for_functions_linear_in_time_and_place() -> None:
    times, x = torch.tensor([0.2, 0.7, 2.0]), torch.tensor([-0.5, 0.1, 0.6])
    values = 1 + 0.1 * times[:, None].double() - 0.2 * x.double()
    t, at = torch.tensor([0.3, 1.5]).double(), torch.tensor([[-0.4, 0.5], [0.0, 0.2]]).double()
    found = GridLeverage(times, x, values).at(t, at)
    assert torch.allclose(found, 1 + 0.1 * t[:, None] - 0.2 * at, atol=1e-7)


def test_grid_is_constant_beyond_its_ends_and_rows_may_have_points_of_their_own() -> None:
    grid = GridLeverage([1.0, 2.0], [[-0.1, 0.1], [-0.2, 0.2]], [[1.0, 2.0], [3.0, 4.0]])
    t = torch.tensor([0.0, 5.0, 1.5]).double()
    x = torch.tensor([[-9.0, 0.0, 9.0]]).double().expand(3, -1)
    wanted = torch.tensor([[1.0, 1.5, 2.0], [3.0, 3.5, 4.0], [2.0, 2.5, 3.0]]).double()
    assert torch.allclose(grid.at(t, x), wanted)


@pytest.mark.parametrize(
    ("times", "x", "values", "message"),
    [
        ([0.0, 1.0], [0.0], [[1.0]], "values must be"),
        ([0.0], [0.1, 0.0], [[1.0, 1.0]], "x must increase"),
        ([1.0, 1.0], [0.0], [[1.0], [1.0]], "times must increase"),
        ([0.0], [0.0], [[-1.0]], "above 0"),
    ],
)
def test_grids_that_make_no_sense_are_refused(
    times: list[float], x: list[float], values: list[list[float]], message: str
) -> None:
    with pytest.raises((InputError, ParameterError), match=message):
        GridLeverage(times, x, values)  # type: ignore[arg-type]


def test_a_network_starts_at_exactly_its_base_and_its_later_layers_can_move() -> None:
    base = GridLeverage([0.5], [-0.2, 0.2], [[1.3, 0.8]])
    start = NeuralLeverage.initialised(scale=0.2, shortest=0.1, longest=2.0, width=16, base=base)
    assert torch.equal(start.at(T, X), base.at(T, X))
    # the first layer serves both halves alike: it moves once they differ
    weights = {name: w.requires_grad_() for name, w in start.params.items() if not name.startswith("inner")}
    slopes = torch.autograd.grad(start.with_params(weights).at(T, X).square().sum(), list(weights.values()))
    assert all(bool((g != 0).any()) for g in slopes)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_network_is_positive_and_bounded_at_any_weights(seed: int) -> None:
    far = torch.cat([X, torch.tensor([-1e9, 1e9]).double().expand(4, -1)], 1)
    level = network(seed, size=5.0).at(T, far)
    assert bool((level >= torch.exp(torch.tensor(-1.5)) - 1e-6).all())
    assert bool((level <= torch.exp(torch.tensor(1.5)) + 1e-6).all())


def test_gradients_of_a_network_are_those_of_differences() -> None:
    some = network(3, size=0.3)
    weights = tuple(w.requires_grad_() for w in some.params.values())
    assert torch.autograd.gradcheck(
        lambda *w: some.with_params(dict(zip(some.params, w, strict=True))).at(T[:2], X[:2, ::4]), weights
    )


def test_short_and_long_dates_are_alike() -> None:
    """A quarter of the time and half of the distance are the same to a network but for the date itself."""
    some = network(1, size=0.3)
    flat = some.with_params({"inner": some.weights["inner"] * torch.tensor([1.0, 0.0])})
    early = 0.01
    t = torch.tensor([1.0]).double()
    near = flat.at((t + early) / 4 - early, X[:1] / 2)
    assert torch.allclose(near, flat.at(t, X[:1]), atol=1e-14)


def test_jumps_go_around_and_backbones_are_found_again() -> None:
    model = bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.3, -0.1, 0.1)
    whole = leveraged(model, network())
    assert "leverage.inner" in whole.params
    assert whole.batch_shape == ()
    assert {n: float(p) for n, p in unleveraged(whole).params.items()} == {n: float(p) for n, p in model.params.items()}
    with pytest.raises(InputError, match="jumps go around"):
        LocalStochasticVol(model, network())
    with pytest.raises(InputError, match="must be a BlackScholes or a Heston"):
        LocalStochasticVol(leveraged(BlackScholes(0.2), network()), network())


def test_parameters_are_replaced_by_name() -> None:
    model = leveraged(Heston(0.04, 1.5, 0.05, 0.4, -0.7), network())
    moved = model.with_params({"v0": torch.tensor(0.09), "leverage.outer": torch.zeros(16)})
    assert float(moved.params["v0"]) == pytest.approx(0.09)
    assert not moved.params["leverage.outer"].any()
    with pytest.raises(ParameterError, match="no parameter"):
        model.with_params({"volatility": torch.tensor(0.1)})
