"""Requests for Greeks as text, and their answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qsde import __version__
from qsde.errors import InputError
from qsde.greeks import Greeks, Units, greeks
from qsde.greeks.methods import Method, check_exact_greeks, check_method, engine_for
from qsde.payoffs import Claim, Payoff
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import Fourier
from qsde.spec.base import Record, Spec, at
from qsde.spec.columns import known
from qsde.spec.multi_asset import PricingModelSpec, pricing_spec_of
from qsde.spec.payoffs import wire_name
from qsde.spec.request import JobRequest, PricingJob
from qsde.spec.result import Progress


class GreeksSpec(Spec):
    """Which Greeks, and how; see `qsde.greeks.greeks`.

    Attributes:
        which: names of Greeks, `d_` and a parameter of the model among them; those of several underlyings end with
            their numbers, such as `delta_1` and `gamma_1_2`. None for all there are.
        units: "trader" (vega per vol point, theta per calendar day, rho per 1 %, ...) or "raw".
        method: how simulated Greeks are estimated; "auto" takes what suits each payoff.
        total: Greeks of all payoffs together, as one book that holds one of each.
    """

    which: tuple[str, ...] | None = Field(default=None, min_length=1)
    units: Units = "trader"
    method: Method = "auto"
    total: bool = False


class GreeksRequest(JobRequest):
    """Payoffs whose Greeks are wanted under one model in one market: a `PriceRequest` with a field more.

    Attributes:
        greeks: which Greeks, in what units, by what method.

    Example:
        >>> request = GreeksRequest.model_validate({
        ...     "model": {"model": "black_scholes", "vol": 0.2},
        ...     "market": {"spot": 100.0},
        ...     "payoffs": [{"type": "european", "strike": 100.0, "expiry": 1.0}],
        ...     "engine": {"type": "fourier"},
        ...     "greeks": {"which": ["delta", "vega"]},
        ... })
        >>> for greek in GreeksResult.of(request, request.build()).payoffs[0].greeks:
        ...     print(greek.greek, round(greek.value, 4), greek.unit)
        delta 0.5398 per 1.00 of spot
        vega 0.397 per vol point
    """

    greeks: GreeksSpec = GreeksSpec()


class GreekValue(Record):
    """One Greek of one payoff.

    Attributes:
        greek: its name.
        value: its value in `unit`.
        std_error: standard error of a simulation; null without one.
        unit: the unit, in words.
    """

    greek: str
    value: float
    std_error: float | None
    unit: str


class PayoffGreeks(Record):
    """The Greeks of one payoff, or of the `book` if they are a total.

    Attributes:
        type: the payoff.
        method: how they were estimated: "fourier", "boundary", "conditional", "pathwise" or "likelihood", and what
            else there is to say of it.
        greeks: the Greeks.
    """

    type: str
    method: str
    greeks: list[GreekValue]


class GreeksResult(Record):
    """The answer to a `GreeksRequest`.

    Attributes:
        qsde_version: version that computed.
        units: "trader" or "raw"; each Greek says its own.
        seconds: wall-clock time.
        n_paths: paths simulated, in whole groups of the noise; None without a simulation.
        model: the model, also where the request names a fit.
        payoffs: Greeks in the order of the request; one `book` if a total is asked for.
        request: the request with its defaults filled in; sent again it gives the same digits.
    """

    qsde_version: str = __version__
    units: Literal["trader", "raw"]
    seconds: float
    n_paths: int | None
    model: PricingModelSpec
    payoffs: list[PayoffGreeks]
    request: GreeksRequest

    @classmethod
    def of(cls, request: GreeksRequest, job: PricingJob, progress: Progress | None = None) -> GreeksResult:
        """Computes the Greeks of the `job` that the `request` was built into.

        Raises:
            InputError: a Greek that there is not, or a payoff that the engine or the method is wrong for; the message
                names the field.
            NumericsError: a path left the finite numbers, or a quadrature missed its tolerance.
        """
        wanted = request.greeks
        engine = engine_for(job.engine, job.model, job.payoffs, job.market, wanted.method)
        book = _book(job, engine, wanted.method)
        with at("greeks"):
            found = greeks(
                job.model,
                book,
                job.market,
                engine,
                wanted.which,
                wanted.units,
                wanted.method,
                wanted.total,
                progress,
                least_squares=job.least_squares,
            )
        types = ["book"] if wanted.total else [wire_name(type(payoff)) for payoff in book]
        return cls(
            units=found.units,
            seconds=found.seconds,
            n_paths=found.n_paths or None,
            model=pricing_spec_of(job.model),
            payoffs=[_answer(i, name, found) for i, name in enumerate(types)],
            request=request,
        )


def _answer(row: int, name: str, found: Greeks) -> PayoffGreeks:
    exact = not found.n_paths
    values = [
        GreekValue(
            greek=greek.name,
            value=float(found.value[row, column]),
            std_error=None if exact else known(found.std_error[row, column]),
            unit=found.unit(greek.name),
        )
        for column, greek in enumerate(found.greeks)
    ]
    return PayoffGreeks(type=name, method=found.methods[row], greeks=values)


def _book(job: PricingJob, engine: MonteCarlo | Fourier, method: Method) -> list[Claim]:
    """The payoffs, each of which engine and method suit."""
    if isinstance(engine, Fourier) and method != "auto":
        raise InputError(f"greeks.method: {method!r} is for simulations; leave it out with the fourier engine")
    book: list[Claim] = []
    for i, payoff in enumerate(job.payoffs):
        with at(f"payoffs.{i}"):
            book.append(_suited(payoff, job, engine, method))
    return book


def _suited(payoff: Claim, job: PricingJob, engine: MonteCarlo | Fourier, method: Method) -> Claim:
    if isinstance(engine, Fourier):
        check_exact_greeks(job.model, payoff, job.market, '{"type": "monte_carlo"}')
    elif isinstance(payoff, Payoff):
        check_method(payoff, job.model, engine, method)
    return payoff
