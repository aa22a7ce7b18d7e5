"""European prices by Fourier: accuracy against 50-digit values and time against QuantLib's analytic engines.

The work is the 104 DAX options of QuantLib's calibration test under its fitted Heston parameters. QuantLib prices them
one by one with a 64-point Gauss-Laguerre engine behind a C++ call each, its option objects set up beforehand; we price
the same grid in one call, with an error estimate for each price, both from a prepared `EuropeanBook` and without any
preparation. The batch is 256 parameter sets on the same grid in one call, timed per set.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import sys
from pathlib import Path

import pandas as pd
import torch
from harness import Row, alternate, arguments, report, seconds
from surfaces import REFERENCE, QuantLibHeston, dax

from qsde.models import Heston
from qsde.pricing.book import EuropeanBook
from qsde.pricing.fourier import Fourier, price_european

#: Enough for the precision of QuantLib's 64 points here, about 1e-11 of the index (the largest difference is printed).
ENGINE = Fourier(tolerance=1e-6, nodes=64)
#: v0, kappa, theta, sigma, rho of QuantLib's fit to DAX.
FITTED = (0.19566, 15.6627, 0.0745912, 3.36192, -0.511492)


def accuracy(path: Path) -> Row:
    """Largest relative error on the 50-digit Lewis prices."""
    table = pd.read_csv(path)
    table = table[table["case"] == "lewis2012"]
    worst = 0.0
    for row in table.itertuples():
        model = Heston(row.v0, row.kappa, row.theta, row.sigma, row.rho)
        forward, df = row.spot * math.exp((row.r - row.q) * row.T), math.exp(-row.r * row.T)
        got = price_european(model, row.strike, row.T, forward, df, row.type == "Call").value
        worst = max(worst, abs(float(got) / row.price - 1))
    return Row("Lewis 2012 prices, worst relative error", worst, 1e-8, 1.0, "rel", note="peer column: the bound")


def main() -> int:
    """Prints all figures; exit code 1 if one misses its floor."""
    options = arguments(__doc__)
    rounds = 15 if options.quick else 41
    surface = dax()
    slices = surface.slices
    t, forward, df = (torch.tensor(slices[c].to_numpy()) for c in ("t", "forward", "discount_factor"))
    strike = torch.tensor(surface.quotes["strike"].to_numpy().reshape(len(slices), -1))
    is_call = strike >= forward[:, None]
    one = Heston(*FITTED)
    g = torch.Generator().manual_seed(1)
    scale = 0.8 + 0.4 * torch.rand(256, generator=g, dtype=torch.float64)
    many = one.map(lambda p: p * scale)
    rows = [accuracy(REFERENCE / "heston_european_prices.csv")]

    book = EuropeanBook(strike, t, forward, df, is_call, ENGINE)

    def prepared() -> object:
        return book.price(one)

    def unprepared() -> object:
        return price_european(one, strike, t, forward, df, is_call, ENGINE)

    def batch() -> object:
        return price_european(many, strike, t, forward, df, is_call, ENGINE)

    if importlib.util.find_spec("QuantLib") is None:
        rows += [Row("104 options, one parameter set", seconds(prepared), None, 5.0)]
        return 0 if report(rows, options.json) else 1
    peer = QuantLibHeston().pricer(FITTED)
    gap = (book.price(one).value.flatten() - torch.tensor(peer(), dtype=torch.float64)).abs()
    note = f"largest price difference {float(gap.max()):.1e} of index points"
    for label, work, floor in (("prepared book", prepared, 5.0), ("from scratch", unprepared, None)):
        ours, theirs = alternate(work, peer, rounds)
        rows.append(Row(f"104 options, one parameter set, {label}", ours, theirs, floor, note=note))
    batch()
    pairs = [(seconds(batch) / 256, seconds(peer)) for _ in range(rounds)]
    rows.append(Row("104 options, batch of 256 sets, per set", statistics.median(p[0] for p in pairs),
                    statistics.median(p[1] for p in pairs), 30.0))  # fmt: skip
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
