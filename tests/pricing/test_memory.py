"""What is made of a block of paths goes with it, without waiting for the garbage collector, which knows no bytes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest

from qsde import (
    American,
    Asian,
    Autocallable,
    Barrier,
    Cliquet,
    DoubleBarrier,
    FixedLookback,
    Heston,
    Market,
    MonteCarlo,
    OneTouch,
    VarianceSwap,
    price,
)
from qsde.greeks import greeks
from qsde.payoffs.monitoring import Exits
from qsde.payoffs.seen import Paths, Watched
from qsde.pricing.simulation import Block

MODEL, MARKET = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7), Market(100.0, rate=0.03)
QUARTERS = (0.25, 0.5, 0.75, 1.0)
ENGINE = MonteCarlo(n_paths=512, max_dt=1 / 8)
BOOK = [
    Asian(100.0, QUARTERS),
    Barrier(100.0, 80.0, 1.0, style="down-and-out"),
    Barrier(100.0, 120.0, 1.0, style="up-and-in", monitoring=QUARTERS),
    DoubleBarrier(strike=100.0, lower=80.0, upper=125.0, expiry=1.0, style="knock-out"),
    OneTouch(120.0, 1.0),
    FixedLookback(100.0, 1.0),
    Autocallable(observations=QUARTERS, initial=100.0, coupon=0.02, knock_in=0.7, notional=100.0),
    Cliquet(resets=(0.0, *QUARTERS), local_floor=0.0, local_cap=0.05),
    VarianceSwap(0.04, (0.0, *QUARTERS)),
]


@pytest.fixture
def collected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize(
    "work",
    [
        lambda: price(MODEL, BOOK, MARKET, ENGINE),
        lambda: greeks(MODEL, BOOK, MARKET, ENGINE),
        lambda: price(MODEL, American(100.0, 1.0, kind="put", dates_per_year=4), MARKET, ENGINE),
    ],
    ids=["prices", "greeks", "early exercise"],
)
def test_paths_go_when_they_were_looked_at(work: Callable[[], object]) -> None:
    found = work()
    left = [x for x in gc.get_objects() if issubclass(type(x), (Block, Paths, Watched, Exits))]
    assert found
    assert not left
