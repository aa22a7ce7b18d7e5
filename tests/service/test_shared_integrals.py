"""Options integrated together have, bit for bit, the digits that the library gives each alone."""

from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")

from qsde.market.surface import Surface
from qsde.spec import CalibrationSpec, PriceRequest, PriceResult
from service.shared_integrals import TOGETHER, checked, option_of, option_of_fit, results


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
    options = [option_of(request) for request in requests]
    assert None not in options
    found = results(options)
    assert sum(result is None for result in found) < count / 3
    alone = [PriceResult.of(request, request.build()).payoffs[0] for request in requests]
    return sum(one is not None and one != (a.value, a.numerical_error) for one, a in zip(found, alone, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_same_bits_together_and_alone(name: str) -> None:
    assert _differences(name, 10 * TOGETHER + 3, seed=2) == 0


@pytest.mark.slow(reason="thousands of options one by one")
@pytest.mark.parametrize("name", MODELS)
def test_same_bits_of_thousands(name: str) -> None:
    assert _differences(name, 3_000, seed=3) == 0


def test_machine_is_looked_at() -> None:
    assert checked()


@pytest.mark.parametrize("count", [1, 2, TOGETHER, TOGETHER + 1])
def test_families_are_told_apart(count: int) -> None:
    draw = random.Random(1)
    requests = [_request(name, draw) for _ in range(count) for name in ("heston", "kou")]
    together = results([option_of(request) for request in requests])
    assert together == [results([option_of(request)])[0] for request in requests]


def test_fits_have_the_bits_of_their_neighbours() -> None:
    """Under the curves that their quotes imply, beside options under flat rates."""
    strikes = [85.0, 95.0, 100.0, 105.0, 115.0]
    times = [0.25] * 5 + [1.0] * 5
    forwards = [100.5] * 5 + [103.0] * 5
    discounts = [0.99] * 5 + [0.95] * 5
    surface = Surface.from_vols(times, 2 * strikes, [0.22, 0.21, 0.2, 0.19, 0.19] * 2, forwards, discounts, spot=100.0)
    fit = CalibrationSpec(model="heston").fit(surface)
    plain = _request("heston", random.Random(1))
    payoffs = [
        {"type": "european", "strike": k, "expiry": t, "kind": kind}
        for t in (0.1, 0.6, 1.5) for k in (90.0, 104.0) for kind in ("call", "put")
    ]  # fmt: skip
    requests = [
        PriceRequest.model_validate({"fit": "any", "payoffs": [payoff], "engine": {"type": "fourier"}})
        for payoff in payoffs
    ]
    options = [option_of_fit(request, lambda name: [fit]) for request in requests]
    assert None not in options
    for request, found in zip(requests, results([option_of(plain), *options])[1:], strict=True):
        alone = PriceResult.of(request, request.build(lambda name: [fit])).payoffs[0]
        assert found == (alone.value, alone.numerical_error)


def _changed(part: str, **change: Any) -> PriceRequest:
    data = _request("heston", random.Random(1)).model_dump(mode="json")
    place = data["payoffs"][0] if part == "payoffs" else data[part]
    place.update(change)
    return PriceRequest.model_validate(data)


def test_options_without_an_engine_are_integrated_with_the_others() -> None:
    request = _request("heston", random.Random(1))
    bare = PriceRequest.model_validate(request.model_dump(exclude={"engine"}))
    assert option_of(bare) == option_of(request) is not None
    simulated = request.model_dump() | {"engine": {"type": "monte_carlo"}}
    assert option_of(PriceRequest.model_validate(simulated)) is None


def test_what_needs_more_than_the_first_contour_is_left_to_the_library() -> None:
    far, near = _changed("payoffs", strike=900.0, expiry=0.05), _request("heston", random.Random(2))
    assert results([option_of(far), option_of(near)]) == [None, results([option_of(near)])[0]]


@pytest.mark.parametrize("change", [{"v0": -0.04}, {"rho": -1.5}])
def test_bad_parameters_harm_no_neighbour(change: dict[str, float]) -> None:
    bad, good = option_of(_changed("model", **change)), option_of(_request("heston", random.Random(2)))
    (alone,) = results([good])
    assert results([good, bad, good]) == [alone, None, alone]


NOT_PLAIN = [
    ("payoffs", {"strike": -1.0}),
    ("payoffs", {"expiry": 300.0}),
    ("market", {"rate": 3.0}),
    ("market", {"rate": {"1.0": 0.03}}),
    ("market", {"dividends": [{"type": "cash", "time": 0.1, "amount": 1.0}]}),
    ("market", {"spot": None}),
    ("engine", {"nodes": 512}),
]


@pytest.mark.parametrize(("part", "change"), NOT_PLAIN)
def test_what_is_left_to_the_library(part: str, change: dict[str, Any]) -> None:
    assert option_of(_changed("market")) is not None
    assert option_of(_changed(part, **change)) is None


def test_other_payoffs_and_several_are_left_to_the_library() -> None:
    one = _request("heston", random.Random(1))
    assert option_of(one.model_copy(update={"payoffs": one.payoffs * 2})) is None
    digital = {**one.model_dump(), "payoffs": [{"type": "digital", "strike": 100.0, "expiry": 1.0}]}
    assert option_of(PriceRequest.model_validate(digital)) is None
