"""Autocallables on paths worked out by hand, with memory, step-down and knock-in, and what they refuse."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from qsde.errors import InputError
from qsde.payoffs import Autocallable, Paths, Payoff

YEARS = (1.0, 2.0, 3.0)
NOTE = Autocallable(YEARS, initial=100.0, coupon=0.05, coupon_barrier=0.8, knock_in=0.6, notional=100.0)


def paid(note: Autocallable, *paths: list[float]) -> list[list[float]]:
    flows = note.flows(Paths(torch.tensor(paths, dtype=torch.float64)))
    assert flows.times == tuple(note.observations)
    rounded: list[list[float]] = (flows.amounts * 1e6).round().div(1e6).tolist()
    return rounded


@pytest.mark.parametrize(
    ("prices", "amounts"),
    [
        ([100.0, 50.0, 50.0], [105.0, 0.0, 0.0]),  # called at a touch: nothing later counts
        ([99.0, 101.0, 50.0], [5.0, 105.0, 0.0]),
        ([79.0, 80.0, 120.0], [0.0, 5.0, 105.0]),
        ([79.0, 79.0, 79.0], [0.0, 0.0, 100.0]),
        ([99.0, 99.0, 61.0], [5.0, 5.0, 100.0]),
        ([99.0, 99.0, 60.0], [5.0, 5.0, 60.0]),  # a touch knocks in
        ([10.0, 99.0, 90.0], [0.0, 5.0, 105.0]),  # watched at maturity only
        ([10.0, 10.0, 10.0], [0.0, 0.0, 10.0]),
    ],
)
def test_phoenix(prices: list[float], amounts: list[float]) -> None:
    assert paid(NOTE, prices) == [amounts]


@pytest.mark.parametrize(
    ("prices", "amounts"),
    [
        ([79.0, 80.0, 79.0], [0.0, 10.0, 100.0]),  # the last missed coupon is lost
        ([79.0, 79.0, 80.0], [0.0, 0.0, 115.0]),
        ([79.0, 100.0, 50.0], [0.0, 110.0, 0.0]),
        ([85.0, 79.0, 85.0], [5.0, 0.0, 110.0]),
        ([100.0, 79.0, 100.0], [105.0, 0.0, 0.0]),
    ],
)
def test_memory(prices: list[float], amounts: list[float]) -> None:
    assert paid(dataclasses.replace(NOTE, memory=True), prices) == [amounts]


def test_coupons_of_a_note_without_a_coupon_barrier_are_paid_when_called() -> None:
    snowball = Autocallable(YEARS, 100.0, 0.05, memory=True, notional=100.0)
    assert paid(snowball, [101.0, 0.0, 0.0], [99.0, 101.0, 0.0], [99.0, 99.0, 101.0], [99.0, 99.0, 1.0]) == [
        [105.0, 0.0, 0.0],
        [0.0, 110.0, 0.0],
        [0.0, 0.0, 115.0],
        [0.0, 0.0, 100.0],  # no knock-in: the notional is safe
    ]
    forgetful = dataclasses.replace(snowball, memory=False)
    assert paid(forgetful, [99.0, 99.0, 101.0]) == [[0.0, 0.0, 105.0]]


def test_step_down_and_dates_without_a_call() -> None:
    note = dataclasses.replace(NOTE, autocall_barrier=[math.inf, 0.95, 0.85], coupon_barrier=[0.9, 0.8, 0.7])
    assert paid(note, [150.0, 95.0, 10.0], [89.0, 94.0, 84.0], [89.0, 94.0, 85.0]) == [
        [5.0, 105.0, 0.0],
        [0.0, 5.0, 105.0],
        [0.0, 5.0, 105.0],
    ]
    as_tensor = dataclasses.replace(note, autocall_barrier=torch.tensor([math.inf, 0.95, 0.85]))
    assert paid(as_tensor, [150.0, 95.0, 10.0]) == [[5.0, 105.0, 0.0]]


def test_knock_in_on_dates_of_its_own() -> None:
    note = Autocallable((1.0, 2.0), 100.0, 0.0, knock_in=0.6, knock_in_dates=(0.5, 1.0, 1.5), notional=100.0)
    assert note.times == (0.5, 1.0, 1.5, 2.0)
    assert paid(note, [59.0, 90.0, 90.0, 90.0], [90.0, 90.0, 60.0, 90.0], [90.0, 90.0, 61.0, 10.0]) == [
        [0.0, 90.0],
        [0.0, 90.0],
        [0.0, 100.0],  # maturity is not among the dates
    ]
    assert paid(note, [10.0, 100.0, 10.0, 10.0], [10.0, 90.0, 90.0, 100.0]) == [[100.0, 0.0], [0.0, 100.0]]
    on_observations = dataclasses.replace(note, knock_in_dates=(1.0, 2.0))
    assert on_observations.times == (1.0, 2.0)
    assert paid(on_observations, [50.0, 90.0], [90.0, 90.0]) == [[0.0, 90.0], [0.0, 100.0]]


def test_a_put_struck_below_the_initial_price() -> None:
    note = dataclasses.replace(NOTE, strike=0.8, knock_in=0.7, coupon=0.0)
    assert paid(note, [75.0, 75.0, 70.0], [75.0, 75.0, 75.0]) == [[0.0, 0.0, 90.0], [0.0, 0.0, 100.0]]


def test_one_observation() -> None:
    note = Autocallable((1.0,), 50.0, 0.1, knock_in=0.8)
    assert paid(note, [50.0], [45.0], [40.0], [20.0]) == [[1.1], [1.0], [0.8], [0.4]]


def test_totals_on_random_paths() -> None:
    paths = 100 * torch.exp(
        0.2 * torch.randn(2000, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64).cumsum(-1)
    )
    plain = NOTE.flows(Paths(paths)).amounts
    memory = dataclasses.replace(NOTE, memory=True).flows(Paths(paths)).amounts
    safe = dataclasses.replace(NOTE, knock_in=None).flows(Paths(paths)).amounts
    assert (memory.sum(-1) >= plain.sum(-1) - 1e-9).all()
    assert (safe.sum(-1) >= plain.sum(-1) - 1e-9).all()
    assert (safe.sum(-1) >= 100.0).all()
    assert (memory.sum(-1) <= 115.0 + 1e-9).all()
    certain = dataclasses.replace(NOTE, coupon_barrier=0.0, autocall_barrier=math.inf, knock_in=None)
    torch.testing.assert_close(
        certain.flows(Paths(paths)).amounts, torch.tensor([5.0, 5.0, 105.0], dtype=torch.float64).expand(2000, 3)
    )
    batch = NOTE.flows(Paths(torch.stack([paths, paths.flip(0)]))).amounts
    torch.testing.assert_close(batch[0], plain)
    torch.testing.assert_close(batch[1], plain.flip(0))


def test_gradients_to_what_does_not_move_a_jump() -> None:
    coupon, strike, notional = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.05, 1.0, 100.0))
    paths = Paths(torch.tensor([[79.0, 79.0, 80.0], [99.0, 50.0, 50.0]], dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda c, k, n: dataclasses.replace(NOTE, coupon=c, strike=k, notional=n, memory=True).flows(paths).amounts,
        (coupon, strike, notional),
    )


@pytest.mark.parametrize("field", ["initial", "autocall_barrier", "coupon_barrier", "knock_in"])
def test_gradients_to_the_level_of_a_jump_are_refused(field: str) -> None:
    assert not NOTE.continuous
    note = dataclasses.replace(NOTE, **{field: torch.tensor(0.9, requires_grad=True)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"Autocallable: the amount jumps where the price crosses {field}"):
        note.flows(Paths(torch.ones(1, 3)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": (2.0, 1.0)}, "Autocallable.observations: times must increase"),
        ({"observations": ()}, "Autocallable.observations: times is empty"),
        ({"observations": (0.0, 1.0)}, r"observations\[0\] is 0"),
        ({"initial": 0.0}, "Autocallable: initial must be positive"),
        ({"strike": 0.0}, "Autocallable: strike must be positive"),
        ({"notional": -1.0}, "Autocallable: notional must be positive"),
        ({"coupon": -0.05}, "Autocallable: coupon must be finite and not negative"),
        ({"autocall_barrier": (1.0, 0.9)}, "autocall_barrier has 2 levels for 3 observations"),
        ({"autocall_barrier": 0.0}, "autocall_barrier must be above 0"),
        ({"autocall_barrier": math.nan}, "autocall_barrier must be above 0"),
        ({"coupon_barrier": (0.9, 0.8, 0.7, 0.6)}, "coupon_barrier has 4 levels for 3 observations"),
        ({"coupon_barrier": -0.1}, "coupon_barrier must be at least 0"),
        ({"knock_in": 0.0}, "Autocallable: knock_in must be positive"),
        ({"knock_in": None, "knock_in_dates": (1.0,)}, "knock_in_dates are given but knock_in is not"),
        ({"knock_in_dates": (1.0, 4.0)}, "knock_in_dates end at 4.0, after the last observation, 3.0"),
        ({"knock_in_dates": (2.0, 1.0)}, "Autocallable.knock_in_dates: times must increase"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    build: Callable[[], Payoff] = lambda: dataclasses.replace(NOTE, **change)  # type: ignore[arg-type]  # noqa: E731
    with pytest.raises(InputError, match=message):
        build()
