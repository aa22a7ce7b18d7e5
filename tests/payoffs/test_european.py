"""Payoffs of the price at one date: amounts, the relations between them, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from qsde.errors import InputError
from qsde.payoffs import AssetDigital, Digital, European, Gap, Payoff, Terminal
from qsde.payoffs.base import Kind

PRICES = torch.tensor([[80.0], [100.0], [118.0]])
SAMPLE = 100 * torch.exp(0.3 * torch.randn(500, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


@pytest.mark.parametrize(
    ("payoff", "paid"),
    [
        (European(95.0, 1.0), [0.0, 5.0, 23.0]),
        (European(110.0, 1.0, "put"), [30.0, 10.0, 0.0]),
        (Digital(100.0, 1.0, cash=7.0), [0.0, 0.0, 7.0]),  # at the strike neither side pays
        (Digital(100.0, 1.0, "put"), [1.0, 0.0, 0.0]),
        (AssetDigital(95.0, 1.0), [0.0, 100.0, 118.0]),
        (AssetDigital(100.0, 1.0, "put"), [80.0, 0.0, 0.0]),
        (Gap(110.0, 95.0, 1.0), [0.0, -10.0, 8.0]),
        (Gap(90.0, 110.0, 1.0, "put"), [10.0, -10.0, 0.0]),
    ],
)
def test_amounts(payoff: Terminal, paid: list[float]) -> None:
    torch.testing.assert_close(payoff(PRICES), torch.tensor(paid))
    batch = payoff(PRICES.expand(2, *PRICES.shape))
    torch.testing.assert_close(batch, torch.tensor([paid, paid]))
    assert payoff.times == (1.0,)
    assert payoff.maturity == 1.0


def test_digital_call_and_put_make_cash() -> None:
    sides = [Digital(103.0, 1.0, kind, cash=5.0)(SAMPLE) for kind in ("call", "put")]  # type: ignore[arg-type]
    torch.testing.assert_close(sides[0] + sides[1], torch.full((500,), 5.0, dtype=torch.float64))


@pytest.mark.parametrize(("kind", "sign"), [("call", 1.0), ("put", -1.0)])
def test_asset_digital_less_cash_digital_is_the_vanilla_or_the_gap(kind: Kind, sign: float) -> None:
    asset = AssetDigital(103.0, 1.0, kind)(SAMPLE)
    for strike, other in ((103.0, European(103.0, 1.0, kind)), (90.0, Gap(90.0, 103.0, 1.0, kind))):
        cash = Digital(103.0, 1.0, kind, cash=strike)(SAMPLE)
        torch.testing.assert_close(sign * (asset - cash), other(SAMPLE))


def test_gap_is_continuous_where_there_is_no_gap() -> None:
    assert Gap(100.0, 100.0, 1.0).continuous
    assert Gap(torch.tensor(100.0), 100.0, 1.0).continuous
    for jumps in (Gap(100.0, 101.0, 1.0), Digital(100.0, 1.0), AssetDigital(100.0, 1.0)):
        assert not jumps.continuous
    assert European(100.0, 1.0).continuous


def test_constants_have_gradients() -> None:
    strike, cash = torch.tensor(95.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    amount = European(strike, 1.0)(PRICES).sum() + Digital(95.0, 1.0, cash=cash)(PRICES).sum()
    by_strike, by_cash = torch.autograd.grad(amount + Gap(strike, 95.0, 1.0)(PRICES).sum(), [strike, cash])
    assert float(by_strike) == -4.0
    assert float(by_cash) == 2.0


@pytest.mark.parametrize(
    "payoff",
    [
        Digital(torch.tensor(100.0, requires_grad=True), 1.0),
        AssetDigital(torch.tensor(100.0, requires_grad=True), 1.0),
        Gap(100.0, torch.tensor(90.0, requires_grad=True), 1.0),
    ],
    ids=lambda p: p.name,
)
def test_gradients_to_the_level_of_a_jump_are_refused(payoff: Terminal) -> None:
    with pytest.raises(InputError, match=f"{payoff.name}: the amount jumps where the price crosses"):
        payoff(PRICES)
    with torch.no_grad():
        assert payoff(PRICES).shape == (3,)


def test_so_are_those_of_torch_func_in_either_mode() -> None:
    def amount(strike: torch.Tensor) -> torch.Tensor:
        return Digital(strike, 1.0)(PRICES).sum()

    at = torch.tensor(100.0)
    for differentiate in (torch.func.grad(amount), torch.func.jacfwd(amount)):
        with pytest.raises(InputError, match="the amount jumps where the price crosses strike"):
            differentiate(at)
    assert torch.func.vmap(amount)(torch.tensor([90.0, 110.0])).tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: European(-1.0, 1.0), "European: strike must be positive"),
        (lambda: European(0.0, 1.0), "strike must be positive"),
        (lambda: European(math.nan, 1.0), "strike must be positive and finite"),
        (lambda: European(100.0, -0.5), "European: expiry must be positive and finite, got -0.5"),
        (lambda: European(100.0, 0.0), "European: expiry must be positive"),
        (lambda: European(100.0, 1.0, "Call"), "kind must be 'call' or 'put'"),
        (lambda: Digital(0.0, 1.0), "Digital: strike must be positive"),
        (lambda: Digital(100.0, 1.0, cash=math.inf), "Digital: cash must be finite"),
        (lambda: AssetDigital(100.0, 1.0, "up"), "AssetDigital: kind must be"),
        (lambda: Gap(57.0, 0.0, 1.0), "Gap: trigger must be positive"),
        (lambda: Gap(57.0, 50.0, 0.0), "Gap: expiry must be positive"),
    ],
)
def test_what_is_wrong_is_named(build: Callable[[], Payoff], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
