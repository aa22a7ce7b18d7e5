"""The figure for one chosen expiry: smile over strikes, residuals below; drawn by the page's selector."""

from __future__ import annotations

from typing import Any

import numpy as np

from qsde.report.figures import MARKET, Figure, axis, colour, layout, numbers
from qsde.report.smiles import Array, Smile


def expiry_layout() -> Figure:
    """The layout that all expiries share."""
    axes = {
        "xaxis": axis("strike", anchor="y2"),
        "yaxis": axis("implied vol, %", domain=[0.36, 1]),
        "yaxis2": axis("model − mid, bp of vol", domain=[0, 0.27], anchor="x", zeroline=True, zerolinecolor=MARKET),
    }
    return layout(520, **axes)


def expiry_figure(smile: Smile, names: list[str]) -> dict[str, Any]:
    """Traces of one expiry."""
    market = {
        "type": "scatter",
        "mode": "markers",
        "name": "market bid/ask",
        "x": numbers(smile.strike, 8),
        "y": numbers(smile.mid),
        "error_y": _bars(smile),
        "marker": {"color": MARKET, "size": 4},
        "hovertemplate": "strike %{x:,.6~g}<br>mid %{y:.2f} %<extra>market</extra>",
    }
    data = [market]
    for i, name in enumerate(names):
        data.append(_line(name, i, smile.curve_strike, smile.curves[i]))
        data.append(_dots(name, i, smile.strike, smile.residuals[i]))
    return {"data": data}


def _bars(smile: Smile) -> dict[str, Any]:
    up, down = (np.where(np.isfinite(x), x, 0.0) for x in (smile.ask - smile.mid, smile.mid - smile.bid))
    return {"type": "data", "symmetric": False, "array": numbers(up, 4), "arrayminus": numbers(down, 4),
            "color": MARKET, "thickness": 1, "width": 2}  # fmt: skip


def _line(name: str, i: int, x: Array, y: Array) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": numbers(x, 7),
        "y": numbers(y),
        "line": {"color": colour(i), "width": 2},
        "hovertemplate": "strike %{x:,.6~g}<br>%{y:.2f} %<extra>" + name + "</extra>",
    }


def _dots(name: str, i: int, x: Array, y: Array) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "showlegend": False,
        "x": numbers(x, 8),
        "y": numbers(y, 4),
        "yaxis": "y2",
        "marker": {"color": colour(i), "size": 3.5},
        "hovertemplate": "strike %{x:,.6~g}<br>%{y:.1f} bp<extra>" + name + "</extra>",
    }
