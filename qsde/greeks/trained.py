"""Derivatives of prices to the weights of a trained model, path by path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from qsde.calibration.ramp import reseeded
from qsde.calibration.training import TrainedFit
from qsde.errors import InputError
from qsde.greeks.parameters import ParameterGradient
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.payoffs import Payoff
from qsde.pricing.engine import Auto, MonteCarlo
from qsde.pricing.fourier import Fourier
from qsde.pricing.montecarlo import price

#: Independent parts of the paths, whose differences give the standard errors.
_PARTS = 8


def weight_gradient(
    fit: TrainedFit, payoffs: Sequence[Payoff], market: Market, engine: MonteCarlo | Fourier | Auto | None
) -> ParameterGradient:
    """Prices of a book with derivatives to the spot and to every weight that was trained.

    One backward sweep per payoff on each of 8 independent parts of the paths, each with a seed of its own.

    Args:
        fit: the fit.
        payoffs: the book; payoffs without jumps.
        market: spot, curves and dividends.
        engine: `MonteCarlo(...)`, or the simulation of `Auto(...)`; None takes 2^16 paths and steps of 1/64.

    Raises:
        InputError: Fourier prices, which such a model does not have, or a payoff that jumps.
    """
    if isinstance(engine, Fourier):
        raise InputError(f"{fit.model.name} has no Fourier prices; give MonteCarlo(...), or leave engine out")
    names = fit.training.names
    engine = engine.simulation if isinstance(engine, Auto) else engine or MonteCarlo(n_paths=1 << 16, max_dt=1 / 64)
    part = replace(engine, n_paths=max(2, engine.n_paths // _PARTS))
    samples = [
        _part(fit.model, names, payoffs, market, replace(part, noise=reseeded(part.noise, i))) for i in range(_PARTS)
    ]
    flat = tuple(f"{name}[{i}]" for name in names for i in range(fit.model.params[name].numel()))
    return ParameterGradient(flat, torch.stack(samples), ("pathwise",) * len(payoffs), (), _PARTS * part.n_paths)


def _part(model: Model, names: Sequence[str], payoffs: Sequence[Payoff], market: Market, engine: MonteCarlo) -> Tensor:
    """Value, delta and derivatives to all weights [payoffs, 2 + W] on the paths of one engine."""
    weights = {name: model.params[name].detach().clone().requires_grad_() for name in names}
    spot = torch.as_tensor(market.spot, dtype=torch.float64).detach().clone().requires_grad_()
    found = price(model.with_params(weights), list(payoffs), replace(market, spot=spot), engine).value
    leaves = [spot, *weights.values()]
    rows = []
    for value in found.unbind(-1):
        slopes = torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([value.detach().reshape(1), *(s.flatten() for s in slopes)]).double())
    return torch.stack(rows)
