"""The plots as plotly figures in plain dictionaries: data in, `{"data": [...], "layout": {...}}` out."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import pandas as pd

from qsde.report.smiles import Array, Smile, VarianceLine, representative, residual_bins

Figure = dict[str, Any]
INK, GRID, MARKET = "#1c2733", "#e7eaee", "#8793a1"
#: Line styles of the models where colour says something else: plotly's name, and the word for it.
DASHES = {"solid": "solid", "dash": "dashed", "dot": "dotted", "dashdot": "dash-dotted"}
MODEL_COLOURS = ("#1668b8", "#d1571a", "#2a8a4a", "#8b4bb5", "#b8860b", "#c2266b")
#: Colours of moneyness levels: blue below the forward, dark at it, orange above, paler towards it.
LEVEL_COLOURS = {-0.4: "#0b3c5d", -0.2: "#1668b8", -0.1: "#6ba5da", 0.0: INK, 0.05: "#e8b04a", 0.1: "#dd7a26",
                 0.2: "#b8451a", 0.4: "#701f0c"}  # fmt: skip


def colour(i: int) -> str:
    """Line colour of the i-th model."""
    return MODEL_COLOURS[i % len(MODEL_COLOURS)]


def text(value: object) -> str:
    """A string from a file made safe for plotly, which renders a subset of HTML in its labels."""
    return html.escape(str(value))


def numbers(values: Array, digits: int = 5) -> list[float | None]:
    """Values for JSON: rounded to significant digits, NaN as null."""
    return [float(f"{x:.{digits}g}") if np.isfinite(x) else None for x in np.asarray(values, dtype=float)]


def axis(title: str = "", **options: Any) -> dict[str, Any]:
    """An axis in the report's style."""
    return {
        "title": {"text": title, "font": {"size": 12}, "standoff": 6},
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "#b5bdc7",
        "ticks": "outside",
        "ticklen": 3,
        "tickcolor": "#b5bdc7",
        "automargin": True,
        **options,
    }


def layout(height: int, **options: Any) -> dict[str, Any]:
    """A layout in the report's style."""
    return {
        "height": height,
        "margin": {"l": 58, "r": 16, "t": 30, "b": 44},
        "font": {"family": "Helvetica Neue, Helvetica, Arial, sans-serif", "size": 11, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hovermode": "closest",
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "yanchor": "bottom",
            "font": {"size": 12},
            "itemsizing": "constant",
        },
        **options,
    }


def smile_grid(all_smiles: list[Smile], names: list[str]) -> Figure:
    """Small multiples: bid/ask bars and model lines of about twelve expiries over log-moneyness."""
    chosen = representative(len(all_smiles))
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    data: list[Figure] = []
    axes: Figure = {}
    notes = []
    for place, i in enumerate(chosen):
        smile, suffix = all_smiles[i], "" if place == 0 else str(place + 1)
        x, y = _cell(place, rows, columns)
        data += _smile_traces(smile, names, suffix, legend=place == 0)
        bottom = place + columns >= len(chosen)
        axes[f"xaxis{suffix}"] = axis(
            "log-moneyness ln(K/F)" if bottom else "", domain=x, anchor=f"y{suffix}", range=_x_range(smile)
        )
        axes[f"yaxis{suffix}"] = axis(
            "implied vol, %" if place % columns == 0 else "", domain=y, anchor=f"x{suffix}", range=_y_range(smile)
        )
        title = f"<b>{text(smile.expiry)}</b>  {_years(smile.t)}"
        notes.append({"text": title, "x": x[0], "y": y[1], "xref": "paper", "yref": "paper", "showarrow": False,
                      "xanchor": "left", "yanchor": "bottom", "font": {"size": 12}})  # fmt: skip
    height = 60 + 235 * rows
    legend = {
        "orientation": "h",
        "x": 0,
        "y": 1 + 4 / height,
        "yanchor": "bottom",
        "font": {"size": 12},
        "itemsizing": "constant",
    }
    margin = {"l": 58, "r": 16, "t": 34, "b": 44}
    return {"data": data, "layout": layout(height, annotations=notes, legend=legend, margin=margin, **axes)}


def _cell(place: int, rows: int, columns: int) -> tuple[list[float], list[float]]:
    row, column = divmod(place, columns)
    width, height = 1 / columns, 1 / rows
    left, bottom = column * width, 1 - (row + 1) * height
    x = [left + 0.045 * (column > 0), left + width - 0.008]
    return x, [bottom + 0.2 * height * (row < rows - 1), bottom + 0.9 * height]


def _smile_traces(smile: Smile, names: list[str], suffix: str, legend: bool) -> list[Figure]:
    near = np.abs(smile.deviations) < 12
    x = smile.moneyness[near]
    place = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "showlegend": legend}
    mid, bid, ask = smile.mid[near], smile.bid[near], smile.ask[near]
    market = {
        "type": "scatter",
        "mode": "markers",
        "name": "market bid/ask",
        "x": numbers(x),
        "y": numbers(mid),
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": numbers(ask - mid, 3),
            "arrayminus": numbers(mid - bid, 3),
            "color": MARKET,
            "thickness": 1,
            "width": 1.5,
        },
        "marker": {"color": MARKET, "size": 2.5},
        "hovertemplate": "ln(K/F) %{x:.3f}<br>mid %{y:.2f} %<extra>market</extra>",
        **place,
    }
    grid = np.log(smile.curve_strike / smile.forward)
    lines = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": numbers(grid),
            "y": numbers(curve),
            "line": {"color": colour(i), "width": 1.8},
            "hovertemplate": "ln(K/F) %{x:.3f}<br>%{y:.2f} %<extra>" + name + "</extra>",
            **place,
        }
        for i, (name, curve) in enumerate(zip(names, smile.curves, strict=True))
    ]
    return [market, *lines]


def _window(smile: Smile) -> Array:
    near = np.abs(smile.deviations) < 9
    return near if near.sum() >= 2 else np.ones_like(near)


def _x_range(smile: Smile) -> list[float]:
    x = smile.moneyness[_window(smile)]
    pad = 0.04 * max(float(np.ptp(x)), 1e-3)
    return [float(x.min()) - pad, float(x.max()) + pad]


def _y_range(smile: Smile) -> list[float]:
    near = _window(smile)
    low, high = _x_range(smile)
    grid = np.log(smile.curve_strike / smile.forward)
    inside = (grid >= low) & (grid <= high)
    mid = smile.mid[near]
    lows = np.fmax(np.where(np.isnan(smile.bid[near]), mid, smile.bid[near]), 0.6 * mid)
    highs = np.fmin(np.where(np.isnan(smile.ask[near]), mid, smile.ask[near]), 1.4 * mid)
    shown = np.concatenate([lows, highs, *(c[inside] for c in smile.curves)])
    bottom, top = float(np.nanmin(shown)), min(float(np.nanmax(shown)), 1.6 * float(highs.max()))
    pad = 0.06 * max(top - bottom, 0.5)
    return [max(bottom - pad, 0.0), top + pad]


def _years(t: float) -> str:
    return f"{t * 365:.1f} days" if t < 0.25 else f"{t:.2f} years"


def residual_heat_maps(all_smiles: list[Smile], names: list[str]) -> Figure:
    """Mean model minus market vol in bp by expiry and standardised log-moneyness, one panel per model."""
    edges = _bin_edges(all_smiles)
    bins = [residual_bins(all_smiles, i, edges) for i in range(len(names))]
    sizes = np.abs(np.concatenate(bins))
    limit = max(float(np.quantile(known, 0.9)), 1.0) if len(known := sizes[np.isfinite(sizes)]) else 1.0
    labels = [text(s.expiry) for s in all_smiles]
    rows = list(range(len(labels)))
    shown = rows[:: -(-len(rows) // 26)]
    data, axes, notes = [], {}, []
    for i, (name, values) in enumerate(zip(names, bins, strict=True)):
        suffix = "" if i == 0 else str(i + 1)
        domain = [i / len(names) + 0.02 * (i > 0), (i + 1) / len(names) - 0.01]
        data.append(_heat_map(values, edges, rows, labels, limit, suffix, last=i == len(names) - 1))
        axes[f"xaxis{suffix}"] = axis(
            "ln(K/F) / (ATM vol √t), standard deviations", domain=domain, anchor=f"y{suffix}", showgrid=False
        )
        ticks = {"tickvals": shown, "ticktext": [labels[r] for r in shown]} if i == 0 else {"showticklabels": False}
        axes[f"yaxis{suffix}"] = axis(
            "expiry" if i == 0 else "", anchor=f"x{suffix}", autorange="reversed", showgrid=False, **ticks
        )
        notes.append({"text": f"<b>{name}</b>", "x": domain[0], "y": 1, "xref": "paper", "yref": "paper",
                      "showarrow": False, "xanchor": "left", "yanchor": "bottom", "font": {"size": 12}})  # fmt: skip
    height = 130 + max(13 * len(labels), 110)
    margin = {"l": 84, "r": 20, "t": 28, "b": 48}
    return {"data": data, "layout": layout(height, annotations=notes, margin=margin, **axes)}


def _bin_edges(all_smiles: list[Smile]) -> Array:
    deviations = np.concatenate([s.deviations for s in all_smiles])
    low, high = np.quantile(deviations, [0.01, 0.99])
    step = 0.5 if high - low < 14 else 1.0
    low, high = max(np.floor(low / step), -20) * step, min(np.ceil(high / step), 20) * step
    return np.arange(low, high + step if high > low else low + 2 * step, step)


def _heat_map(
    values: Array, edges: Array, rows: list[int], labels: list[str], limit: float, suffix: str, last: bool
) -> Figure:
    return {
        "type": "heatmap",
        "x": numbers((edges[1:] + edges[:-1]) / 2),
        "y": rows,
        "z": [numbers(row, 4) for row in values],
        "customdata": [[label] * (len(edges) - 1) for label in labels],
        "zmin": -limit,
        "zmax": limit,
        "colorscale": [[0, "#1668b8"], [0.5, "#fbfbf8"], [1, "#c0392b"]],
        "showscale": last,
        "colorbar": {"title": {"text": "bp of vol", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "%{customdata}<br>%{x:.2f} sd<br>model − market %{z:.1f} bp<extra></extra>",
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
    }


def total_variance(lines: list[VarianceLine], names: list[str]) -> Figure:
    """Total implied variance against expiry at fixed log-moneyness: market markers and model lines."""
    data: list[Figure] = []
    dashes = list(DASHES)
    for line in lines:
        quoted = np.isfinite(line.market)
        label = "ATM (K = F)" if line.moneyness == 0 else f"ln(K/F) = {line.moneyness:+.2f}".replace("-", "−")
        paint = LEVEL_COLOURS[line.moneyness]
        hover = "%{x:.3f} years<br>total variance %{y:.5f}<extra>" + label
        common = {"type": "scatter", "x": numbers(line.t[quoted]), "legendgroup": label}
        data.append({**common, "mode": "markers", "name": label, "y": numbers(line.market[quoted]),
                     "marker": {"color": paint, "size": 5}, "hovertemplate": hover + " market</extra>"})  # fmt: skip
        data += [
            {**common, "mode": "lines", "name": name, "y": numbers(model[quoted]), "showlegend": False,
             "line": {"color": paint, "width": 1.3, "dash": dashes[i % len(dashes)]},
             "hovertemplate": hover + f" {name}</extra>"}
            for i, (name, model) in enumerate(zip(names, line.models, strict=True))
        ]  # fmt: skip
    axes = {
        "xaxis": axis("years to expiry (log scale)", type="log", dtick="D2", tickformat="~g"),
        "yaxis": axis("total variance σ²t (log scale)", type="log", dtick="D2", tickformat="~g"),
    }
    legend = {"orientation": "v", "x": 1.01, "y": 0.9, "yanchor": "top", "font": {"size": 12}}
    return {"data": data, "layout": layout(430, legend=legend, **axes)}


def forwards(slices: pd.DataFrame, spot: float) -> Figure:
    """Forward prices and implied continuous zero rates against expiry."""
    t = slices["t"].to_numpy(dtype=float)
    labels = [text(x) for x in slices["expiry"]]
    base = {"type": "scatter", "mode": "lines+markers", "x": numbers(t), "customdata": labels,
            "marker": {"size": 5}, "line": {"width": 1.3, "color": colour(0)}, "showlegend": False}  # fmt: skip
    data = [
        {**base, "y": numbers(slices["forward"].to_numpy(), 8),
         "hovertemplate": "%{customdata}<br>forward %{y:.2f}<extra></extra>"},
        {**base, "y": numbers(100 * slices["rate"].to_numpy(dtype=float)), "xaxis": "x2", "yaxis": "y2",
         "hovertemplate": "%{customdata}<br>rate %{y:.3f} %<extra></extra>"},
    ]  # fmt: skip
    if np.isfinite(spot):
        data.append({"type": "scatter", "mode": "markers", "x": [0], "y": [spot], "showlegend": False,
                     "marker": {"symbol": "diamond", "size": 8, "color": colour(1)},
                     "hovertemplate": "spot %{y:.2f}<extra></extra>"})  # fmt: skip
    axes = {
        "xaxis": axis("years to expiry", domain=[0, 0.45]),
        "yaxis": axis("forward price, currency of the strike"),
        "xaxis2": axis("years to expiry", domain=[0.56, 1], anchor="y2"),
        "yaxis2": axis("zero rate, continuous, % per year", anchor="x2", **_flat_range(slices)),
    }
    return {"data": data, "layout": layout(300, **axes)}


def _flat_range(slices: pd.DataFrame) -> dict[str, Any]:
    rates = 100 * slices["rate"].to_numpy(dtype=float)
    low, high = np.nanquantile(rates, [0.0, 1.0])
    return {"range": [float(low) - 0.5, float(high) + 0.5]} if high - low < 0.5 else {}
