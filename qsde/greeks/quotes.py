"""Sensitivity of prices under a calibrated model to every quote that the model was calibrated to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.calibration.fit import Fit
from qsde.calibration.training import TrainedFit
from qsde.errors import InputError
from qsde.greeks.implicit import Hessian, quote_jacobian
from qsde.greeks.ladder import MONEYNESS, Edges, Ladder, ladder_groups
from qsde.greeks.parameters import ParameterGradient, error_of_mean, parameter_gradient
from qsde.greeks.table import Units
from qsde.greeks.trained import weight_gradient
from qsde.market.curves import PillarCurve
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.payoffs import Payoff
from qsde.payoffs.checks import book_of
from qsde.pricing.engine import Auto, MonteCarlo
from qsde.pricing.fourier import Fourier

#: Relative gap between the forwards (or discount factors) of a market and those of the surface that is refused.
_FAR_OFF = 0.01
#: Standard errors above this share of the sensitivities, root mean squares of both, are warned of.
_NOISY = 0.5


@dataclass(frozen=True)
class QuoteSensitivities:
    """Derivatives of prices to the quoted implied vols behind them, recalibration included.

    Attributes:
        fit: the calibration.
        payoffs: the book.
        market: spot and curves in which it was priced.
        gradient: prices and their derivatives to the spot and the fitted parameters.
        quote_jacobian: derivatives of the fitted parameters to the quotes [free, quotes], per 1.00.
        units: "trader", per vol point (0.01) of implied vol; "raw", per 1.00.
        hessian: which Hessian of the calibration was used.
        warnings: sentences a user should read.
    """

    fit: Fit
    payoffs: tuple[Payoff, ...]
    market: Market
    gradient: ParameterGradient
    quote_jacobian: Tensor
    units: Units
    hessian: Hessian
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Each payoff's price and its sensitivity to all quotes together."""
        unit = "vol point" if self.units == "trader" else "1.00 of vol"
        rows = zip(self.names, self.price.tolist(), self.parallel.tolist(), strict=True)
        lines = [
            f"  {name}: price {price:.8g}, all quotes together {total:.6g} per {unit}" for name, price, total in rows
        ]
        return "\n".join((f"Sensitivities to {len(self.fit.surface):,} quotes; frame() and ladder() have each", *lines))

    @property
    def scale(self) -> float:
        """One unit of implied vol."""
        return 0.01 if self.units == "trader" else 1.0

    @property
    def price(self) -> Tensor:
        """Present values [payoffs]."""
        return self.gradient.value

    @property
    def value(self) -> Tensor:
        """Sensitivities [payoffs, quotes]; quotes in the order of `fit.surface.quotes`."""
        return self.gradient.gradient @ self.quote_jacobian * self.scale

    @property
    def std_error(self) -> Tensor:
        """Standard errors of `value`, from the simulation of the prices; 0 where they are exact."""
        return error_of_mean(self.gradient.samples[..., 2:] @ self.quote_jacobian) * self.scale

    @property
    def parallel(self) -> Tensor:
        """Sensitivities [payoffs] to a shift of all quotes at once: the sum over all quotes."""
        return self.value.sum(-1)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the payoffs, numbered where a name comes twice."""
        names = [payoff.name for payoff in self.payoffs]
        return tuple(f"{n} {i + 1}" if names.count(n) > 1 else n for i, n in enumerate(names))

    def frame(self) -> pd.DataFrame:
        """One row for each payoff and quote: expiry, strike, vols, sensitivity and standard error."""
        quotes = self.fit.surface.quotes
        columns = quotes[["expiry", "t", "strike", "iv_bid", "iv", "iv_ask"]].copy()
        columns.insert(3, "kind", np.where(quotes["option_type"] == "C", "call", "put"))
        value, error = self.value, self.std_error
        parts = [
            columns.assign(payoff=name, sensitivity=value[i].numpy(), std_error=error[i].numpy())
            for i, name in enumerate(self.names)
        ]
        frame = pd.concat(parts, ignore_index=True)
        return frame[["payoff", *columns.columns, "sensitivity", "std_error"]]

    def ladder(
        self,
        expiries: Sequence[float] | None = None,
        strike_buckets: Sequence[float] = MONEYNESS,
        by: Edges = "moneyness",
        payoff: int | None = None,
    ) -> Ladder:
        """The vega ladder: sensitivities added up by expiry and strike.

        Each cell is the sensitivity to a shift of all its quotes at once, and its standard error allows for the
        errors of its quotes not being independent.

        Args:
            expiries: inner edges of the expiry buckets in years, increasing; None gives each expiry a row.
            strike_buckets: inner edges of the strike buckets, increasing.
            by: what these edges are: "moneyness" (strike over forward) or "strike".
            payoff: number of the payoff; None for the whole book.
        """
        rows, columns, groups = ladder_groups(self.fit.surface, expiries, strike_buckets, by)
        book = slice(None) if payoff is None else slice(payoff, payoff + 1)
        samples = self.gradient.samples[:, book, 2:].sum(1) @ (self.quote_jacobian @ groups) * self.scale
        unit = "per vol point" if self.units == "trader" else "per 1.00 of vol"
        return Ladder.of(rows, columns, samples.mean(0), error_of_mean(samples), unit)


@torch.enable_grad()
def quote_sensitivities(
    fit: Fit,
    payoffs: Payoff | Sequence[Payoff],
    market: Market | None = None,
    engine: MonteCarlo | Fourier | Auto | None = None,
    *,
    hessian: Hessian = "full",
    units: Units = "trader",
) -> QuoteSensitivities:
    """By how much each price moves when one quoted implied vol moves and the model is calibrated again.

    `dPrice/dQuote = dPrice/dp dp/dQuote`: the first factor is one differentiated pricing
    (`qsde.greeks.parameters.parameter_gradient`), the second the implicit function theorem through the least squares
    (`qsde.greeks.implicit.quote_jacobian`). Nothing is calibrated again, and the cost does not grow with the number of
    quotes. Held fixed: forwards, discount factors, spot, the weights of the quotes, and parameters that are fixed or at
    a bound. A quote that has weight 0 has sensitivity 0.

    A trained model (`qsde.calibration.training`) follows its quotes by one more step of its training: the damped
    Gauss-Newton inverse of the derivatives of its vols to the weights, whatever `hessian` says; held-out quotes have
    sensitivity 0.

    The model follows its quotes only as far as it fits them: the ladder of a quoted option is not all in its own quote,
    and with 5 parameters no 6 quotes have independent sensitivities.

    Args:
        fit: a converged fit.
        payoffs: one payoff or a list.
        market: spot, curves and dividends; None takes the spot, the rates and the forwards of the fit's surface.
        engine: `Fourier()`, `MonteCarlo(...)`, or `Auto(...)`: Fourier for payoffs of the price at expiry, simulation
            of the others. None is `Auto()`.
        hessian: "full" follows recalibration; "gauss-newton" leaves out the curvature of the vols, which is right for
            fits without error only.
        units: "trader" (per vol point) or "raw" (per 1.00).

    Raises:
        InputError: a fit that did not converge, a market with other forwards than the surface, or a payoff that cannot
            be differentiated; the message names the way out.
        NumericsError: the quotes do not determine the parameters.

    References:
        M. Henrard, Adjoint algorithmic differentiation: calibration and implicit function theorem, OpenGamma
        Quantitative Research 1 (2011); M. Giles and P. Glasserman, Smoking adjoints: fast Monte Carlo Greeks, Risk
        (January 2006).

    Example:
        >>> from qsde.calibration import calibrate
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import European
        >>> surface = Surface.from_vols([0.5, 0.5, 1.0], [90.0, 110.0, 100.0], 0.2, forward=100.0, spot=100.0)
        >>> fit = calibrate(BlackScholes(0.3), surface, weights="equal")
        >>> found = quote_sensitivities(fit, European(100.0, expiry=1.0))
        >>> [round(x, 4) for x in found.value[0].tolist()], round(float(found.parallel), 4)     # a third of vega each
        ([0.1323, 0.1323, 0.1323], 0.397)
    """
    if units not in get_args(Units):
        raise InputError(f"units must be 'trader' or 'raw', got {units!r}")
    if not isinstance(fit, (Fit, TrainedFit)):
        raise InputError(f"fit must be a Fit of `calibrate` or `train`, got {type(fit).__name__}")
    book = tuple(payoff for payoff in book_of(payoffs) if isinstance(payoff, Payoff))
    if len(book) < len(book_of(payoffs)):
        raise InputError(
            "rights to exercise early have no sensitivities to quotes; bump the quotes and calibrate again"
        )
    jacobian = quote_jacobian(fit, hessian) if not isinstance(fit, TrainedFit) else fit.training.response()
    if market is None:
        market = market_of(fit.surface)
    else:
        _check_market(market, fit.surface)
    for payoff in book:
        payoff.check_spot(torch.as_tensor(market.spot).detach())
    if isinstance(fit, TrainedFit):
        gradient, hessian = weight_gradient(fit, book, market, engine), "gauss-newton"
    else:
        gradient = parameter_gradient(fit.model, book, market, engine, fit.free)
    warnings = (*_warnings(fit, book, gradient, hessian), *_noise(book, gradient, jacobian))
    return QuoteSensitivities(fit, book, market, gradient, jacobian, units, hessian, warnings)


def market_of(surface: Surface) -> Market:
    """Spot, zero rates and the dividend yields that the forwards imply, at the expiries of a surface.

    Raises:
        InputError: the surface has no spot.

    Example:
        >>> surface = Surface.from_vols([0.5, 1.0], 100.0, 0.2, forward=[101.0, 103.0], spot=100.0)
        >>> market_of(surface).forward([0.5, 1.0])
        tensor([101., 103.], dtype=torch.float64)
    """
    if not math.isfinite(surface.spot):
        raise InputError(f"{surface.name} has no spot; give market=Market(spot=..., rate=..., dividend_yield=...)")
    t, forward, rate = (surface.slices[name].to_numpy(float) for name in ("t", "forward", "rate"))
    yields = PillarCurve(t.tolist(), (rate - np.log(forward / surface.spot) / t).tolist())
    return Market(surface.spot, rate=PillarCurve(t.tolist(), rate.tolist()), dividend_yield=yields)


def _check_market(market: Market, surface: Surface) -> None:
    t = surface.slices["t"].tolist()
    for name, ours in (("forward", market.forward(t)), ("discount_factor", market.discount(t))):
        theirs = torch.tensor(surface.slices[name].to_numpy(float))
        gap = (ours.detach() / theirs - 1).abs()
        worst = int(gap.argmax())
        if not float(gap[worst]) <= _FAR_OFF:
            raise InputError(
                f"market: its {name} at {t[worst]:.4g} years is {float(ours[worst]):.6g}, that of the surface "
                f"{float(theirs[worst]):.6g}: the model was calibrated to the surface's; leave market out to take them"
            )


def _noise(book: Sequence[Payoff], gradient: ParameterGradient, jacobian: Tensor) -> tuple[str, ...]:
    """Payoffs whose sensitivities are mostly the noise of the simulation."""
    samples = gradient.samples[..., 2:] @ jacobian
    error, size = (v.square().mean(-1).sqrt() for v in (error_of_mean(samples), samples.mean(0)))
    noisy = [payoff.name for payoff, e, s in zip(book, error, size, strict=True) if float(e) > _NOISY * float(s)]
    if not noisy:
        return ()
    return (
        f"{', '.join(noisy)}: the errors of the sensitivities are more than half of them; take more paths, or "
        "fix parameters that the quotes hardly determine (jump parameters next to a volatility of volatility)",
    )


def _warnings(fit: Fit, book: Sequence[Payoff], gradient: ParameterGradient, hessian: Hessian) -> tuple[str, ...]:
    found = []
    last = float(fit.surface.slices["t"].max())
    beyond = [payoff.name for payoff in book if payoff.maturity > last * (1 + 1e-9)]
    if beyond:
        found.append(f"{', '.join(beyond)}: beyond the last quoted expiry ({last:.4g} years): the model extrapolates")
    if fit.at_bounds:
        found.append(f"at a bound, and held there: {', '.join(fit.at_bounds)}")
    if isinstance(fit, TrainedFit):
        return (*found, "the weights follow the quotes by one damped Gauss-Newton step of their training")
    if fit.penalties is None:
        found.append("the fit does not say whether it had penalties (it was read from a file): taken to have none")
    if hessian == "gauss-newton":
        found.append("Gauss-Newton Hessian: sensitivities differ from recalibration by the curvature of the vols")
    if gradient.differences:
        found.append(
            f"{', '.join(gradient.differences)}: by simulation a difference quotient with the same random numbers"
        )
    return tuple(found)
