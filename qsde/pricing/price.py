"""One entry point for all engines: Fourier integrals, simulation, and simulation of rights to exercise early."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.payoffs import Claim, EarlyExercise, Payoff
from qsde.payoffs.checks import book_of
from qsde.pricing import montecarlo
from qsde.pricing.american import LeastSquares, price_early
from qsde.pricing.engine import Auto, MonteCarlo
from qsde.pricing.exact import ExactMethod, check_exact, exact_method, price_exact, why_not_exact
from qsde.pricing.fourier import Fourier
from qsde.pricing.run import Progress
from qsde.solve.transforms import inside_transform

Method = ExactMethod | Literal["monte_carlo", "least_squares"]


@dataclass(frozen=True)
class Prices:
    """Prices of a book, discounted, each with what is known of its error.

    All tensors have the shape `[*batch]` for one payoff, `[*batch, payoffs]` for a list. NaN is what a method does not
    have.

    Attributes:
        value: the prices, differentiable. Simulated ones of rights to exercise early are lower bounds.
        std_error: standard errors; 0 for exact prices.
        numerical_error: estimated errors of Fourier integrals, bounds on those of American options.
        variance_ratio: how many times more paths the same error would take by plain simulation.
        upper: upper bounds of simulated rights to exercise early.
        upper_std_error: their standard errors.
        exercise_probability: probability that such a right is exercised.
        exercise_time: mean time at which it is, years.
        methods: how each payoff was priced: "fourier", "boundary" (American options, exactly), "monte_carlo" or
            "least_squares" (early exercise, simulated).
        n_paths: paths simulated; 0 without a simulation.
        seconds: wall-clock time.
    """

    value: Tensor
    std_error: Tensor
    numerical_error: Tensor
    variance_ratio: Tensor
    upper: Tensor
    upper_std_error: Tensor
    exercise_probability: Tensor
    exercise_time: Tensor
    methods: tuple[Method, ...]
    n_paths: int
    seconds: float

    def __repr__(self) -> str:
        """A line for each payoff: its price ± the standard error, or the numerical one, and how it was found."""
        if inside_transform():
            return object.__repr__(self)
        values = self.value.detach().reshape(-1, len(self.methods))
        errors = torch.where(self.std_error > 0, self.std_error, self.numerical_error).reshape(values.shape)
        models = "" if len(values) == 1 else f" under the first of {len(values)} models"
        uppers = self.upper.expand_as(self.value).reshape(values.shape)
        lines = [
            f"  {value:.8g} ± {error:.2g}  {method}{f', at most {upper:.8g}' if upper == upper else ''}"
            for value, error, upper, method in zip(
                *(x[0].tolist() for x in (values, errors, uppers)), self.methods, strict=True
            )
        ]
        return "\n".join((f"Prices{models}, {self.n_paths:,} paths, {self.seconds:.2g} s", *lines))

    @classmethod
    def of(cls, column: Callable[[str], Tensor], methods: tuple[Method, ...], n_paths: int, seconds: float) -> Prices:
        """Prices whose tensors a function knows by their names."""
        tensors = {f.name: column(f.name) for f in fields(cls) if f.name not in ("methods", "n_paths", "seconds")}
        return cls(**tensors, methods=methods, n_paths=n_paths, seconds=seconds)


def price(
    model: Model,
    payoffs: Claim | Sequence[Claim],
    market: Market | Markets,
    engine: MonteCarlo | Fourier | Auto | None = None,
    progress: Progress | None = None,
    *,
    least_squares: LeastSquares | None = None,
) -> Prices:
    """Prices any payoffs: exactly where there is a formula, else by simulation.

    Exact, by Fourier integrals, are `European`, `Digital`, `AssetDigital`, `Gap`, `ForwardStart`, `VarianceSwap`, and
    `Asian` and `AverageStrike` on geometric averages, under models of one underlying with a characteristic function;
    those that look at several dates, without cash dividends between them. Exact, too, by the boundary at which they are
    exercised (`qsde.market.american`), are `American` options under `BlackScholes` at a constant rate and yield without
    discrete dividends, at any time whatever their `dates_per_year`. Simulated payoffs share one set of paths; rights to
    exercise early come after them, each with a policy of its own.

    Args:
        model: the model; leading batch axes of its parameters are models priced together (not for early exercise).
        payoffs: one payoff or a list, rights to exercise early among them.
        market: spot, curves and dividends; `Markets` for a model of several underlyings.
        engine: `Fourier(...)` (exact prices) or `MonteCarlo(...)` for all payoffs, or `Auto(MonteCarlo(...))`, which
            takes exact prices where there are any (none inside `torch.func` transforms) and simulates the others. None
            is `Auto()`.
        progress: called with (done, total) of about equal shares of the work.
        least_squares: how rights to exercise early are priced.

    Raises:
        InputError: nothing to price, or the engine cannot price a payoff; the message names it and the engine to use.
        NumericsError: a path left the finite numbers, or a quadrature missed its tolerance.

    Example:
        >>> from qsde.models import Heston
        >>> from qsde.payoffs import Digital, European
        >>> found = price(Heston.typical(), [European(100.0, 1.0), Digital(100.0, 1.0)], Market(100.0))
        >>> found.methods, [round(x, 6) for x in found.value.tolist()]
        (('fourier', 'fourier'), [7.739841, 0.558482])
    """
    began = time.perf_counter()
    book = book_of(payoffs)
    check_types(model, market, engine)
    engine = engine or Auto()
    exact = _exact(model, book, market, engine)
    simulated = {i: payoff for i, payoff in enumerate(book) if i not in exact}
    fourier = engine if isinstance(engine, Fourier) else Fourier()
    rows, n_paths = _integrated(model, exact, market, fourier) if exact else {}, 0
    if simulated and not isinstance(engine, Fourier):
        simulation = engine.simulation if isinstance(engine, Auto) else engine
        more, n_paths = _simulated(model, simulated, market, simulation, least_squares, _Parts(progress))
        rows |= more
    in_order = [rows[i] for i in range(len(book))]
    return _collected(in_order, isinstance(payoffs, Claim), n_paths, time.perf_counter() - began)


#: What a method does not have.
_NONE = torch.tensor(math.nan, dtype=torch.float64)


@dataclass(frozen=True)
class _Row:
    """The price of one payoff, [*batch]; the fields of `Prices`."""

    method: Method
    value: Tensor
    std_error: Tensor
    numerical_error: Tensor = _NONE
    variance_ratio: Tensor = _NONE
    upper: Tensor = _NONE
    upper_std_error: Tensor = _NONE
    exercise_probability: Tensor = _NONE
    exercise_time: Tensor = _NONE


def check_types(model: object, market: object, engine: object) -> None:
    """Raises InputError if an argument is of another type; None is an engine that is chosen."""
    given: dict[str, tuple[object, tuple[type, ...]]] = {
        "model": (model, (Model,)),
        "market": (market, (Market, Markets)),
    }
    if engine is not None:
        given["engine"] = engine, (MonteCarlo, Fourier, Auto)
    for name, (value, kinds) in given.items():
        if not isinstance(value, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(f"{name} must be of type {wanted}, got {value!r:.60}")


def _exact(
    model: Model, book: list[Claim], market: Market | Markets, engine: MonteCarlo | Fourier | Auto
) -> dict[int, Claim]:
    """The payoffs to integrate, by their place in the book."""
    if isinstance(engine, Fourier):
        return dict(enumerate(book))
    # Fourier integrals look at their inputs, which a transform forbids
    if isinstance(engine, MonteCarlo) or inside_transform():
        return {}
    return {i: payoff for i, payoff in enumerate(book) if why_not_exact(model, payoff, market) is None}


def _integrated(model: Model, book: Mapping[int, Claim], market: Market | Markets, engine: Fourier) -> dict[int, _Row]:
    for i, payoff in book.items():
        with _named(i):
            check_exact(model, payoff, market)
    assert isinstance(market, Market), "nothing is exact in several markets"
    found = price_exact(model, list(book.values()), market, engine)
    return {
        i: _Row(exact_method(payoff), p.value, torch.zeros_like(p.error), p.error)
        for (i, payoff), p in zip(book.items(), found, strict=True)
    }


def _simulated(
    model: Model,
    book: Mapping[int, Claim],
    market: Market | Markets,
    engine: MonteCarlo,
    least_squares: LeastSquares | None,
    tell: _Parts,
) -> tuple[dict[int, _Row], int]:
    payoffs = {i: claim for i, claim in book.items() if isinstance(claim, Payoff)}
    rights = {i: claim for i, claim in book.items() if isinstance(claim, EarlyExercise)}
    tell.parts = bool(payoffs) + len(rights)
    rows: dict[int, _Row] = {}
    n_paths = 0
    if payoffs:
        found = montecarlo.price(model, list(payoffs.values()), market, engine, tell)
        columns = (found.value.unbind(-1), found.std_error.unbind(-1), found.variance_ratio.unbind(-1))
        for i, value, error, ratio in zip(payoffs, *columns, strict=True):
            rows[i] = _Row("monte_carlo", value, error, variance_ratio=ratio)
        n_paths = found.n_paths
        tell.part_done()
    for i, claim in rights.items():
        with _named(i):
            rows[i], n_paths = _early(model, claim, market, engine, least_squares)
        tell.part_done()
    return rows, n_paths


def _early(
    model: Model,
    claim: EarlyExercise,
    market: Market | Markets,
    engine: MonteCarlo,
    least_squares: LeastSquares | None,
) -> tuple[_Row, int]:
    found = price_early(model, claim, market, engine, least_squares)
    chance, when = torch.tensor([found.exercise_probability, found.exercise_time], dtype=torch.float64)
    row = _Row(
        "least_squares",
        found.value,
        found.std_error,
        upper=found.upper,
        upper_std_error=found.upper_std_error,
        exercise_probability=chance,
        exercise_time=when,
    )
    return row, found.n_paths


def _collected(rows: list[_Row], single: bool, n_paths: int, seconds: float) -> Prices:
    def column(name: str) -> Tensor:
        cells = [getattr(row, name).to(rows[0].value).expand_as(row.value) for row in rows]
        return cells[0] if single else torch.stack(cells, -1)

    return Prices.of(column, tuple(row.method for row in rows), n_paths, seconds)


class _Parts:
    """Progress of work in parts of about equal length."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self.parts, self._done = progress or (lambda done, total: None), 1, 0

    def __call__(self, done: int, total: int) -> None:
        self._progress(self._done * total + done, self.parts * total)

    def part_done(self) -> None:
        """The next part begins."""
        self._done += 1
        self(0, 1)


@contextmanager
def _named(index: int) -> Iterator[None]:
    """Says which payoff an InputError is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"payoffs[{index}]: {error}") from None
