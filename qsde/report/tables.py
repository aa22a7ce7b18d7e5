"""The tables of the report as HTML; every value that came from a file is escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from qsde.calibration.fit import Fit
from qsde.calibration.training import TrainedFit
from qsde.market.surface import Surface

Cell = str
PLACEHOLDER = "–"


def escape(value: object) -> str:
    """Text safe inside HTML elements and attributes."""
    return html.escape(str(value), quote=True)


def number(value: object, pattern: str = ".4g", unit: str = "") -> str:
    """A formatted number with its unit; a dash where it is missing or not finite."""
    try:
        x = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return PLACEHOLDER
    if not math.isfinite(x):
        return PLACEHOLDER
    text = f"{x:{pattern}}"
    if not text.strip("-0.,"):
        text = text.removeprefix("-")  # no minus zero
    return text.replace("-", "−") + unit


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of a frame as named tuples."""
    return iter(frame.itertuples())


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], kind: str = "", text_columns: int = 1) -> str:
    """An HTML table of ready cells; the first `text_columns` columns are aligned left."""

    def cells(row: Sequence[Cell], tag: str) -> str:
        return "".join(
            f'<{tag} class="text">{c}</{tag}>' if i < text_columns else f"<{tag}>{c}</{tag}>" for i, c in enumerate(row)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{cells(head, "th")}</tr></thead><tbody>{body}</tbody></table>'


def quality(fits: list[Fit], names: list[str]) -> str:
    """How well each model fits, one column per model."""
    measures = [
        ("Status", [_status(f) for f in fits]),
        ("RMSE, bp of implied vol", [number(f.rmse_bp, ".1f") for f in fits]),
        ("Weighted RMSE, bp of implied vol", [number(f.weighted_rmse_bp, ".1f") for f in fits]),
        ("Standard error of the RMSE by the paths, bp", [_simulated(f, "rmse_error") for f in fits]),
        ("RMSE on the paths of the fit, bp", [_simulated(f, "fitted_rmse") for f in fits]),
        ("RMSE of held-out quotes, bp", [_trained(f, "held_out_bp") for f in fits]),
        ("RMSE, price, currency of the strike", [number(f.rmse_price, ".4g") for f in fits]),
        ("Two-sided quotes with the model inside bid/ask", [number(100 * f.inside_share, ".1f", " %") for f in fits]),
        ("Quotes fitted", [f"{len(f.quotes):,}" for f in fits]),
        ("Feller ratio 2κθ/σ² (below 1 the variance can reach zero)", [_feller(f) for f in fits]),
        ("Iterations of the winning start", [str(f.iterations) for f in fits]),
        ("Starts tried, and kept starts that agree", [f"{f.starts}, {f.starts_agreeing}" for f in fits]),
        ("Seconds", [number(f.seconds, ".2f") for f in fits]),
    ]
    shown = [(label, values) for label, values in measures if any(v != PLACEHOLDER for v in values)]
    return table(["", *map(escape, names)], [[label, *values] for label, values in shown], "quality")


def _status(fit: Fit) -> str:
    kind = "good" if fit.status.converged else "bad"
    label = "converged" if fit.status.converged else fit.status.name.replace("_", " ").lower()
    return f'<span class="badge {kind}" title="{escape(fit.status.value)}">{label}</span>'


def _simulated(fit: Fit, name: str) -> str:
    return PLACEHOLDER if fit.simulation is None else number(getattr(fit.simulation, name), ".2f")


def _trained(fit: Fit, name: str) -> str:
    return number(getattr(fit.training, name), ".2f") if isinstance(fit, TrainedFit) else PLACEHOLDER


def _feller(fit: Fit) -> str:
    p = fit.params
    if "kappa" not in p or not p["sigma"]:
        return PLACEHOLDER
    return number(2 * p["kappa"] * p["theta"] / p["sigma"] ** 2, ".3f")


def parameters(fits: list[Fit], names: list[str]) -> str:
    """Parameter values with standard errors, one row per parameter over all models."""
    texts = {name: p.text for f in fits for name, p in f.model.table.items()}
    rows = [[f"<code>{escape(k)}</code>", escape(texts[k]), *(_estimate(f, k) for f in fits)] for k in texts]
    return table(["Parameter", "Meaning", *map(escape, names)], rows, "parameters", text_columns=2)


def _estimate(fit: Fit, name: str) -> str:
    if name not in fit.params:
        return PLACEHOLDER
    value = number(fit.params[name], ".5g")
    if name not in fit.free:
        return f'{value} <small class="flag">fixed</small>'
    error = f"<small>± {number(fit.std_errors[name], '.2g')}</small>"
    flag = ' <small class="flag">at bound</small>' if name in fit.at_bounds else ""
    return f"{value} {error}{flag}"


def correlation(fit: Fit) -> str:
    """Correlation matrix of the free parameters, shaded by strength."""
    if not fit.covariance.isfinite().any():
        return '<p class="note">Not known: the quotes do not determine all parameters.</p>'
    rows = []
    for name, row in zip(fit.free, fit.correlation.tolist(), strict=True):
        rows.append([f"<code>{escape(name)}</code>", *(_shaded(x) for x in row)])
    return table(["", *(f"<code>{escape(n)}</code>" for n in fit.free)], rows, "correlation")


def _shaded(x: float) -> str:
    if not math.isfinite(x):
        return PLACEHOLDER
    red_green_blue = "22,104,184" if x < 0 else "192,57,43"
    return f'<span style="background:rgba({red_green_blue},{min(abs(x), 1) ** 2 * 0.55:.2f})">{number(x, ".2f")}</span>'


def forwards(surface: Surface) -> str:
    """Forward, discount factor, rate and quote count per expiry."""
    head = ["Expiry", "Forward from", "Years", "Forward", "Discount factor", "Zero rate, % p.a.", "Pairs", "Quotes"]
    rows = [
        [escape(r.expiry), escape(r.forward_source), number(r.t, ".4f"), number(r.forward, ",.2f"),
         number(r.discount_factor, ".5f"), number(100 * r.rate, ".3f"), str(int(r.n_pairs)), str(int(r.n_quotes))]
        for r in records(surface.slices)
    ]  # fmt: skip
    return table(head, rows, "dense", text_columns=2)


def rate_note(surface: Surface) -> str:
    """Where forwards and discount factors come from, and what a rate of zero throughout means."""
    forwards, discounts = (
        " and ".join(str(s) for s in surface.slices[c].drop_duplicates()) for c in ("forward_source", "discount_source")
    )
    note = f"Forwards from: {forwards}; discount factors from: {discounts}."
    if (surface.slices["discount_factor"] == 1).all():
        note += " Every discount factor is 1: the prices are taken as undiscounted, so no rate is shown by them."
    return note


def rejected_counts(surface: Surface) -> str:
    """Rejected quotes by reason, each with its share of all quotes read."""
    counts = surface.rejected["reason"].value_counts()
    total = len(surface.rejected) + len(surface)
    rows = [[escape(k), f"{int(v):,}", number(100 * v / total, ".1f", " %")] for k, v in counts.items()]
    return table(["Reason", "Quotes", "Share of file"], rows, "narrow")


def rejected_examples(surface: Surface, per_reason: int = 3) -> str:
    """A few rejected quotes of each reason, with the row of the file they came from."""
    rejected = surface.rejected
    chosen = rejected.groupby("reason", sort=False).head(per_reason).sort_values("reason", kind="stable")
    rows = [
        [escape(r.reason), escape(r.detail), _text(r.expiry), _text(r.option_type), number(r.row, ".0f"),
         number(r.strike, ",.10g"), number(r.bid), number(r.ask)]
        for r in records(chosen)
    ]  # fmt: skip
    head = ["Reason", "Detail", "Expiry", "Type", "Row of file", "Strike", "Bid", "Ask"]
    return table(head, rows, "dense", text_columns=4)


def _text(x: object) -> str:
    return PLACEHOLDER if x is None or x is pd.NA or x is pd.NaT or x != x else escape(x)


def sentences(texts: Iterable[str]) -> str:
    """A list of warnings."""
    return "<ul>" + "".join(f"<li>{escape(t)}</li>" for t in texts) + "</ul>"
