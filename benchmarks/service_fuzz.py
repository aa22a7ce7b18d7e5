"""Every operation of the service's OpenAPI document with requests that schemathesis makes up, good ones and bad ones.

No answer may be a 5xx, no request may hang, and memory must stay where it is. Answers are also compared with the
document: their status, their type and their schema. Requests are cut off by the service's own limits, which are small
here so that what is asked for is also computed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import requests
import schemathesis
from footprint import Watch
from harness import Row, arguments, report
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from processes import Service
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

#: Seconds after which a request hangs: more than the service may compute.
_HANGS = 60.0
_CONFORMS = [status_code_conformance, content_type_conformance, response_schema_conformance]


@dataclass
class Seen:
    """Answers by status, failures by kind, and the longest request in seconds."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0


def fuzz(address: str, examples: int) -> Seen:
    """Made up requests to all operations."""
    seen = Seen()
    document = schemathesis.openapi.from_url(f"{address}/openapi.json")
    for operation in [found.ok() for found in document.get_all_operations()]:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                _asked(operation, mode, examples, seen)
            except hypothesis.errors.Unsatisfiable:  # nothing can be wrong with a request without parameters
                continue
            print(f"{sum(seen.answers.values()):5d} requests, {operation.label} {mode.name}", file=sys.stderr)
    return seen


def _asked(operation: Any, mode: GenerationMode, examples: int, seen: Seen) -> None:
    @seed(1)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def ask(data: Any) -> None:
        _answered(data.draw(operation.as_strategy(generation_mode=mode)), operation.label, seen)

    ask()


def _answered(case: Any, label: str, seen: Seen) -> None:
    began = time.perf_counter()
    try:
        answer = case.call(timeout=_HANGS)
    except requests.Timeout:
        seen.failures[f"{label} hangs"] += 1
        seen.answers["5xx: none in time"] += 1
        return
    seen.longest = max(seen.longest, time.perf_counter() - began)
    seen.answers[str(answer.status_code)] += 1
    try:
        case.validate_response(answer, checks=_CONFORMS)
    except Exception as error:  # whatever a check raises
        seen.failures[f"{label}: {type(error).__name__} {error}"[:400]] += 1


def main() -> int:
    options = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        limits = {"max_path_steps": 3_000_000, "max_contracts": 50, "max_jobs": 20, "max_job_seconds": 10}
        service = Service(Path(folder) / "log", data_dir=folder, workers=1, **limits)
        service.start()
        try:
            with Watch(service) as watch:
                seen = fuzz(service.address, 8 if options.quick else 80)
        finally:
            service.stop()
    for failure, count in seen.failures.most_common():
        print(f"{count:5d}  {failure}")
    failed = sum(seen.failures.values())
    total = sum(seen.answers.values())
    shares = ", ".join(f"{count} x {status}" for status, count in sorted(seen.answers.items()))
    early, peak = watch.seen[len(watch.seen) // 4] / 2**20, max(watch.seen) / 2**20
    server = sum(count for status, count in seen.answers.items() if status.startswith("5"))
    rows = [
        Row("requests made up", total, 200.0 if options.quick else 2_000.0, 1.0, "", True, shares),
        Row("5xx and hangs (plus 1)", server + 1, 1.0, 1.0, "", False, f"longest request {seen.longest:.2f} s"),
        Row("other than the document says (plus 1)", failed + 1, 1.0, 1.0, "", False, "each is printed above"),
        Row("peak memory", peak, 2 * early, 1.0, "MiB", False, f"peer: twice the {early:.0f} MiB at a quarter"),
    ]
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
