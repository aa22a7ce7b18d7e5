"""Derivatives of prices to the parameters of the model, exact or simulated, with the covariance of their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.greeks.exact import exact_greeks
from qsde.greeks.inputs import Inputs
from qsde.greeks.methods import check_method
from qsde.greeks.sampling import sampled
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.models.jumps import moves_by_jumps
from qsde.payoffs import AtExpiry, Payoff
from qsde.pricing.engine import Auto, MonteCarlo
from qsde.pricing.fourier import Fourier


@dataclass(frozen=True)
class ParameterGradient:
    """Prices of a book with their derivatives to the spot and to parameters, per 1.00 of each.

    Attributes:
        names: the parameters.
        samples: value, delta (parameters fixed) and derivatives to the parameters, from independent parts of the
            paths, [parts, payoffs, 2 + parameters]; payoffs with exact prices have the same in each.
        methods: how each payoff was differentiated.
        differences: parameters whose derivative is, by simulation, a difference with common random numbers.
        n_paths: paths simulated, 0 if nothing was.
    """

    names: tuple[str, ...]
    samples: Tensor
    methods: tuple[str, ...]
    differences: tuple[str, ...]
    n_paths: int

    @property
    def value(self) -> Tensor:
        """Present values [payoffs]."""
        return self.samples[..., 0].mean(0)

    @property
    def delta(self) -> Tensor:
        """Derivatives to the spot [payoffs]."""
        return self.samples[..., 1].mean(0)

    @property
    def gradient(self) -> Tensor:
        """Derivatives to the parameters [payoffs, parameters]."""
        return self.samples[..., 2:].mean(0)

    @property
    def std_error(self) -> Tensor:
        """Standard errors of `gradient`."""
        return error_of_mean(self.samples[..., 2:])


def parameter_gradient(
    model: Model,
    payoffs: Sequence[Payoff],
    market: Market,
    engine: MonteCarlo | Fourier | Auto | None = None,
    names: Sequence[str] | None = None,
) -> ParameterGradient:
    """Differentiates the prices of a book to the spot and to parameters of the model.

    Payoffs of the price at expiry are differentiated through their Fourier price, the others by simulation: by their
    conditional mean, path by path, or with likelihood ratios (`qsde.greeks.methods.method_for`). Jump intensities,
    which move paths by whole jumps, are moved up and down by a tenth of a jump until the last payment and repriced
    with the same random numbers; the bias is of the order of the square of that move. Errors are those of independent
    parts of the paths.

    Args:
        model: one model, without batch axes.
        payoffs: the book.
        market: spot, curves and dividends.
        engine: `Fourier()` or `MonteCarlo(...)` for all payoffs, or `Auto(...)`: Fourier where it can, and a simulation
            else. None is `Auto()`.
        names: parameters; None for all.

    Raises:
        InputError: an unknown parameter, or a payoff that cannot be differentiated so; the message names the way out.

    Reference:
        M. Giles and P. Glasserman, Smoking adjoints: fast Monte Carlo Greeks, Risk (January 2006).

    Example:
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import European
        >>> found = parameter_gradient(BlackScholes(0.2), [European(100.0, 1.0)], Market(100.0))
        >>> found.names, round(float(found.gradient), 4)
        (('vol',), 39.6953)
    """
    names = tuple(model.params if names is None else names)
    unknown = [name for name in names if name not in model.params]
    if unknown:
        raise InputError(f"{model.name} has no parameter {unknown[0]!r}; it has {', '.join(model.params)}")
    book = list(payoffs)
    if not book:
        raise InputError("there are no payoffs")
    engine = engine or Auto()
    exact = [i for i, payoff in enumerate(book) if _is_exact(payoff, model, engine)]
    left = [i for i in range(len(book)) if i not in exact]
    inputs = Inputs.of(model, market, book)
    columns = ("price", "delta", *(f"d_{name}" for name in names))
    intensities = tuple(name for name in names if moves_by_jumps(name)) if left else ()
    methods = ["fourier"] * len(book)
    table, n_paths = torch.empty(1, 0, len(columns), dtype=torch.float64), 0
    if left:
        settings = engine.simulation if isinstance(engine, Auto) else engine
        assert isinstance(settings, MonteCarlo), "Fourier leaves nothing"
        used = [check_method(book[i], model, settings, "auto") for i in left]
        table, n_paths = sampled([book[i] for i in left], used, inputs, settings, columns)
        for i, method in zip(left, used, strict=True):
            methods[i] = method
    quadrature = engine if isinstance(engine, Fourier) else Fourier()
    rows = [_exact(book[i], inputs, quadrature, columns).expand(len(table), 1, -1) for i in exact]
    samples = torch.cat([table, *rows], 1)[:, torch.tensor([*left, *exact]).argsort()]
    return ParameterGradient(names, samples, tuple(methods), intensities, n_paths)


def error_of_mean(samples: Tensor) -> Tensor:
    """Standard error of the mean of independent samples along the first axis; 0 if there is one, which is exact."""
    n = len(samples)
    return samples.std(0) / n**0.5 if n > 1 else torch.zeros_like(samples[0])


def _exact(payoff: Payoff, inputs: Inputs, engine: Fourier, columns: tuple[str, ...]) -> Tensor:
    """The columns, by Fourier integrals."""
    assert isinstance(payoff, AtExpiry)
    payoff.check_spot(inputs.leaves["spot"])
    found = exact_greeks(payoff, inputs, engine, set(columns))
    return torch.stack([found[name].double() for name in columns])


def _is_exact(payoff: Payoff, model: Model, engine: MonteCarlo | Fourier | Auto) -> bool:
    can = isinstance(payoff, AtExpiry) and model.has_cf
    if isinstance(engine, Fourier) and not can:
        raise InputError(
            f"Fourier() prices payoffs of the price at expiry under models with a characteristic function, not "
            f"{payoff.name} under {model.name}; give MonteCarlo(...), or Auto(...) for the best of both"
        )
    return can and not isinstance(engine, MonteCarlo)
