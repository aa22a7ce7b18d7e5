"""What a request may cost: refused before it runs, with the name of the limit."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from fastapi import Request

from qsde.errors import QsdeError
from qsde.payoffs import AtExpiry, Claim, EarlyExercise
from qsde.schemes import scheme_for
from qsde.spec import (
    MODEL_TEMPLATES,
    AutoSpec,
    FourierSpec,
    GreeksRequest,
    JobRequest,
    PricingModelSpec,
    SimulationSpec,
)
from qsde.spec.leveraged import LEVERAGED
from service.errors import Problem
from service.reading import Reading
from service.scenarios import ScenariosRequest
from service.settings import Settings

#: How many simulations of the price Greeks by simulation cost: parts, a backward sweep, and bumps.
GREEKS_FACTOR = 8
#: Models that need no steps between dates.
_EXACT = frozenset(name for name, typical in MODEL_TEMPLATES.items() if scheme_for(typical()).exact)
_BEYOND = 1e18


@dataclass(frozen=True)
class Work:
    """Estimated work of a request.

    Attributes:
        paths, steps: of its largest simulation.
        path_steps: paths x (steps x underlyings + dates that payoffs look at), of all its simulations.
    """

    paths: int = 0
    steps: float = 0
    path_steps: float = 0


async def body_of(request: Request, settings: Settings) -> bytes:
    """The body, read as far as it may go.

    Raises:
        Problem: 413 if it is larger than `max_body_bytes`, whatever its header says; 408 if it takes `max_seconds`.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and len(declared) < 20 and int(declared) <= settings.max_body_bytes:
        try:
            async with asyncio.timeout(settings.max_seconds):
                parts = await _parts(request, settings.max_body_bytes)
        except TimeoutError:
            fix = "the body did not arrive; send it faster"
            raise exceeded("max_seconds", settings.max_seconds, "seconds for a request", fix, 408) from None
        if len(parts) <= settings.max_body_bytes:
            return parts
    raise exceeded("max_body_bytes", settings.max_body_bytes, "bytes in a body", "send fewer contracts at a time", 413)


async def _parts(request: Request, most: int) -> bytes:
    """The body, and little more than `most` bytes of it."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > most:
            break
    return bytes(parts)


def check_contracts(count: int, settings: Settings, field: str = "payoffs") -> None:
    """Raises Problem if a request holds too many contracts."""
    if count > settings.max_contracts:
        fix = f"{count:,} were sent; send them in several requests"
        raise exceeded("max_contracts", settings.max_contracts, f"{field} in a request", fix, field=field)


def check_scenarios(request: JobRequest, contracts: int, settings: Settings) -> None:
    """Raises Problem if a ladder has too many rungs."""
    spots, vols = _moves(request)
    cells = contracts * spots * vols
    if isinstance(request, ScenariosRequest) and cells > settings.max_scenarios:
        fix = f"contracts x spots x vols are {cells:,}; send fewer of them at a time"
        raise exceeded("max_scenarios", settings.max_scenarios, "scenarios of a request", fix, field="scenarios")


def check_work(work: Work, settings: Settings) -> None:
    """Raises Problem if a request would cost too much."""
    if work.paths > settings.max_paths:
        fix = f"{work.paths:,} were asked for; lower engine.paths"
        raise exceeded("max_paths", settings.max_paths, "paths", fix, field="engine.paths")
    if work.steps > settings.max_steps:
        fix = (
            f"about {work.steps:,.0f} would be needed; raise engine.max_dt, price far dates apart, or take another "
            "engine.scheme if it divides steps"
        )
        raise exceeded("max_steps", settings.max_steps, "time steps", fix, field="engine.max_dt")
    if work.path_steps > settings.max_path_steps:
        fix = (
            f"paths x (steps x underlyings + dates of all payoffs) is about {work.path_steps:,.0f}; "
            "lower engine.paths, raise engine.max_dt, or send fewer payoffs"
        )
        raise exceeded("max_path_steps", settings.max_path_steps, "path-steps in a request", fix, field="engine")


def exceeded(
    name: str, limit: float, what: str, fix: str, status: int = 422, field: str | None = None,
    headers: dict[str, str] | None = None,
) -> Problem:  # fmt: skip
    """The problem of a limit."""
    return Problem(status, f"at most {limit:,} {what} ({name}): {fix}", field, {name: limit}, headers)


def work_of(reading: Reading[JobRequest], model: PricingModelSpec) -> Work:
    """Estimated work of a request under this model; 0 without a simulation."""
    request, engine = reading.request, reading.request.engine
    claims = _claims(request) if reading.places else []
    if isinstance(engine, FourierSpec) or not claims or _integrated(request, model.model, claims):
        return Work()
    rights = [claim for claim in claims if isinstance(claim, EarlyExercise)]
    steps = _steps(model, engine, claims)
    assets = max(claim.assets for claim in claims)
    seen = sum(steps if claim.window is not None else len(claim.times) for claim in claims)
    factor = GREEKS_FACTOR if isinstance(request, GreeksRequest | ScenariosRequest) else 1
    spots, vols = _moves(request)
    simulations = (len(rights) < len(claims)) + 2 * len(rights)  # a policy is made on paths of its own
    bounds = engine.least_squares.outer * engine.least_squares.inner * sum(len(right.times) for right in rights)
    path_steps = engine.paths * (steps * assets * simulations + seen * spots) * vols * factor + bounds * assets
    return Work(engine.paths, steps, path_steps)


def _integrated(request: JobRequest, model: str, claims: Sequence[Claim]) -> bool:
    """Whether an automatic engine simulates none of the claims, whatever the market."""
    by_method = isinstance(request, GreeksRequest) and request.greeks.method != "auto"
    exact = model in MODEL_TEMPLATES and all(isinstance(claim, AtExpiry) for claim in claims)
    return isinstance(request.engine, AutoSpec) and exact and not by_method


def _moves(request: JobRequest) -> tuple[int, int]:
    """Spots and vols of a request, each with none moved."""
    if not isinstance(request, ScenariosRequest):
        return 1, 1
    ladder = request.scenarios
    return len({0.0, *ladder.spots}), len({0.0, *ladder.vols})


def _claims(request: JobRequest) -> list[Claim]:
    """The payoffs that make sense; what the others lack is said where they are priced."""
    found = []
    for spec in request.payoffs:
        try:
            found.append(spec.build())
        except QsdeError:
            continue
    return found


def _steps(model: PricingModelSpec, engine: SimulationSpec, claims: Sequence[Claim]) -> float:
    dates = len({t for claim in claims for t in claim.times})
    if model.model in _EXACT and engine.scheme is None and all(claim.window is None for claim in claims):
        return dates
    last, (knots, longest) = max(claim.maturity for claim in claims), _of_scheme(model, engine)
    between = last / min(engine.max_dt, longest)
    return dates + sum(t < last for t in knots) + math.ceil(min(between, _BEYOND))


def _of_scheme(model: PricingModelSpec, engine: SimulationSpec) -> tuple[Sequence[float], float]:
    """Times at which a step must end, and years of the longest step; what is wrong is said where it is priced."""
    if engine.scheme is None and model.model not in LEVERAGED:
        return (), math.inf
    with suppress(QsdeError):
        built = model.build()
        scheme = engine.simulation(built).scheme or scheme_for(built)
        return scheme.knots(built), scheme.longest(built)
    return (), math.inf
