"""`qsde price request.json`: any payoffs, by simulation or by Fourier integrals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsde.cli.show import line, number, progress, table
from qsde.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from qsde.calibration.fit import Fit
    from qsde.spec import PayoffSpec, PricedPayoff, PriceRequest, PriceResult, PricingJob

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
    from qsde.spec import PriceRequest, PriceResult, parsed

    if out is not None and out.is_dir():
        raise InputError(f"{out} is a folder: give a file name")
    request = parsed(PriceRequest, _read(path), str(path))
    try:
        job = request.build(_library)
        with progress(f"pricing {len(job.payoffs)} payoff{'s' if len(job.payoffs) > 1 else ''}") as tell:
            result = PriceResult.of(request, job, tell)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if out is not None:  # before anything is printed: a reader such as head may leave early
        _write(result, out)
    _show(request, job, result)
    if out is not None:
        line(f"result: {out}")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: a request has at most {MAX_BYTES:,} bytes; price the payoffs in several requests")
    if not data.strip():
        raise InputError(f"{path}: is empty; give a JSON object with model, market, payoffs and engine")
    return data


def _library(file: str) -> list[Fit]:
    from qsde.spec import load_fits

    return load_fits(Path(file).read_bytes(), file)


def _write(result: PriceResult, out: Path) -> None:
    from qsde.io.files import write_atomic

    out.parent.mkdir(parents=True, exist_ok=True)
    with write_atomic(out) as file:
        file.write(result.model_dump_json(indent=2))


def _show(request: PriceRequest, job: PricingJob, result: PriceResult) -> None:
    line(f"{job.model.name}, {_market(job)}")
    line(f"{_engine(request, result)}, {result.seconds:.2f} s; {result.units}")
    errors = ("numerical error",) if result.n_paths is None else ("std. error", "%")
    bounds = ("upper bound", "std. error") if any(p.upper is not None for p in result.payoffs) else ()
    rows = [
        [priced.type, _terms(spec), number(priced.value, ",.8g"), *_errors(priced), *(_upper(priced) if bounds else ())]
        for spec, priced in zip(request.payoffs, result.payoffs, strict=True)
    ]
    table("", ["payoff", "terms", "value", *errors, *bounds], rows, text_columns=2)


def _market(job: PricingJob) -> str:
    last = max(payoff.maturity for payoff in job.payoffs)
    spot, forward = job.market.forward(0.0), job.market.forward(last)
    discount = float(job.market.discount(last))
    return f"spot {_numbers(spot)}; at {last:.6g} years forward {_numbers(forward)}, discount factor {discount:.8g}"


def _numbers(values: Tensor) -> str:
    return ", ".join(f"{value:.8g}" for value in values.reshape(-1).tolist())


def _engine(request: PriceRequest, result: PriceResult) -> str:
    from qsde.spec import FourierSpec

    engine = request.engine
    if isinstance(engine, FourierSpec):
        return "Fourier integrals"
    scheme = f", scheme {engine.scheme}" if engine.scheme else ""
    return f"Monte Carlo, {result.n_paths:,} paths, {engine.noise} noise, seed {engine.seed}, {engine.dtype}{scheme}"


def _errors(priced: PricedPayoff) -> list[str]:
    if priced.numerical_error is not None:
        return [number(priced.numerical_error, ".1g")]
    error = _or_nan(priced.std_error)
    return [number(error, ".2g"), number(100 * error / abs(priced.value) if priced.value else math.nan, ".2g")]


def _upper(priced: PricedPayoff) -> list[str]:
    return [number(_or_nan(priced.upper), ",.8g"), number(_or_nan(priced.upper_std_error), ".2g")]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _terms(spec: PayoffSpec) -> str:
    """The fields that were given, such as `strike 100, expiry 1`."""
    return ", ".join(f"{name} {_value(value)}" for name, value in spec.terms.items() if name in spec.model_fields_set)


def _value(value: Any) -> str:
    from qsde.spec import PayoffSpec

    if isinstance(value, PayoffSpec):
        return f"{value.name} ({_terms(value)})"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = ", ".join(_value(item) for item in value)
        return f"[{shown}]" if len(value) <= _SHOWN else f"[{_value(value[0])} ... {_value(value[-1])}; {len(value)}]"
    return str(value)
