"""Simulated Greeks of payoffs at expiry, regressed on those of a vanilla whose Greeks are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qsde.errors import NumericsError
from qsde.greeks.exact import exact_greeks
from qsde.greeks.inputs import Inputs
from qsde.greeks.methods import Method
from qsde.greeks.sampling import sampled
from qsde.market.underlying import Market
from qsde.payoffs import AtExpiry, European, Payoff
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import Fourier

#: Fewer parts of the paths leave too little to regress on.
_LEAST_PARTS = 8


def controlled(
    book: list[Payoff],
    methods: list[Method],
    inputs: Inputs,
    engine: MonteCarlo,
    names: Sequence[str],
    total: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, int]:
    """`sampled`, whose payoffs at expiry have less noise where vanna, volga or charm are asked for.

    A vanilla struck at the forward is simulated beside them. Over the parts of the paths each Greek is regressed on
    what the vanilla's misses of its Fourier integral, and that part is taken off: its errors fall by 3 to 15, and so
    does the bias of the steps. The standard error allows for the coefficient. Where the noisiest Greeks are not asked
    for, this is not worth another sweep.
    """
    served = [i for i, m in enumerate(methods) if m == "conditional" and isinstance(book[i], AtExpiry)]
    found = _control([book[i] for i in served], inputs, engine, names)
    if found is None:
        return sampled(book, methods, inputs, engine, names, total, progress)
    control, known = found
    n = len(book)
    others = [i for i in range(n) if i not in served]
    columns = [rows for rows in (served, others) if rows] if total else [[i] for i in range(n)]
    every = [*columns, [n]]
    samples, paths = sampled([*book, control], [*methods, "conditional"], inputs, engine, names, every, progress)
    miss = samples[:, -1] - known
    out = [_regressed(samples[:, j], miss) if rows[0] in served else samples[:, j] for j, rows in enumerate(columns)]
    table = torch.stack(out, 1)
    return table.sum(1, keepdim=True) if total else table, paths


def _control(
    served: list[Payoff], inputs: Inputs, engine: MonteCarlo, names: Sequence[str]
) -> tuple[European, Tensor] | None:
    """The vanilla and its Greeks, or None where it does not serve."""
    noisy = any(name.startswith(("vanna", "volga", "charm")) for name in names)
    if not (served and noisy and engine.control_variate and inputs.model.has_cf and isinstance(inputs.market, Market)):
        return None
    last = max(payoff.maturity for payoff in served)
    vanilla = European(float(inputs.market.forward(last)), last)
    try:
        known = exact_greeks(vanilla, inputs, Fourier(), set(names))
    except NumericsError:  # a corner of the parameters where the integral fails
        return None
    return vanilla, torch.stack([known[name].double() for name in names])


def _regressed(samples: Tensor, miss: Tensor) -> Tensor:
    """Samples [parts, names] less their regression on quantities of known mean 0 of the same shape.

    Deviations from the mean are stretched for the degree of freedom that the coefficient takes.
    """
    n = len(samples)
    if n < _LEAST_PARTS:
        return samples
    x, y = miss - miss.mean(0), samples - samples.mean(0)
    square = x.square().sum(0)
    beta = torch.where(square > 0, (x * y).sum(0) / torch.where(square > 0, square, 1.0), 0.0)
    out: Tensor = samples.mean(0) - beta * miss.mean(0) + math.sqrt((n - 1) / (n - 2)) * (y - beta * x)
    return out
