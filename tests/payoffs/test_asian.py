"""Options on averages: amounts, the order of the means, seasoning, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from qsde.errors import InputError
from qsde.payoffs import Asian, AverageStrike, European, Paths, Payoff, Terminal

PATHS = torch.tensor([[90.0, 80.0, 105.0], [110.0, 125.0, 118.0], [100.0, 100.0, 100.0]])
DATES = (0.25, 0.5, 1.0)
SAMPLE = 100 * torch.exp(
    0.1 * torch.randn(400, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64).cumsum(-1)
)


@pytest.mark.parametrize(
    ("payoff", "paid"),
    [
        (Asian(95.0, DATES), [0.0, 353 / 3 - 95.0, 5.0]),
        (Asian(95.0, DATES, "put"), [95.0 - 275 / 3, 0.0, 0.0]),
        (Asian(90.0, DATES, average="geometric"), [756000 ** (1 / 3) - 90.0, 1622500 ** (1 / 3) - 90.0, 10.0]),
        (Asian(95.0, DATES, past=[100.0]), [0.0, 453 / 4 - 95.0, 5.0]),
        (AverageStrike(DATES), [105 - 275 / 3, 118 - 353 / 3, 0.0]),
        (AverageStrike(DATES, "put", past=[130.0, 140.0]), [545 / 5 - 105.0, 623 / 5 - 118.0, 114.0 - 100.0]),
        (AverageStrike(DATES[:2], expiry=1.0), [20.0, 0.5, 0.0]),
        (AverageStrike(DATES[:2], average="geometric", expiry=1.0), [105 - 7200**0.5, 118 - 13750**0.5, 0.0]),
    ],
)
def test_amounts(payoff: Terminal, paid: list[float]) -> None:
    torch.testing.assert_close(payoff(PATHS), torch.tensor(paid), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(payoff(PATHS.expand(2, 3, 3))[1], payoff(PATHS))


def test_schedules() -> None:
    assert Asian(95.0, (0.0, 0.5)).times == (0.0, 0.5)
    late = Asian(95.0, (0.0, 0.5), expiry=0.75)
    assert late.times == (0.0, 0.5)
    assert late.maturity == 0.75
    assert AverageStrike((0.0,), expiry=1.0).times == (0.0, 1.0)
    assert AverageStrike((0.5, 1.0), expiry=1.0).times == (0.5, 1.0)
    assert Asian(95.0, (0.0,), expiry=1.0).maturity == 1.0


def test_the_geometric_mean_is_at_most_the_arithmetic() -> None:
    arithmetic, geometric = (
        Asian(1e-6, DATES, average=which, past=[98.0, 120.0])(SAMPLE)  # type: ignore[arg-type]
        for which in ("arithmetic", "geometric")
    )
    assert (geometric < arithmetic).all()
    torch.testing.assert_close(
        Asian(90.0, DATES, average="geometric")(PATHS[2:]), Asian(90.0, DATES)(PATHS[2:]), rtol=1e-5, atol=1e-4
    )


def test_one_fixing_is_the_vanilla() -> None:
    for average in ("arithmetic", "geometric"):
        one = Asian(101.0, (1.0,), average=average)(SAMPLE[:, -1:])  # type: ignore[arg-type]
        torch.testing.assert_close(one, European(101.0, 1.0)(SAMPLE[:, -1:]))


def test_a_fixing_at_zero_is_a_past_fixing() -> None:
    today = torch.cat([torch.full((400, 1), 97.0, dtype=torch.float64), SAMPLE], -1)
    for average in ("arithmetic", "geometric"):
        fresh = Asian(100.0, (0.0, *DATES), average=average)(today)  # type: ignore[arg-type]
        torch.testing.assert_close(fresh, Asian(100.0, DATES, average=average, past=[97.0])(SAMPLE))  # type: ignore[arg-type]


def test_put_call_parity() -> None:
    for build in (
        lambda kind: Asian(100.0, DATES, kind, "geometric", past=[90.0]),
        lambda kind: AverageStrike(DATES, kind, past=[90.0]),
    ):
        call, put = build("call")(SAMPLE), build("put")(SAMPLE)
        assert (torch.minimum(call, put) == 0).all()
    mean = (SAMPLE.sum(-1) + 90.0) / 4
    torch.testing.assert_close(call - put, SAMPLE[:, -1] - mean)


def test_gradients_to_prices_strike_and_past() -> None:
    path = torch.tensor([[90.0, 120.0]], dtype=torch.float64, requires_grad=True)
    strike = torch.tensor(95.0, dtype=torch.float64, requires_grad=True)
    past = torch.tensor([99.0], dtype=torch.float64, requires_grad=True)
    for average in ("arithmetic", "geometric"):
        assert torch.autograd.gradcheck(
            lambda s, k, p, average=average: Asian(k, (0.5, 1.0), "call", average, past=p)(s), (path, strike, past)
        )
        assert torch.autograd.gradcheck(
            lambda s, p, average=average: AverageStrike((0.5, 1.0), "call", average, past=p)(s), (path, past)
        )
    dead = torch.zeros(1, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(Asian(1.0, (0.5, 1.0), "put", "geometric")(dead).sum(), dead)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Asian(0.0, DATES), "Asian: strike must be positive"),
        (lambda: Asian(100.0, (1.0, 0.5)), r"Asian.fixings: times must increase, but times\[1\] = 0.5"),
        (lambda: Asian(100.0, (0.5, 0.5)), "times must increase"),
        (lambda: Asian(100.0, (-0.5, 0.5)), r"Asian.fixings: times\[0\] = -0.5 must be finite and not negative"),
        (lambda: Asian(100.0, ()), "Asian: fixings is empty"),
        (lambda: Asian(100.0, (0.0,)), "the contract has expired"),
        (lambda: Asian(100.0, DATES, expiry=0.75), "Asian: expiry = 0.75 comes before the last fixing, 1.0"),
        (lambda: Asian(100.0, DATES, past=[100.0, 0.0]), r"Asian: past\[1\] must be positive"),
        (lambda: Asian(100.0, DATES, average="harmonic"), "average must be one of 'arithmetic', 'geometric'"),  # type: ignore[arg-type]
        (lambda: AverageStrike((1.0,)), "AverageStrike: the only fixing, 1.0, is the expiry"),
        (lambda: AverageStrike(DATES, expiry=0.5), "AverageStrike: expiry = 0.5 comes before"),
        (lambda: AverageStrike(DATES, "calls"), "AverageStrike: kind must be"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_is_named(build: Callable[[], Payoff], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_payoffs_alike_share_their_numbers() -> None:
    """And others on the same dates do not: averages of another kind, or with other past fixings."""
    prices = torch.tensor([[90.0, 130.0], [100.0, 121.0]], dtype=torch.float64)
    paths = Paths(prices)
    book = [Asian(100.0, (0.5, 1.0), average=kind, past=past) for kind in ("arithmetic", "geometric")
            for past in ((), (80.0,), (120.0,))]  # fmt: skip
    for payoff in [*book, *book]:
        torch.testing.assert_close(payoff.flows(paths).amounts[..., 0], payoff(prices), rtol=0, atol=0)
    assert paths.once(book[0].alike, lambda: pytest.fail("made already")).tolist() == [110.0, 110.5]
