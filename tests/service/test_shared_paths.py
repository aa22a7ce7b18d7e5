"""Requests that share a simulation have, bit for bit, the digits that the library gives each alone."""

from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")

from qsde.spec import PriceRequest, PriceResult, PricingJob
from service import answers, shared_integrals, shared_paths
from service.shared_paths import ALIGNED, checked, groups, prepared, results

QUARTERS = [0.25, 0.5, 0.75, 1.0]
PAYOFFS: dict[str, Any] = {
    "european": {"expiry": 1.0},
    "asian": {"fixings": QUARTERS},
    "average_strike": {"fixings": QUARTERS},
    "barrier": {"barrier": 140.0, "expiry": 1.0, "style": "up-and-out"},
}


def _model(name: str, draw: random.Random) -> dict[str, Any]:
    u = draw.uniform
    heston = {"v0": u(0.02, 0.09), "kappa": u(0.5, 4), "theta": u(0.02, 0.09), "sigma": u(0.2, 1), "rho": u(-0.9, 0)}
    normal = {"jump_intensity": u(0.4, 0.5), "jump_mean": u(-0.1, 0.05), "jump_std": u(0.05, 0.2)}
    plain = {"vol": u(0.1, 0.4)}
    parts = {"heston": [heston], "black_scholes": [plain], "bates": [heston, normal], "merton": [plain, normal]}
    return {"model": name} | {key: value for part in parts[name] for key, value in part.items()}


def _request(name: str, kind: str, draw: random.Random, **engine: Any) -> PriceRequest:
    payoff = {"type": kind, **PAYOFFS[kind]}
    if kind != "average_strike":
        payoff["strike"] = draw.uniform(80, 120)
    market: dict[str, Any] = {"spot": draw.uniform(95, 105), "rate": draw.uniform(0, 0.05)}
    if draw.random() < 0.5:
        market["dividends"] = [{"type": "proportional", "time": 0.4, "fraction": 0.02}]
    settings = {"type": "monte_carlo", "paths": 2048, "compile": "never", **engine}
    return PriceRequest.model_validate(
        {"model": _model(name, draw), "market": market, "payoffs": [payoff], "engine": settings}
    )


def _jobs(count: int, *args: Any, **engine: Any) -> tuple[list[PriceRequest], list[PricingJob]]:
    draw = random.Random(11)
    requests = [_request(*args, draw, **engine) for _ in range(count)]
    return requests, [request.build() for request in requests]


def _compared(requests: list[PriceRequest], jobs: list[PricingJob]) -> list[int]:
    """Sizes of the groups, each of whose rows has the bits that it has alone."""
    runs = [prepared(job) for job in jobs]
    for group in groups(runs):
        for i, (row,) in zip(group, results([runs[i] for i in group]), strict=True):
            alone = PriceResult.of(requests[i], jobs[i]).payoffs[0]
            assert (float(row.value), float(row.std_error), float(row.variance_ratio)) == (
                alone.value,
                alone.std_error,
                alone.variance_ratio,
            )
    return [len(group) for group in groups(runs)]


@pytest.mark.parametrize("model", ["heston", "black_scholes", "bates", "merton"])
@pytest.mark.parametrize("kind", list(PAYOFFS))
@pytest.mark.parametrize(("noise", "dtype"), [("threefry", "float64"), ("sobol", "float32"), ("antithetic", "float64")])
def test_same_bits_together_and_alone(model: str, kind: str, noise: str, dtype: str) -> None:
    assert max(_compared(*_jobs(3, model, kind, noise=noise, dtype=dtype))) > 1


def test_paths_are_stepped_some_at_a_time() -> None:
    """More than are stepped at once, and not a multiple of it; a window has them all drawn again."""
    assert max(_compared(*_jobs(3, "bates", "barrier", paths=12_000, noise="antithetic", dtype="float32"))) > 1


def test_what_is_not_shared() -> None:
    def of(**engine: Any) -> Any:
        return prepared(_jobs(1, "heston", "asian", **engine)[1][0])

    assert of() is not None
    assert of(paths=1000) is None, "1000 paths leave a rest beside vector registers"
    assert of(paths=1 << 17) is None, "more than one block"
    assert of(compile="always") is None
    assert 1000 % ALIGNED


def test_groups_have_one_grid_engine_and_family() -> None:
    draw = random.Random(5)
    requests = [
        _request("heston", "european", draw),
        _request("heston", "asian", draw),
        _request("heston", "asian", draw),
        _request("heston", "asian", draw, seed=1),
        _request("bates", "asian", draw),
    ]
    runs = [prepared(request.build()) for request in requests]
    assert groups(runs) == [[0], [1, 2], [3], [4]]


def test_an_engine_that_chooses_shares_what_it_simulates() -> None:
    draw = random.Random(5)
    by_type = [_request("heston", "asian", draw, type=kind) for kind in ("auto", "monte_carlo", "auto")]
    assert groups([prepared(request.build()) for request in by_type]) == [[0, 1, 2]]
    assert max(_compared(by_type, [request.build() for request in by_type])) == 3
    integrated = _request("heston", "european", draw, type="auto")
    assert prepared(integrated.build()) is None


def test_groups_fit_into_memory() -> None:
    _, jobs = _jobs(70, "black_scholes", "asian", paths=1 << 16)
    assert [len(group) for group in groups([prepared(job) for job in jobs])] == [64, 6]


def test_machine_is_looked_at() -> None:
    assert checked()


def test_a_machine_with_other_digits_computes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    requests, _ = _jobs(3, "heston", "asian")
    tasks = [("price", request.model_dump_json().encode()) for request in requests]
    for shared in (shared_paths, shared_integrals):
        monkeypatch.setattr(shared, "checked", lambda: False)
        monkeypatch.setitem(answers._together, shared, True)
    answers.check_machine()
    monkeypatch.setattr(shared_paths, "results", lambda runs: pytest.fail("shared"))
    assert [status for status, _ in answers.answer(tasks)] == [200] * 3
