import math

import pytest
import torch

from qsde.errors import InputError
from qsde.market.dividends import CashDividend, ProportionalDividend, Schedule


@pytest.mark.parametrize("time", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("kind", [CashDividend, ProportionalDividend])
def test_a_dividend_lies_in_the_future(kind, time):
    with pytest.raises(InputError, match=f"{kind.__name__}: time must be positive and finite"):
        kind(time, 0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CashDividend(1.0, -1.0), "amount must be finite and not negative .* got -1.0"),
        (lambda: CashDividend(1.0, math.inf), "amount must be finite"),
        (lambda: CashDividend(1.0, torch.ones(2)), r"amount must be one number, got a tensor of shape \(2,\)"),
        (lambda: ProportionalDividend(1.0, 1.0), r"fraction must lie in \[0, 1\), got 1.0"),
        (lambda: ProportionalDividend(1.0, 3.0), "0.02 for 2 %"),
        (lambda: ProportionalDividend(1.0, -0.1), "fraction must lie"),
        (lambda: ProportionalDividend(1.0, math.nan), "fraction must lie"),
        (lambda: ProportionalDividend(1.0, torch.zeros(1)), "must be one number"),
    ],
)
def test_bad_dividends_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_dividends_of_one_date_are_merged_whatever_their_order():
    given = [
        ProportionalDividend(0.5 + 1e-12, 0.1),
        CashDividend(2.0, 3.0),
        CashDividend(0.5, 1.0),
        ProportionalDividend(0.5, 0.5),
        CashDividend(0.5, 1.5),
    ]
    for dividends in (given, given[::-1]):
        schedule = Schedule.of(dividends)
        assert schedule.times.tolist() == [0.5, 2.0]
        assert schedule.cash.tolist() == [2.5, 3.0]
        torch.testing.assert_close(schedule.log_kept.exp(), torch.tensor([0.45, 1.0], dtype=torch.float64))


def test_a_dividend_is_paid_on_its_ex_date_not_just_before():
    schedule = Schedule.of([CashDividend(0.5, 1.0), CashDividend(1.0, 1.0)])
    t = torch.tensor([0.4, 0.5 - 1e-10, 0.5, 0.5 + 1e-10, 0.6], dtype=torch.float64)
    assert schedule.paid(t)[:, 0].tolist() == [False, True, True, True, True]
    assert schedule.paid(t, before=True)[:, 0].tolist() == [False, False, False, False, True]


def test_no_dividends_make_an_empty_schedule():
    schedule = Schedule.of([])
    assert schedule.paid(torch.zeros(3)).shape == (3, 0)
    assert schedule.kept(schedule.paid(torch.zeros(3))).tolist() == [1.0, 1.0, 1.0]
