"""A ladder of spots times a ladder of implied vols: the model and the market of each cell, and exact prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.greeks.exact import worth
from qsde.greeks.inputs import Inputs, Point, moved_market
from qsde.greeks.settled import refuses
from qsde.market.underlying import Market
from qsde.payoffs import American, AtExpiry, Claim, European, Payoff
from qsde.pricing.controls import Companion
from qsde.pricing.fourier import Fourier

#: What cells of a grid may be asked for.
CELLS = ("price", "delta", "gamma", "vega")


@dataclass(frozen=True)
class Cells(Point):
    """Model and market of all cells, and the control variates that were found for them."""

    likes: Sequence[tuple[Payoff, Companion]] = ()

    def companion(self, payoff: Payoff) -> Companion:
        """That of the payoff, if there is one."""
        return next((like for known, like in self.likes if known is payoff), None)


@dataclass(frozen=True)
class Grid:
    """Relative moves of the spot times parallel shifts of implied vols.

    `x = log(S / F)` does not depend on the spot, so that all spots share the paths of a vol, and all vols share the
    random numbers: moves of the spot cost evaluations of the payoffs only.

    Attributes:
        inputs: model and market at no move.
        spots: relative moves [S].
        vols: shifts [V].
    """

    inputs: Inputs
    spots: Tensor
    vols: Tensor

    @property
    def market(self) -> Market:
        """The market, of one underlying."""
        assert isinstance(self.inputs.market, Market), "checked by scenarios"
        return self.inputs.market

    def check(self) -> None:
        """Raises InputError where the model or the market makes no sense after a move."""
        for name, values in self.params(self.vols).items():
            spec = self.inputs.model.table.get(name)
            bad = None if spec is None else ~(spec.domain.check(values) & torch.isfinite(values)).expand_as(self.vols)
            if bad is not None and bool(bad.any()):
                shift = float(self.vols[bad][0])
                raise InputError(
                    f"vols: a shift of {shift:g} takes the parameter {name} to {float(values[bad][0]):g}, where the "
                    "model is not defined; take smaller shifts"
                )
        for spot in self.levels.tolist():
            replace(self.market, spot=spot)

    @property
    def levels(self) -> Tensor:
        """The spots [S]."""
        levels: Tensor = self.inputs.leaves["spot"] * (1 + self.spots)
        return levels

    def params(self, vols: Tensor) -> dict[str, Tensor]:
        """The parameters at these shifts, in the shape of `vols`; those that do not move as they are."""
        slopes = self.inputs.directions.get("", {})
        found = {name: self.inputs.leaves[name] for name in self.inputs.model.params if name in self.inputs.leaves}
        return {name: p + vols * slopes[name] if name in slopes else p for name, p in found.items()}

    def settled_before(self, payoff: Claim, levels: Tensor | None = None) -> Tensor:
        """At which spots [S] the contract has been knocked already, or refuses the spot as it is described."""
        return torch.tensor([refuses(payoff, spot) for spot in (self.levels if levels is None else levels)])

    def exact(self, payoff: AtExpiry | American, engine: Fourier, which: tuple[str, ...]) -> dict[str, Tensor]:
        """Raw values of the cells [S, V] by Fourier integrals, all in one batch."""
        shape = (len(self.spots), len(self.vols))
        cells = self.levels.unsqueeze(-1).expand(shape).reshape(-1)
        spot = (cells.unsqueeze(-1) if isinstance(payoff, (European, American)) else cells).clone().requires_grad_()
        vol = self.vols.expand(shape).reshape(-1).clone().requires_grad_()
        params = {k: v.expand_as(vol) for k, v in self.params(vol).items()}
        point = self.point(params, spot)
        value = worth(payoff, point, engine)
        found = {"price": value}
        if set(which) & {"delta", "gamma"}:
            (delta,) = torch.autograd.grad(value.sum(), spot, create_graph=True)
            found["delta"] = delta
        if "gamma" in which:
            (found["gamma"],) = torch.autograd.grad(found["delta"].sum(), spot, retain_graph=True)
        if "vega" in which:
            (found["vega"],) = torch.autograd.grad(value.sum(), vol)
        return {name: found[name].detach().reshape(shape) for name in which}

    def row(self, vols: Tensor, folds: int = 0) -> dict[str, Tensor]:
        """Parameters [1, V], or [1, V, folds]: all spots share their paths."""
        row = {k: v.expand_as(vols).unsqueeze(0) for k, v in self.params(vols).items()}
        return {k: v.unsqueeze(-1).expand(1, -1, folds) for k, v in row.items()} if folds else row

    def spot(self, move: float = 0.0, folds: int = 0) -> Tensor:
        """Spots [S, V, 1], or [S, V, folds, 1], moved by another share."""
        levels = self.levels * (1 + move)
        axes = (len(self.vols), folds, 1) if folds else (len(self.vols), 1)
        return levels.reshape(-1, *(1,) * len(axes)).expand(-1, *axes).clone()

    def point(
        self, params: Mapping[str, Tensor], spot: Tensor, likes: Sequence[tuple[Payoff, Companion]] = ()
    ) -> Cells:
        """Model and market of all cells."""
        # simulations want the axes of the spot on everything of the market, Fourier integrals on the spot alone
        zero = torch.zeros(spot.shape if spot.dim() > 2 else (), dtype=torch.float64)
        leaves = {"spot": spot, "rate": zero, "dividend_yield": zero}
        model = self.inputs.model.with_params(params)
        return Cells(model, moved_market(self.market, leaves), leaves, ("",), likes=likes)
