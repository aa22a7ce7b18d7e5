"""How a payoff's Greeks are estimated, and which method suits it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.greeks.extra_jump import extra_jumps
from qsde.greeks.gaussian import GaussianRun, jointly_gaussian
from qsde.greeks.inputs import Inputs, Point
from qsde.greeks.likelihood import Change, LikelihoodRun
from qsde.models.base import Model
from qsde.models.sde import SDE
from qsde.noise import Noise, Sobol
from qsde.payoffs import AtExpiry, Payoff
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.run import Run
from qsde.pricing.simulation import Parts
from qsde.schemes import scheme_for
from qsde.schemes.layers import layers

Method = Literal["auto", "conditional", "pathwise", "likelihood"]

#: Independent parts into which the paths are cut, for standard errors.
REPLICATES = 32
#: Moves of a difference: a share of the spot (less if that would cross a barrier); vol, for volga, in absolute terms.
SPOT_MOVE, VOL_MOVE = 0.01, 0.01
#: One calendar day, for theta and charm.
DAY = 1 / 365

Grads = dict[str, Tensor]


def method_for(payoff: Payoff, model: Model, engine: MonteCarlo) -> Method:
    """The method for one payoff.

    - "conditional": it looks at the price at expiry only, and the scheme can leave the price's own noise out: the mean
      over that noise is a closed form, smooth in everything.
    - "pathwise": it is continuous in the path.
    - "likelihood": it jumps.

    Raises:
        InputError: none of them is right.

    Example:
        >>> from qsde.models import BlackScholes, Heston
        >>> from qsde.payoffs import Digital
        >>> [method_for(Digital(100.0, 1.0), m, MonteCarlo()) for m in (Heston.typical(), BlackScholes(0.2))]
        ['conditional', 'likelihood']
    """
    conditional = (engine.scheme or scheme_for(model)).conditional()
    if isinstance(payoff, AtExpiry) and conditional is not None and any(conditional.draws(model, engine.max_dt)):
        return "conditional"
    if payoff.continuous:
        return "pathwise"
    if payoff.window is None and likelihood_for(model, engine) is not None:
        return "likelihood"
    raise InputError(
        f"{payoff.name} jumps and {model.name} offers no way around it with this scheme: neither conditioning nor "
        "likelihood ratios; bump and reprice with the same noise, or use the model's default scheme"
    )


def check_method(payoff: Payoff, model: Model, engine: MonteCarlo, method: Method) -> Method:
    """The method asked for, if it is right for the payoff.

    Raises:
        InputError: it would be wrong; the message names the one to use.
    """
    best = method_for(payoff, model, engine)
    if method in ("auto", best):
        return best
    if method == "pathwise" and not payoff.continuous:
        raise InputError(f"{payoff.name} jumps, so its pathwise Greeks would be wrong; use method='{best}'")
    if method == "conditional":
        raise InputError(f"{payoff.name} under {model.name} has no conditional mean in closed form; use '{best}'")
    return method


def likelihood_for(model: Model, engine: MonteCarlo) -> type[LikelihoodRun] | type[GaussianRun] | None:
    """The likelihood ratios there are: of normal log-prices jointly, or given the rest of one underlying's path."""
    if jointly_gaussian(model, engine):
        return GaussianRun
    return None if (engine.scheme or scheme_for(model)).conditional() is None else LikelihoodRun


def described(payoff: Payoff, model: Model, engine: MonteCarlo, method: Method) -> str:
    """The method in words; second derivatives of "pathwise" are by likelihood ratios unless it says otherwise.

    Payoffs watched continuously have delta and gamma from values at moved spots.

    Example:
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import Barrier
        >>> described(Barrier(100.0, 80.0, 1.0, "down-and-out"), BlackScholes(0.2), MonteCarlo(), "pathwise")
        'pathwise (spot and second derivatives: differences)'
    """
    if method != "pathwise":
        return method
    if payoff.window is not None:
        return "pathwise (spot and second derivatives: differences)"
    return method if likelihood_for(model, engine) is not None else "pathwise (second derivatives: differences)"


class Estimator(ABC):
    """Values and deltas of some payoffs at one point, over any part of the paths.

    Args:
        point: where.
        total: whether the payoffs count as one, their sum.

    Attributes:
        vol_move: move of the vols for volga.
    """

    vol_move: float = VOL_MOVE

    def __init__(self, point: Point, total: bool) -> None:
        self.point = point
        self._total = total
        self._last: tuple[Parts, list[Tensor]] | None = None

    @abstractmethod
    def _values(self, parts: Parts) -> list[Tensor]:
        """Present value of each payoff, differentiable to the leaves."""

    @abstractmethod
    def _changes(self, parts: Parts, change: Change) -> list[Tensor]:
        """By how much the value of each payoff moves if the paths are changed."""

    @abstractmethod
    def _deltas(self, parts: Parts) -> list[list[Tensor]] | None:
        """Deltas of each payoff to each spot, differentiable; None if only differences give second derivatives."""

    def values(self, parts: Parts) -> list[Tensor]:
        """Present values, differentiable to the leaves; kept until other paths are asked for."""
        if self._last is None or self._last[0] != parts:
            self._last = parts, self._summed(self._values(parts))
        return self._last[1]

    def changes(self, parts: Parts, change: Change) -> list[Tensor]:
        """By how much the values move if the paths are changed."""
        return self._summed(self._changes(parts, change))

    def deltas(self, parts: Parts) -> list[list[Tensor]] | None:
        """Deltas to each spot, differentiable to the leaves; None if only differences give second derivatives."""
        found = self._deltas(parts)
        if found is None or not self._total:
            return found
        return [[torch.stack(column).sum(0) for column in zip(*found, strict=True)]]

    def first(self, parts: Parts) -> tuple[list[Tensor], list[Grads]]:
        """Present values and their derivatives to all leaves."""
        values = self.values(parts)
        return [v.detach() for v in values], [self.gradient(v) for v in values]

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

    def _summed(self, values: list[Tensor]) -> list[Tensor]:
        return [torch.stack(values).sum(0)] if self._total else values

    def _by_spot(self, values: list[Tensor]) -> list[list[Tensor]]:
        spots = [self.point.leaves[f"spot{label}"] for label in self.point.labels]
        found = [torch.autograd.grad(v.sum(), spots, create_graph=True) for v in values]
        folded = self.point.whole is not None
        return [[g.flatten() if folded else g for g in row] for row in found]


class _Conditional(Estimator):
    """The conditional mean of each path's worth, smooth in everything: a small move of the vols serves."""

    vol_move = 0.25 * VOL_MOVE

    def __init__(
        self, point: Point, book: list[Payoff], engine: MonteCarlo, elapsed: float | None, total: bool
    ) -> None:
        super().__init__(point, total)
        self._run = Run.of(point.model, book, point.market, replace(engine, conditional=True), elapsed)

    def _values(self, parts: Parts) -> list[Tensor]:
        return [result.value for result in self._run.replicate(parts)]

    def _changes(self, parts: Parts, change: Change) -> list[Tensor]:
        return self._run.changed(parts, change)

    def _deltas(self, parts: Parts) -> list[list[Tensor]]:
        return self._by_spot(self.values(parts))


class _Pathwise(Estimator):
    """The worth of each path, differentiated path by path; second derivatives by likelihood ratios on the deltas."""

    def __init__(
        self, point: Point, book: list[Payoff], engine: MonteCarlo, elapsed: float | None, total: bool
    ) -> None:
        super().__init__(point, total)
        helped = elapsed is None and engine.control_variate
        companions = [point.companion(payoff) if helped else None for payoff in book]
        plain = replace(engine, conditional=False)
        self._run = Run.of(point.model, book, point.market, plain, elapsed, companions)
        ratios = likelihood_for(point.model, engine) if all(payoff.window is None for payoff in book) else None
        self._second = None if ratios is None else ratios.of(point.model, book, point.market, engine, elapsed or 0.0)

    def _values(self, parts: Parts) -> list[Tensor]:
        return [result.value for result in self._run.replicate(parts)]

    def _changes(self, parts: Parts, change: Change) -> list[Tensor]:
        return self._run.changed(parts, change)

    def _deltas(self, parts: Parts) -> list[list[Tensor]] | None:
        return None if self._second is None else self._second.deltas(parts)


class _Likelihood(Estimator):
    """Likelihood ratios for everything."""

    def __init__(
        self, point: Point, book: list[Payoff], engine: MonteCarlo, elapsed: float | None, total: bool
    ) -> None:
        super().__init__(point, total)
        ratios = likelihood_for(point.model, engine) or LikelihoodRun  # which says what is missing
        self._run = ratios.of(point.model, book, point.market, engine, elapsed or 0.0)

    def _values(self, parts: Parts) -> list[Tensor]:
        return self._run.worths(parts)

    def _changes(self, parts: Parts, change: Change) -> list[Tensor]:
        return [a - b for a, b in zip(self._run.worths(parts, change), self._run.worths(parts), strict=True)]

    def _deltas(self, parts: Parts) -> list[list[Tensor]]:
        return self._by_spot(self.values(parts))


#: `make(point, book, engine, elapsed, total)`
MAKE: dict[Method, Callable[[Point, list[Payoff], MonteCarlo, float | None, bool], Estimator]] = {
    "conditional": _Conditional,
    "pathwise": _Pathwise,
    "likelihood": _Likelihood,
}


def replicates(model: Model, engine: MonteCarlo) -> tuple[MonteCarlo, list[Parts]]:
    """The engine of one part of the paths, and the parts: neighbours, or the paths of one scramble.

    Where the model takes batch axes all parts are simulated side by side, else one after the other.
    """
    if isinstance(engine.noise, Sobol):
        n = stride = engine.noise.scrambles
        each, step = max(2, engine.n_paths // n), 1
    else:
        each = step = max(2, 2 * (engine.n_paths // (2 * REPLICATES)))  # even: antithetic pairs stay together
        n, stride = REPLICATES, 1
    offsets = tuple(i * step for i in range(n))
    one = replace(engine, n_paths=each)
    if isinstance(layers(model)[0], SDE):
        return one, [Parts((offset,), stride, folded=False) for offset in offsets]
    return one, [Parts(offsets, stride, folded=True)]


def sampled(
    book: list[Payoff],
    methods: list[Method],
    inputs: Inputs,
    engine: MonteCarlo,
    names: Sequence[str],
    total: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, int]:
    """Raw Greeks from independent parts of the paths, and the number of paths of all parts.

    Args:
        book: the payoffs.
        methods: how each of them is treated.
        inputs: what they depend on.
        engine: settings.
        names: the Greeks, `d_` and a parameter among them.
        total: whether the payoffs count as one, their sum.
        progress: called with (parts done, parts).

    Returns:
        [parts, payoffs (one if `total`), names], and the paths.
    """
    one, parts = replicates(inputs.model, engine)
    folds = len(parts[0].offsets) if parts[0].folded else 0
    kinds = [(method, payoff.window is not None) for method, payoff in zip(methods, book, strict=True)]
    groups = {kind: [i for i, other in enumerate(kinds) if other == kind] for kind in dict.fromkeys(kinds)}
    runs = [
        (rows, _estimate([book[i] for i in rows], inputs, one, kind[0], set(names), total, folds))
        for kind, rows in groups.items()
    ]
    samples = []
    for done, part in enumerate(parts, 1):
        table = torch.zeros(max(1, folds), 1 if total else len(book), len(names), dtype=torch.float64)
        for rows, run in runs:
            for i, row in zip([0] * total or rows, run(part), strict=True):
                table[:, i] += torch.stack([row[name].detach().double().reshape(-1) for name in names], -1)
        samples.append(table)
        if progress is not None:
            progress(done, len(parts))
    return torch.cat(samples), one.n_paths * len(parts) * max(1, folds)


def _estimate(
    book: list[Payoff],
    inputs: Inputs,
    engine: MonteCarlo,
    method: Method,
    needs: set[str],
    total: bool,
    folds: int,
) -> Callable[[Parts], list[dict[str, Tensor]]]:
    """`estimate` of payoffs of one method."""

    def make(point: Point, elapsed: float | None = None) -> Estimator:
        return MAKE[method](point, book, engine, elapsed, total)

    watched = any(payoff.window is not None for payoff in book)
    move = _spot_move(book, inputs) if watched else SPOT_MOVE
    return estimate(make, inputs, needs, max(payoff.maturity for payoff in book), engine.noise, folds, watched, move)


def _spot_move(book: list[Payoff], inputs: Inputs) -> float:
    """The largest share by which the spot may move either way without knocking a payoff in or out.

    Raises:
        InputError: a barrier is closer than 0.01 %.
    """
    spot = inputs.leaves["spot"]
    for move in (SPOT_MOVE, 0.1 * SPOT_MOVE, 0.01 * SPOT_MOVE):
        try:
            for payoff in book:
                payoff.check_spot(spot * (1 + move))
                payoff.check_spot(spot * (1 - move))
            return move
        except InputError as crossed:
            reason = crossed
    raise InputError(f"a barrier is within 0.01 % of the spot, too close for Greeks: {reason}")


def estimate(
    make: Callable[..., Estimator],
    inputs: Inputs,
    needs: set[str],
    maturity: float,
    noise: Noise,
    folds: int = 0,
    watched: bool = False,
    spot_move: float = SPOT_MOVE,
) -> Callable[[Parts], list[dict[str, Tensor]]]:
    """A function from parts of the paths to raw Greeks of each payoff, for one method.

    Args:
        make: the estimator at a point, and after so many years if they are given.
        inputs: what the payoffs depend on.
        needs: names of the Greeks wanted.
        maturity: of the longest payoff.
        noise: the random numbers.
        folds: parts simulated side by side; 0 for one part at a time.
        watched: whether the payoffs are watched continuously: pathwise deltas then have heavy tails, where a path comes
            near a barrier with little variance left, and differences of values serve better.
        spot_move: share of the spot between those.
    """
    labels = inputs.labels
    base = make(inputs.at((), folds))
    # today's price is simulated once more, as tomorrow's is: what they share cancels
    timed = any(name.startswith(("theta", "charm")) for name in needs)
    days = [make(inputs.at((), folds), elapsed) for elapsed in (0.0, DAY)] if timed else []
    tilted = {
        a: [make(inputs.at((), folds, vol=s * base.vol_move, label=a)) for s in (1, -1)]
        for a in labels
        if f"volga{a}" in needs
    }
    moved: dict[str, list[Estimator]] = {}
    extra = extra_jumps(base.point.model, maturity, noise)
    extra = {name: jump for name, jump in extra.items() if f"d_{name}" in needs}

    def run(parts: Parts) -> list[dict[str, Tensor]]:
        values, grads = base.first(parts)
        found = [
            {"price": v, "rho": g["rate"]}
            | {f"delta{a}": g[f"spot{a}"] for a in labels}
            | {f"dividend_rho{a}": g[f"dividend_yield{a}"] for a in labels}
            | {f"vega{a}": inputs.along(g, a) for a in inputs.directions}
            | {f"d_{name}": g[name] for name in inputs.model.params if name in g}
            for v, g in zip(values, grads, strict=True)
        ]
        _add_second(found, parts)
        if watched and needs & {"delta", "gamma"}:
            _by_value(found, parts)
        if days:
            _add_timed(found, parts)
        for name, jump in extra.items():
            with torch.no_grad():
                moved = base.changes(parts, jump)
            for row, move in zip(found, moved, strict=True):
                row[f"d_{name}"] = row[f"d_{name}"] + jump.span * move
        for label, ends in tilted.items():
            up, down = ([inputs.along(g, label) for g in end.first(parts)[1]] for end in ends)
            for row, more, less in zip(found, up, down, strict=True):
                row[f"volga{label}"] = (more - less) / (2 * base.vol_move)
        return found

    def _add_timed(found: list[dict[str, Tensor]], parts: Parts) -> None:
        today, tomorrow = (day.values(parts) for day in days)
        for row, now, later in zip(found, today, tomorrow, strict=True):
            row["theta"] = (later.detach() - now.detach()) / DAY
        if any(name.startswith("charm") for name in needs):
            now_by, later_by = (day.first(parts)[1] for day in days)
            for row, was, becomes in zip(found, now_by, later_by, strict=True):
                row |= {f"charm{a}": (becomes[f"spot{a}"] - was[f"spot{a}"]) / DAY for a in labels}

    def _add_second(found: list[dict[str, Tensor]], parts: Parts) -> None:
        if not any(name.startswith(("gamma", "vanna")) for name in needs):
            return
        deltas = base.deltas(parts)
        slopes = _differences(parts) if deltas is None else [[base.gradient(d) for d in row] for row in deltas]
        for row, each in zip(found, slopes, strict=True):
            for i, a in enumerate(labels):
                for j, b in enumerate(labels[i:], i):  # each pair from both sides: the mean is less noisy
                    row[f"gamma{a}{b}"] = 0.5 * (each[i][f"spot{b}"] + each[j][f"spot{a}"])
                for b in inputs.directions:
                    row[f"vanna{a}{b}"] = inputs.along(each[i], b)

    def _moved(a: str) -> list[Estimator]:
        if a not in moved:
            moved[a] = [make(inputs.at((), folds, spot=s * spot_move, label=a)) for s in (1, -1)]
        return moved[a]

    def _by_value(found: list[dict[str, Tensor]], parts: Parts) -> None:
        """Delta and gamma from the values at moved spots."""
        size = spot_move * inputs.leaves["spot"]
        ups, downs = (end.values(parts) for end in _moved(""))
        for row, up, down in zip(found, ups, downs, strict=True):
            row["delta"] = (up.detach() - down.detach()) / (2 * size)
            row["gamma"] = (up.detach() + down.detach() - 2 * row["price"]) / size**2

    def _differences(parts: Parts) -> list[list[Grads]]:
        """Derivatives of the gradients of each payoff to each spot, from gradients at moved spots."""
        ends = {a: [end.first(parts)[1] for end in _moved(a)] for a in labels}

        def slope(a: str, up: Grads, down: Grads) -> Grads:
            size = 2 * spot_move * inputs.leaves[f"spot{a}"]
            return {name: (up[name] - down[name]) / size for name in up}

        columns = [[slope(a, up, down) for up, down in zip(*ends[a], strict=True)] for a in labels]
        return [list(row) for row in zip(*columns, strict=True)]

    return run
