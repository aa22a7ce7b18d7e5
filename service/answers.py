"""Bodies in, answers out: what a worker computes. One bad contract does not fail its neighbours."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from pydantic_core import from_json, to_json
from sqlalchemy.exc import OperationalError

from qsde.errors import QsdeError, VolStatus
from qsde.market.implied_vol import implied_vol
from qsde.pricing.moments import Result
from qsde.pricing.run import Run
from qsde.spec import (
    FourierSpec,
    GreeksRequest,
    GreeksResult,
    JobRequest,
    PayoffGreeks,
    PricedPayoff,
    PriceRequest,
    PriceResult,
    PricingModelSpec,
    choose_fit,
    dump_fits,
    spec_of,
)
from qsde.spec.columns import known
from service import shared_integrals, shared_paths
from service.errors import Problem, database_away, field_of, internal, out_of_memory, shortened
from service.fitted import library, report
from service.log import log
from service.reading import Reading, read, read_job
from service.scenarios import Laddered, ScenariosAnswer, ScenariosRequest, laddered, moved
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

R = TypeVar("R", bound=JobRequest)
X = TypeVar("X")
#: HTTP status and body.
Reply = tuple[int, bytes]
#: Name of the endpoint and body.
Task = tuple[str, bytes]

#: Parts of a request that all its payoffs share.
_SHARED = ("model", "market", "engine", "fit")
#: Parts about which each payoff is asked.
_ASKED = ("greeks", "scenarios")
#: Paths that tell which of several payoffs an engine refuses.
_PROBE = 1024


def answer(tasks: Sequence[Task]) -> list[Reply]:
    """The reply to each task; those that may be computed together are, to the digits that each has alone."""
    requests = {i: found for i, task in enumerate(tasks) if (found := _readable(*task))}
    replies = _shared(_integrated, requests) if _together[shared_integrals] else {}
    if len(tasks) > 1 and _together[shared_paths]:
        replies |= _shared(_simulated, {i: request for i, request in requests.items() if i not in replies})
    return [replies[i] if i in replies else alone(*task) for i, task in enumerate(tasks)]


def _shared(
    compute: Callable[[Mapping[int, PriceRequest]], dict[int, Reply]], requests: Mapping[int, PriceRequest]
) -> dict[int, Reply]:
    """Replies of those that are computed together; what goes wrong then is said to whom it concerns, alone."""
    try:
        return compute(requests)
    except Exception:
        log.exception("not computed together", requests=len(requests))
        return {}


def alone(endpoint: str, body: bytes) -> Reply:
    """The reply to one task."""
    try:
        return 200, _ANSWERS[endpoint](body)
    except Problem as problem:
        return problem.status, problem.body()
    except QsdeError as error:
        return 422, Problem.of(str(error)).body()
    except OperationalError as error:
        away = database_away(error)
        return away.status, away.body()
    except Exception as error:
        if out_of_memory(error):
            fix = "the request needs more memory than a worker has; lower engine.paths or send fewer payoffs"
            return 422, Problem(422, fix).body()
        log.exception("failed", endpoint=endpoint)
        return 500, internal().body()


def _readable(endpoint: str, body: bytes) -> PriceRequest | None:
    """A request that may be computed with others; whatever is wrong with one is said where it is answered alone."""
    if endpoint != "price":
        return None
    try:
        reading = _ours(read_job(PriceRequest, body))
    except (Problem, QsdeError):
        return None
    return None if reading.bad else reading.request


#: Whether this machine computes to the same digits as the library what requests share.
_together = {shared_integrals: True, shared_paths: True}


def check_machine() -> None:
    """Finds out, and says, if this machine must leave requests to the library, one by one."""
    for shared in _together:
        _together[shared] = shared.checked()
        if not _together[shared]:
            log.warning("computed one by one: together, this machine has other last digits", what=shared.__name__)


def _integrated(requests: Mapping[int, PriceRequest]) -> dict[int, Reply]:
    """Replies to requests for one European option with an exact price."""
    options = {i: option for i, request in requests.items() if (option := _option(request))}
    began = time.perf_counter()
    results = shared_integrals.results(list(options.values()))
    seconds = time.perf_counter() - began
    replies: dict[int, Reply] = {}
    for i, found in zip(options, results, strict=True):
        if found is not None:
            priced = PricedPayoff(type="european", method="fourier", value=found[0], numerical_error=found[1])
            replies[i] = 200, _price_answer(_read_of(requests[i]), [priced], seconds, None)
    return replies


def _option(request: PriceRequest) -> shared_integrals.Option | None:
    try:
        return shared_integrals.option_of(request) or shared_integrals.option_of_fit(request, library)
    except QsdeError:
        return None


def _simulated(requests: Mapping[int, PriceRequest]) -> dict[int, Reply]:
    """Replies to requests that share a simulation with others."""
    runs = {i: run for i, request in requests.items() if (run := _run(request))}
    places, replies = list(runs), {}
    for group in shared_paths.groups(list(runs.values())):
        members = [places[row] for row in group]
        began = time.perf_counter()
        try:
            found = shared_paths.results([runs[i] for i in members]) if len(members) > 1 else []
        except QsdeError:  # of one of them; the others are computed alone as well
            continue
        seconds = time.perf_counter() - began
        for i, rows in zip(members, found, strict=False):
            replies[i] = 200, _of_paths(requests[i], runs[i], rows, seconds)
    return replies


def _run(request: PriceRequest) -> Run | None:
    try:
        return None if isinstance(request.engine, FourierSpec) else shared_paths.prepared(request.build(library))
    except QsdeError:
        return None


def _of_paths(request: PriceRequest, run: Run, rows: Sequence[Result], seconds: float) -> bytes:
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


def _read_of(request: R) -> Reading[R]:
    types = tuple(spec.name for spec in request.payoffs)
    return Reading(request, tuple(range(len(types))), {}, types)


def _ours(reading: Reading[R]) -> Reading[R]:
    """The request as the service runs it.

    Raises:
        QsdeError: it asks for what the service does not do.
    """
    request = reading.request
    if isinstance(request.engine, FourierSpec):
        return reading
    if request.engine.compile == "always":
        raise Problem(
            422, 'engine.compile: the service does not compile; leave it out or give "never"', "engine.compile"
        )
    engine = request.engine.model_copy(update={"compile": "never"})
    return Reading(request.model_copy(update={"engine": engine}), reading.places, reading.bad, reading.types)


def _price(body: bytes) -> bytes:
    reading, found = _usable(_ours(read_job(PriceRequest, body)), lambda r: PriceResult.of(r, r.build(library)))
    if found is None:
        return _price_answer(reading, [], 0.0, None)
    return _price_answer(reading, found.payoffs, found.seconds, found.n_paths)


def _price_answer(
    reading: Reading[PriceRequest], priced: Sequence[PricedPayoff], seconds: float, n_paths: int | None
) -> bytes:
    request = reading.request
    items: dict[int, Priced | Failed] = {**_failed(reading)}
    for place, one in zip(reading.places, priced, strict=True):
        items[place] = Priced(**one.model_dump()) if math.isfinite(one.value) else _not_finite(place, one.type)
    payoffs = [items[i] for i in sorted(items)]
    answered = PriceAnswer(
        seconds=seconds, n_paths=n_paths, model=_model(request), engine=request.engine, payoffs=payoffs
    )
    return to_json(answered)


def _model(request: JobRequest) -> PricingModelSpec:
    """The model of a request, also where it names a fit."""
    if request.model is not None:
        return request.model
    assert request.fit is not None
    return spec_of(choose_fit(library(request.fit.file), request.fit.model, request.fit.file).model)


def _fit_file(body: bytes) -> bytes:
    return dump_fits(library(from_json(body))).encode()


def _report(body: bytes) -> bytes:
    return report(from_json(body)).encode()


def _greeks(body: bytes) -> bytes:
    read_ = _ours(read_job(GreeksRequest, body))
    reading, found = _usable(read_, lambda r: GreeksResult.of(r, r.build(library)))
    request = reading.request
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
            model=_model(request),
            engine=request.engine,
            greeks=request.greeks,
            payoffs=[items[i] for i in sorted(items)],
        )
    )


def _greeks_item(place: int, one: PayoffGreeks) -> PricedGreeks | Failed:
    if not all(math.isfinite(greek.value) for greek in one.greeks):
        return _not_finite(place, one.type)
    return PricedGreeks(**one.model_dump())


def _scenarios(body: bytes) -> bytes:
    read_ = _ours(read_job(ScenariosRequest, body))
    reading, found = _usable(read_, lambda r: moved(r, r.build(library)))
    request = reading.request
    items: dict[int, Laddered | Failed] = {**_failed(reading)}
    for row, place in enumerate(reading.places if found else ()):
        assert found is not None
        name = request.payoffs[row].name
        items[place] = laddered(found, row, name) or _not_finite(place, name)
    return to_json(
        ScenariosAnswer(
            units=request.scenarios.units,
            seconds=found.seconds if found else 0.0,
            n_paths=(found.n_paths or None) if found else None,
            model=_model(request),
            engine=request.engine,
            spots=found.spots.tolist() if found else [],
            levels=found.levels.tolist() if found else [],
            vols=found.vols.tolist() if found else [],
            payoffs=[items[i] for i in sorted(items)],
        )
    )


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
        reading.request.setting(library)
        return reading, None
    try:
        return reading, compute(reading.request)
    except QsdeError as error:
        found, field = error, (field_of(str(error)) or "").split(".")[0]
    if field in _SHARED:
        raise found
    for attempt in (lambda request: request.build(library), compute):
        bad = _refused(reading, attempt)
        if field in _ASKED and len(bad) == len(reading.places):
            raise found
        if bad:
            return _usable(reading.without(bad), compute)
    return reading.without(dict.fromkeys(reading.places, str(found))), None


def _refused(reading: Reading[R], attempt: Callable[[R], object]) -> dict[int, str]:
    """What is wrong with each payoff for itself."""
    request = reading.request
    engine = request.engine
    if not isinstance(engine, FourierSpec):
        engine = engine.model_copy(update={"paths": min(engine.paths, _PROBE)})
    bad = {}
    for i, spec in zip(reading.places, request.payoffs, strict=True):
        try:
            attempt(request.model_copy(update={"payoffs": (spec,), "engine": engine}))
        except QsdeError as error:
            bad[i] = re.sub(r"^(payoffs(\.0|\[0\])|greeks(?=: )|scenarios(?=: ))", f"payoffs.{i}", str(error))
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


_ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "price": _price,
    "greeks": _greeks,
    "scenarios": _scenarios,
    "implied_vol": _implied_vol,
    "report": _report,
    "fit_file": _fit_file,
}
