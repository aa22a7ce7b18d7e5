"""Request files: reading them, writing answers, and `qsde price request.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qsde.cli.show import line, number, progress, table
from qsde.errors import InputError
from qsde.writing import reserve, write_atomic

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import Tensor

    from qsde.calibration.fit import Fit
    from qsde.pricing.run import Progress
    from qsde.spec import EngineSpec, JobRequest, PayoffSpec, PricedPayoff, PriceRequest, PriceResult, PricingJob

R = TypeVar("R", bound="JobRequest")
A = TypeVar("A", bound="BaseModel")

#: Largest request file, bytes.
MAX_BYTES = 1 << 25
#: Longest list shown in full.
_SHOWN = 3


def price_request(path: Path, out: Path | None) -> None:
    """Prices what the file asks for, prints a table and writes the answer to `out`.

    Raises:
        InputError: the file cannot be read, or asks for something that makes no sense; the message names file and
            field.
    """
    from qsde.spec import PriceRequest, PriceResult

    request = read_request(PriceRequest, path, out)
    answer(request, PriceResult.of, "pricing", f"{path}: ", out, _show)


def answer(
    request: R, compute: Callable[[R, PricingJob, Progress], A], doing: str, source: str, out: Path | None,
    show: Callable[[R, PricingJob, A], None],
) -> None:  # fmt: skip
    """Computes, writes and shows the answer to a request; `source` starts the message of a failure.

    Raises:
        InputError: the request asks for something that makes no sense.
    """
    try:
        job = request.build(library)
        with progress(f"{doing} {counted(job)}") as tell:
            result = compute(request, job, tell)
    except InputError as error:
        raise InputError(f"{source}{error}") from error
    _write(result, out)
    show(request, job, result)
    if out is not None:
        line(f"result: {out}")


def read_request(kind: type[R], path: Path, out: Path | None) -> R:
    """The request in the file, checked.

    Raises:
        InputError: the file cannot be read or is no such request, or `out` cannot be written.
    """
    from qsde.spec import parsed

    reserve(out)
    return parsed(kind, _read(path), str(path))


def counted(job: PricingJob) -> str:
    """The number of payoffs, in words."""
    return f"{len(job.payoffs)} payoff{'s' if len(job.payoffs) > 1 else ''}"


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: a request has at most {MAX_BYTES:,} bytes; price the payoffs in several requests")
    if not data.strip():
        raise InputError(f"{path}: is empty; give a JSON object with model, market, payoffs and engine")
    return data


def library(file: str) -> list[Fit]:
    """The fits of a file."""
    from qsde.io.fits import read_fits

    return read_fits(file)


def _write(result: BaseModel, out: Path | None) -> None:
    """Writes an answer, if `out` is given; before anything is printed, for a reader such as head may leave early."""
    if out is None:
        return
    with write_atomic(out) as file:
        file.write(result.model_dump_json(indent=2))


def _show(request: PriceRequest, job: PricingJob, result: PriceResult) -> None:
    show_job(job, request.engine, result.n_paths, f"{result.seconds:.2f} s; {result.units}")
    errors = ("numerical error",) if result.n_paths is None else ("std. error", "%")
    bounds = ("upper bound", "std. error") if any(p.upper is not None for p in result.payoffs) else ()
    rows = [
        [priced.type, terms(spec), number(priced.value, ",.8g"), *_errors(priced, result.n_paths is not None),
         *(_upper(priced) if bounds else ())]
        for spec, priced in zip(request.payoffs, result.payoffs, strict=True)
    ]  # fmt: skip
    table("", ["payoff", "terms", "value", *errors, *bounds], rows, text_columns=2)


def show_job(job: PricingJob, engine: EngineSpec, n_paths: int | None, rest: str) -> None:
    """Two lines: model and market, and engine."""
    line(f"{job.model.name}, {_market(job)}")
    line(f"{_engine(engine, n_paths)}, {rest}")


def _market(job: PricingJob) -> str:
    last = max(payoff.maturity for payoff in job.payoffs)
    spot, forward = job.market.forward(0.0), job.market.forward(last)
    discount = float(job.market.discount(last))
    return f"spot {_numbers(spot)}; at {last:.6g} years forward {_numbers(forward)}, discount factor {discount:.8g}"


def _numbers(values: Tensor) -> str:
    return ", ".join(f"{value:.8g}" for value in values.reshape(-1).tolist())


def _engine(engine: EngineSpec, n_paths: int | None) -> str:
    from qsde.spec import FourierSpec

    if isinstance(engine, FourierSpec) or n_paths is None:
        return "exact prices"
    scheme = f", scheme {engine.scheme}" if engine.scheme else ""
    return f"Monte Carlo, {n_paths:,} paths, {engine.noise} noise, seed {engine.seed}, {engine.dtype}{scheme}"


def _errors(priced: PricedPayoff, simulated: bool) -> list[str]:
    if not simulated:
        return [number(_or_nan(priced.numerical_error), ".1g")]
    if priced.std_error is None:
        return ["exact", "-"]
    error = _or_nan(priced.std_error)
    return [number(error, ".2g"), number(100 * error / abs(priced.value) if priced.value else math.nan, ".2g")]


def _upper(priced: PricedPayoff) -> list[str]:
    return [number(_or_nan(priced.upper), ",.8g"), number(_or_nan(priced.upper_std_error), ".2g")]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def terms(spec: PayoffSpec) -> str:
    """The fields that were given, such as `strike 100, expiry 1`."""
    return ", ".join(f"{name} {_value(value)}" for name, value in spec.terms.items() if name in spec.model_fields_set)


def _value(value: Any) -> str:
    from qsde.spec import PayoffSpec

    if isinstance(value, PayoffSpec):
        return f"{value.name} ({terms(value)})"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = ", ".join(_value(item) for item in value)
        return f"[{shown}]" if len(value) <= _SHOWN else f"[{_value(value[0])} ... {_value(value[-1])}; {len(value)}]"
    return str(value)
