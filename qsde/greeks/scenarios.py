"""Prices and Greeks on a ladder of spots times a ladder of implied vols."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.greeks import grid_paths
from qsde.greeks.grid import CELLS, Grid
from qsde.greeks.inputs import Inputs
from qsde.greeks.methods import check_exact_greeks, check_method, described, engine_for, why_no_exact_greeks
from qsde.greeks.table import GREEKS, Units
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.models.sde import SDE
from qsde.payoffs import American, AtExpiry, Claim, Payoff
from qsde.payoffs.checks import book_of, numbers
from qsde.pricing.engine import Auto, MonteCarlo
from qsde.pricing.exact import exact_method
from qsde.pricing.fourier import Fourier
from qsde.pricing.price import check_types
from qsde.schemes.layers import layers


@dataclass(frozen=True)
class Scenarios:
    """Prices and Greeks of a book in all scenarios.

    Attributes:
        payoffs: names of the payoffs.
        spots: relative moves of the spot [S], increasing; 0 among them.
        vols: parallel shifts of implied vols [V], increasing; 0 among them.
        levels: the spots [S].
        which: "price" and Greeks, in the order of the axis of `value`.
        value: [payoffs, which, S, V] in `units`.
        std_error: standard errors, likewise; 0 for exact ones.
        pnl: price less the price without a move, [payoffs, S, V].
        pnl_std_error: its standard error, which allows for the common random numbers.
        knocked: [payoffs, S]: at this spot the contract has been knocked in or out (or a new extreme been made), and
            the cell is worth what is left of it.
        units: "trader" (vega per vol point) or "raw".
        methods: how each payoff was treated.
        n_paths: paths simulated, 0 for exact ones.
        seconds: wall-clock time.
    """

    payoffs: tuple[str, ...]
    spots: Tensor
    vols: Tensor
    levels: Tensor
    which: tuple[str, ...]
    value: Tensor
    std_error: Tensor
    pnl: Tensor
    pnl_std_error: Tensor
    knocked: Tensor
    units: Units
    methods: tuple[str, ...]
    n_paths: int
    seconds: float

    def __repr__(self) -> str:
        """Prices of each payoff, a row for each spot and a column for each shift of vols."""
        return "\n".join(f"{p}: price\n{self.table('price', i).to_string()}" for i, p in enumerate(self.payoffs))

    def __getitem__(self, name: str) -> Tensor:
        """Values [payoffs, S, V] of the price, a Greek or "pnl"."""
        return self.pnl if name == "pnl" else self.value[:, self._column(name)]

    def error(self, name: str) -> Tensor:
        """Standard errors [payoffs, S, V] of the price, a Greek or "pnl"."""
        return self.pnl_std_error if name == "pnl" else self.std_error[:, self._column(name)]

    def frame(self) -> pd.DataFrame:
        """One row for each payoff, spot and vol; each number is followed by its standard error."""
        columns = [*self.which, "pnl"]
        rows = []
        for i, payoff in enumerate(self.payoffs):
            for s, v in ((s, v) for s in range(len(self.spots)) for v in range(len(self.vols))):
                row: dict[str, Any] = {
                    "payoff": payoff,
                    "spot_move": float(self.spots[s]),
                    "spot": float(self.levels[s]),
                    "vol_shift": float(self.vols[v]),
                    "knocked": bool(self.knocked[i, s]),
                }
                for name in columns:
                    row[name] = float(self[name][i, s, v])
                    row[f"{name}_std_error"] = float(self.error(name)[i, s, v])
                rows.append(row)
        return pd.DataFrame(rows)

    def table(self, name: str = "price", payoff: int = 0) -> pd.DataFrame:
        """One number of one payoff: a row for each spot, a column for each shift of vols.

        Args:
            name: "price", a Greek or "pnl".
            payoff: number of the payoff.
        """
        rows = pd.Index(self.levels.tolist(), name="spot")
        columns = pd.Index(self.vols.tolist(), name="vol_shift")
        return pd.DataFrame(self[name][payoff].numpy(), rows, columns)

    def plot(self, path: str | Path | None = None, payoff: int = 0) -> Any:
        """A plotly figure of one payoff: price, P&L and Greeks over the spot, a line for each shift of vols.

        Args:
            path: where to write it as one HTML file that needs no network; None writes nothing.
            payoff: number of the payoff.
        """
        from plotly.graph_objects import Scatter  # slow to import, and only plots need it
        from plotly.subplots import make_subplots

        names = [*self.which, "pnl"]
        figure = make_subplots(rows=len(names), cols=1, shared_xaxes=True, subplot_titles=names)
        for row, name in enumerate(names, 1):
            for v, shift in enumerate(self.vols.tolist()):
                bars = {"type": "data", "array": (2 * self.error(name)[payoff, :, v]).tolist()}
                line = Scatter(
                    x=self.levels.tolist(),
                    y=self[name][payoff, :, v].tolist(),
                    error_y=bars if self.n_paths else None,
                    name=f"vols {shift:+.1%}",
                    legendgroup=str(v),
                    showlegend=row == 1,
                    line={"color": f"hsl({20 + 200 * v / max(1, len(self.vols) - 1):.0f}, 70%, 45%)"},
                )
                figure.add_trace(line, row=row, col=1)
        figure.update_layout(title=self.payoffs[payoff], height=230 * len(names), template="plotly_white")
        figure.update_xaxes(title_text="spot", row=len(names), col=1)
        if path is not None:
            figure.write_html(path, include_plotlyjs=True)
        return figure

    def _column(self, name: str) -> int:
        if name not in self.which:
            raise InputError(f"there is no {name!r} here; there are {', '.join(self.which)}, pnl")
        return self.which.index(name)


@torch.enable_grad()
def scenarios(
    model: Model,
    payoffs: Claim | Sequence[Claim],
    market: Market,
    engine: MonteCarlo | Fourier | Auto | None = None,
    spots: Sequence[float] = (-0.1, -0.05, 0.0, 0.05, 0.1),
    vols: Sequence[float] = (-0.05, 0.0, 0.05),
    which: Sequence[str] = CELLS,
    units: Units = "trader",
) -> Scenarios:
    """Prices and Greeks with the spot moved and implied vols shifted, all scenarios in one batch.

    Every cell is what `price` and `greeks` give for the moved spot and the shifted model with the same noise: all cells
    share their random numbers, so that differences between them are less noisy than each. Cash dividends stay as they
    are when the spot moves. Vols shift along the move of the parameters that shifts implied vols best in parallel
    (`qsde.greeks.inputs.parallel_shift`), found without a move; under Black-Scholes that is the volatility.

    Where a move of the spot crosses a barrier, the cell is worth what is left of the contract: a knock-out its rebate,
    a knock-in the vanilla, a touch its payment. Such spots are marked in `knocked`. A barrier that is looked at on
    dates is crossed only if today is one. Gamma within 1 % of a barrier is a difference to the side away from it.

    By simulation the spots of a ladder share the paths of their vol, and cost evaluations of the payoffs only. Options
    that are `American` have scenarios where their prices are exact, also next to payoffs that are simulated.

    Args:
        model: one model, without batch axes, of one underlying.
        payoffs: one payoff or a list.
        market: spot, curves, dividends.
        engine: `Fourier()` (exact) or `MonteCarlo(...)`; None is `Fourier()` where all payoffs allow it, else
            `MonteCarlo()`, or what `Auto(...)` says.
        spots: relative moves of the spot, above -1; 0 is added.
        vols: parallel shifts of implied vols, 0.01 for one point; 0 is added.
        which: of "price", "delta", "gamma" and "vega"; "price" is added.
        units: "trader" (vega per vol point) or "raw".

    Raises:
        InputError: an unknown Greek, moves that leave no spot or no model, several underlyings, users' SDEs (which
            take one parameter set at a time), or rights to exercise early that have no exact price.

    Example:
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import European
        >>> found = scenarios(BlackScholes(0.2), European(100.0, 1.0), Market(100.0), spots=(-0.1, 0.1), vols=(0.05,))
        >>> [[round(x, 2) for x in row] for row in found.table("pnl").to_numpy().tolist()]
        [[-4.38, -2.69], [0.0, 1.98], [6.33, 8.22]]
    """
    began = time.perf_counter()
    check_types(model, market, engine)
    book = book_of(payoffs)
    names = _names(which)
    _check(model, book, market, units)
    given, engine = engine, engine_for(engine, model, book, market)
    by_price = isinstance(engine, Fourier)
    exact = {
        i: check_exact_scenarios(model, payoff, market, given)
        for i, payoff in enumerate(book)
        if by_price or not isinstance(payoff, Payoff)
    }
    simulated = {i: p for i, p in enumerate(book) if isinstance(p, Payoff) and i not in exact}
    inputs = Inputs.of(model, market, book)
    grid = Grid(inputs, _moves("spots", spots, -1.0), _moves("vols", vols, None))
    grid.check()
    quadrature = engine if isinstance(engine, Fourier) else Fourier()
    cells = {i: torch.stack(list(grid.exact(p, quadrature, names).values())).unsqueeze(0) for i, p in exact.items()}
    methods: dict[int, str] = {i: exact_method(p) for i, p in exact.items()}
    n_paths = 0
    if isinstance(engine, MonteCarlo) and simulated:
        some = list(simulated.values())
        used = [check_method(payoff, model, engine, "auto") for payoff in some]
        drawn, n_paths = grid_paths.sampled(grid, some, used, engine, names)
        cells |= zip(simulated, drawn.unbind(1), strict=True)
        methods |= {i: described(p, model, engine, m) for (i, p), m in zip(simulated.items(), used, strict=True)}
    samples = torch.stack(torch.broadcast_tensors(*(cells[i] for i in range(len(book)))), 1)
    value, error = samples.mean(0), _error(samples)
    moves = samples[:, :, 0] - _at_base(samples[:, :, 0], grid)
    if isinstance(engine, MonteCarlo) and simulated:
        rows = list(simulated)
        value[rows, 0], error[rows, 0] = grid_paths.prices(grid, some, engine)
    scale = torch.tensor([GREEKS[name].scale if units == "trader" else 1.0 for name in names], dtype=torch.float64)
    scale = scale.reshape(-1, 1, 1)
    return Scenarios(
        payoffs=tuple(payoff.name for payoff in book),
        spots=grid.spots,
        vols=grid.vols,
        levels=grid.levels,
        which=names,
        value=value * scale,
        std_error=error * scale,
        pnl=value[:, 0] - _at_base(value[:, 0], grid),
        pnl_std_error=_error(moves),
        knocked=torch.stack([grid.settled_before(payoff) for payoff in book]),
        units=units,
        methods=tuple(methods[i] for i in range(len(book))),
        n_paths=n_paths,
        seconds=time.perf_counter() - began,
    )


def _names(which: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in which if name not in CELLS]
    if unknown:
        raise InputError(f"which: no {unknown[0]!r} in scenarios; there are {', '.join(CELLS)}")
    return tuple(dict.fromkeys(("price", *which)))


def _check(model: Model, book: list[Any], market: Any, units: str) -> None:
    if not book:
        raise InputError("there are no payoffs")
    if units not in ("trader", "raw"):
        raise InputError(f"units must be 'trader' or 'raw', got {units!r}")
    if isinstance(layers(model)[0], SDE):
        raise InputError(
            f"{model.name} takes one parameter set at a time, so there is no batch of scenarios; call price"
        )
    if not isinstance(market, Market) or model.assets != 1:
        raise InputError("scenarios move one spot: give a model of one underlying and its Market")


def check_exact_scenarios(
    model: Model, payoff: Claim, market: Market, engine: MonteCarlo | Fourier | Auto | None
) -> AtExpiry | American:
    """The payoff, if its price is exact; rights to exercise early have no other scenarios.

    Raises:
        InputError: it is not, or a simulation was asked for.
    """
    if not isinstance(payoff, Payoff):
        simulated = "leave MonteCarlo() out" if isinstance(engine, MonteCarlo) else None
        reason = why_no_exact_greeks(model, payoff, market) or simulated
        if reason is not None:
            raise InputError(
                f"{payoff.name} may be exercised early, so that there are scenarios of an exact price only: {reason}"
            )
    return check_exact_greeks(model, payoff, market)


def _moves(field: str, moves: Sequence[float], least: float | None) -> Tensor:
    """The moves in order, 0 among them."""
    found = torch.tensor(sorted({0.0, *numbers(field, moves).tolist()}), dtype=torch.float64)
    if not bool(torch.isfinite(found).all()) or (least is not None and not bool((found > least).all())):
        above = "" if least is None else f" and above {least:g}"
        raise InputError(f"{field} must be finite{above}, got {moves}")
    return found


def _error(samples: Tensor) -> Tensor:
    return samples.std(0) / len(samples) ** 0.5 if len(samples) > 1 else torch.zeros_like(samples[0])


def _at_base(values: Tensor, grid: Grid) -> Tensor:
    """The values [..., 1, 1] of [..., S, V] without a move."""
    s, v = (int((moves == 0).nonzero()) for moves in (grid.spots, grid.vols))
    return values[..., s : s + 1, v : v + 1]
