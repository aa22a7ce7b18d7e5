"""From parts of the paths to raw Greeks, with as few sweeps as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from qsde.greeks.estimators import Estimator, Grads
from qsde.greeks.extra_jump import ExtraJump
from qsde.greeks.inputs import Inputs
from qsde.pricing.simulation import Parts

#: Second derivatives that are derivatives of a delta.
SECOND = ("gamma", "vanna", "charm")
#: Share of the spot between values whose difference is taken, less if that would cross a barrier.
SPOT_MOVE = 0.01

#: Greeks of one column, by name.
Row = dict[str, Tensor]


@dataclass(frozen=True)
class Tilted:
    """Estimators of some payoffs with the vols of an underlying moved up and down."""

    label: str
    rows: list[int]
    move: float
    ends: tuple[Estimator, Estimator]


@dataclass(frozen=True)
class Sampler:
    """From parts of the paths to raw Greeks of each column, a sum of payoffs, with as few sweeps as columns.

    Attributes:
        inputs: what the payoffs depend on.
        base: values and deltas of the payoffs.
        columns: the payoffs of each column.
        needs: names of the Greeks wanted.
        jumps: the extra jump of each jump law, by the name of its intensity.
        tilted: the payoffs at moved vols, for volga.
        steep: payoffs whose pathwise deltas have heavy tails, where a path comes near a barrier with little variance
            left: differences of values serve better.
        spot_move: share of the spot between those.
    """

    inputs: Inputs
    base: Estimator
    columns: list[list[int]]
    needs: set[str]
    jumps: dict[str, ExtraJump]
    tilted: Sequence[Tilted] = ()
    steep: frozenset[int] = frozenset()
    spot_move: float = SPOT_MOVE

    def __call__(self, parts: Parts) -> list[Row]:
        """Raw Greeks of each column."""
        found = self._first(parts)
        if self._wants(*SECOND):
            self._add_second(found, parts)
        if self.steep and self.needs & {"delta", "gamma"}:
            self._add_by_value(found, parts)
        self._add_intensities(found, parts)
        self._add_lost_jumps(found, parts)
        for tilted in self.tilted:
            self._add_volga(found, parts, tilted)
        return found

    def _wants(self, *names: str) -> bool:
        return any(name.startswith(names) for name in self.needs)

    def _first(self, parts: Parts) -> list[Row]:
        """Values and their derivatives: one backward sweep for each column."""
        inputs, values = self.inputs, self.base.values(parts)
        found = []
        for column in self.columns:
            value = _total(values, column)
            g = self.base.gradient(value)
            row = {"price": value.detach()}
            row |= {f"delta{a}": g[f"spot{a}"] for a in inputs.labels}
            row |= {name: g[leaf] for name, leaf in (("rho", "rate"), ("theta", "elapsed")) if leaf in g}
            row |= {f"dividend_rho{a}": g[f"dividend_yield{a}"] for a in inputs.labels if f"dividend_yield{a}" in g}
            if self._wants("vega"):
                row |= {f"vega{a}": inputs.along(g, a) for a in inputs.directions}
            row |= {f"d_{name}": g[name] for name in inputs.model.params if name in g}
            found.append(row)
        return found

    def _add_second(self, found: list[Row], parts: Parts) -> None:
        """Gamma, vanna and charm: derivatives of deltas where they are smooth, else differences of gradients."""
        deltas = self.base.deltas(parts)
        for row, column in zip(found, self.columns, strict=True):
            smooth = [deltas[i] for i in column if i in deltas]
            rough = self._differing(column)
            slopes: list[list[Grads]] = []
            if smooth:
                slopes.append([self.base.gradient(torch.stack(each).sum(0)) for each in zip(*smooth, strict=True)])
            if rough:
                slopes.append([self._slope(label, rough, parts) for label in self.inputs.labels])
            for each in slopes:
                self._add_slopes(row, each)

    def _add_slopes(self, row: Row, slopes: list[Grads]) -> None:
        """Adds gamma, vanna and charm from the derivatives of the delta to each spot."""
        labels = self.inputs.labels
        for i, a in enumerate(labels):
            for j, b in enumerate(labels[i:], i):  # each pair from both sides: the mean is less noisy
                _add(row, f"gamma{a}{b}", 0.5 * (slopes[i][f"spot{b}"] + slopes[j][f"spot{a}"]))
            for b in self.inputs.directions if self._wants("vanna") else ():
                _add(row, f"vanna{a}{b}", self.inputs.along(slopes[i], b))
            if self._wants("charm"):
                _add(row, f"charm{a}", slopes[i]["elapsed"])

    def _slope(self, label: str, rows: list[int], parts: Parts) -> Grads:
        """Derivative of the gradient of some payoffs to a spot, from gradients at moved spots."""
        up, down = (end.gradient(self._sum(end.values(parts), rows)) for end in self._moved[label])
        size = 2 * self.spot_move * self.inputs.leaves[f"spot{label}"]
        return {name: (up[name] - down[name]) / size for name in up}

    def _add_by_value(self, found: list[Row], parts: Parts) -> None:
        """Delta and gamma of steep payoffs, from values at moved spots."""
        here: dict[int, Tensor] = {}
        if "gamma" in self.needs:
            with torch.no_grad():
                here = dict(zip(sorted(self.steep), self._middle.values(parts), strict=True))
        with torch.set_grad_enabled(bool(self._differing(self._rows))):  # else nobody differentiates them
            (ends,) = self._moved.values()
            up, down = (end.values(parts) for end in ends)
        size = self.spot_move * self.inputs.leaves["spot"]
        for row, column in zip(found, self.columns, strict=True):
            steep = [i for i in column if i in self.steep]
            if steep:
                above, below = (self._sum(values, steep).detach() for values in (up, down))
                _add(row, "delta", (above - below) / (2 * size))
                if here:
                    _add(row, "gamma", (above + below - 2 * _total(here, steep)) / size**2)

    def _add_intensities(self, found: list[Row], parts: Parts) -> None:
        """What more jumps do, besides the compensator."""
        for name, jump in self.jumps.items():
            if f"d_{name}" in self.needs:
                with torch.no_grad():
                    moves = self.base.changes(parts, jump)
                for row, column in zip(found, self.columns, strict=True):
                    _add(row, f"d_{name}", jump.span * _total(moves, column))

    def _add_lost_jumps(self, found: list[Row], parts: Parts) -> None:
        """Adds to theta and charm what the jumps would have done that no longer come before the first date."""
        for jump in self.jumps.values() if self._wants("theta", "charm") else ():
            lost = jump.until(self.inputs.first)
            with torch.no_grad():
                moves = self.base.changes(parts, lost)
            deltas = self.base.deltas(parts, lost) if self._wants("charm") else {}
            for row, column in zip(found, self.columns, strict=True):
                _add(row, "theta", -jump.intensity * _total(moves, column))
                slopes = [deltas[i] for i in column if i in deltas]
                rough = self._differing(column) if self._wants("charm") else []
                if rough:
                    slopes.append([self._change(label, rough, parts, lost) for label in self.inputs.labels])
                for a, *each in zip(self.inputs.labels, *slopes, strict=True) if slopes else ():
                    _add(row, f"charm{a}", -jump.intensity * torch.stack(each).sum(0))

    def _change(self, label: str, rows: list[int], parts: Parts, jump: ExtraJump) -> Tensor:
        """By how much a jump moves the delta of some payoffs, from values at moved spots."""
        with torch.no_grad():
            up, down = (self._sum(end.changes(parts, jump), rows) for end in self._moved[label])
        return (up - down) / (2 * self.spot_move * self.inputs.leaves[f"spot{label}"])

    def _add_volga(self, found: list[Row], parts: Parts, tilted: Tilted) -> None:
        """Differences of vegas."""
        up, down = tilted.ends
        for row, column in zip(found, self.columns, strict=True):
            rows = [tilted.rows.index(i) for i in column if i in tilted.rows]
            if rows:
                more, less = (
                    self.inputs.along(end.gradient(_total(end.values(parts), rows)), tilted.label) for end in (up, down)
                )
                _add(row, f"volga{tilted.label}", (more - less) / (2 * tilted.move))

    def _differing(self, column: Sequence[int]) -> list[int]:
        """Payoffs of a column whose second derivatives are differences of gradients."""
        if not self._wants(*SECOND):
            return []
        mixed = self._wants("vanna", "charm")
        return [i for i in column if not self.base.has_deltas(i) and (mixed or i not in self.steep)]

    @cached_property
    def _rows(self) -> list[int]:
        """Payoffs that are priced at moved spots."""
        return sorted({*self._differing([i for column in self.columns for i in column]), *self.steep})

    @cached_property
    def _moved(self) -> dict[str, tuple[Estimator, Estimator]]:
        """The payoffs of `_rows` at spots moved up and down, by the label of the spot."""
        inputs, move = self.inputs, self.spot_move
        return {
            a: (self.base.beside(inputs, move, a, self._rows), self.base.beside(inputs, -move, a, self._rows))
            for a in inputs.labels
        }

    @cached_property
    def _middle(self) -> Estimator:
        """Steep payoffs at the spot itself, looked at where those at moved spots are."""
        return self.base.beside(self.inputs, 0.0, self.inputs.labels[0], sorted(self.steep))

    def _sum(self, values: list[Tensor], rows: Sequence[int]) -> Tensor:
        """Sum over some payoffs of values at moved spots."""
        return _total(values, [self._rows.index(i) for i in rows])


def _total(values: Sequence[Tensor] | dict[int, Tensor], rows: Sequence[int]) -> Tensor:
    """The sum of some of the values."""
    return torch.stack([values[i] for i in rows]).sum(0)


def _add(row: Row, name: str, value: Tensor) -> None:
    """Adds to a Greek of a row, which begins at 0."""
    row[name] = row[name] + value if name in row else value
