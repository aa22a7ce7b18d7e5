"""The section on the leverage of a local volatility: what multiplies the backbone's, over time and price."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qsde.calibration.fit import Fit
from qsde.models import JumpDiffusion, Leverage, LocalStochasticVol
from qsde.report.figures import Figure, axis, layout, numbers

#: Points of the picture, and its half width in deviations.
_TIMES, _POINTS, _WIDTH = 40, 61, 2.5


def leverage_of(fit: Fit) -> Leverage | None:
    """The leverage of a fitted model, if it has one."""
    model = fit.model.diffusion if isinstance(fit.model, JumpDiffusion) else fit.model
    return model.leverage if isinstance(model, LocalStochasticVol) else None


def leverage_section(fits: list[Fit], names: list[str]) -> str:
    """A picture for each model with a leverage; "" if there are none."""
    shown = [i for i, fit in enumerate(fits) if leverage_of(fit) is not None]
    if not shown:
        return ""
    blocks = "".join(f'<h3>{names[i]}</h3><div class="figure" id="leverage-{i}"></div>' for i in shown)
    note = (
        "What multiplies the volatility of the backbone, by time and by x = ln(S/F) over vol at the money times √t; "
        "for a local volatility it is the volatility itself over the backbone's."
    )
    return f'<section><h2>Leverage</h2><p class="note">{note}</p>{blocks}</section>'


def leverage_figures(fits: list[Fit]) -> dict[str, Figure]:
    """The pictures by the id of their place."""
    pairs = ((i, fit, leverage_of(fit)) for i, fit in enumerate(fits))
    return {f"leverage-{i}": _figure(fit, leverage) for i, fit, leverage in pairs if leverage is not None}


def _figure(fit: Fit, leverage: Leverage) -> Figure:
    years = fit.surface.slices["t"].to_numpy(dtype=float)
    t = torch.tensor(np.geomspace(0.5 * years[0], years[-1], _TIMES))
    deviation = torch.linspace(-_WIDTH, _WIDTH, _POINTS, dtype=torch.float64)
    with torch.no_grad():
        values = leverage.at(t, leverage.scale * torch.sqrt(t).unsqueeze(-1) * deviation).numpy()
    data: dict[str, Any] = {
        "type": "heatmap",
        "x": numbers(deviation.numpy(), 4),
        "y": numbers(t.numpy(), 4),
        "z": [numbers(row, 4) for row in values],
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": "leverage", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        "hovertemplate": "%{y:.3f} years<br>x %{x:.2f} sd<br>leverage %{z:.3f}<extra></extra>",
    }
    axes = {
        "xaxis": axis("x / (ATM vol √t), standard deviations", showgrid=False),
        "yaxis": axis("years", type="log", showgrid=False),
    }
    return {"data": [data], "layout": layout(330, **axes)}
