"""Greeks from independent parts of the paths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.greeks.estimators import VOL_MOVE, Simulated
from qsde.greeks.extra_jump import extra_jumps
from qsde.greeks.inputs import Inputs
from qsde.greeks.methods import Method
from qsde.greeks.sampler import SECOND, SPOT_MOVE, Sampler, Tilted
from qsde.models.base import FourierModel, Model
from qsde.models.lsv import LocalStochasticVol
from qsde.models.neural_sv import NeuralStochasticVol
from qsde.models.sde import SDE
from qsde.noise import Sobol
from qsde.payoffs import Payoff
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.simulation import Parts
from qsde.schemes.layers import layers

#: Independent parts into which the paths are cut, for standard errors.
REPLICATES = 32
#: `SPOT_MOVE` is no more than this part of the standard deviation of the log-price to the first expiry: the bias of a
#: difference is of the order of the square of it.
_OF_DEVIATION = 0.1


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
    total: bool | list[list[int]] = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, int]:
    """Raw Greeks from independent parts of the paths, and the number of paths of all parts.

    Args:
        book: the payoffs.
        methods: how each of them is treated.
        inputs: what they depend on.
        engine: settings.
        names: the Greeks, `d_` and a parameter among them.
        total: whether the payoffs count as one, their sum; or which of them make up each column.
        progress: called with (parts done, parts).

    Returns:
        [parts, payoffs (one if `total`), names], and the paths.
    """
    one, parts = replicates(inputs.model, engine)
    folds = len(parts[0].offsets) if parts[0].folded else 0
    columns = [list(range(len(book)))] if total is True else total or [[i] for i in range(len(book))]
    sampler = of_payoffs(book, methods, inputs, one, set(names), columns, folds)
    samples = []
    for done, part in enumerate(parts, 1):
        rows = [torch.stack([row[name].detach().double().reshape(-1) for name in names], -1) for row in sampler(part)]
        samples.append(torch.stack(rows, 1))
        if progress is not None:
            progress(done, len(parts))
    return torch.cat(samples), one.n_paths * len(parts) * max(1, folds)


def of_payoffs(
    book: list[Payoff],
    methods: list[Method],
    inputs: Inputs,
    engine: MonteCarlo,
    needs: set[str],
    columns: list[list[int]],
    folds: int,
) -> Sampler:
    """The sampler of payoffs that are simulated."""
    second = any(name.startswith(SECOND) for name in needs)
    point = inputs.at(frozen(inputs, needs), folds)
    steep = frozenset(i for i, payoff in enumerate(book) if payoff.steep)
    apart = inputs.beside(point, 0.0, inputs.labels[0]) if steep else None
    near = bool(steep) and any(name.startswith(("delta", *SECOND)) for name in needs)
    base = Simulated(point, book, methods, engine, second=second, apart=apart, sampled=near)
    tilted: list[Tilted] = []
    smooth = [i for i, method in enumerate(methods) if method == "conditional"]
    rough = [i for i, method in enumerate(methods) if method != "conditional"]
    for label in inputs.labels:
        for rows, move in ((smooth, 0.25 * VOL_MOVE), (rough, VOL_MOVE)):
            if rows and f"volga{label}" in needs:
                some, how = [book[i] for i in rows], [methods[i] for i in rows]
                ends = [inputs.at(("elapsed",), folds, vol=s * move, label=label) for s in (1, -1)]
                up, down = (Simulated(end, some, how, engine, second=False) for end in ends)
                tilted.append(Tilted(label, rows, move, (up, down)))
    move = _spot_move(book, inputs)
    jumps = extra_jumps(inputs.model, max(payoff.maturity for payoff in book), engine.noise)
    return Sampler(inputs, base, columns, needs, jumps, tilted, steep, move)


def frozen(inputs: Inputs, needs: set[str]) -> tuple[str, ...]:
    """Leaves that nothing asked for is a derivative to, where that saves work: all but the spots, or time."""
    if all(name.startswith(("price", "delta", "gamma")) for name in needs):
        return tuple(name for name in inputs.leaves if not name.startswith("spot"))
    return () if any(name.startswith(("theta", "charm")) for name in needs) else ("elapsed",)


def _spot_move(book: list[Payoff], inputs: Inputs) -> float:
    """The largest share by which the spot may move either way without knocking a payoff in or out.

    Raises:
        InputError: a barrier is closer than a hundredth of it.
    """
    largest, watched = largest_move(book, inputs), [payoff for payoff in book if payoff.window is not None]
    if not watched:
        return largest
    spot = inputs.leaves["spot"]
    for move in (largest, 0.1 * largest, 0.01 * largest):
        try:
            for payoff in watched:
                payoff.check_spot(spot * (1 + move))
                payoff.check_spot(spot * (1 - move))
            return move
        except InputError as crossed:
            reason = crossed
    raise InputError(f"a barrier is within {100 * move:.2g} % of the spot, too close for Greeks: {reason}")


def largest_move(book: Sequence[Payoff], inputs: Inputs) -> float:
    """Share of the spot between values whose difference is taken, whatever the barriers."""
    deviation = _deviation(inputs.model, min(payoff.maturity for payoff in book))
    return min(SPOT_MOVE, _OF_DEVIATION * deviation) or SPOT_MOVE


def _deviation(model: Model, t: float) -> float:
    """About how far the logarithm of the price moves in t years; infinite where nothing is known of it."""
    if isinstance(model, FourierModel) and model.has_cf:
        return math.sqrt(float(model.total_variance(torch.tensor(t, dtype=torch.float64)).detach()))
    inner, _ = layers(model)
    if isinstance(inner, LocalStochasticVol):
        return inner.leverage.scale * math.sqrt(t)
    return inner.level.scale * math.sqrt(t) if isinstance(inner, NeuralStochasticVol) else math.inf
