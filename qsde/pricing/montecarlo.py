"""Monte Carlo prices of any payoff under any model, with standard errors and exact gradients."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.payoffs import Payoff
from qsde.payoffs.checks import book_of
from qsde.pricing.engine import Estimate, MonteCarlo
from qsde.pricing.run import Progress, Run
from qsde.pricing.simulation import refuse_intensity_gradient

__all__ = ["Estimate", "MonteCarlo", "price"]


def price(
    model: Model,
    payoffs: Payoff | Sequence[Payoff],
    market: Market | Markets,
    engine: MonteCarlo | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """Prices payoffs by Monte Carlo, all from the same paths.

    Leading batch axes of the model's parameters are models that are priced together and share the noise. The value is
    differentiable in everything that is a tensor: spot, curves, parameters, payoff constants, by `backward()` and by
    `torch.func.grad`, `jvp` and `vmap`; the gradient is exact for the simulated price (with the regression on control
    variates held) and of first order. What a
    pathwise gradient would get wrong is refused: payoffs that jump (`continuous` False), and jump intensities, which
    move the paths by whole jumps.

    Args:
        model: the model.
        payoffs: one payoff or a list.
        market: spot, curves and dividends; `Markets` for a model of several underlyings. Cash dividends count for a
            payoff up to the last date at which it looks at the price.
        engine: settings.
        progress: called with (paths done, paths) after each block.

    Raises:
        InputError: nothing to price, a scheme that does not step the model, or a gradient that would be wrong.
        NumericsError: a path left the finite numbers.

    Example:
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import European
        >>> estimate = price(BlackScholes(0.2), European(100.0, expiry=1.0), Market(spot=100.0))
        >>> abs(float(estimate.value) - 7.9656) < 4 * float(estimate.std_error)
        True
    """
    began = time.perf_counter()
    engine = engine or MonteCarlo()
    book = book_of(payoffs)
    refuse_intensity_gradient(model)
    run = Run.of(model, book, market, engine)
    results = run.results(progress or (lambda done, total: None))
    columns = ([getattr(result, name) for result in results] for name in ("value", "std_error", "variance_ratio"))
    value, std_error, ratio = (
        column[0] if isinstance(payoffs, Payoff) else torch.stack(column, -1) for column in columns
    )
    paths = run.simulation.n_paths
    return Estimate(value, std_error, paths, engine.noise, time.perf_counter() - began, ratio)
