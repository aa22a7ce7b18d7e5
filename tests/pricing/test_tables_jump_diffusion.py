"""Barriers, lookbacks, cliquets, variance swaps and Bermudans under Kou, Bates and Heston with Kou jumps.

The prices are those of finite differences, transforms and convolutions that share no code with qsde
(`tests/reference/SOURCES.md`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qsde.market.underlying import Market
from qsde.models import Model
from qsde.noise import Antithetic, Threefry
from qsde.payoffs import Claim, VarianceSwap
from qsde.pricing import Fourier, LeastSquares, MonteCarlo, price
from qsde.spec.models import model_from
from qsde.spec.payoffs import payoff_from

TABLE = json.loads((Path(__file__).resolve().parents[1] / "reference/jump_diffusion_exotics_computed.json").read_text())
MARKET = Market(**TABLE["market"])
ENGINE = MonteCarlo(n_paths=1 << 15, noise=Antithetic(Threefry(seed=7)), compile="never")
EARLY = MonteCarlo(n_paths=1 << 13, noise=Antithetic(Threefry(seed=7)), compile="never")
POLICY = LeastSquares(outer=64, inner=32)

Row = dict[str, Any]


def rows(table: str, model: str) -> list[Row]:
    return [row for row in TABLE["rows"] if row["table"] == table and row["model"] == model]


def model(name: str) -> Model:
    terms = TABLE["models"][name]
    return model_from(terms["model"], {k: v for k, v in terms.items() if k != "model"})


def payoffs(table: list[Row]) -> list[Claim]:
    return [payoff_from(row["payoff"]) for row in table]


@pytest.mark.parametrize(
    ("table", "name", "count"),
    [
        ("barriers", "bates", 30),
        ("barriers", "heston_kou", 30),
        ("lookbacks", "bates", 6),
        ("lookbacks", "heston_kou", 6),
        ("barriers on dates", "kou", 12),
        ("cliquets", "kou", 8),
        ("cliquets", "bates", 4),
        ("cliquets", "heston_kou", 4),
    ],
)
def test_simulated_prices(table: str, name: str, count: int) -> None:
    found = rows(table, name)
    assert len(found) == count
    estimate = price(model(name), payoffs(found), MARKET, ENGINE)
    for row, value, error in zip(found, estimate.value.tolist(), estimate.std_error.tolist(), strict=True):
        assert abs(value - row["price"]) <= 3 * error + row["tol"], (row, value, error)


@pytest.mark.parametrize("name", ["kou", "bates", "heston_kou"])
def test_exact_prices(name: str) -> None:
    """Forward starts to the 1e-7 that Lewis' integral without damping has there, variance swaps to rounding."""
    found = rows("forward starts", name) + rows("variance swaps", name)
    assert len(found) == 13
    prices = price(model(name), payoffs(found), MARKET, Fourier())
    for row, payoff, value in zip(found, payoffs(found), prices.value.tolist(), strict=True):
        assert abs(value - row["price"]) <= (2e-8 if isinstance(payoff, VarianceSwap) else row["tol"]), (row, value)


@pytest.mark.parametrize(
    ("dates", "count"),
    [(4, 9), pytest.param(12, 9, marks=pytest.mark.slow)],  # three times as many regressions and inner paths
)
def test_bermudans_lie_between_their_bounds(dates: int, count: int) -> None:
    found = [row for row in rows("bermudans", "heston_kou") if len(row["payoff"]["dates"]) == dates]
    assert len(found) == count
    for row in found:
        market = Market(100.0, row["rate"], row["dividend_yield"])
        bounds = price(model("heston_kou"), payoff_from(row["payoff"]), market, EARLY, least_squares=POLICY)
        lower, upper = float(bounds.value), float(bounds.upper)
        assert lower <= row["price"] + row["tol"] + 3 * float(bounds.std_error), (row, lower)
        assert upper >= row["price"] - row["tol"] - 3 * float(bounds.upper_std_error), (row, upper)
        assert upper - lower < 0.005 * row["price"] + 4 * float(bounds.upper_std_error), (row, lower, upper)
