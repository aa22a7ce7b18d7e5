"""The page: sections in reading order, scripts and data inlined, written in one piece."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from qsde import __version__
from qsde.calibration.fit import Fit
from qsde.errors import InputError
from qsde.report import figures, tables
from qsde.report.arbitrage import arbitrage_section
from qsde.report.assets import CSS, SCRIPT
from qsde.report.expiry import expiry_figure, expiry_layout
from qsde.report.leverage import leverage_figures, leverage_section
from qsde.report.smiles import Smile, smiles, variance_lines
from qsde.report.tables import escape, number
from qsde.writing import write_atomic


def write_report(fits: Fit | Sequence[Fit], path: str | Path, title: str | None = None) -> Path:
    """Writes the report of one surface with one or more fitted models to `path`.

    Args:
        fits: one fit, or several of the same surface to show side by side.
        path: where to write; an existing file is replaced in one piece.
        title: headline; the surface's name if None.

    Returns:
        The path written.

    Raises:
        InputError: there is no fit, or the fits are of different surfaces.
    """
    target = Path(path)
    text = render(fits, title)
    with write_atomic(target) as file:
        file.write(text)
    return target


def render(fits: Fit | Sequence[Fit], title: str | None = None) -> str:
    """The HTML text of the report; see `write_report`."""
    several = [fits] if isinstance(fits, Fit) else list(fits)
    _check(several)
    names = _names(several)
    all_smiles = smiles(several)
    sections = [
        _header(several, names, title),
        _fit_section(several, names),
        _smile_section(all_smiles),
        _residual_section(),
        _variance_section(names),
        leverage_section(several, names),
        arbitrage_section(several, names),
        _forward_section(several[0]),
        _correlation_section(several, names),
        _rejected_section(several[0]),
    ]
    return _page(title or several[0].surface.name, "".join(sections), _data(several, names, all_smiles))


def _check(fits: list[Fit]) -> None:
    if not fits:
        raise InputError("a report needs at least one fit")
    first = fits[0].surface
    for fit in fits[1:]:
        if fit.surface.name != first.name or len(fit.surface) != len(first):
            raise InputError(
                f"one report shows one surface: got {first.name} with {len(first)} quotes and "
                f"{fit.surface.name} with {len(fit.surface)}; write a report for each"
            )


def _names(fits: list[Fit]) -> list[str]:
    """Model names, numbered where one occurs twice."""
    plain = [fit.model.name for fit in fits]
    return [n if plain.count(n) == 1 else f"{n} {plain[: i + 1].count(n)}" for i, n in enumerate(plain)]


def _data(fits: list[Fit], names: list[str], all_smiles: list[Smile]) -> dict[str, Any]:
    return {
        "figures": {
            "smiles": figures.smile_grid(all_smiles, names),
            "residuals": figures.residual_heat_maps(all_smiles, names),
            "variance": figures.total_variance(variance_lines(fits, all_smiles), names),
            "forwards": figures.forwards(fits[0].surface.slices, fits[0].surface.spot),
            **leverage_figures(fits),
        },
        "expiries": [expiry_figure(s, names) for s in all_smiles],
        "layout": expiry_layout(),
    }


def _header(fits: list[Fit], names: list[str], title: str | None) -> str:
    surface = fits[0].surface
    facts = [
        f"Quotes of {escape(_clock(surface.quote_time))}" if surface.quote_time else "Quote time unknown",
        f"spot {number(surface.spot, ',.2f')}" if math.isfinite(surface.spot) else "",
        f"{len(surface):,} quotes used over {len(surface.slices)} expiries",
        f"{len(surface.rejected):,} set aside",
        f"source {escape(Path(surface.source).name)}",
    ]
    warnings = list(dict.fromkeys([*surface.warnings, *(w for f in fits for w in _warnings(f))]))
    box = f'<div class="warnings"><b>Read this first</b>{tables.sentences(warnings)}</div>' if warnings else ""
    return (
        f"<header><h1>{escape(title or surface.underlying or 'Volatility surface')}: {' and '.join(names)}</h1>"
        f'<div class="meta">{" · ".join(f for f in facts if f)}</div></header>'
        f'<p class="verdict">{_verdict(fits, names)}</p>{box}'
    )


def _clock(iso: str) -> str:
    return iso.replace("T", " ").replace("+00:00", " UTC").replace(":00 UTC", " UTC")


def _warnings(fit: Fit) -> list[str]:
    failed = [] if fit.status.converged else [f"{fit.model.name}: {fit.status.value}"]
    return [*failed, *(f"{fit.model.name}: {w}" for w in fit.warnings)]


def _verdict(fits: list[Fit], names: list[str]) -> str:
    parts = []
    for fit, name in zip(fits, names, strict=True):
        inside = f", inside bid/ask for {number(100 * fit.inside_share, '.0f')} %" if fit.inside_share >= 0 else ""
        parts.append(f"<b>{name}</b> fits to <b>{number(fit.rmse_bp, '.1f')} bp</b> of implied vol (RMSE{inside})")
    return "; ".join(parts) + "."


def _fit_section(fits: list[Fit], names: list[str]) -> str:
    return (
        "<section><h2>Fit</h2>"
        + tables.quality(fits, names)
        + "<h3>Parameters</h3>"
        + tables.parameters(fits, names)
        + '<p class="note">± is one standard error, from the weighted residuals and the Jacobian; it assumes '
        "independent quote errors. Volatilities, variances and rates are annualised decimals, time is ACT/365F.</p>"
        "</section>"
    )


def _smile_section(all_smiles: list[Smile]) -> str:
    options = "".join(f'<option value="{i}">{escape(s.expiry)}</option>' for i, s in enumerate(all_smiles))
    few = f"{len(all_smiles)} expiries" if len(all_smiles) <= 12 else f"Twelve of {len(all_smiles)} expiries"
    return (
        f'<section><h2>Smiles</h2><p class="note">{few}; bars are bid to ask, lines the models.</p>'
        '<div class="figure" id="smiles"></div><h3>Any expiry, over strikes</h3><div class="control">'
        f'<label>Expiry <select id="expiry">{options}</select></label> <button id="earlier">earlier</button> '
        '<button id="later">later</button></div><div class="figure" id="one-expiry"></div></section>'
    )


def _residual_section() -> str:
    return (
        '<section><h2>Residuals</h2><p class="note">Mean of model minus mid implied vol in basis points; red: the '
        "model is too expensive, blue: too cheap. Colours saturate at the 90 % quantile.</p>"
        '<div class="figure" id="residuals"></div></section>'
    )


def _variance_section(names: list[str]) -> str:
    lines = ", ".join(f"{name} {dash}" for name, dash in zip(names, cycle(figures.DASHES.values()), strict=False))
    return (
        f'<section><h2>Total variance</h2><p class="note">Dots: market mid; lines: {escape(lines)}. Each '
        "series must rise with expiry: where one falls, a calendar spread is free money.</p>"
        '<div class="figure" id="variance"></div></section>'
    )


def _forward_section(fit: Fit) -> str:
    rows = tables.forwards(fit.surface)
    count = len(fit.surface.slices)
    body = rows if count <= 15 else f"<details><summary>Table of {count} expiries</summary>{rows}</details>"
    note = f'<p class="note">{escape(tables.rate_note(fit.surface))}</p>'
    return f'<section><h2>Forwards and rates</h2>{note}<div class="figure" id="forwards"></div>{body}</section>'


def _correlation_section(fits: list[Fit], names: list[str]) -> str:
    blocks = "".join(
        f"<div><h3>{name}</h3>{tables.correlation(fit)}</div>"
        for fit, name in zip(fits, names, strict=True)
        if len(fit.free) > 1
    )
    note = "Pairs near ±1 trade off against each other: the quotes do not tell them apart."
    title = f'<h2>Parameter correlations</h2><p class="note">{note}</p>'
    return f'<section>{title}<div class="columns">{blocks}</div></section>'


def _rejected_section(fit: Fit) -> str:
    surface = fit.surface
    if not len(surface.rejected):
        return "<section><h2>Quotes set aside</h2><p>None: every quote of the file was used.</p></section>"
    return (
        "<section><h2>Quotes set aside</h2>"
        + tables.rejected_counts(surface)
        + f"<details><summary>Examples of each reason</summary>{tables.rejected_examples(surface)}</details></section>"
    )


def _page(title: str, body: str, data: dict[str, Any]) -> str:
    # "<" never appears inside the JSON, so no text from a file can close the script element
    payload = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>{body}"
        f"<footer>Made by qsde {__version__}.</footer></main>"
        f'<script type="application/json" id="report-data">{payload}</script>'
        f"<script>{get_plotlyjs()}</script><script>{SCRIPT}</script></body></html>\n"
    )
