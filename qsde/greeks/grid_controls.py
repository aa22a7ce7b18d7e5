"""Control variates of the cells of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.greeks.grid import Grid
from qsde.greeks.inputs import Inputs
from qsde.market.underlying import Market
from qsde.payoffs import Payoff, Terminal
from qsde.pricing.controls import companion


@dataclass(frozen=True)
class Control:
    """A control variate of one payoff in all cells: its exact prices [S, V], and their slopes in spot and vol."""

    payoff: Terminal
    exact: Tensor
    by_spot: Tensor
    by_vol: Tensor


def controls(grid: Grid, book: Sequence[Payoff], spots: Tensor) -> list[Control | None]:
    """A control variate of each payoff at these relative moves of the spot [S], or None."""
    return [_control(grid.inputs, payoff, spots, grid.vols) for payoff in book]


def _control(inputs: Inputs, payoff: Payoff, spots: Tensor, vols: Tensor) -> Control | None:
    cells = [_cell(inputs, payoff, float(s), float(v)) for s in spots for v in vols]
    found = [cell for cell in cells if cell is not None]
    if len(found) < len(cells):
        return None
    numbers = torch.tensor([values for _, values in found], dtype=torch.float64)
    return Control(found[0][0], *numbers.unflatten(0, (len(spots), -1)).unbind(-1))


def _cell(
    inputs: Inputs, payoff: Payoff, spot: float, vol: float
) -> tuple[Terminal, tuple[float, float, float]] | None:
    """The payoff whose prices are exact; its price in one cell, and the slopes of that."""
    point = inputs.at(spot=spot, vol=vol)
    assert isinstance(point.market, Market)
    slopes = inputs.directions.get("", {})
    with torch.enable_grad():
        found = companion(point.model, point.market, payoff)
        if found is None:
            return None
        moving = [point.leaves[name] for name in ("spot", *slopes)]
        gradient = torch.autograd.grad(found[1], moving, allow_unused=True)
    by_spot, *rest = (0.0 if g is None else float(g) for g in gradient)
    by_vol = sum(g * float(move) for g, move in zip(rest, slopes.values(), strict=True))
    return found[0], (float(found[1].detach()), by_spot, by_vol)
