"""Answers to pricing requests: the prices, how sure they are, and what is needed to get them again."""

from __future__ import annotations

from collections.abc import Callable

import torch

from qsde import __version__
from qsde.errors import InputError
from qsde.payoffs import Claim
from qsde.pricing.exact import why_not_exact
from qsde.pricing.fourier import Fourier
from qsde.pricing.price import Method, Prices, price
from qsde.spec.base import Record, at
from qsde.spec.columns import known
from qsde.spec.multi_asset import PricingModelSpec, pricing_spec_of
from qsde.spec.payoffs import wire_name
from qsde.spec.request import PriceRequest, PricingJob

#: Called with (work done, work).
Progress = Callable[[int, int], None]


class PricedPayoff(Record):
    """The value of one payoff, discounted, with its absolute errors; null is an error that the engine does not have.

    Attributes:
        type: the payoff.
        method: how it was priced: "fourier", "boundary", "monte_carlo" or "least_squares".
        value: its price.
        std_error: standard error of a simulation.
        variance_ratio: how many times more paths a plain simulation would take for the same error.
        numerical_error: estimated error of an exact price.
        upper: upper bound of a right to exercise early, whose `value` is the lower one.
        upper_std_error: its standard error.
        exercise_probability: probability that such a right is exercised.
        exercise_time: mean time at which it is, years.
    """

    type: str
    method: Method
    value: float
    std_error: float | None = None
    variance_ratio: float | None = None
    numerical_error: float | None = None
    upper: float | None = None
    upper_std_error: float | None = None
    exercise_probability: float | None = None
    exercise_time: float | None = None


class PriceResult(Record):
    """The answer to a `PriceRequest`.

    Attributes:
        qsde_version: version that priced.
        units: of the values and errors.
        seconds: wall-clock time.
        n_paths: paths simulated, in whole groups of the noise; None without a simulation.
        model: the model priced with, also where the request names a fit.
        payoffs: values in the order of the request.
        request: the request with its defaults filled in; sent again it gives the same digits.

    Example:
        >>> request = PriceRequest.model_validate({
        ...     "model": {"model": "black_scholes", "vol": 0.2},
        ...     "market": {"spot": 100.0},
        ...     "payoffs": [{"type": "european", "strike": 100.0, "expiry": 1.0}],
        ...     "engine": {"type": "fourier"},
        ... })
        >>> round(PriceResult.of(request, request.build()).payoffs[0].value, 4)
        7.9656
    """

    qsde_version: str = __version__
    units: str = "values and errors discounted, in the currency of the spot; times in years"
    seconds: float
    n_paths: int | None
    model: PricingModelSpec
    payoffs: list[PricedPayoff]
    request: PriceRequest

    @classmethod
    def of(cls, request: PriceRequest, job: PricingJob, progress: Progress | None = None) -> PriceResult:
        """Prices the `job` that the `request` was built into.

        Raises:
            InputError: the engine cannot price a payoff; the message names the payoff and the fix.
            NumericsError: a path left the finite numbers, or a quadrature missed its tolerance.
        """
        if isinstance(job.engine, Fourier):
            _check_exact(job)
        with torch.no_grad(), at(""):
            found = price(job.model, job.payoffs, job.market, job.engine, progress, least_squares=job.least_squares)
        return cls(
            seconds=found.seconds,
            n_paths=found.n_paths or None,
            model=pricing_spec_of(job.model),
            payoffs=[_priced(i, claim, found) for i, claim in enumerate(job.payoffs)],
            request=request,
        )


def _check_exact(job: PricingJob) -> None:
    for i, claim in enumerate(job.payoffs):
        reason = why_not_exact(job.model, claim, job.market)
        if reason is not None:
            raise InputError(f'payoffs.{i}: {reason}; use {{"type": "monte_carlo"}}')


def _priced(index: int, claim: Claim, found: Prices) -> PricedPayoff:
    numerical_error = known(found.numerical_error[index])
    return PricedPayoff(
        type=wire_name(type(claim)),
        method=found.methods[index],
        value=float(found.value[index]),
        std_error=float(found.std_error[index]) if numerical_error is None else None,
        variance_ratio=known(found.variance_ratio[index]),
        numerical_error=numerical_error,
        upper=known(found.upper[index]),
        upper_std_error=known(found.upper_std_error[index]),
        exercise_probability=known(found.exercise_probability[index]),
        exercise_time=known(found.exercise_time[index]),
    )
