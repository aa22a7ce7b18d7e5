"""Values of a book and their derivatives at one point, over any part of the paths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from qsde.greeks.gaussian import GaussianRun
from qsde.greeks.inputs import Inputs, Point
from qsde.greeks.likelihood import Change, LikelihoodRun
from qsde.greeks.methods import Method, has_ratios, likelihood_for
from qsde.payoffs import AtExpiry, Payoff
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.near import NearBarrier, near_barriers
from qsde.pricing.path_set import PathSet
from qsde.pricing.run import Run, simulated
from qsde.pricing.simulation import Parts

#: Move of the vols for volga, in absolute terms.
VOL_MOVE = 0.01

Grads = dict[str, Tensor]


class Estimator(ABC):
    """Values and deltas of some payoffs at one point, over any part of the paths.

    Args:
        point: where.
    """

    def __init__(self, point: Point) -> None:
        self.point = point
        self._last: tuple[tuple[Parts, bool], list[Tensor]] | None = None

    @abstractmethod
    def _values(self, parts: Parts) -> list[Tensor]:
        """Present value of each payoff, differentiable to the leaves."""

    @abstractmethod
    def changes(self, parts: Parts, change: Change) -> list[Tensor]:
        """By how much the value of each payoff moves if the paths are changed."""

    @abstractmethod
    def has_deltas(self, i: int) -> bool:
        """Whether there is a differentiable delta of this payoff; else only differences give second derivatives."""

    @abstractmethod
    def deltas(self, parts: Parts, change: Change | None = None) -> dict[int, list[Tensor]]:
        """Deltas to each spot, differentiable, of the payoffs that have them, by their number.

        With a change of the paths, by how much they move.
        """

    @abstractmethod
    def beside(self, inputs: Inputs, spot: float, label: str, rows: Sequence[int]) -> Estimator:
        """Some of the payoffs with a spot moved by a share."""

    def values(self, parts: Parts) -> list[Tensor]:
        """Present values, differentiable to the leaves; kept until other paths are asked for."""
        key = parts, torch.is_grad_enabled()
        if self._last is None or self._last[0] != key:
            self._last = key, self._values(parts)
        return self._last[1]

    def gradient(self, value: Tensor) -> Grads:
        """Derivatives of a value to the leaves that move; 0 where it does not depend on one."""
        leaves = {k: v for k, v in self.point.leaves.items() if v.requires_grad}
        if not value.requires_grad:
            return self._flat({k: torch.zeros_like(v) for k, v in leaves.items()})
        found = torch.autograd.grad(value.sum(), list(leaves.values()), retain_graph=True, allow_unused=True)
        return self._flat(
            {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), found, strict=True)}
        )

    def _flat(self, gradient: Grads) -> Grads:
        """Without the axis that leaves of the market have beside that of the folds."""
        return {k: g.flatten() for k, g in gradient.items()} if self.point.whole is not None else gradient

    def by_spot(self, value: Tensor) -> list[Tensor]:
        """Derivatives of a value to the spots alone, differentiable."""
        spots = [self.point.leaves[f"spot{label}"] for label in self.point.labels]
        found = torch.autograd.grad(value.sum(), spots, create_graph=True)
        return [g.flatten() if self.point.whole is not None else g for g in found]


class Simulated(Estimator):
    """Payoffs of all methods on one set of paths.

    - "conditional": the mean of the worth given everything but the price's own noise, smooth in everything;
    - "pathwise": the worth of each path; second derivatives by likelihood ratios on the pathwise deltas;
    - "likelihood": likelihood ratios for everything.

    Args:
        point: where.
        book: the payoffs.
        methods: the method of each.
        engine: settings.
        second: whether second derivatives will be asked for.
        apart: the point with another leaf as spot, at which steep payoffs are priced, so that the
            derivative to the spot is that of the others alone.
        paths: the paths; None simulates them.
        sampled: keep the mean and the variance of the log-price beside it, whether or not the methods need them.
        near: how payoffs are looked at near their barriers, by their number.
    """

    def __init__(
        self,
        point: Point,
        book: list[Payoff],
        methods: Sequence[Method],
        engine: MonteCarlo,
        second: bool = True,
        apart: Point | None = None,
        paths: PathSet | None = None,
        sampled: bool = False,
        near: Mapping[int, NearBarrier] | None = None,
    ) -> None:
        super().__init__(point)
        self._book, self._methods, self._engine = book, list(methods), engine
        self._ratios = likelihood_for(point.model, engine)
        self._apart, self._barriers = apart, near or {}
        self.paths = self._simulated(second, sampled) if paths is None else paths
        weighted = {i for i, method in enumerate(methods) if method == "likelihood"}
        away = {i for i, payoff in enumerate(book) if payoff.steep and apart is not None} - weighted
        rest = [i for i in range(len(book)) if i not in weighted | away]
        self._runs: list[tuple[list[int], Run | LikelihoodRun | GaussianRun]] = []
        if rest:
            self._runs.append((rest, self._run(rest, point)))
        if apart is not None and away:
            self._runs.append((sorted(away), self._run(sorted(away), apart)))
        if weighted:
            self._runs.append((sorted(weighted), self._ratio_run(sorted(weighted))))

    def _simulated(self, second: bool, sampled: bool) -> PathSet:
        """Paths with as much beside the log-prices as the methods need."""
        means = all(
            m == "conditional" and isinstance(p, AtExpiry) for m, p in zip(self._methods, self._book, strict=True)
        )
        ratios = second and self._ratios is LikelihoodRun and any(map(self._dated, range(len(self._book))))
        weighted = "likelihood" in self._methods and self._ratios is not GaussianRun
        sampled = sampled or ratios or weighted or "conditional" in self._methods
        return PathSet(
            simulated(
                self.point.model,
                self._book,
                self.point.market,
                self._engine,
                averaged=means,
                sampled=sampled and not means,
            )
        )

    def _run(self, rows: list[int], point: Point) -> Run:
        book, averaged = [self._book[i] for i in rows], [self._methods[i] == "conditional" for i in rows]
        companions = [
            point.companion(payoff) if self._engine.control_variate and not mean else None
            for payoff, mean in zip(book, averaged, strict=True)
        ]
        near = {row: self._barriers[i] for row, i in enumerate(rows) if i in self._barriers}
        return Run.on(self.paths, book, point.market, averaged, companions, near)

    def _ratio_run(self, rows: list[int]) -> LikelihoodRun | GaussianRun:
        ratios = self._ratios or LikelihoodRun  # which says what is missing
        return ratios.on(self.paths, [self._book[i] for i in rows], self.point.market)

    def _dated(self, i: int) -> bool:
        """Whether a pathwise delta has likelihood ratios."""
        return self._methods[i] == "pathwise" and has_ratios(self._book[i], self.point.model, self._engine)

    def _values(self, parts: Parts) -> list[Tensor]:
        return self._in_order([(rows, run.worths(parts)) for rows, run in self._runs])

    def changes(self, parts: Parts, change: Change) -> list[Tensor]:
        """By how much the value of each payoff moves if the paths are changed."""
        return self._in_order([(rows, run.changed(parts, change)) for rows, run in self._runs])

    def has_deltas(self, i: int) -> bool:
        """Whether there is a differentiable delta of this payoff; else only differences give second derivatives."""
        return self._methods[i] != "pathwise" or self._dated(i)

    def deltas(self, parts: Parts, change: Change | None = None) -> dict[int, list[Tensor]]:
        """Deltas to each spot, differentiable, of the payoffs that have them, by their number; or their moves."""
        values = self.values(parts) if change is None else self.changes(parts, change)
        found = {i: self.by_spot(values[i]) for i, method in enumerate(self._methods) if method != "pathwise"}
        dated = [i for i in range(len(self._book)) if self._dated(i)]
        return found | dict(zip(dated, self._ratio_run(dated).deltas(parts, change), strict=True)) if dated else found

    def beside(self, inputs: Inputs, spot: float, label: str, rows: Sequence[int]) -> Simulated:
        """Some of the payoffs on the same paths, with a spot moved by a share; near the barriers of this one."""
        point = inputs.beside(self.point, spot, label)
        apart = None if self._apart is None else inputs.beside(point, 0.0, label)
        book, methods = [self._book[i] for i in rows], [self._methods[i] for i in rows]
        near = {row: self._near[i] for row, i in enumerate(rows) if i in self._near}
        return Simulated(point, book, methods, self._engine, apart=apart, paths=self.paths, near=near)

    @cached_property
    def _near(self) -> dict[int, NearBarrier]:
        """How payoffs are looked at near their barriers at this spot, by their number."""
        return near_barriers(self.paths.simulation, self.point.market, self._book)

    def _in_order(self, found: list[tuple[list[int], list[Tensor]]]) -> list[Tensor]:
        by_row = {i: value.cpu() for rows, values in found for i, value in zip(rows, values, strict=True)}
        return [by_row[i] for i in range(len(self._book))]
