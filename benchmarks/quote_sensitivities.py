"""Sensitivities to all 96 quotes of an SPX surface against calibrating again for each, and how well the two agree.

Work: a European by Fourier and an Asian by simulation (Sobol, 16 scrambles) under Heston and Bates calibrated to the
thin SPX surface of 2023-02-15. The peer moves one quote by a basis point of vol, calibrates again from the solution
(our own Levenberg-Marquardt) and prices again with the same noise; for the Asian 8 quotes (4 with --quick) stand for
all. Both run once before they are timed. Agreement is the largest gap over the sums of each expiry and of all quotes,
as a share of the sensitivity to a parallel shift, by central differences of 10 basis points. The hedge is that of
`qsde.greeks.neutralise` in its default setting, over shifts of a vol point, and counts root mean squares of the change
in value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from harness import Row, alternate, arguments, report

from qsde.calibration import Fit, calibrate
from qsde.greeks import QuoteSensitivities, market_of, neutralise, quote_sensitivities, recalibrated
from qsde.market.surface import Surface
from qsde.models import Model
from qsde.noise import Sobol
from qsde.payoffs import Asian, European, Payoff
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.spec import template

QUOTES = Path(__file__).parents[1] / "tests/reference/market_spx_20230215_thin.csv"
SPOT, STRIKE = 4147.6, 4230.0
EUROPEAN = European(STRIKE, 1.0)
ASIAN = Asian(STRIKE, fixings=(0.25, 0.5, 0.75, 1.0))
Worth = Callable[[Model], float]


def surface() -> Surface:
    q = pd.read_csv(QUOTES)
    mid = (q["bid_iv"] + q["ask_iv"]) / 2
    return Surface.from_vols(q["T"], q["strike"], mid, q["forward"], 1.0, q["bid_iv"], q["ask_iv"], spot=SPOT)


def worth_of(fit: Fit, payoff: Payoff, engine: MonteCarlo) -> Worth:
    market = market_of(fit.surface)

    def european(model: Model) -> float:
        return float(price_european(model, STRIKE, 1.0, market.forward(1.0), market.discount(1.0)).value)

    def simulated(model: Model) -> float:
        with torch.no_grad():
            return float(price(model, payoff, market, engine).value)

    return european if isinstance(payoff, European) else simulated


def change(fit: Fit, worth: Worth, move: np.ndarray) -> float:
    """Price change per vol point of a move, by central difference."""
    up, down = (worth(recalibrated(fit, sign * 1e-3 * move)) for sign in (1, -1))
    return 0.01 * (up - down) / 2e-3


def gap(found: QuoteSensitivities, worth: Worth) -> float:
    """Largest difference from recalibration over expiries and all quotes, over the parallel sensitivity."""
    q, sensitivity = found.fit.surface.quotes, found.value[0].numpy()
    moves = [(q["slice"] == s).to_numpy(float) for s in q["slice"].unique()] + [np.ones(len(q))]
    gaps = [abs(sensitivity @ move - change(found.fit, worth, move)) for move in moves]
    return float(max(gaps)) / abs(float(found.parallel))


def hedged(found: QuoteSensitivities, worth: Worth) -> tuple[float, float]:
    """Root mean square change in value with and without the hedge, over shifts up and down by a vol point."""
    fit, positions = found.fit, neutralise(found).positions
    q = fit.surface.quotes.iloc[positions["quote"].to_numpy()]
    strike, t, forward, df = (torch.tensor(q[c].to_numpy()) for c in ("strike", "t", "forward", "discount_factor"))
    call, position = torch.tensor((q["option_type"] == "C").to_numpy()), torch.tensor(positions["position"].to_numpy())

    def options(model: Model) -> float:
        worths = price_european(model, strike.unsqueeze(-1), t, forward, df, call.unsqueeze(-1)).value.squeeze(-1)
        return float(worths @ position)

    moved = [recalibrated(fit, move) for move in (0.01, -0.01)]
    bare = np.array([worth(model) - worth(fit.model) for model in moved])
    offset = np.array([options(model) - options(fit.model) for model in moved])
    return float(np.sqrt(np.mean((bare + offset) ** 2))), float(np.sqrt(np.mean(bare**2)))


def rows_of(name: str, payoff: Payoff, quick: bool) -> list[Row]:
    fit = calibrate(template(name), surface())
    n = len(fit.surface)
    engine = MonteCarlo(n_paths=1 << (14 if quick else 16), noise=Sobol(0, scrambles=16), compile="never")
    exact = isinstance(payoff, European)
    worth = worth_of(fit, payoff, engine)
    chosen = range(n) if exact else range(0, n, n // (4 if quick else 8))

    def ours() -> QuoteSensitivities:
        return quote_sensitivities(fit, payoff, engine=None if exact else engine)

    def peer() -> None:
        for i in chosen:
            worth(recalibrated(fit, 1e-4 * np.eye(n)[i]))

    fast, slow = alternate(ours, peer, 3)
    found = ours()
    after, before = hedged(found, worth)
    label = f"{payoff.name} under {name}"
    return [
        Row(f"{n} sensitivities, {label}, vs recalibration", fast, slow * n / len(chosen), 1.0),
        Row(f"gap to recalibration, {label}, vs 1 %", gap(found, worth), 0.01, 1.0, "of parallel"),
        Row(f"change in value hedged, {label}, vs a tenth of bare", after, 0.1 * before, 1.0, "currency"),
    ]


def main() -> int:
    """Prints all figures; exit code 1 if one misses its floor."""
    options = arguments(__doc__)
    rows = [
        row
        for name in ("heston", "bates")
        for payoff in (EUROPEAN, ASIAN)
        for row in rows_of(name, payoff, options.quick)
    ]
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
