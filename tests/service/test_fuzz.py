"""Whatever is sent, the answer is a result or a problem that names what is wrong: never an error of the service."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")
httpx = pytest.importorskip("httpx")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.examples import GREEKS, IMPLIED_VOL, PRICE, SCENARIOS

_SMALL = {"type": "monte_carlo", "paths": 64, "max_dt": 0.25, "least_squares": {"outer": 4, "inner": 2}}
_KINDS: list[dict[str, Any]] = [
    {"type": "american", "strike": 100.0, "expiry": 0.5},
    {"type": "autocallable", "dates": [0.5, 1.0], "barrier": 100.0},
    {"type": "cliquet", "dates": [0.0, 0.5, 1.0]},
    {"type": "digital", "strike": 100.0, "expiry": 1.0},
    {"type": "double_barrier", "strike": 100.0, "lower": 80.0, "upper": 130.0, "expiry": 1.0},
    {"type": "forward_start", "start": 0.5, "expiry": 1.0},
    {"type": "variance_swap", "dates": [0.0, 0.5, 1.0]},
]
_MONTE_CARLO = {**PRICE["barrier"], "engine": _SMALL}
_REQUESTS: list[tuple[str, Any]] = [
    ("price", PRICE["europeans"]),
    ("price", _MONTE_CARLO),
    ("price", {**_MONTE_CARLO, "payoffs": _KINDS}),
    ("price", {**PRICE["europeans"], "payoffs": _KINDS}),
    ("greeks", GREEKS["europeans"]),
    ("greeks", {**GREEKS["asian"], "engine": _SMALL}),
    ("scenarios", SCENARIOS["europeans"]),
    ("scenarios", {**SCENARIOS["barrier"], "engine": _SMALL}),
    ("implied-vol", IMPLIED_VOL["smile"]),
]
_EXTREME = [0, -1, 1e-320, 1e-12, 1e12, 1e308, -1e308, 2**63, 2**64, 10**400, True, None, "", "1", "NaN", [], {}, [[]]]
_EXTREME += ["\x00", "é" * 50, "../../etc/passwd", "a" * 5000]
_VALUES = st.sampled_from(_EXTREME) | st.floats() | st.text(max_size=8) | st.integers(-10, 200)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(place for key in keys for place in _places(value[key], (*path, key)))]


def _changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    value[place[0]] = _changed(value[place[0]], place[1:], new)
    return value


@st.composite
def _mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """A request that works, with up to three values replaced, or a field more."""
    endpoint, example = draw(st.sampled_from(_REQUESTS))
    request = copy.deepcopy(example)
    for _ in range(draw(st.integers(1, 3))):
        request = _changed(request, draw(st.sampled_from(_places(request))), draw(_VALUES))
    if isinstance(request, dict) and draw(st.booleans()):
        request[draw(st.text(max_size=5))] = draw(_VALUES)
    return endpoint, json.dumps(request).encode()


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def _check(address: str, endpoint: str, body: bytes) -> None:
    answer = httpx.post(f"{address}/v1/{endpoint}", content=body, timeout=60)
    assert answer.status_code in (200, 413, 422), (body, answer.text)
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
        return
    for item in answer.json().get("payoffs") or answer.json()["items"]:
        assert item["status"] == "ok" or item["message"]


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(_mutated())
def test_mutated_requests(address: str, sent: tuple[str, bytes]) -> None:
    _check(address, *sent)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["price", "greeks", "scenarios", "implied-vol"]),
    st.binary(max_size=50) | _JSON.map(lambda x: json.dumps(x).encode()),
)
def test_anything(address: str, endpoint: str, body: bytes) -> None:
    _check(address, endpoint, body)
