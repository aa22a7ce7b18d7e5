"""What a request is taken to cost is what its simulation costs."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")

from qsde.pricing.run import simulated
from qsde.spec import PriceRequest
from service.limits import work_of
from service.reading import read_job

HESTON = {"model": "heston", "v0": 0.04, "kappa": 2.0, "theta": 0.04, "sigma": 2.0, "rho": -0.5}
JUMPS = {"jump_intensity": 0.5, "jump_mean": -0.1, "jump_std": 0.1}
TIMES = [i / 300 for i in range(301)]
MODELS: dict[str, dict[str, Any]] = {
    "black_scholes": {"model": "black_scholes", "vol": 0.2},
    "heston": HESTON,
    "bates": {**HESTON, **JUMPS, "model": "bates"},
    "local_vol": {
        "model": "local_vol",
        "backbone": {"model": "black_scholes", "vol": 1.0},
        "leverage": {
            "type": "grid", "times": TIMES, "x": [-0.1, 0.1], "values": [[0.2, 0.2]] * len(TIMES), "scale": 0.2
        },
    },
}  # fmt: skip
QUARTERS = [0.25, 0.5, 0.75, 1.0]
ASIAN = {"type": "asian", "strike": 100.0, "fixings": QUARTERS}
BARRIER = {"type": "barrier", "strike": 100.0, "barrier": 130.0, "expiry": 0.9, "style": "up-and-out"}


#: Models, and schemes that step them.
STEPPED = [(model, None) for model in MODELS] + [
    (model, scheme) for model in ("heston", "bates") for scheme in ("heston_near_exact", "heston_tq")
]


@pytest.mark.parametrize(("model", "scheme"), STEPPED)
@pytest.mark.parametrize("payoffs", [[ASIAN], [BARRIER], [ASIAN, BARRIER]])
@pytest.mark.parametrize("max_dt", [10.0, 0.01])
def test_no_fewer_steps_than_the_simulation_takes(
    model: str, scheme: str | None, payoffs: list[Any], max_dt: float
) -> None:
    request = {
        "model": MODELS[model],
        "market": {"spot": 100.0},
        "payoffs": payoffs,
        "engine": {"type": "monte_carlo", "paths": 1024, "scheme": scheme, "max_dt": max_dt, "compile": "never"},
    }
    reading = read_job(PriceRequest, json.dumps(request).encode())
    job = reading.request.build()
    grid = simulated(job.model, job.payoffs, job.market, job.engine).job.grid  # type: ignore[arg-type]
    steps, work = len(grid.step_size), work_of(reading, reading.request.model)  # type: ignore[arg-type]
    assert steps <= work.steps <= steps + 1 / max_dt + len(QUARTERS) + 1


def test_a_scheme_that_does_not_fit_costs_what_any_does() -> None:
    """What is wrong with it is said where it is priced."""
    request = {
        "model": MODELS["black_scholes"],
        "market": {"spot": 100.0},
        "payoffs": [ASIAN],
        "engine": {"type": "monte_carlo", "paths": 1024, "scheme": "heston_near_exact", "max_dt": 0.25},
    }
    reading = read_job(PriceRequest, json.dumps(request).encode())
    assert work_of(reading, reading.request.model).steps == 8  # type: ignore[arg-type]
