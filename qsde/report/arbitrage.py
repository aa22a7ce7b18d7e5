"""The section on static arbitrage: in the quotes within bid and ask, and in the fitted models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.calibration.fit import Fit
from qsde.market.arbitrage import model_arbitrage, quote_arbitrage
from qsde.pricing.fourier import Fourier
from qsde.report import tables
from qsde.report.prices import calls
from qsde.report.smiles import representative
from qsde.report.tables import escape

_SHOWN = 15
_EXPIRIES, _STRIKES = 16, 61
#: Violations count from 1e-8 of the forward. A loose tolerance leaves errors of 1e-5 of it in far wings, which a
#: reader would take for arbitrage of the model.
_ENGINE = Fourier(tolerance=1e-8)
#: Smallest violation, in forwards: of Fourier prices, and of means over paths, whose noise is above the first.
_EXACT, _SIMULATED = 1e-8, 1e-4


def arbitrage_section(fits: list[Fit], names: list[str]) -> str:
    """Violations in the market quotes, then in each model."""
    market = quote_arbitrage(fits[0].surface)
    sides = fits[0].surface.quotes[["bid", "ask"]].notna().all(axis=1)
    tradable = "that could be traded at the quoted bid and ask"
    where = tradable if sides.all() else f"{tradable}, or at mid prices where there is no bid and ask"
    parts = [_block("Market quotes", market, where if sides.any() else "at mid prices (there is no bid and ask)")]
    parts += [
        _block(name, fitted_arbitrage(fit), f"on a grid of up to {_EXPIRIES} expiries and {_STRIKES} strikes")
        for fit, name in zip(fits, names, strict=True)
    ]
    return f"<section><h2>Static arbitrage</h2>{''.join(parts)}</section>"


def fitted_arbitrage(fit: Fit) -> pd.DataFrame:
    """Violations of the fitted model on a grid of moneyness at up to `_EXPIRIES` expiries of its surface."""
    slices = fit.surface.slices.iloc[representative(len(fit.surface.slices), _EXPIRIES)]
    t, forward, discount = (slices[c].to_numpy(dtype=float) for c in ("t", "forward", "discount_factor"))
    vol = float(np.median(fit.surface.quotes["iv"]))

    def prices(years: Tensor, forwards: Tensor, strikes: Tensor) -> Tensor:
        return calls(fit.model, years, forwards, strikes, _ENGINE)

    tolerance = _EXACT if fit.model.has_cf else _SIMULATED
    with torch.no_grad():
        return model_arbitrage(prices, t, forward, discount, vol=vol, n_strikes=_STRIKES, tolerance=tolerance)


def _block(name: str, violations: pd.DataFrame, where: str) -> str:
    if not len(violations):
        return f"<h3>{escape(name)}</h3><p>No violation {where}.</p>"
    counts = ", ".join(f"{kind} {count:,}" for kind, count in violations["kind"].value_counts().items())
    return (
        f"<h3>{escape(name)}</h3><p>{len(violations):,} violations {where}: {escape(counts)}.</p>"
        f"<details><summary>The largest</summary>{_examples(violations)}</details>"
    )


def _examples(violations: pd.DataFrame) -> str:
    shown = violations.head(_SHOWN)
    rows = [
        [escape(r.kind), escape(r.sentence), tables.number(r.t, ".4f"), tables.number(r.size, ".4g"),
         tables.number(r.size_vol_bp, ".1f")]
        for r in tables.records(shown)
    ]  # fmt: skip
    return tables.table(["Kind", "What", "Years", "Size, price", "Size, bp of vol"], rows, "dense", text_columns=2)
