"""Bodies in, answers out: what a worker computes. One bad contract does not fail its neighbours."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from pydantic_core import to_json

from qsde.errors import QsdeError, VolStatus
from qsde.market.implied_vol import implied_vol
from qsde.pricing.moments import Result
from qsde.pricing.run import Run
from qsde.spec import (
    GreeksRequest,
    GreeksResult,
    JobRequest,
    MonteCarloSpec,
    PayoffGreeks,
    PricedPayoff,
    PriceRequest,
    PriceResult,
)
from qsde.spec.result import known
from service import shared_integrals, shared_paths
from service.errors import Problem, field_of, internal, shortened
from service.log import log
from service.reading import Reading, read, read_job, refuse_files
from service.schemas import (
    VOL_STATUS,
    Failed,
    GreeksAnswer,
    ImpliedVolAnswer,
    ImpliedVolItem,
    ImpliedVolRequest,
    PriceAnswer,
    Priced,
    PricedGreeks,
)
from service.shared_integrals import Option

R = TypeVar("R", bound=JobRequest)
X = TypeVar("X")
W = TypeVar("W")
#: HTTP status and body.
Reply = tuple[int, bytes]
#: Name of the endpoint and body.
Task = tuple[str, bytes]

#: Parts of a request that all its payoffs share.
_SHARED = ("model", "market", "engine", "fit", "greeks")
#: Paths that tell which of several payoffs an engine refuses.
_PROBE = 1024


def answer(tasks: Sequence[Task]) -> list[Reply]:
    """The reply to each task; those that may be computed together are, to the digits that each has alone."""
    shared = [(i, found) for i, task in enumerate(tasks) if len(tasks) > 1 and (found := _shareable(*task))]
    replies = _together(shared)
    return [replies[i] if i in replies else alone(*task) for i, task in enumerate(tasks)]


def alone(endpoint: str, body: bytes) -> Reply:
    """The reply to one task."""
    try:
        return 200, _ANSWERS[endpoint](body)
    except Problem as problem:
        return problem.status, problem.body()
    except QsdeError as error:
        return 422, Problem.of(str(error)).body()
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "alloc" not in str(error):
            log.exception("failed", endpoint=endpoint)
            return 500, internal().body()
        fix = "the request needs more memory than a worker has; lower engine.paths or send fewer payoffs"
        return 422, Problem(422, fix).body()
    except Exception:
        log.exception("failed", endpoint=endpoint)
        return 500, internal().body()


@dataclass(frozen=True)
class _Shareable:
    """A price request that may be computed together with others."""

    request: PriceRequest
    work: Run | Option


def _shareable(endpoint: str, body: bytes) -> _Shareable | None:
    """What may be shared; whatever is wrong with a request is said where it is answered alone."""
    if endpoint != "price":
        return None
    try:
        reading = _ours(read_job(PriceRequest, body))
        work = None if reading.bad else _work(reading.request)
    except (Problem, QsdeError):
        return None
    return None if work is None else _Shareable(reading.request, work)


def _work(request: PriceRequest) -> Run | Option | None:
    if isinstance(request.engine, MonteCarloSpec):
        return shared_paths.prepared(request.build())
    if _integrals_together and shared_integrals.may_share(request):
        return shared_integrals.prepared(request.build())
    return None


#: Whether this machine integrates options to the same digits together and alone.
_integrals_together = True


def check_machine() -> None:
    """Finds out, and says, if this machine must integrate options one by one."""
    global _integrals_together
    _integrals_together = shared_integrals.checked()
    if not _integrals_together:
        log.warning("options are integrated one by one: together, this machine computes other last digits")


def _together(shared: Sequence[tuple[int, _Shareable]]) -> dict[int, Reply]:
    runs = [(i, one.request, one.work) for i, one in shared if isinstance(one.work, Run)]
    options = [(i, one.request, one.work) for i, one in shared if isinstance(one.work, Option)]
    paths = _grouped(runs, shared_paths.groups, shared_paths.results, _simulated)
    return paths | _grouped(options, shared_integrals.groups, shared_integrals.results, _integrated)


def _grouped(
    shared: Sequence[tuple[int, PriceRequest, W]],
    groups: Callable[[Sequence[W]], list[list[int]]],
    results: Callable[[Sequence[W]], list[X]],
    answered: Callable[[PriceRequest, W, X, float], bytes],
) -> dict[int, Reply]:
    """Replies of groups of two or more."""
    replies: dict[int, Reply] = {}
    for group in groups([work for *_, work in shared]):
        members = [shared[i] for i in group]
        if len(members) == 1:
            continue
        began = time.perf_counter()
        try:
            found = results([work for *_, work in members])
        except QsdeError:  # of one of them; the others are computed alone as well
            continue
        seconds = time.perf_counter() - began
        for (i, request, work), one in zip(members, found, strict=True):
            replies[i] = 200, answered(request, work, one, seconds)
    return replies


def _simulated(request: PriceRequest, run: Run, rows: Sequence[Result], seconds: float) -> bytes:
    priced = [
        PricedPayoff(
            type=spec.name,
            method="monte_carlo",
            value=float(row.value),
            std_error=float(row.std_error),
            variance_ratio=known(row.variance_ratio),
        )
        for spec, row in zip(request.payoffs, rows, strict=True)
    ]
    return _price_answer(_read_of(request), priced, seconds, run.simulation.n_paths)


def _integrated(request: PriceRequest, option: Option, found: tuple[float, float], seconds: float) -> bytes:
    value, error = found
    priced = PricedPayoff(type="european", method="fourier", value=value, numerical_error=error)
    return _price_answer(_read_of(request), [priced], seconds, None)


def _read_of(request: R) -> Reading[R]:
    types = tuple(spec.name for spec in request.payoffs)
    return Reading(request, tuple(range(len(types))), {}, types)


def _ours(reading: Reading[R]) -> Reading[R]:
    """The request as the service runs it.

    Raises:
        QsdeError: it asks for what the service does not do.
    """
    request = reading.request
    refuse_files(request)
    if not isinstance(request.engine, MonteCarloSpec):
        return reading
    if request.engine.compile == "always":
        raise Problem(
            422, 'engine.compile: the service does not compile; leave it out or give "never"', "engine.compile"
        )
    engine = request.engine.model_copy(update={"compile": "never"})
    return Reading(request.model_copy(update={"engine": engine}), reading.places, reading.bad, reading.types)


def _price(body: bytes) -> bytes:
    reading, found = _usable(_ours(read_job(PriceRequest, body)), lambda r: PriceResult.of(r, r.build()))
    if found is None:
        return _price_answer(reading, [], 0.0, None)
    return _price_answer(reading, found.payoffs, found.seconds, found.n_paths)


def _price_answer(
    reading: Reading[PriceRequest], priced: Sequence[PricedPayoff], seconds: float, n_paths: int | None
) -> bytes:
    request = reading.request
    assert request.model is not None, "requests that name a file are refused"
    items: dict[int, Priced | Failed] = {**_failed(reading)}
    for place, one in zip(reading.places, priced, strict=True):
        items[place] = Priced(**one.model_dump()) if math.isfinite(one.value) else _not_finite(place, one.type)
    payoffs = [items[i] for i in sorted(items)]
    answered = PriceAnswer(
        seconds=seconds, n_paths=n_paths, model=request.model, engine=request.engine, payoffs=payoffs
    )
    return to_json(answered)


def _greeks(body: bytes) -> bytes:
    read_ = _ours(read_job(GreeksRequest, body))
    reading, found = _usable(read_, lambda r: GreeksResult.of(r, r.build()))
    request = reading.request
    assert request.model is not None, "requests that name a file are refused"
    total = request.greeks.total
    if total and reading.bad:
        first = reading.bad[min(reading.bad)]
        raise Problem(422, f"{first}; greeks.total needs every payoff of the book", field_of(first))
    items: dict[int, PricedGreeks | Failed] = {**_failed(reading)}
    for place, one in zip((0,) if total else reading.places, found.payoffs if found else (), strict=True):
        items[place] = _greeks_item(place, one)
    return to_json(
        GreeksAnswer(
            units=request.greeks.units,
            seconds=found.seconds if found else 0.0,
            n_paths=found.n_paths if found else None,
            model=request.model,
            engine=request.engine,
            greeks=request.greeks,
            payoffs=[items[i] for i in sorted(items)],
        )
    )


def _greeks_item(place: int, one: PayoffGreeks) -> PricedGreeks | Failed:
    if not all(math.isfinite(greek.value) for greek in one.greeks):
        return _not_finite(place, one.type)
    return PricedGreeks(**one.model_dump())


def _failed(reading: Reading[R]) -> dict[int, Failed]:
    return {
        i: Failed(type=reading.types[i], field=field_of(text) or f"payoffs.{i}", message=shortened(text))
        for i, text in reading.bad.items()
    }


def _not_finite(place: int, name: str) -> Failed:
    text = f"payoffs.{place}: the result is not a finite number; the inputs lie too far from those of a market"
    return Failed(type=name, field=f"payoffs.{place}", message=text)


def _usable(reading: Reading[R], compute: Callable[[R], X]) -> tuple[Reading[R], X | None]:
    """What can be computed, and for which payoffs; the others are set aside with what is wrong.

    Raises:
        QsdeError: what is wrong is none of the payoffs.
    """
    if not reading.places:
        reading.request.build()
        return reading, None
    try:
        return reading, compute(reading.request)
    except QsdeError as error:
        if (field_of(str(error)) or "").split(".")[0] in _SHARED:
            raise
        reason = str(error)
    for attempt in (lambda request: request.build(), compute):
        bad = _refused(reading, attempt)
        if bad:
            return _usable(reading.without(bad), compute)
    return reading.without(dict.fromkeys(reading.places, reason)), None


def _refused(reading: Reading[R], attempt: Callable[[R], object]) -> dict[int, str]:
    """What is wrong with each payoff for itself."""
    request = reading.request
    engine = request.engine
    if isinstance(engine, MonteCarloSpec):
        engine = engine.model_copy(update={"paths": min(engine.paths, _PROBE)})
    bad = {}
    for i, spec in zip(reading.places, request.payoffs, strict=True):
        try:
            attempt(request.model_copy(update={"payoffs": (spec,), "engine": engine}))
        except QsdeError as error:
            bad[i] = re.sub(r"^payoffs(\.0|\[0\])", f"payoffs.{i}", str(error))
    return bad


def _implied_vol(body: bytes) -> bytes:
    request = read(ImpliedVolRequest, body)
    names = ("price", "forward", "strike", "expiry", "discount_factor")
    numbers = {name: torch.tensor(getattr(request, name), dtype=torch.float64) for name in names}
    numbers["t"] = numbers.pop("expiry")
    with torch.no_grad():
        found = implied_vol(**numbers, is_call=torch.tensor(request.is_call))
    statuses = found.status.expand(request.count).tolist() if found.status.dim() else [int(found.status)]
    vols = found.vol.expand(request.count).tolist() if found.vol.dim() else [float(found.vol)]
    items = [_vol_item(VolStatus(status), vol) for status, vol in zip(statuses, vols, strict=True)]
    return to_json(ImpliedVolAnswer(items=items))


def _vol_item(status: VolStatus, vol: float) -> ImpliedVolItem:
    return ImpliedVolItem(
        status=VOL_STATUS[status], vol=vol if status is VolStatus.OK else None, message=status.message
    )


_ANSWERS: dict[str, Callable[[bytes], bytes]] = {"price": _price, "greeks": _greeks, "implied_vol": _implied_vol}
