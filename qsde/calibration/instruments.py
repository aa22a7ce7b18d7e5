"""Priced instruments that a model should give back, and what a calibration to them ends with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qsde.calibration.fit import Estimated
from qsde.calibration.objective import VOL_FLOOR
from qsde.calibration.quality import Simulated
from qsde.errors import InputError
from qsde.market.black import black_price, black_vega
from qsde.market.underlying import Market
from qsde.payoffs import Asian, AverageStrike, Barrier, DoubleBarrier, European, Payoff, VarianceOption

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


@dataclass(frozen=True, kw_only=True, repr=False)
class InstrumentFit(Estimated):
    """A model calibrated to instruments.

    Attributes:
        instruments: what it was fitted to.
        market: spot, curves and dividends.
        target: prices asked for [instruments], in currency.
        uncertainty: their uncertainties [instruments], in currency.
        model_price: the model's prices [instruments], by simulation from fresh random numbers; `jacobian` is that of
            these prices, and `covariance` counts the uncertainties and the noise of the paths.
        simulation: what fresh random numbers say of the fit; its errors are in uncertainties.
    """

    instruments: tuple[Instrument, ...]
    market: Market
    target: np.ndarray
    uncertainty: np.ndarray
    model_price: np.ndarray
    simulation: Simulated

    @property
    def _quality(self) -> str:
        return f", {self.rmse:.2f} uncertainties (RMSE) on {len(self.instruments)} instruments"

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


def _check_finite(what: str, value: float | None) -> None:
    if value is None or not math.isfinite(value):
        raise InputError(f"{what} must be finite, got {value}")


def _check_positive(what: str, value: float | None) -> None:
    if value is None or not (math.isfinite(value) and value > 0):
        raise InputError(f"{what} must be positive and finite, got {value}")
