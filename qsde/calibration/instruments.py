"""Calibration to any priced instruments by Monte Carlo: vanillas, Asians, barriers, variance swaps and the like."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.calibration.bumps import Bumps, models, slopes
from qsde.calibration.objective import VOL_FLOOR, with_penalties
from qsde.calibration.penalties import Penalty
from qsde.calibration.quality import Estimated, Simulated, fit_warnings, parameter_covariance, simulation_warnings
from qsde.calibration.ramp import Ramped, compiled, fresh, fresh_halved, ramp
from qsde.calibration.space import Space
from qsde.errors import FitStatus, InputError, NumericsError
from qsde.market.black import black_price, black_vega
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.payoffs import Asian, AtExpiry, AverageStrike, Barrier, DoubleBarrier, European, Payoff, VarianceOption
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import Fourier
from qsde.pricing.montecarlo import price

#: Contracts that cannot be worth less than nothing.
_OPTIONS = (European, Asian, AverageStrike, Barrier, DoubleBarrier, VarianceOption)
#: Smallest uncertainty in parts of the spot: with less an instrument would outweigh all others by rounding.
_LEAST_UNCERTAINTY = 1e-12


@dataclass(frozen=True)
class Instrument:
    """A contract with a price that a model should give back.

    Args:
        payoff: the contract.
        price: its price today, in the currency of the market; a swap at its par strike has 0.
        implied_vol: instead of a price, for a `European`: annualised Black-Scholes volatility, decimal.
        uncertainty: how far the price (or the volatility, where that is given) may be off, as a standard error: it
            decides the weight, and the standard errors of the parameters. By default 0.005 for volatilities; prices
            have no default, because contracts differ in size.

    Raises:
        InputError: not exactly one of price and implied_vol, a number that is not finite, a negative price of an
            option, or no uncertainty of a price.

    Example:
        >>> Instrument(European(100.0, expiry=1.0), implied_vol=0.2).uncertainty
        0.005
    """

    payoff: Payoff
    price: float | None = None
    implied_vol: float | None = None
    uncertainty: float | None = None

    def __post_init__(self) -> None:
        name = self.payoff.name if isinstance(self.payoff, Payoff) else None
        if name is None:
            raise InputError(
                f"payoff must be a Payoff of qsde.payoffs, without early exercise, got {type(self.payoff).__name__}"
            )
        if (self.price is None) == (self.implied_vol is None):
            raise InputError(f"{name}: give either its price or its implied_vol")
        if self.implied_vol is not None:
            self._check_vol(name, self.implied_vol)
        elif self.uncertainty is None:
            raise InputError(f"{name}: give the uncertainty of its price, such as half the bid/ask spread")
        else:
            _check_finite(f"{name}: price", self.price)
            if isinstance(self.payoff, _OPTIONS) and float(self.price or 0.0) < 0:
                raise InputError(f"{name}: price is {self.price}, and an option is worth 0 or more")
        _check_positive(f"{name}: uncertainty", self.uncertainty)

    def _check_vol(self, name: str, vol: float) -> None:
        if not isinstance(self.payoff, European):
            raise InputError(f"{name}: only a European has an implied_vol; give its price and uncertainty")
        _check_positive(f"{name}: implied_vol", vol)
        if self.uncertainty is None:
            object.__setattr__(self, "uncertainty", VOL_FLOOR)

    def target(self, market: Market) -> tuple[float, float]:
        """Price and its uncertainty, both in currency.

        Raises:
            InputError: the uncertainty is nothing beside the spot, as that of a vol of an option far out of the money.

        Example:
            >>> vanilla = Instrument(European(100.0, expiry=1.0), implied_vol=0.2, uncertainty=0.01)
            >>> tuple(round(x, 4) for x in vanilla.target(Market(100.0)))
            (7.9656, 0.397)
        """
        price, uncertainty = self._in_currency(market)
        if uncertainty < _LEAST_UNCERTAINTY * float(market.spot):
            far = "" if self.implied_vol is None else ", because its strike is far from the forward: leave it out"
            raise InputError(
                f"{self.payoff.name}: an uncertainty of {self.uncertainty:g} is {uncertainty:.3g} in currency, nothing "
                f"beside a spot of {float(market.spot):g}{far}"
            )
        return price, uncertainty

    def _in_currency(self, market: Market) -> tuple[float, float]:
        assert self.uncertainty is not None
        if self.implied_vol is None:
            assert self.price is not None
            return float(self.price), float(self.uncertainty)
        assert isinstance(self.payoff, European)
        t, vol = self.payoff.expiry, self.implied_vol
        terms = market.forward(t), self.payoff.strike, t, vol, market.discount(t)
        vega = float(black_vega(*terms).detach())
        return float(black_price(*terms, self.payoff.kind == "call").detach()), self.uncertainty * vega


@dataclass(frozen=True)
class InstrumentFit(Estimated):
    """A model calibrated to instruments.

    Attributes:
        model: the calibrated model (no batch axes).
        instruments: what it was fitted to.
        market: spot, curves and dividends.
        status: how the calibration ended; `status.converged` is the yes or no, the value is a sentence.
        target: prices asked for [instruments], in currency.
        uncertainty: their uncertainties [instruments], in currency.
        model_price: the model's prices [instruments], by simulation from fresh random numbers.
        free: names of the fitted parameters.
        jacobian: `d model_price / d parameter`, [instruments, free], per 1.00.
        covariance: covariance of the free parameters [free, free] from the uncertainties and the noise of the paths;
            NaN where the instruments do not determine the parameters.
        at_bounds: free parameters that ended at a bound: their standard error means little.
        iterations: Levenberg-Marquardt iterations of the winning start.
        starts: number of starts tried.
        starts_agreeing: how many of the starts kept after the exploration reached the same minimum.
        seconds: wall-clock seconds.
        simulation: what fresh random numbers say of the fit; its errors are in uncertainties.
        warnings: sentences a user should read.
    """

    model: Model
    instruments: tuple[Instrument, ...]
    market: Market
    status: FitStatus
    target: np.ndarray
    uncertainty: np.ndarray
    model_price: np.ndarray
    free: tuple[str, ...]
    jacobian: Tensor
    covariance: Tensor
    at_bounds: tuple[str, ...]
    iterations: int
    starts: int
    starts_agreeing: int
    seconds: float
    simulation: Simulated
    warnings: tuple[str, ...] = ()

    @property
    def residual(self) -> np.ndarray:
        """Model less market price of each instrument, in uncertainties."""
        gap: np.ndarray = (self.model_price - self.target) / self.uncertainty
        return gap

    @property
    def rmse(self) -> float:
        """Root mean square of `residual`: about 1 or less where the model explains the prices."""
        return float(np.sqrt(np.mean(self.residual**2)))

    @property
    def quotes(self) -> pd.DataFrame:
        """One row per instrument: `payoff`, `target`, `uncertainty`, `model_price`, `std_error` of it, `residual`."""
        return pd.DataFrame(
            {
                "payoff": [instrument.payoff.name for instrument in self.instruments],
                "target": self.target,
                "uncertainty": self.uncertainty,
                "model_price": self.model_price,
                "std_error": self.simulation.quote_error.numpy(),
                "residual": self.residual,
            }
        )


@dataclass(frozen=True)
class InstrumentJob:
    """A calibration by simulation to instruments; fields as the arguments of `calibrate`."""

    space: Space
    instruments: tuple[Instrument, ...]
    market: Market
    engine: MonteCarlo
    penalties: Sequence[Penalty]

    @classmethod
    def of(
        cls,
        space: Space,
        instruments: Sequence[Instrument],
        market: Market | None,
        engine: Fourier | MonteCarlo | None,
        penalties: Sequence[Penalty],
    ) -> InstrumentJob:
        """A job of things that belong together.

        Raises:
            InputError: no instruments, something else among them, no market, or another engine than MonteCarlo.
        """
        if not instruments:
            raise InputError("there are no instruments to calibrate to")
        for i, instrument in enumerate(instruments):
            if not isinstance(instrument, Instrument):
                raise InputError(
                    f"instruments[{i}] must be an Instrument(payoff, ...), got {type(instrument).__name__}"
                )
        if market is None:
            raise InputError("instruments need a market: give market=Market(spot, rate, dividend_yield)")
        if isinstance(engine, Fourier):
            raise InputError("instruments are priced by simulation: give engine=MonteCarlo(...), or leave it out")
        return cls(space, tuple(instruments), market, engine or MonteCarlo(), tuple(penalties))

    def run(self, n_starts: int, max_iterations: int, seed: int, progress: Callable[[float], None]) -> InstrumentFit:
        """The fit."""
        began = time.perf_counter()
        space = self.space
        targets = torch.tensor([i.target(self.market) for i in self.instruments], dtype=torch.float64)
        book = _Book(tuple(i.payoff for i in self.instruments), self.market, space)
        target, uncertainty = targets.unbind(-1)
        unit = VOL_FLOOR / (uncertainty * math.sqrt(len(target)))  # an error of one uncertainty is as 50 bp of vol

        def weighted(p: Tensor, value: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
            jacobian = unit.unsqueeze(-1) * slope * space.slope(p[0]).unsqueeze(-2)
            r = unit * (value - target)
            return with_penalties(r.unsqueeze(0), jacobian.unsqueeze(0), self.penalties, space, p)

        def residuals(engine: MonteCarlo) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
            def at(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
                p = space.to_params(x)
                return weighted(p, *book.slopes(p[0], engine))

            return at

        def sample(p: Tensor, engine: MonteCarlo) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """Prices, derivatives, and gradient and normal matrix of the squared errors in uncertainties."""
            value, slope = book.slopes(p.expand(1, -1), engine)
            r, jacobian = (v[0, 0] for v in weighted(p.expand(1, 1, -1), value, slope))
            jacobian = jacobian / space.slope(p)
            scale = len(target) / VOL_FLOOR**2
            return value[0], slope[0], scale * (jacobian.mT @ r), scale * (jacobian.mT @ jacobian)

        x = space.to_unknowns(space.starts(n_starts, _levels(space), seed))
        ramped = ramp(residuals, x, self.engine, max_iterations, lambda share: progress(0.9 * share))
        p = space.to_params(ramped.x)
        fitted, slope, _, normal = sample(p, compiled(self.engine))
        prices, _, gradients, _ = map(torch.stack, zip(*(sample(p, e) for e in fresh(self.engine)), strict=True))
        halved = torch.stack([sample(p, engine)[2] for engine in fresh_halved(self.engine)]).mean(0)
        progress(1.0)
        simulation = Simulated.of(
            n_paths=self.engine.n_paths,
            fitted=(fitted - target) / uncertainty,
            fresh=(prices.mean(0) - target) / uncertainty,
            deviations=(prices - prices.mean(0)) / uncertainty,
            gradients=gradients,
            halved=halved,
            normal=normal,
            unit=uncertainty,
        )
        seconds = time.perf_counter() - began
        by_quotes = parameter_covariance(normal.unsqueeze(0), torch.ones(1, dtype=torch.float64))[0]
        return self._fit(ramped, p, targets, prices.mean(0), slope, by_quotes, simulation, n_starts, seconds)

    def _fit(
        self, ramped: Ramped, p: Tensor, targets: Tensor, prices: Tensor, slope: Tensor, by_quotes: Tensor,
        simulation: Simulated, n_starts: int, seconds: float,
    ) -> InstrumentFit:  # fmt: skip
        at_bounds = self.space.at_bounds(p)
        determined = bool(torch.isfinite(by_quotes).all())
        free = self.space.free
        return InstrumentFit(
            model=self.space.with_free(p),
            instruments=self.instruments,
            market=self.market,
            status=ramped.status,
            target=targets[:, 0].numpy(),
            uncertainty=targets[:, 1].numpy(),
            model_price=prices.numpy(),
            free=free,
            jacobian=slope,
            covariance=by_quotes + simulation.covariance,
            at_bounds=at_bounds,
            iterations=ramped.iterations,
            starts=n_starts,
            starts_agreeing=ramped.agreeing,
            seconds=seconds,
            simulation=simulation,
            warnings=fit_warnings(0, None, len(free), at_bounds, determined, gap=0.0)
            + simulation_warnings(free, by_quotes, simulation),
        )


@dataclass(frozen=True)
class _Book:
    """Prices of payoffs for many parameter sets on the same random numbers."""

    payoffs: tuple[Payoff, ...]
    market: Market
    space: Space

    def slopes(self, p: Tensor, engine: MonteCarlo) -> tuple[Tensor, Tensor]:
        """Prices [n, Q] and their derivatives [n, Q, P] at parameters [n, P]."""
        bumps = Bumps.of(self.space, rough=not all(payoff.continuous for payoff in self.payoffs))
        sets = bumps.sets(p)
        values = self.prices(sets.flatten(0, 1), engine).unflatten(0, sets.shape[:2])
        return values[:, 0], slopes(values, bumps.widths(p))

    def prices(self, p: Tensor, engine: MonteCarlo) -> Tensor:
        """Prices [m, Q] at parameters [m, P]; NaN at sets whose paths leave the finite numbers."""
        out = p.new_empty(len(p), len(self.payoffs))
        with torch.no_grad():
            for columns in self._groups(engine):
                out[:, columns] = self._group(p, [self.payoffs[i] for i in columns], engine)
        return out

    def _groups(self, engine: MonteCarlo) -> list[list[int]]:
        """Payoffs at expiry apart from the others, so that their prices are conditional expectations."""
        at_expiry = [engine.conditional and isinstance(payoff, AtExpiry) for payoff in self.payoffs]
        groups = ([i for i, is_one in enumerate(at_expiry) if is_one == kind] for kind in (True, False))
        return [group for group in groups if group]

    def _group(self, p: Tensor, payoffs: list[Payoff], engine: MonteCarlo) -> Tensor:
        try:
            found = [price(model, payoffs, self.market, engine).value for model in models(self.space, p)]
        except NumericsError:
            if len(p) == 1:
                return p.new_full((1, len(payoffs)), torch.nan)
            return torch.cat([self._group(row, payoffs, engine) for row in p.split(1)])
        return torch.cat([value.reshape(-1, len(payoffs)).to(p) for value in found])


def _levels(space: Space) -> dict[str, Tensor]:
    """Starts are drawn around the template: the levels that search ranges are relative to are its own."""
    relative = {row.relative_to: space.model.params[name] for name, row in space.model.table.items() if row.relative_to}
    return {name: value.detach().double().reshape(1) for name, value in {"": torch.ones(1), **relative}.items()}


def _check_finite(what: str, value: float | None) -> None:
    if value is None or not math.isfinite(value):
        raise InputError(f"{what} must be finite, got {value}")


def _check_positive(what: str, value: float | None) -> None:
    if value is None or not (math.isfinite(value) and value > 0):
        raise InputError(f"{what} must be positive and finite, got {value}")
