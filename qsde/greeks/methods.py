"""How a payoff's Greeks are estimated, and which method suits it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.greeks.inputs import Inputs, Point
from qsde.greeks.likelihood import LikelihoodRun
from qsde.models.base import Model
from qsde.models.sde import SDE
from qsde.noise import Sobol
from qsde.payoffs import AtExpiry, Payoff
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.run import Run
from qsde.pricing.simulation import Parts
from qsde.schemes import scheme_for
from qsde.schemes.layers import layers

Method = Literal["auto", "conditional", "pathwise", "likelihood"]

#: Independent parts into which the paths are cut, for standard errors.
REPLICATES = 32
#: Moves of a difference of first-order Greeks: a share of the spot, vol in absolute terms.
SPOT_MOVE, VOL_MOVE = 0.01, 0.01
#: One calendar day, for theta and charm.
DAY = 1 / 365
#: Moves of a jump intensity, for differences: so many jumps up to the last payment, and at most this share of it.
_JUMPS, _SHARE = 0.1, 0.5

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
    if payoff.window is None and conditional is not None:
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


class Estimator(ABC):
    """Values and deltas of some payoffs at one point, over any part of the paths.

    Args:
        point: where.
        total: whether the payoffs count as one, their sum.
    """

    def __init__(self, point: Point, total: bool) -> None:
        self.point = point
        self._total = total
        self._last: tuple[Parts, list[Tensor]] | None = None

    @abstractmethod
    def _values(self, parts: Parts) -> list[Tensor]:
        """Present value of each payoff, differentiable to the leaves."""

    @abstractmethod
    def _deltas(self, parts: Parts) -> list[Tensor] | None:
        """Delta of each payoff, differentiable; None if only differences of `first` give second derivatives."""

    def values(self, parts: Parts) -> list[Tensor]:
        """Present values, differentiable to the leaves; kept until other paths are asked for."""
        if self._last is None or self._last[0] != parts:
            self._last = parts, self._summed(self._values(parts))
        return self._last[1]

    def deltas(self, parts: Parts) -> list[Tensor] | None:
        """Deltas, differentiable to the leaves; None if only differences of `first` give second derivatives."""
        found = self._deltas(parts)
        return None if found is None else self._summed(found)

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

    def _by_spot(self, values: list[Tensor]) -> list[Tensor]:
        spot = self.point.leaves["spot"]
        found = [torch.autograd.grad(v.sum(), spot, create_graph=True)[0] for v in values]
        return [g.flatten() for g in found] if self.point.whole is not None else found


class _Conditional(Estimator):
    """The conditional mean of each path's worth, smooth in everything."""

    def __init__(
        self, point: Point, book: list[Payoff], engine: MonteCarlo, elapsed: float | None, total: bool
    ) -> None:
        super().__init__(point, total)
        self._run = Run.of(point.model, book, point.market, replace(engine, conditional=True), elapsed)

    def _values(self, parts: Parts) -> list[Tensor]:
        return [result.value for result in self._run.replicate(parts)]

    def _deltas(self, parts: Parts) -> list[Tensor]:
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
        ratios = (engine.scheme or scheme_for(point.model)).conditional() is not None
        dated = all(payoff.window is None for payoff in book)
        self._second = (
            LikelihoodRun.of(point.model, book, point.market, engine, elapsed or 0.0) if ratios and dated else None
        )

    def _values(self, parts: Parts) -> list[Tensor]:
        return [result.value for result in self._run.replicate(parts)]

    def _deltas(self, parts: Parts) -> list[Tensor] | None:
        return None if self._second is None else self._second.deltas(parts)


class _Likelihood(Estimator):
    """Likelihood ratios for everything."""

    def __init__(
        self, point: Point, book: list[Payoff], engine: MonteCarlo, elapsed: float | None, total: bool
    ) -> None:
        super().__init__(point, total)
        self._run = LikelihoodRun.of(point.model, book, point.market, engine, elapsed or 0.0)

    def _values(self, parts: Parts) -> list[Tensor]:
        return self._run.worths(parts)

    def _deltas(self, parts: Parts) -> list[Tensor]:
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
    """A function from parts of the paths to raw Greeks of each payoff, for one method.

    Args:
        book: payoffs of this method.
        inputs: what they depend on.
        engine: settings of one part.
        method: the method.
        needs: names of the Greeks wanted.
        total: whether the payoffs count as one, their sum.
        folds: parts simulated side by side; 0 for one part at a time.
    """

    intensities = [name for name in inputs.model.params if name.endswith("intensity")]
    frozen = tuple(intensities)

    def make(point: Point, elapsed: float | None = None) -> Estimator:
        return MAKE[method](point, book, engine, elapsed, total)

    base = make(inputs.at(frozen, folds))
    # today's price is simulated once more, as tomorrow's is: what they share cancels
    days = [make(inputs.at(frozen, folds), elapsed) for elapsed in (0.0, DAY)] if needs & {"theta", "charm"} else []
    tilted = [make(inputs.at(frozen, folds, vol=s * VOL_MOVE)) for s in (1, -1)] if "volga" in needs else []
    moved: list[Estimator] = []
    longest = max(payoff.maturity for payoff in book)
    jumps = {
        name: (h, [make(inputs.at(frozen, folds, parameter=(name, s * h))) for s in (1, -1)])
        for name in intensities
        if f"d_{name}" in needs
        for h in [min(_SHARE * float(inputs.leaves[name]), _JUMPS / longest)]
    }

    def run(parts: Parts) -> list[dict[str, Tensor]]:
        values, grads = base.first(parts)
        found = [
            {"price": v, "delta": g["spot"], "rho": g["rate"], "dividend_rho": g["dividend_yield"]}
            | ({"vega": inputs.along(g)} if inputs.direction else {})
            | {f"d_{name}": g[name] for name in inputs.model.params if name in g}
            for v, g in zip(values, grads, strict=True)
        ]
        _add_second(found, parts)
        if days:
            today, tomorrow = (day.first(parts) for day in days)
            for i, row in enumerate(found):
                row["theta"] = (tomorrow[0][i] - today[0][i]) / DAY
                row["charm"] = (tomorrow[1][i]["spot"] - today[1][i]["spot"]) / DAY
        for name, (h, ends) in jumps.items():
            more, fewer = (end.values(parts) for end in ends)
            for row, a, b in zip(found, more, fewer, strict=True):
                row[f"d_{name}"] = (a.detach() - b.detach()) / (2 * h)
        if tilted:
            up, down = ([inputs.along(g) for g in point.first(parts)[1]] for point in tilted)
            for row, a, b in zip(found, up, down, strict=True):
                row["volga"] = (a - b) / (2 * VOL_MOVE)
        return found

    def _add_second(found: list[dict[str, Tensor]], parts: Parts) -> None:
        if not needs & {"gamma", "vanna"}:
            return
        deltas = base.deltas(parts)
        if deltas is None:
            for row, (gamma, vanna) in zip(found, _differences(parts), strict=True):
                row["gamma"], row["vanna"] = gamma, vanna
            return
        for row, delta in zip(found, deltas, strict=True):
            gradient = base.gradient(delta)
            row["gamma"] = gradient["spot"]
            if inputs.direction:
                row["vanna"] = inputs.along(gradient)

    def _differences(parts: Parts) -> list[tuple[Tensor, Tensor]]:
        spot = inputs.leaves["spot"]
        if not moved:
            moved.extend(make(inputs.at(frozen, folds, spot=s * SPOT_MOVE)) for s in (1, -1))
            moved.extend(make(inputs.at(frozen, folds, vol=s * VOL_MOVE)) for s in (1, -1))
        ends = [[g["spot"] for g in end.first(parts)[1]] for end in moved]
        return [((a - b) / (2 * SPOT_MOVE * spot), (c - d) / (2 * VOL_MOVE)) for a, b, c, d in zip(*ends, strict=True)]

    return run
