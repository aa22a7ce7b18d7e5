"""A book of 50 payoffs under Heston in one call against the time of its longest single payoff.

All payoffs see the same paths: 32 steps a year over two years. The peer is the time of the payoff that takes longest
alone, with the same paths and settings, times `BOUND`. Listed too: all payoffs, and those of each kind, against one by
one. Europeans and digitals by themselves are conditional, which in a mixed book they are not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from harness import Row, arguments, report, seconds

from qsde.market.underlying import Market
from qsde.models import Heston
from qsde.noise import Threefry
from qsde.payoffs import (
    Asian,
    Autocallable,
    Barrier,
    Cliquet,
    Digital,
    DoubleBarrier,
    European,
    FixedLookback,
    FloatingLookback,
    OneTouch,
    Payoff,
    VarianceSwap,
)
from qsde.pricing.montecarlo import MonteCarlo, price

HESTON, MARKET = Heston(0.04, 1.5, 0.04, 0.5, -0.7), Market(100.0, 0.03, 0.01)
YEARS = 2.0
MONTHS = [k / 12 for k in range(1, 25)]
QUARTERS = [k / 4 for k in range(1, 9)]
#: The book may take so many times as long as its longest payoff.
BOUND = 3.0
LEVELS = (90.0, 100.0, 110.0)
KINDS: dict[str, list[Payoff]] = {
    "Europeans": [European(k, t) for k in LEVELS for t in (0.5, 1.0, 1.5, 2.0)],
    "digitals": [Digital(k, t, cash=10.0) for k in LEVELS for t in (1.0, 2.0)],
    "Asians": [Asian(k, dates) for k in LEVELS for dates in (MONTHS, QUARTERS)],
    "dated barriers": [
        Barrier(100.0, b, YEARS, style, monitoring=MONTHS)  # type: ignore[arg-type]
        for b, style in ((130.0, "up-and-out"), (150.0, "up-and-out"), (80.0, "down-and-in"), (90.0, "down-and-out"))
    ],
    "continuous barriers": [
        Barrier(100.0, 140.0, YEARS, "up-and-out"),
        Barrier(100.0, 80.0, YEARS, "down-and-in", "put"),
        Barrier(100.0, 80.0, YEARS, "down-and-out", rebate=2.0),
        DoubleBarrier(100.0, 70.0, 150.0, YEARS, "knock-out"),
        OneTouch(YEARS, upper=130.0, cash=10.0),
        OneTouch(YEARS, lower=75.0, cash=10.0),
    ],
    "lookbacks": [
        FixedLookback(110.0, YEARS),
        FixedLookback(100.0, YEARS, monitoring=MONTHS),
        FloatingLookback(YEARS),
        FloatingLookback(YEARS, monitoring=MONTHS),
    ],
    "cliquets": [
        Cliquet([0.0, *dates], local_floor=-0.03, local_cap=cap, global_floor=0.0, notional=100.0)
        for dates in (MONTHS, QUARTERS)
        for cap in (0.03, 0.05)
    ],
    "autocallables": [
        Autocallable(QUARTERS, 100.0, coupon, level, memory=True, knock_in=0.7, notional=100.0)
        for coupon, level in ((0.02, 1.0), (0.03, 1.0), (0.02, 1.05), (0.03, 1.1))
    ],
    "variance swaps": [VarianceSwap(0.04, [0.0, *dates], notional=100.0) for dates in (MONTHS, QUARTERS)]
    + [VarianceSwap(strike, [0.0, *MONTHS], notional=100.0) for strike in (0.03, 0.05)],
}


def timed(book: Payoff | Sequence[Payoff], engine: MonteCarlo, rounds: int) -> float:
    """Least seconds after a warm-up: what other processes take does not count."""
    price(HESTON, book, MARKET, engine)
    return min(seconds(lambda: price(HESTON, book, MARKET, engine)) for _ in range(rounds))


def study(dtype: torch.dtype, paths: int, rounds: int) -> list[Row]:
    """The book, its payoffs one by one, and its kinds."""
    engine = MonteCarlo(n_paths=paths, max_dt=1 / 32, dtype=dtype, noise=Threefry(1), compile="never")
    book = [payoff for kind in KINDS.values() for payoff in kind]
    assert len(book) == 50
    single = {(kind, i): timed(p, engine, rounds) for kind, ps in KINDS.items() for i, p in enumerate(ps)}
    longest = max(single, key=lambda key: single[key])
    whole = timed(book, engine, rounds)
    label = str(dtype).removeprefix("torch.")
    note = f"longest: {longest[0]} {longest[1]}; ratio {whole / single[longest]:.2f}; {paths} paths x 64 steps, eager"
    rows = [
        Row(f"50 payoffs in one call, {label}, vs {BOUND:g} times the longest alone", whole, BOUND * single[longest],
            1.0, note=note),
        Row(f"50 payoffs in one call, {label}, vs one by one", whole, sum(single.values())),
    ]  # fmt: skip
    for kind, payoffs in KINDS.items():
        together, alone = timed(payoffs, engine, rounds), sum(single[kind, i] for i in range(len(payoffs)))
        rows.append(Row(f"{len(payoffs)} {kind} in one call, {label}, vs one by one", together, alone))
    return rows


def main() -> int:
    """Prints all figures; exit code 1 if one misses its floor."""
    options = arguments(__doc__)
    paths, rounds = (1 << 12, 1) if options.quick else (1 << 15, 3)
    rows = study(torch.float64, paths, rounds)
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
