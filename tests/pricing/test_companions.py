"""Control variates integrated together have, bit for bit, the exact prices that each has alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from qsde.market.dividends import CashDividend
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, JumpDiffusion, KouJumps, MertonJumps, Model
from qsde.payoffs import Asian, AverageStrike, Barrier, Digital, DoubleBarrier, Payoff
from qsde.pricing.controls import companion, companion_rows

Uniform = Callable[[float, float], float]


pytestmark = pytest.mark.usefixtures("one_thread")


def _heston(u: Uniform) -> Heston:
    return Heston(u(0.02, 0.09), u(0.5, 4), u(0.02, 0.09), u(0.2, 1), u(-0.9, 0))


def _plain(u: Uniform) -> BlackScholes:
    return BlackScholes(u(0.1, 0.4))


def _normal(u: Uniform) -> MertonJumps:
    return MertonJumps(u(0.1, 1), u(-0.1, 0.05), u(0.05, 0.2))


def _exponential(u: Uniform) -> KouJumps:
    return KouJumps(u(0.1, 1), u(0.2, 0.8), u(8, 20), u(8, 20))


MODELS: dict[str, Callable[[Uniform], Model]] = {
    "black_scholes": _plain,
    "heston": _heston,
    "merton": lambda u: JumpDiffusion(_plain(u), _normal(u)),
    "kou": lambda u: JumpDiffusion(_plain(u), _exponential(u)),
    "bates": lambda u: JumpDiffusion(_heston(u), _normal(u)),
    "heston_kou": lambda u: JumpDiffusion(_heston(u), _exponential(u)),
}


def _dates(count: int) -> list[float]:
    return [i / count for i in range(1, count + 1)]


def _asian(count: int, **terms: Any) -> Callable[[float, str], Payoff]:
    return lambda strike, kind: Asian(strike, _dates(count), kind, **terms)


PAYOFFS: dict[str, Callable[[float, Any], Payoff]] = {
    **{f"{count} fixings": _asian(count) for count in (1, 4, 5, 12, 18)},
    "seasoned, paid later": _asian(4, past=[97.0, 102.0], expiry=1.5),
    "52 fixings: too many to go together": _asian(52),
    "average strike: alone": lambda strike, kind: AverageStrike(_dates(4), kind),
    "barrier": lambda strike, kind: Barrier(strike, 140.0, 0.8, "up-and-out", kind),
    "double barrier": lambda strike, kind: DoubleBarrier(strike, 60.0, 140.0, 0.8, "knock-out", kind),
}


def _rows(model: str, count: int, seed: int, **market: Any) -> tuple[list[Model], list[Market], Uniform, random.Random]:
    draw = random.Random(seed)
    u = draw.uniform
    models = [MODELS[model](u) for _ in range(count)]
    return models, [Market(u(95, 105), u(0, 0.05), u(0, 0.03), **market) for _ in range(count)], u, draw


def _stacked(models: list[Model]) -> Model:
    return models[0].with_params({name: torch.stack([m.params[name] for m in models]) for name in models[0].params})


def _differences(models: list[Model], markets: list[Market], book: list[Payoff]) -> int:
    together = companion_rows(_stacked(models), markets, book)
    alone = [companion(*row) for row in zip(models, markets, book, strict=True)]
    return sum(
        (a is None) != (b is None) or (a is not None and b is not None and (a[0] != b[0] or float(a[1]) != float(b[1])))
        for a, b in zip(together, alone, strict=True)
    )


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("payoff", list(PAYOFFS))
def test_same_bits_together_and_alone(model: str, payoff: str) -> None:
    models, markets, u, draw = _rows(model, 9, seed=3)
    book = [PAYOFFS[payoff](u(80, 120), draw.choice(["call", "put"])) for _ in models]
    assert _differences(models, markets, book) == 0


@pytest.mark.slow(reason="thousands of integrals one by one")
@pytest.mark.parametrize("model", list(MODELS))
def test_same_bits_of_thousands(model: str) -> None:
    for seed, count in enumerate((1, 2, 3, 4, 4, 4, 5, 6, 8, 12, 16, 18)):
        models, markets, u, draw = _rows(model, 64, seed)
        dates = sorted(u(0.01, 2.0) for _ in range(count))
        book: list[Payoff] = [Asian(u(70, 130), dates, draw.choice(["call", "put"])) for _ in models]
        assert _differences(models, markets, book) == 0
        book = [Barrier(u(70, 130), 150.0, u(0.05, 2.0), "up-and-out", draw.choice(["call", "put"])) for _ in models]
        assert _differences(models, markets, book) == 0


def test_kinds_that_differ_and_what_has_no_companion() -> None:
    models, markets, _, _ = _rows("heston", 8, seed=5)
    quarters, halves = _dates(4), _dates(2)
    book: list[Payoff] = [
        Asian(100.0, quarters), Barrier(100.0, 140.0, 1.0, "up-and-out"), Digital(100.0, 1.0), Asian(90.0, halves),
        Asian(110.0, quarters), Asian(100.0, quarters, past=[99.0]), AverageStrike(quarters), Asian(250.0, quarters),
    ]  # fmt: skip
    assert companion_rows(_stacked(models), markets, book)[2] is None
    assert _differences(models, markets, book) == 0


def test_a_market_with_cash_has_no_companion_beside_one_without() -> None:
    models, markets, _, _ = _rows("heston", 3, seed=5)
    markets[1] = Market(100.0, dividends=[CashDividend(0.3, 2.0)])
    found = companion_rows(_stacked(models), markets, [Asian(100.0, _dates(4))] * 3)
    assert [one is None for one in found] == [False, True, False]
