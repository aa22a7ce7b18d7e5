"""Prices and first and second derivatives in all cells of a grid by simulation, as one batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from qsde.greeks.estimators import Simulated
from qsde.greeks.grid import Grid
from qsde.greeks.grid_controls import Control, controls
from qsde.greeks.methods import Method
from qsde.greeks.sampling import largest_move, replicates
from qsde.greeks.settled import settled
from qsde.payoffs import Payoff
from qsde.pricing.controls import Companion
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.near import NearBarrier, near_barriers
from qsde.pricing.path_set import PathSet
from qsde.pricing.run import Run
from qsde.pricing.simulation import Parts

#: Parts of the paths that may be simulated side by side, and parameter sets and spots times parts at most.
_FOLDS, _CELLS = (32, 16, 8, 4, 2, 1), 128


def prices(grid: Grid, book: list[Payoff], engine: MonteCarlo) -> tuple[Tensor, Tensor]:
    """Prices and standard errors [payoffs, S, V] from all paths at once, as `qsde.pricing.montecarlo.price`."""
    with torch.no_grad():
        own = [settled(payoff) for payoff in book]
        point = grid.point(grid.row(grid.vols), grid.spot())
        likes: list[Control | None] = controls(grid, book, grid.spots) if engine.control_variate else [None] * len(book)
        pairs: list[Companion] = [None if like is None else (like.payoff, like.exact) for like in likes]
        run = Run.of(point.model, own, point.market, _lean(engine, grid), companions=pairs)
        results = run.results(lambda done, total: None)
    return torch.stack([r.value for r in results]), torch.stack([r.std_error for r in results])


def sampled(
    grid: Grid, book: list[Payoff], methods: list[Method], engine: MonteCarlo, which: tuple[str, ...]
) -> tuple[Tensor, int]:
    """Raw values [parts, payoffs, which, S, V] from independent parts of the paths, and the number of paths."""
    one, parts = replicates(grid.inputs.model, engine)
    offsets = [offset for part in parts for offset in part.offsets]
    folds = next(
        n for n in _FOLDS if (len(offsets) % n == 0 and n * len(grid.spots) * len(grid.vols) <= _CELLS) or n == 1
    )
    groups = [Parts(tuple(o), parts[0].stride, folded=True) for o in torch.tensor(offsets).reshape(-1, folds).tolist()]
    cells = _Cells(grid, book, methods, _lean(one, grid), which, folds)
    return torch.cat([cells.of(group).movedim(-1, 0) for group in groups]), one.n_paths * len(offsets)


def _lean(engine: MonteCarlo, grid: Grid) -> MonteCarlo:
    """Blocks that leave room for the prices at all spots, which blocks do not know of."""
    return replace(engine, memory_budget=max(1 << 20, engine.memory_budget // len(grid.spots)))


class _Cells:
    """The cells of payoffs over parts of the paths."""

    def __init__(
        self,
        grid: Grid,
        book: list[Payoff],
        methods: list[Method],
        engine: MonteCarlo,
        which: tuple[str, ...],
        folds: int,
    ) -> None:
        self._folds = folds
        self._grid, self._methods, self._engine, self._which = grid, methods, engine, which
        self._book = [settled(payoff) for payoff in book]
        self._plain = book
        self._likes: dict[float, list[Control | None]] = {}
        self._made: dict[float, tuple[Tensor, Simulated]] = {}
        self._near: dict[float, Simulated] = {}
        self._move = largest_move(book, grid.inputs)
        self._steep = [i for i, payoff in enumerate(book) if payoff.steep]
        self._by_values = bool(self._steep) and bool({"delta", "gamma"} & set(which))

    def of(self, part: Parts) -> Tensor:
        """Values [payoffs, which, S, V, folds]."""
        found: dict[str, list[Tensor]] = {}
        spot, base = self._at(0.0)
        found["price"] = self._prices(part)
        if "delta" in self._which:
            found["delta"] = _slopes(base.values(part), spot)
        if "gamma" in self._which:
            found["gamma"] = self._gamma(part)
        if self._by_values:
            self._by_value(part, found)
        if "vega" in self._which:
            found["vega"] = list(self._vega(part))
        return torch.stack([torch.stack(found[name]) for name in self._which], 1)

    def _prices(self, part: Parts) -> list[Tensor]:
        """As they are, also where Greeks come from likelihood ratios, which are noisier."""
        base = self._at(0.0)[1]
        found = [v.detach() for v in base.values(part)]
        jumping = [i for i, method in enumerate(self._methods) if method == "likelihood"]
        if jumping:
            with torch.no_grad():
                book: list[Payoff] = [self._book[i] for i in jumping]
                plain = Simulated(base.point, book, ["pathwise"] * len(book), self._engine, paths=base.paths)
                for i, value in zip(jumping, plain.values(part), strict=True):
                    found[i] = value
        return found

    def _gamma(self, part: Parts) -> list[Tensor]:
        spot, base = self._at(0.0)
        deltas = base.deltas(part)
        found = _slopes([deltas[i][0] if i in deltas else v for i, v in enumerate(base.values(part))], spot)
        rough = [i for i in range(len(found)) if i not in deltas]
        if not rough:
            return found
        here = [found[i] for i in rough]  # deltas, where there is nothing else to differentiate
        total = [torch.zeros_like(delta) for delta in here]
        width = torch.zeros(len(here), *spot.shape[:-1], dtype=torch.float64)
        for move in (self._move, -self._move):
            leaf, estimator = self._at(move)
            sides = self._same_state(move)
            same, values = [sides[i] for i in rough], estimator.values(part)
            there = _slopes([values[i] for i in rough], leaf)
            total = [t + (d - h) / move * s for t, d, h, s in zip(total, there, here, same, strict=True)]
            width = width + torch.stack(same)
        size = self._grid.levels.reshape(-1, 1, 1)
        for i, t, w in zip(rough, total, width, strict=True):
            found[i] = t / (size * w.clamp(min=1))
        return found

    def _by_value(self, part: Parts, found: dict[str, list[Tensor]]) -> None:
        """Delta and gamma from values at moved spots, which suit steep payoffs better, unless a move knocks them."""
        with torch.no_grad():
            up, here, down = (self._near_at(move).values(part) for move in (self._move, 0.0, -self._move))
        above, below = self._same_state(self._move), self._same_state(-self._move)
        size = self._move * self._grid.levels.reshape(-1, 1, 1)
        for row, i in enumerate(self._steep):
            values = {
                "delta": (up[row] - down[row]) / (2 * size),
                "gamma": (up[row] + down[row] - 2 * here[row]) / size**2,
            }
            for name in values.keys() & found.keys():
                found[name][i] = torch.where(above[i] * below[i] > 0, values[name], found[name][i])

    def _same_state(self, move: float) -> list[Tensor]:
        """1 where a move leaves the contract as it is, 0 where it is knocked by it, [S, 1, 1] for each payoff.

        A difference would count the barrier itself; the other side alone then serves.
        """
        levels = self._grid.levels * (1 + move)
        pairs = [(self._grid.settled_before(p), self._grid.settled_before(p, levels)) for p in self._plain]
        return [(before == after).double().reshape(-1, 1, 1) for before, after in pairs]

    def _vega(self, part: Parts) -> Tensor:
        """In forward mode: one pass for all cells, where reverse mode would take one for each spot."""
        grid = self._grid
        zero = torch.zeros((), dtype=torch.float64)

        def value(shift: Tensor) -> Tensor:
            spot = grid.spot(0.0, self._folds)
            made = self._estimator(grid.row(grid.vols + shift, self._folds), spot, 0.0, shift)
            return torch.stack(made.values(part))

        with torch.no_grad():
            slope: Tensor = torch.func.jvp(value, (zero,), (torch.ones_like(zero),))[1]
        return slope

    def _at(self, move: float) -> tuple[Tensor, Simulated]:
        """The spots [S, V, folds, 1] that require grad, and the estimator made of them; all on the same paths."""
        if move not in self._made:
            spot = self._grid.spot(move, self._folds).requires_grad_(bool({"delta", "gamma"} & set(self._which)))
            paths = self._made[0.0][1].paths if self._made else None
            zero = torch.zeros((), dtype=torch.float64)
            row = self._grid.row(self._grid.vols, self._folds)
            self._made[move] = spot, self._estimator(row, spot, move, zero, paths)
        return self._made[move]

    def _near_at(self, move: float) -> Simulated:
        """Steep payoffs at moved spots on the same paths, looked at near the barriers of the spots themselves."""
        if move not in self._near:
            here, grid = self._at(0.0)[1], self._grid
            spot, params = grid.spot(move, self._folds), grid.row(grid.vols, self._folds)
            pairs = self._pairs(spot, move, torch.zeros((), dtype=torch.float64))
            book, methods = [self._book[i] for i in self._steep], [self._methods[i] for i in self._steep]
            point = grid.point(params, spot, pairs)
            self._near[move] = Simulated(point, book, methods, self._engine, paths=here.paths, near=self._barriers)
        return self._near[move]

    @cached_property
    def _barriers(self) -> dict[int, NearBarrier]:
        """How steep payoffs are looked at near their barriers."""
        here = self._at(0.0)[1]
        return near_barriers(here.paths.simulation, here.point.market, [self._plain[i] for i in self._steep])

    def _estimator(
        self, params: Mapping[str, Tensor], spot: Tensor, move: float, shift: Tensor, paths: PathSet | None = None
    ) -> Simulated:
        point = self._grid.point(params, spot, self._pairs(spot, move, shift))
        second, sampled = "gamma" in self._which, self._by_values
        return Simulated(point, self._book, self._methods, self._engine, second=second, paths=paths, sampled=sampled)

    def _pairs(self, spot: Tensor, move: float, shift: Tensor) -> list[tuple[Payoff, Companion]]:
        """Control variates of the payoffs at moved spots."""
        pairs: list[tuple[Payoff, Companion]] = []
        if self._engine.control_variate:
            if move not in self._likes:
                self._likes[move] = controls(self._grid, self._plain, (1 + self._grid.spots) * (1 + move) - 1)
            for payoff, like in zip(self._book, self._likes[move], strict=True):
                if like is not None:
                    exact, by_spot, by_vol = (x.unsqueeze(-1) for x in (like.exact, like.by_spot, like.by_vol))
                    linear = exact + by_spot * (spot - spot.detach()).squeeze(-1) + by_vol * shift
                    pairs.append((payoff, (like.payoff, linear)))
        return pairs


def _slopes(values: list[Tensor], spot: Tensor) -> list[Tensor]:
    """Derivative of each cell to its spot, [S, V, folds]."""
    found = []
    for value in values:
        if not value.requires_grad:
            found.append(torch.zeros_like(spot).squeeze(-1))
            continue
        (slope,) = torch.autograd.grad(value.sum(), spot, retain_graph=True, allow_unused=True)
        found.append((torch.zeros_like(spot) if slope is None else slope).squeeze(-1))
    return found
