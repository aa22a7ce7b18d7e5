"""The time grid."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsde.errors import InputError
from qsde.solve import TimeGrid


@given(st.lists(st.just(0.0) | st.floats(1e-8, 30.0), min_size=1, max_size=30), st.floats(1e-3, 5.0))
def test_every_date_is_a_step_end_and_no_step_is_too_long(dates: list[float], max_dt: float) -> None:
    grid = TimeGrid.of(dates, max_dt)
    times = grid.times
    assert all(size <= max_dt * (1 + 1e-6) for size in grid.sizes)
    assert all(abs(times[n] - date) < 1e-7 for n, date in zip(grid.observed_after, grid.dates, strict=True))
    assert all(abs(grid.dates[grid.column(t)] - t) < 1e-8 for t in dates)
    assert sorted(grid.dates) == list(grid.dates)


@pytest.mark.parametrize("dates", [[1e-10], [0.0, 1e-9], [1e-12, 1.0]])
def test_dates_too_near_to_be_told_from_now_are_refused(dates: list[float]) -> None:
    with pytest.raises(InputError, match="give 0 for now, or a later date"):
        TimeGrid.of(dates, 0.1)


def test_equal_spacing_has_one_step_size() -> None:
    grid = TimeGrid.of([i / 12 for i in range(1, 13)], 1 / 48)
    assert len(grid.sizes) == 1
    assert len(grid.step_size) == 48


def test_exact_schemes_step_from_date_to_date() -> None:
    assert TimeGrid.of([0.0, 0.5, 2.0], math.inf).step_size == (0, 1)


def test_today_is_a_date_without_a_step() -> None:
    assert TimeGrid.of([0.0, 1.0], 1.0).observed_after == (0, 1)


@pytest.mark.parametrize(
    ("dates", "max_dt", "message"),
    [([1.0], 0.0, "max_dt must be positive"), ([1.0], math.nan, "max_dt must be positive"),
     ([], 1.0, "no observation dates"), ([10.0], 1e-6, "more than 1,048,576 steps")],
)  # fmt: skip
def test_bad_grids_are_refused(dates: list[float], max_dt: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TimeGrid.of(dates, max_dt)


def test_a_step_far_longer_than_the_time_is_one_step() -> None:
    assert TimeGrid.of([1.0], max_dt=1e12).sizes == (1.0,)
