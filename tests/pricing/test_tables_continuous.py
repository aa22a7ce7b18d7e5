"""Published prices of continuously watched contracts, row by row, by simulation within three standard errors.

Black-Scholes takes exact steps, so one step (a few where something is paid at a hit) serves: bridges have no bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from qsde.errors import InputError
from qsde.market.underlying import Market
from qsde.models import BlackScholes
from qsde.noise import Antithetic, Sobol, Threefry
from qsde.payoffs import (
    Barrier,
    DoubleBarrier,
    European,
    FixedLookback,
    FloatingLookback,
    NoTouch,
    OneTouch,
    Payoff,
)
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
ENGINE = MonteCarlo(n_paths=1 << 16, noise=Antithetic(Threefry(seed=11)), compile="never")

Build = Callable[[Any], Payoff]


def rows(name: str) -> pd.DataFrame:
    return pd.read_csv(REFERENCE / f"{name}.csv")


def market(row: Any) -> Market:
    return Market(float(row.spot), float(row.r), float(row.q))


def check(table: pd.DataFrame, build: Build, largest_error: float, errors: float = 3.0) -> int:
    """Holds every row to its standard errors plus the rounding of the table; all vols of a market in one call."""
    checked = 0
    for _, group in table.groupby(["spot", "q", "r", "t"]):
        vols = sorted(group["vol"].unique())
        contracts = {repr(build(row)): build(row) for row in group.itertuples()}
        model = BlackScholes(torch.tensor(vols, dtype=torch.float64))
        found = price(model, list(contracts.values()), market(next(group.itertuples())), ENGINE)
        assert float(found.std_error.max()) < largest_error
        for row in group.itertuples():
            at = vols.index(row.vol), list(contracts).index(repr(build(row)))
            value, error = float(found.value[at]), float(found.std_error[at])
            assert abs(value - row.price) <= errors * error + row.tol, (row, value, error)
            checked += 1
    return checked


def vanilla(row: Any) -> float:
    where = market(row)
    forward, discount = where.forward(row.t), where.discount(row.t)
    return float(price_european(BlackScholes(row.vol), row.strike, row.t, forward, discount, row.type == "Call").value)


STYLES = {"DownOut": "down-and-out", "UpOut": "up-and-out", "DownIn": "down-and-in", "UpIn": "up-and-in"}


def barrier(row: Any) -> Barrier:
    style: Any = STYLES[row.barrier_type]
    return Barrier(row.strike, row.barrier, row.t, style, row.type.lower(), rebate=row.rebate)


def test_barriers_of_haug() -> None:
    table = rows("barrier_haug").query("exercise == 'european'")
    assert check(table.query("barrier != spot"), barrier, largest_error=0.02) == 48
    refused = 0
    for row in table.query("barrier == spot").itertuples():
        with pytest.raises(InputError, match="already knocked"):
            price(BlackScholes(row.vol), barrier(row), market(row), ENGINE)
        worth = row.rebate if row.barrier_type == "DownOut" else vanilla(row)  # what the message says
        assert worth == pytest.approx(row.price, abs=row.tol)
        refused += 1
    assert refused == 24


def test_double_barriers_of_haug() -> None:
    styles: Any = {"KnockOut": "knock-out", "KnockIn": "knock-in"}

    def build(row: Any) -> DoubleBarrier:
        return DoubleBarrier(row.strike, row.lo, row.hi, row.t, styles[row.barrier_type], row.type.lower())

    assert check(rows("double_barrier_haug"), build, largest_error=0.02) == 90


def touch(row: Any, pays: Any, pay_at: Any) -> Payoff:
    side = {"upper" if row.type == "Call" else "lower": row.strike}
    if not row.knockin:
        return NoTouch(row.t, pays=pays, cash=15.0, **side)
    return OneTouch(row.t, pays=pays, cash=15.0, pay_at=pay_at, **side)


@pytest.mark.parametrize(
    ("pays", "pay_at", "simulated", "touched"),
    [("cash", "hit", 4, 4), ("asset", "hit", 4, 4), ("cash", "expiry", 5, 2), ("asset", "expiry", 6, 4)],
)
def test_touches_of_haug(pays: str, pay_at: str, simulated: int, touched: int) -> None:
    table = rows(f"digital_{pays}_at_{pay_at}")
    over = ((table["strike"] > table["spot"]) == (table["type"] == "Call")) & (table["strike"] != table["spot"])
    assert check(table[over], lambda row: touch(row, pays, pay_at), largest_error=0.1) == simulated
    refused = 0
    for row in table[~over].itertuples():
        with pytest.raises(InputError, match=r"touched already .* it is worth"):
            price(BlackScholes(row.vol), touch(row, pays, pay_at), market(row), ENGINE)
        now = 15.0 if pays == "cash" else row.spot
        held = row.r if pays == "cash" else row.q
        worth = now if pay_at == "hit" else now * math.exp(-held * row.t)
        assert worth == pytest.approx(row.price, abs=1e-12)
        refused += 1
    assert refused == touched


def test_fixed_lookbacks_of_haug() -> None:
    def build(row: Any) -> FixedLookback:
        return FixedLookback(row.strike, row.t, row.type.lower(), extreme=float(row.minmax))

    assert check(rows("lookback_fixed"), build, largest_error=0.03) == 36


def test_floating_lookbacks_of_haug_and_broadie_glasserman_kou() -> None:
    def build(row: Any) -> FloatingLookback:
        return FloatingLookback(row.t, row.type.lower(), extreme=float(row.minmax))

    assert check(rows("lookback_floating"), build, largest_error=0.03) == 7


def test_partial_lookbacks_of_quantlib() -> None:
    """Windows that begin late (fixed strike) or end early (floating strike), with and without a fraction."""

    def build(row: Any) -> Payoff:
        if math.isnan(row.strike):
            scale = getattr(row, "_8")  # noqa: B009  "lambda" is no name in Python
            return FloatingLookback(row.t, row.type.lower(), end=row.t1_days / 365, scale=scale)
        return FixedLookback(row.strike, row.t, row.type.lower(), start=row.t1_days / 365)

    table = rows("lookback_partial_quantlib144").assign(tol=1e-9)
    assert check(table, build, largest_error=0.03) == 36


# laws


MARKET, MODEL = Market(100.0, rate=0.05, dividend_yield=0.02), BlackScholes(0.25)


def test_steps_do_not_matter() -> None:
    """One step or many: the dates of other contracts in the book refine the grid of all."""
    contracts = [
        Barrier(100.0, 120.0, 1.0, "up-and-out", rebate=5.0),
        DoubleBarrier(100.0, 85.0, 125.0, 1.0, "knock-out", rebate=5.0),
        OneTouch(1.0, 85.0, 120.0),
        FixedLookback(100.0, 1.0),
        FloatingLookback(1.0, "put", end=0.5),
    ]
    weekly = Barrier(100.0, 120.0, 1.0, "up-and-out", monitoring=[i / 52 for i in range(1, 53)])
    coarse = price(MODEL, contracts, MARKET, ENGINE)
    fine = price(MODEL, [*contracts, weekly], MARKET, MonteCarlo(1 << 14, noise=Threefry(seed=2), compile="never"))
    off = (coarse.value - fine.value[:-1]).abs()
    assert bool((off <= 3 * torch.hypot(coarse.std_error, fine.std_error[:-1])).all())


def test_dates_are_a_shifted_barrier() -> None:
    """Broadie, Glasserman and Kou (1997): m dates are a continuous barrier at `B exp(0.5826 v sqrt(T / m))`."""
    m = 50
    dates = [i / m for i in range(1, m + 1)]
    shift = math.exp(0.5826 * 0.25 * math.sqrt(1 / m))
    pairs = [
        (Barrier(100.0, 130.0, 1.0, "up-and-out", monitoring=dates), Barrier(100.0, 130.0 * shift, 1.0, "up-and-out")),
        (Barrier(100.0, 85.0, 1.0, "down-and-in", monitoring=dates), Barrier(100.0, 85.0 / shift, 1.0, "down-and-in")),
        (NoTouch(1.0, upper=130.0, monitoring=dates), NoTouch(1.0, upper=130.0 * shift)),
        (OneTouch(1.0, lower=85.0, monitoring=dates), OneTouch(1.0, lower=85.0 / shift)),
    ]
    found = price(MODEL, [p for pair in pairs for p in pair], MARKET, MonteCarlo(1 << 15, compile="never"))
    value, error = found.value.unflatten(0, (-1, 2)), found.std_error.unflatten(0, (-1, 2))
    allowed = 3 * error.norm(dim=-1) + 0.003 * value[:, 1]
    assert bool(((value[:, 0] - value[:, 1]).abs() <= allowed).all())


def normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def down_and_out(spot: float, vol: float, b: float = 90.0) -> float:
    """Merton (1973), strike 100 above the barrier."""
    r, q, t, k = 0.05, 0.02, 1.0, 100.0

    def call(s: float) -> float:
        size = vol * math.sqrt(t)
        d = (math.log(s / k) + (r - q) * t) / size + size / 2
        return s * math.exp(-q * t) * normal(d) - k * math.exp(-r * t) * normal(d - size)

    return call(spot) - (b / spot) ** (2 * (r - q) / vol**2 - 1) * call(b * b / spot)


def test_pathwise_gradients_of_a_continuous_barrier() -> None:
    spot, vol = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (100.0, 0.25))
    engine = MonteCarlo(1 << 16, noise=Sobol(seed=3), compile="never")
    found = price(BlackScholes(vol), Barrier(100.0, 90.0, 1.0, "down-and-out"), Market(spot, 0.05, 0.02), engine)
    delta, vega = torch.autograd.grad(found.value, [spot, vol])
    step = 1e-4
    assert float(found.value.detach()) == pytest.approx(down_and_out(100.0, 0.25), rel=1e-3)
    bumped = (down_and_out(100 + step, 0.25) - down_and_out(100 - step, 0.25)) / (2 * step)
    assert float(delta) == pytest.approx(bumped, rel=5e-3)
    bumped = (down_and_out(100.0, 0.25 + step) - down_and_out(100.0, 0.25 - step)) / (2 * step)
    assert float(vega) == pytest.approx(bumped, rel=2e-2)


def test_on_dates_a_pathwise_gradient_is_refused() -> None:
    spot = torch.tensor(100.0, dtype=torch.float64, requires_grad=True)
    dated = Barrier(100.0, 90.0, 1.0, "down-and-out", monitoring=(0.5, 1.0))
    with pytest.raises(InputError, match="Barrier jumps, so its pathwise gradient is wrong"):
        price(MODEL, dated, Market(spot), ENGINE)


def test_in_and_out_make_the_vanilla_on_the_same_paths() -> None:
    for monitoring in ("continuous", (0.5, 1.0)):
        out, into = (
            DoubleBarrier(100.0, 90.0, 120.0, 1.0, style, monitoring=monitoring) for style in ("knock-out", "knock-in")
        )
        found = price(MODEL, [out, into, European(100.0, 1.0)], MARKET, replace(ENGINE, control_variate=False)).value
        assert float(found[0] + found[1]) == pytest.approx(float(found[2]), abs=1e-9)


def test_float32_prices_the_same() -> None:
    contracts = [
        Barrier(100.0, 120.0, 1.0, "up-and-out", rebate=5.0),
        DoubleBarrier(100.0, 85.0, 125.0, 1.0, "knock-out", rebate=5.0),
        FloatingLookback(1.0),
    ]
    double, single = (
        price(MODEL, contracts, MARKET, MonteCarlo(1 << 14, dtype=kind, compile="never"))
        for kind in (torch.float64, torch.float32)
    )
    assert bool(((double.value - single.value).abs() < 3 * torch.hypot(double.std_error, single.std_error)).all())
    assert single.value.dtype == torch.float64
