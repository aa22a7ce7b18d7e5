"""A ladder of spots times a ladder of implied vols as one batch: prices and first and second derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.greeks.estimators import Simulated
from qsde.greeks.exact import worth
from qsde.greeks.inputs import Inputs, Point, moved_market
from qsde.greeks.methods import Method
from qsde.greeks.sampling import largest_move, replicates
from qsde.market.underlying import Market
from qsde.payoffs import AtExpiry, Claim, European, Flows, Paths, Payoff, Terminal
from qsde.payoffs.base import Staged
from qsde.pricing.controls import Companion, companion
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import Fourier
from qsde.pricing.near import NearBarrier, near_barriers
from qsde.pricing.path_set import PathSet
from qsde.pricing.run import Run
from qsde.pricing.simulation import Parts

#: What cells of a grid may be asked for.
CELLS = ("price", "delta", "gamma", "vega")
#: Parts of the paths that may be simulated side by side, and parameter sets and spots times parts at most.
_FOLDS, _CELLS = (32, 16, 8, 4, 2, 1), 128


@dataclass(frozen=True)
class Settled(Payoff):
    """A payoff at whatever spot: beyond a barrier it is worth what is left of it, which its flows say."""

    payoff: Payoff

    @property
    def times(self) -> tuple[float, ...]:
        """Those of the payoff."""
        return self.payoff.times

    @property
    def window(self) -> tuple[float, float] | None:
        """That of the payoff."""
        return self.payoff.window

    @property
    def maturity(self) -> float:
        """That of the payoff."""
        return self.payoff.maturity

    @property
    def name(self) -> str:
        """That of the payoff."""
        return self.payoff.name

    @property
    def continuous(self) -> bool:  # type: ignore[override]
        """As the payoff."""
        return self.payoff.continuous

    def flows(self, paths: Paths) -> Flows:
        """Those of the payoff."""
        return self.payoff.flows(paths)

    def stages(self) -> Staged | None:
        """Those of the payoff."""
        return self.payoff.stages()


def settled(payoff: Payoff) -> Payoff:
    """The payoff without its refusal of spots, where it has one."""
    return payoff if type(payoff).check_spot is Claim.check_spot else Settled(payoff)


@dataclass(frozen=True)
class _Cells(Point):
    """Model and market of all cells, and the control variates that were found for them."""

    likes: Sequence[tuple[Payoff, Companion]] = ()

    def companion(self, payoff: Payoff) -> Companion:
        """That of the payoff, if there is one."""
        return next((like for known, like in self.likes if known is payoff), None)


@dataclass(frozen=True)
class _Like:
    """A control variate of one payoff in all cells: its exact prices [S, V], and their slopes in spot and vol."""

    payoff: Terminal
    exact: Tensor
    by_spot: Tensor
    by_vol: Tensor


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
        return torch.tensor([_refuses(payoff, spot) for spot in (self.levels if levels is None else levels)])

    def exact(self, payoff: AtExpiry, engine: Fourier, which: tuple[str, ...]) -> dict[str, Tensor]:
        """Raw values of the cells [S, V] by Fourier integrals, all in one batch."""
        shape = (len(self.spots), len(self.vols))
        cells = self.levels.unsqueeze(-1).expand(shape).reshape(-1)
        spot = (cells.unsqueeze(-1) if isinstance(payoff, European) else cells).clone().requires_grad_()
        vol = self.vols.expand(shape).reshape(-1).clone().requires_grad_()
        params = {k: v.expand_as(vol) for k, v in self.params(vol).items()}
        point = self._point(params, spot)
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

    def prices(self, book: list[Payoff], engine: MonteCarlo) -> tuple[Tensor, Tensor]:
        """Prices and standard errors [payoffs, S, V] from all paths at once, as `qsde.pricing.montecarlo.price`."""
        with torch.no_grad():
            own = [settled(payoff) for payoff in book]
            point = self._point(self._row(self.vols), self._spot())
            helped = engine.control_variate
            likes: list[_Like | None] = self.companions(book, self.spots) if helped else [None] * len(book)
            pairs: list[Companion] = [None if like is None else (like.payoff, like.exact) for like in likes]
            run = Run.of(point.model, own, point.market, self._lean(engine), companions=pairs)
            results = run.results(lambda done, total: None)
        return torch.stack([r.value for r in results]), torch.stack([r.std_error for r in results])

    def sampled(
        self, book: list[Payoff], methods: list[Method], engine: MonteCarlo, which: tuple[str, ...]
    ) -> tuple[Tensor, int]:
        """Raw values [parts, payoffs, which, S, V] from independent parts of the paths, and the number of paths."""
        one, parts = replicates(self.inputs.model, engine)
        offsets = [offset for part in parts for offset in part.offsets]
        folds = next(
            n for n in _FOLDS if (len(offsets) % n == 0 and n * len(self.spots) * len(self.vols) <= _CELLS) or n == 1
        )
        groups = [
            Parts(tuple(o), parts[0].stride, folded=True) for o in torch.tensor(offsets).reshape(-1, folds).tolist()
        ]
        cells = _Simulated(self, book, methods, self._lean(one), which, folds)
        return torch.cat([cells.of(group).movedim(-1, 0) for group in groups]), one.n_paths * len(offsets)

    def companions(self, book: list[Payoff], spots: Tensor) -> list[_Like | None]:
        """A control variate of each payoff, or None."""
        return [self._companion(payoff, spots) for payoff in book]

    def _companion(self, payoff: Payoff, spots: Tensor) -> _Like | None:
        cells = [[self._like(payoff, float(s), float(v)) for v in self.vols] for s in spots]
        flat = [cell for row in cells for cell in row if cell is not None]
        if len(flat) < len(spots) * len(self.vols):
            return None
        numbers = torch.tensor([cell[1] for cell in flat], dtype=torch.float64)
        return _Like(flat[0][0], *numbers.unflatten(0, (len(spots), -1)).unbind(-1))

    def _like(self, payoff: Payoff, spot: float, vol: float) -> tuple[Terminal, tuple[float, float, float]] | None:
        point = self.inputs.at(spot=spot, vol=vol)
        assert isinstance(point.market, Market)
        slopes = self.inputs.directions.get("", {})
        with torch.enable_grad():
            found = companion(point.model, point.market, payoff)
            if found is None:
                return None
            moving = [point.leaves[name] for name in ("spot", *slopes)]
            gradient = torch.autograd.grad(found[1], moving, allow_unused=True)
        by_spot, *rest = (0.0 if g is None else float(g) for g in gradient)
        by_vol = sum(g * float(move) for g, move in zip(rest, slopes.values(), strict=True))
        return found[0], (float(found[1].detach()), by_spot, by_vol)

    def _lean(self, engine: MonteCarlo) -> MonteCarlo:
        """Blocks that leave room for the prices at all spots, which blocks do not know of."""
        return replace(engine, memory_budget=max(1 << 20, engine.memory_budget // len(self.spots)))

    def _row(self, vols: Tensor, folds: int = 0) -> dict[str, Tensor]:
        """Parameters [1, V], or [1, V, folds]: all spots share their paths."""
        row = {k: v.expand_as(vols).unsqueeze(0) for k, v in self.params(vols).items()}
        return {k: v.unsqueeze(-1).expand(1, -1, folds) for k, v in row.items()} if folds else row

    def _spot(self, move: float = 0.0, folds: int = 0) -> Tensor:
        """Spots [S, V, 1], or [S, V, folds, 1], moved by another share."""
        levels = self.levels * (1 + move)
        axes = (len(self.vols), folds, 1) if folds else (len(self.vols), 1)
        return levels.reshape(-1, *(1,) * len(axes)).expand(-1, *axes).clone()

    def _point(
        self, params: Mapping[str, Tensor], spot: Tensor, likes: Sequence[tuple[Payoff, Companion]] = ()
    ) -> _Cells:
        # simulations want the axes of the spot on everything of the market, Fourier integrals on the spot alone
        zero = torch.zeros(spot.shape if spot.dim() > 2 else (), dtype=torch.float64)
        leaves = {"spot": spot, "rate": zero, "dividend_yield": zero}
        model = self.inputs.model.with_params(params)
        return _Cells(model, moved_market(self.market, leaves), leaves, ("",), likes=likes)


class _Simulated:
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
        self._likes: dict[float, list[_Like | None]] = {}
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
            spot = grid._spot(0.0, self._folds)
            made = self._estimator(grid._row(grid.vols + shift, self._folds), spot, 0.0, shift)
            return torch.stack(made.values(part))

        with torch.no_grad():
            slope: Tensor = torch.func.jvp(value, (zero,), (torch.ones_like(zero),))[1]
        return slope

    def _at(self, move: float) -> tuple[Tensor, Simulated]:
        """The spots [S, V, folds, 1] that require grad, and the estimator made of them; all on the same paths."""
        if move not in self._made:
            spot = self._grid._spot(move, self._folds).requires_grad_(bool({"delta", "gamma"} & set(self._which)))
            paths = self._made[0.0][1].paths if self._made else None
            zero = torch.zeros((), dtype=torch.float64)
            row = self._grid._row(self._grid.vols, self._folds)
            self._made[move] = spot, self._estimator(row, spot, move, zero, paths)
        return self._made[move]

    def _near_at(self, move: float) -> Simulated:
        """Steep payoffs at moved spots on the same paths, looked at near the barriers of the spots themselves."""
        if move not in self._near:
            here, grid = self._at(0.0)[1], self._grid
            spot, params = grid._spot(move, self._folds), grid._row(grid.vols, self._folds)
            pairs = self._pairs(spot, move, torch.zeros((), dtype=torch.float64))
            book, methods = [self._book[i] for i in self._steep], [self._methods[i] for i in self._steep]
            point = grid._point(params, spot, pairs)
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
        point = self._grid._point(params, spot, self._pairs(spot, move, shift))
        second, sampled = "gamma" in self._which, self._by_values
        return Simulated(point, self._book, self._methods, self._engine, second=second, paths=paths, sampled=sampled)

    def _pairs(self, spot: Tensor, move: float, shift: Tensor) -> list[tuple[Payoff, Companion]]:
        """Control variates of the payoffs at moved spots."""
        pairs: list[tuple[Payoff, Companion]] = []
        if self._engine.control_variate:
            if move not in self._likes:
                self._likes[move] = self._grid.companions(self._plain, (1 + self._grid.spots) * (1 + move) - 1)
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


def _refuses(payoff: Claim, spot: Tensor) -> bool:
    try:
        payoff.check_spot(spot)
    except InputError:
        return True
    return False
