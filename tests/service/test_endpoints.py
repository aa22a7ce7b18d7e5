"""The service over HTTP: every endpoint, every error, and the same digits for 64 clients at once."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")
httpx = pytest.importorskip("httpx")

from qsde.payoffs import Asian
from qsde.spec import MODEL_TEMPLATES, PAYOFFS, PriceRequest, PriceResult
from service.app import create_app
from service.examples import CALIBRATIONS, PRICE, SCENARIOS
from service.settings import Settings

#: Of the service `short`.
AUTHORIZED = {"X-API-Key": "not a secret"}
#: Takes some seconds.
LONG = {
    **PRICE["barrier"],
    "payoffs": [{"type": "asian", "strike": 100.0, "fixings": [0.5, 1.0]}],
    "engine": {"type": "monte_carlo", "paths": 1 << 20, "max_dt": 0.01},
}


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with httpx.Client(base_url=address, timeout=60) as found:
        yield found


@pytest.fixture(scope="module")
def fitted(address: str) -> dict[str, str]:
    """Ids of a surface, a job that is done, and its fit."""
    with httpx.Client(base_url=address, timeout=60) as client:
        accepted = client.post("/v1/calibrations", json=CALIBRATIONS["black_scholes"]).json()
        client.get(f"/v1/jobs/{accepted['job']}/events")
        return {"surface_id": accepted["surface"], "job_id": accepted["job"], "fit_id": accepted["job"]}


def _problem(answer: Any, status: int) -> Any:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


def _operations() -> list[tuple[str, str, str, Any]]:
    """Method, path, name and body of every example of the OpenAPI document, and of operations without a body."""
    found = []
    for path, methods in create_app(Settings()).openapi()["paths"].items():
        for method, operation in methods.items():
            if "requestBody" not in operation:
                found.append((method, path, "", None))
                continue
            examples = operation["requestBody"]["content"]["application/json"]["examples"]
            assert examples
            found += [(method, path, name, example["value"]) for name, example in examples.items()]
    return found


@pytest.mark.parametrize(("method", "path", "name", "body"), _operations())
def test_every_operation_of_the_document_works(
    client: Any, fitted: dict[str, str], method: str, path: str, name: str, body: Any
) -> None:
    if method == "delete":  # what is cancelled must not have ended
        body = {**CALIBRATIONS["heston"], "calibration": {"model": "heston", "starts": 10_000}}
        fitted = {"job_id": client.post("/v1/calibrations", json=body).json()["job"]}
        body = None
    answer = client.request(method, path.format(**fitted), json=body)
    assert answer.status_code == {"/v1/surfaces": 201, "/v1/calibrations": 202}.get(path if body else "", 200)
    if path in ("/v1/price", "/v1/greeks", "/v1/implied-vol", "/v1/scenarios"):
        items = answer.json().get("payoffs") or answer.json()["items"]
        assert {item["status"] for item in items} == {"ok"}


def test_document_refers_to_schemas_that_are_there() -> None:
    document = create_app(Settings()).openapi()
    names = set(document["components"]["schemas"])
    left: list[Any] = [document]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            reference = part.get("$ref")
            if isinstance(reference, str):
                assert reference.removeprefix("#/components/schemas/") in names
            left += part.values()
        elif isinstance(part, list):
            left += part


def test_root_leads_to_the_docs(client: Any) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")
    assert client.get("/docs").status_code == 200


def test_models_and_payoffs_are_those_of_the_library_and_can_be_sent(client: Any) -> None:
    models = client.get("/v1/models").json()["models"]
    assert [model["name"] for model in models] == [*MODEL_TEMPLATES, "multi_asset"]
    for model in models[:-1]:
        assert all(p["text"] and p["domain"] for p in model["parameters"])
        answer = client.post("/v1/price", json={**PRICE["europeans"], "model": model["request"]})
        assert {payoff["status"] for payoff in answer.json()["payoffs"]} == {"ok"}
    payoffs = client.get("/v1/payoffs").json()["payoffs"]
    assert [payoff["name"] for payoff in payoffs] == list(PAYOFFS)
    fixings = next(payoff for payoff in payoffs if payoff["name"] == "asian")["json_schema"]["properties"]
    assert set(fixings) == {"type", *Asian.__dataclass_fields__}


def test_64_clients_at_once_get_the_digits_of_one(client: Any) -> None:
    requests = []
    for i in range(64):
        request = copy.deepcopy(PRICE["europeans" if i % 4 == 0 else "barrier"])
        request["model"]["v0"] = 0.03 + 0.001 * i
        request["market"]["spot"] = 95.0 + 0.1 * i
        requests.append(request)
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda request: client.post("/v1/price", json=request), requests))
    assert {answer.status_code for answer in answers} == {200}
    for request, answer in list(zip(requests, answers, strict=True))[::7]:
        again = client.post("/v1/price", json=request).json()
        assert again["payoffs"] == answer.json()["payoffs"]
        spec = PriceRequest.model_validate(request)
        expected = PriceResult.of(spec, spec.build()).payoffs
        assert [p["value"] for p in answer.json()["payoffs"]] == [p.value for p in expected]
    shared = [line for line in client.get("/metrics").text.splitlines() if line.startswith("qsde_batch_requests_")]
    count, total = (float(next(x for x in shared if key in x).split()[-1]) for key in ("_count", "_sum"))
    assert total > count, "nothing was sent to a worker together"


def test_body_over_the_limit_is_refused_as_declared_and_as_streamed(client: Any) -> None:
    large = json.dumps({**PRICE["europeans"], "padding": "x" * (1 << 16)}).encode()
    declared = _problem(client.post("/v1/price", content=large), 413)
    assert declared["limit"] == {"max_body_bytes": 1 << 16}
    streamed = client.post("/v1/price", content=(large[i : i + 999] for i in range(0, len(large), 999)))
    assert _problem(streamed, 413)["limit"] == {"max_body_bytes": 1 << 16}


#: Steps of `heston_near_exact` under it are at most 2e-5 years long.
FAST = {"model": "heston", "v0": 0.04, "kappa": 1e5, "theta": 0.04, "sigma": 1.0, "rho": 0.0}


@pytest.mark.parametrize(
    ("change", "limit", "field"),
    [
        ({"payoffs": PRICE["europeans"]["payoffs"][:1] * 101}, "max_contracts", "payoffs"),
        ({"payoffs": [None] * 101}, "max_contracts", "payoffs"),
        ({"engine": {"type": "monte_carlo", "paths": 1 << 21}}, "max_paths", "engine.paths"),
        ({"engine": {"type": "monte_carlo", "paths": 2, "max_dt": 1e-5}}, "max_steps", "engine.max_dt"),
        ({"engine": {"type": "monte_carlo", "paths": 2, "max_dt": 1e-300}}, "max_steps", "engine.max_dt"),
        ({"engine": {"type": "monte_carlo", "paths": 1 << 20}}, "max_path_steps", "engine"),
        (
            {"model": FAST, "engine": {"type": "monte_carlo", "scheme": "heston_near_exact", "max_dt": 1.0}},
            "max_steps",
            "engine.max_dt",
        ),
    ],
)
def test_too_much_work_is_refused_before_it_runs(client: Any, change: Any, limit: str, field: str) -> None:
    began = time.perf_counter()
    document = _problem(client.post("/v1/price", json={**PRICE["europeans"], **change}), 422)
    assert time.perf_counter() - began < 2
    assert list(document["limit"]) == [limit]
    assert limit in document["detail"]
    assert document["field"] == field


LARGE = {"type": "auto", "paths": 1 << 20, "max_dt": 1e-4}


@pytest.mark.parametrize("endpoint", ["price", "greeks", "scenarios"])
def test_what_is_integrated_costs_no_paths(client: Any, endpoint: str) -> None:
    request = {**PRICE["europeans"], "engine": LARGE}
    assert {p["status"] for p in client.post(f"/v1/{endpoint}", json=request).json()["payoffs"]} == {"ok"}
    request["payoffs"] = PRICE["mixed"]["payoffs"]
    assert _problem(client.post(f"/v1/{endpoint}", json=request), 422)["limit"] == {"max_steps": 10_000}


def test_greeks_by_a_method_are_simulated(client: Any) -> None:
    request = {**PRICE["europeans"], "engine": LARGE, "greeks": {"method": "pathwise"}}
    _problem(client.post("/v1/greeks", json=request), 422)


def test_too_many_vols(client: Any) -> None:
    request = {"price": [1.0] * 101, "forward": 100.0, "strike": 100.0, "expiry": 1.0}
    assert _problem(client.post("/v1/implied-vol", json=request), 422)["limit"] == {"max_contracts": 100}


def test_too_many_scenarios(client: Any) -> None:
    ladder = {"spots": [i / 1000 for i in range(101)], "vols": [i / 1000 for i in range(101)]}
    request = {**SCENARIOS["europeans"], "payoffs": SCENARIOS["europeans"]["payoffs"] * 5, "scenarios": ladder}
    document = _problem(client.post("/v1/scenarios", json=request), 422)
    assert (document["limit"], document["field"]) == ({"max_scenarios": 100_000}, "scenarios")


def test_files_of_the_server_are_not_read(client: Any) -> None:
    request = {**PRICE["europeans"], "fit": {"file": "/etc/passwd"}}
    del request["model"]
    document = _problem(client.post("/v1/price", json=request), 422)
    assert document["field"] == "fit"


def test_unknown_path_and_method(client: Any) -> None:
    _problem(client.get("/v1/nothing"), 404)
    answer = client.get("/v1/price")
    _problem(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_headers(client: Any) -> None:
    answer = client.post("/v1/price", json=PRICE["europeans"], headers={"X-Request-ID": "mine-1", "Origin": "http://a"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answer.headers
    forged = client.get("/healthz", headers={"X-Request-ID": "a b"}).headers["x-request-id"]
    assert len(forged) == 32


def test_metrics_count_by_route_and_status(client: Any) -> None:
    client.post("/v1/price", json=PRICE["europeans"])
    client.get("/v1/nothing")
    text = client.get("/metrics").text
    assert 'qsde_request_seconds_count{route="/v1/price",status="200"}' in text
    assert 'qsde_request_seconds_count{route="other",status="404"}' in text
    for name in ("qsde_queue_requests", "qsde_batch_requests_count", "qsde_path_steps_total"):
        assert name in text


def test_keys(short: str) -> None:
    with httpx.Client(base_url=short) as client:
        assert client.get("/healthz").status_code == 200
        for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}):
            answer = client.post("/v1/price", json=PRICE["europeans"], headers=headers)
            _problem(answer, 401)
            assert answer.headers["x-request-id"]
        for headers in (AUTHORIZED, {"Authorization": "Bearer not a secret"}):
            assert client.post("/v1/price", json=PRICE["europeans"], headers=headers).status_code == 200


def test_cut_off_full_queue_and_a_client_that_leaves(short: str) -> None:
    quick = PRICE["europeans"]
    with httpx.Client(base_url=short, headers=AUTHORIZED, timeout=300) as client, ThreadPoolExecutor(3) as pool:
        long = pool.submit(client.post, "/v1/price", json=LONG)
        time.sleep(0.1)
        waiting = [pool.submit(client.post, "/v1/price", json=quick)]
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/price", json=quick, timeout=0.1)
        time.sleep(0.1)
        waiting.append(pool.submit(client.post, "/v1/price", json=quick))
        time.sleep(0.1)
        refused = client.post("/v1/price", json=quick)
        assert _problem(refused, 429)["limit"] == {"max_queue": 2}
        assert refused.headers["retry-after"] == "1"
        assert _problem(long.result(), 504)["limit"] == {"max_seconds": 1.5}
        assert [answer.result().status_code for answer in waiting] == [200, 200]
        text = client.get("/metrics").text
        assert "qsde_dropped_total 1.0" in text
        assert 'qsde_worker_restarts_total{reason="OutOfTime"} 1.0' in text
