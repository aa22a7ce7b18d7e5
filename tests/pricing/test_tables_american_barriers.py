"""Haug's American barrier options, each inside the interval that the simulation gives."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qsde.errors import InputError
from qsde.market.underlying import Market
from qsde.models import BlackScholes
from qsde.payoffs import American, AmericanBarrier
from qsde.payoffs.base import Kind
from qsde.pricing.american import EarlyEstimate, LeastSquares, price_early
from qsde.pricing.engine import MonteCarlo

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
BARRIERS = pd.read_csv(REFERENCE / "barrier_haug.csv").query("exercise == 'american'")
STYLES = {"DownOut": "down-and-out", "UpOut": "up-and-out", "DownIn": "down-and-in", "UpIn": "up-and-in"}

ENGINE = MonteCarlo(n_paths=1 << 12, compile="never")
METHOD = LeastSquares(outer=256, inner=32)


def check(found: EarlyEstimate, value: float, dates: float, rounding: float, errors: float = 3.0) -> None:
    """The value lies in the interval, widened by three errors, the rounding, and what exercise at any time adds."""
    below = float(found.value) - errors * float(found.std_error) - rounding
    above = float(found.upper) + errors * float(found.upper_std_error) + rounding + dates
    assert below <= value <= above, (below, value, above)


def priced(row: Any) -> EarlyEstimate:
    kind: Kind = "call" if row.type == "Call" else "put"
    style: Any = STYLES[row.barrier_type]
    dates = 100 if style.endswith("in") else 60
    option = AmericanBarrier(float(row.strike), row.barrier, row.t, style, kind, row.rebate, dates_per_year=dates)
    return price_early(BlackScholes(row.vol), option, Market(row.spot, row.r, row.q), ENGINE, METHOD)


def rows(style: str) -> list[Any]:
    live = BARRIERS[BARRIERS["barrier"] != BARRIERS["spot"]]
    return [row for row in live.itertuples() if row.barrier_type.endswith(style)]


def worth_touching(row: Any) -> bool:
    """Whether exercise at the barrier pays more than the rebate."""
    return max(row.barrier - row.strike if row.type == "Call" else row.strike - row.barrier, 0.0) > row.rebate


def label(row: Any) -> str:
    return f"{row.barrier_type}-{row.barrier}-{row.type}-{row.strike}"


@pytest.mark.parametrize("row", [r for r in rows("Out") if not worth_touching(r)] + rows("In"), ids=label)
def test_american_barriers_of_haug(row: Any) -> None:
    check(priced(row), row.price, dates=0.01, rounding=0.008)  # a tree of 400 steps, and a delay after knock-in


@pytest.mark.parametrize("row", [r for r in rows("Out") if worth_touching(r)], ids=label)
def test_american_knock_outs_that_are_exercised_at_the_barrier(row: Any) -> None:
    """A tree exercises a step short of the barrier; with nodes on the barrier it converges, and not to Haug's value."""
    found = priced(row)
    check(found, tree(row), dates=0.01, rounding=0.003)
    assert row.price < float(found.upper) + 0.01


def tree(row: Any, levels: int = 10) -> float:
    """A trinomial tree with nodes on the barrier, where the holder exercises or takes the rebate."""
    distance = math.log(row.barrier / row.spot)
    n = math.ceil(3 * (levels / distance * row.vol) ** 2 * row.t)
    step, dt = abs(distance) / levels, row.t / n
    drift = row.r - row.q - 0.5 * row.vol**2
    variance = (row.vol**2 * dt + (drift * dt) ** 2) / step**2
    up, down = 0.5 * (variance + drift * dt / step), 0.5 * (variance - drift * dt / step)
    sign = 1.0 if row.type == "Call" else -1.0
    nodes = np.arange(-n, n + 1)
    prices = row.spot * np.exp(step * nodes)
    level = round(distance / step)
    out = nodes >= level if level > 0 else nodes <= level
    exercise = sign * (prices - row.strike)
    touched = max(row.rebate, sign * (row.barrier - row.strike))
    value = np.where(out, touched, np.maximum(exercise, 0.0))
    for _ in range(n):
        kept = math.exp(-row.r * dt) * (up * value[2:] + down * value[:-2] + (1 - up - down) * value[1:-1])
        value[1:-1] = np.where(out[1:-1], touched, np.maximum(exercise[1:-1], kept))
    return float(value[n])


@pytest.mark.parametrize("row", [r for r in BARRIERS.itertuples() if r.barrier == r.spot], ids=label)
def test_barriers_that_the_spot_is_on(row: Any) -> None:
    with pytest.raises(InputError, match=r"knocked (in|out) already"):
        priced(row)
    if row.barrier_type.endswith("Out"):
        assert row.price == row.rebate
        return
    option = American(float(row.strike), row.t, "call")  # knocked in: the plain option is left
    check(price_early(BlackScholes(row.vol), option, Market(row.spot, row.r, row.q), ENGINE, METHOD), row.price, 0.005,
          rounding=0.001)  # fmt: skip
