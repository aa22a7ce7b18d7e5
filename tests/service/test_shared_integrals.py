"""Options integrated together have, bit for bit, the digits that the library gives each alone."""

from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")

from qsde.spec import PriceRequest, PriceResult
from service.shared_integrals import TOGETHER, checked, groups, may_share, prepared, results


def _request(name: str, draw: random.Random) -> PriceRequest:
    u = draw.uniform
    heston = {"v0": u(0.02, 0.09), "kappa": u(0.5, 4), "theta": u(0.02, 0.09), "sigma": u(0.2, 1), "rho": u(-0.9, 0)}
    normal = {"jump_intensity": u(0.1, 1), "jump_mean": u(-0.1, 0.05), "jump_std": u(0.05, 0.2)}
    kou = {"jump_intensity": u(0.1, 1), "jump_p_up": u(0.2, 0.8), "jump_eta_up": u(8, 20), "jump_eta_down": u(8, 20)}
    plain = {"vol": u(0.1, 0.5)}
    parts: dict[str, list[dict[str, float]]] = {
        "black_scholes": [plain], "heston": [heston], "merton": [plain, normal], "kou": [plain, kou],
        "bates": [heston, normal], "heston_kou": [heston, kou],
    }  # fmt: skip
    expiry = u(0.05, 2.0)
    payoff = {"type": "european", "strike": 100 * (1 + u(-0.4, 0.4) * expiry**0.5), "expiry": expiry}
    market: dict[str, Any] = {"spot": u(95, 105), "rate": u(0, 0.05), "dividend_yield": u(0, 0.03)}
    return PriceRequest.model_validate(
        {
            "model": {"model": name} | {key: value for part in parts[name] for key, value in part.items()},
            "market": market,
            "payoffs": [payoff | {"kind": draw.choice(["call", "put"])}],
            "engine": {"type": "fourier"},
        }
    )


MODELS = ["black_scholes", "heston", "merton", "kou", "bates", "heston_kou"]


def _differences(name: str, count: int, seed: int) -> int:
    draw = random.Random(seed)
    requests = [_request(name, draw) for _ in range(count)]
    jobs = [request.build() for request in requests]
    options = [prepared(job) for job in jobs]
    assert None not in options
    found: dict[int, tuple[float, float]] = {}
    together = [rows for rows in groups(options) if len(rows) > 1]
    assert sum(map(len, together)) > count / 3
    for rows in together:
        found |= zip(rows, results([options[i] for i in rows]), strict=True)
    alone = [PriceResult.of(request, job).payoffs[0] for request, job in zip(requests, jobs, strict=True)]
    return sum(found[i] != (alone[i].value, alone[i].numerical_error) for i in found)


@pytest.mark.parametrize("name", MODELS)
def test_same_bits_together_and_alone(name: str) -> None:
    assert _differences(name, 10 * TOGETHER + 3, seed=2) == 0


@pytest.mark.slow(reason="thousands of options one by one")
@pytest.mark.parametrize("name", MODELS)
def test_same_bits_of_thousands(name: str) -> None:
    assert _differences(name, 3_000, seed=3) == 0


def test_machine_is_looked_at() -> None:
    assert checked()


def test_groups_are_of_one_family_and_small() -> None:
    draw = random.Random(1)
    names = ["black_scholes"] * (TOGETHER + 2) + ["merton", "kou"] + ["black_scholes"]
    options = [prepared(_request(name, draw).build()) for name in names]
    assert [len(rows) for rows in groups(options)] == [TOGETHER, 3, 1, 1]


def test_what_needs_more_nodes_stands_alone() -> None:
    request = _request("heston", random.Random(1)).model_dump(mode="json")
    request["payoffs"][0] |= {"strike": 900.0, "expiry": 0.05}
    far = prepared(PriceRequest.model_validate(request).build())
    near = prepared(_request("black_scholes", random.Random(1)).build())
    assert groups([far, near, far, near]) == [[0], [2], [1, 3]]


def test_what_is_not_shared() -> None:
    one = _request("heston", random.Random(1))
    assert may_share(one)
    assert not may_share(one.model_copy(update={"payoffs": one.payoffs * 2}))
    digital = PriceRequest.model_validate(
        {**one.model_dump(), "payoffs": [{"type": "digital", "strike": 100.0, "expiry": 1.0}]}
    )
    assert not may_share(digital)
