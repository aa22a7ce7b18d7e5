"""Answers to pricing requests: the prices, how sure they are, and what is needed to get them again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from pydantic import BaseModel, ConfigDict

from qsde import __version__
from qsde.errors import InputError
from qsde.payoffs import Claim, EarlyExercise, European, Payoff
from qsde.pricing.american import price_early
from qsde.pricing.fourier import Fourier, price_european
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.spec.base import at
from qsde.spec.multi_asset import PricingModelSpec, pricing_spec_of
from qsde.spec.payoffs import wire_name
from qsde.spec.request import PriceRequest, PricingJob

#: Called with (paths done, paths).
Progress = Callable[[int, int], None]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PricedPayoff(_Answer):
    """The value of one payoff, discounted, with its absolute errors; null is an error that the engine does not have.

    Attributes:
        type: the payoff.
        value: its price.
        std_error: standard error of a simulation.
        variance_ratio: how many times more paths a plain simulation would take for the same error.
        numerical_error: estimated error of a quadrature.
        upper: upper bound of a right to exercise early, whose `value` is the lower one.
        upper_std_error: its standard error.
        exercise_probability: probability that such a right is exercised.
        exercise_time: mean time at which it is, years.
    """

    type: str
    value: float
    std_error: float | None = None
    variance_ratio: float | None = None
    numerical_error: float | None = None
    upper: float | None = None
    upper_std_error: float | None = None
    exercise_probability: float | None = None
    exercise_time: float | None = None


class PriceResult(_Answer):
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
        began = time.perf_counter()
        with torch.no_grad():
            n_paths, priced = _integrated(job) if isinstance(job.engine, Fourier) else _simulated(job, progress)
        seconds, model = time.perf_counter() - began, pricing_spec_of(job.model)
        return cls(seconds=seconds, n_paths=n_paths, model=model, payoffs=priced, request=request)


def _simulated(job: PricingJob, progress: Progress | None) -> tuple[int | None, list[PricedPayoff]]:
    """Payoffs share their paths; rights to exercise early come after them, each with a policy of its own."""
    payoffs = {i: claim for i, claim in enumerate(job.payoffs) if isinstance(claim, Payoff)}
    rights = {i: claim for i, claim in enumerate(job.payoffs) if isinstance(claim, EarlyExercise)}
    tell = _Parts(progress, bool(payoffs) + len(rights))
    n_paths, priced = _together(job, payoffs, tell) if payoffs else (0, {})
    for i, claim in rights.items():
        with at(f"payoffs.{i}"):
            n_paths, priced[i] = _early(job, claim)
        tell.part_done()
    return n_paths, [priced[i] for i in range(len(job.payoffs))]


class _Parts:
    """Progress of work in parts of about equal length."""

    def __init__(self, progress: Progress | None, parts: int) -> None:
        self._progress, self._parts, self._done = progress or (lambda done, total: None), parts, 0

    def __call__(self, done: int, total: int) -> None:
        self._progress(self._done * total + done, self._parts * total)

    def part_done(self) -> None:
        self._done += 1
        self(0, 1)


def _together(job: PricingJob, payoffs: dict[int, Payoff], tell: _Parts) -> tuple[int, dict[int, PricedPayoff]]:
    assert isinstance(job.engine, MonteCarlo)
    found = price(job.model, list(payoffs.values()), job.market, job.engine, tell)
    columns = (found.value.tolist(), found.std_error.tolist(), found.variance_ratio.tolist())
    priced = {
        i: PricedPayoff(type=wire_name(type(payoff)), value=value, std_error=error, variance_ratio=ratio)
        for (i, payoff), value, error, ratio in zip(payoffs.items(), *columns, strict=True)
    }
    tell.part_done()
    return found.n_paths, priced


def _early(job: PricingJob, claim: EarlyExercise) -> tuple[int, PricedPayoff]:
    assert isinstance(job.engine, MonteCarlo)
    found = price_early(job.model, claim, job.market, job.engine, job.least_squares)
    return found.n_paths, PricedPayoff(
        type=wire_name(type(claim)),
        value=float(found.value),
        std_error=float(found.std_error),
        upper=_known(float(found.upper)),
        upper_std_error=_known(float(found.upper_std_error)),
        exercise_probability=found.exercise_probability,
        exercise_time=_known(found.exercise_time),
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _integrated(job: PricingJob) -> tuple[int | None, list[PricedPayoff]]:
    """European options, each at its own strike and expiry; the market's forward is all they need of the dividends."""
    assert isinstance(job.engine, Fourier)
    options = [_european(i, payoff) for i, payoff in enumerate(job.payoffs)]
    strike = torch.tensor([[float(option.strike)] for option in options], dtype=torch.float64)
    t = torch.tensor([option.expiry for option in options], dtype=torch.float64)
    is_call = torch.tensor([[option.kind == "call"] for option in options])
    found = price_european(job.model, strike, t, job.market.forward(t), job.market.discount(t), is_call, job.engine)
    rows = zip(found.value.squeeze(-1).tolist(), found.error.squeeze(-1).tolist(), strict=True)
    return None, [PricedPayoff(type="european", value=value, numerical_error=error) for value, error in rows]


def _european(index: int, claim: Claim) -> European:
    if not isinstance(claim, European):
        name = wire_name(type(claim))
        raise InputError(
            f'payoffs.{index}: the fourier engine prices european payoffs, not {name}; use {{"type": "monte_carlo"}}'
        )
    return claim
