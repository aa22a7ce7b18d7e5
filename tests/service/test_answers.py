"""What workers compute: the library's own digits, with a status for each contract."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")

from sqlalchemy.exc import OperationalError

from qsde.market.black import black_price
from qsde.market.surface import Surface
from qsde.spec import CalibrationSpec, GreeksRequest, GreeksResult, PriceRequest, PriceResult
from service import answers
from service.answers import alone, answer
from service.examples import GREEKS, PRICE
from service.schemas import GreeksAnswer, ImpliedVolAnswer, PriceAnswer


def _sent(endpoint: str, request: Any) -> tuple[int, Any]:
    status, body = alone(endpoint, json.dumps(request).encode())
    return status, json.loads(body)


def _with(request: dict[str, Any], *payoffs: Any, **changes: Any) -> dict[str, Any]:
    changed = copy.deepcopy(request) | changes
    changed["payoffs"] = [*changed["payoffs"], *payoffs]
    return changed


@pytest.mark.parametrize("name", list(PRICE))
def test_prices_are_the_library_s(name: str) -> None:
    _, found = _sent("price", PRICE[name])
    request = PriceRequest.model_validate(PRICE[name])
    expected = PriceResult.of(request, request.build())
    assert [p["value"] for p in found["payoffs"]] == [p.value for p in expected.payoffs]
    assert [p["std_error"] for p in found["payoffs"]] == [p.std_error for p in expected.payoffs]
    PriceAnswer.model_validate(found)


@pytest.mark.parametrize("name", list(GREEKS))
def test_greeks_are_the_library_s(name: str) -> None:
    _, found = _sent("greeks", GREEKS[name])
    request = GreeksRequest.model_validate(GREEKS[name])
    expected = GreeksResult.of(request, request.build()).model_dump(mode="json")
    assert [p["greeks"] for p in found["payoffs"]] == [p["greeks"] for p in expected["payoffs"]]
    GreeksAnswer.model_validate(found)


BAD = [
    ({"type": "european", "strike": -1.0, "expiry": 1.0}, "payoffs.2.strike", "positive"),
    ({"type": "european", "strike": "100", "expiry": 1.0}, "payoffs.2.strike", "number"),
    ({"type": "european", "strike": 100.0, "expiry": 300.0}, "payoffs.2", "years"),
    ({"type": "european", "strike": 100.0}, "payoffs.2.expiry", "required"),
    ({"type": "european", "strike": 100.0, "expiry": 1.0, "barrier": 3.0}, "payoffs.2.barrier", "extra"),
    ({"type": "unheard of", "strike": 100.0}, "payoffs.2.type", "choose one of"),
    ({"strike": 100.0, "expiry": 1.0}, "payoffs.2.type", "required"),
    ([], "payoffs.2", "object"),
    (None, "payoffs.2", "object"),
    ({"type": "basket", "strike": 1.0, "weights": [0.5, 0.5], "expiry": 1.0}, "payoffs.2", "underlyings"),
    ({"type": "american", "strike": 100.0, "expiry": 1.0}, "payoffs.2", "monte_carlo"),
]


@pytest.mark.parametrize(("payoff", "field", "says"), BAD)
def test_a_bad_contract_does_not_fail_its_neighbours(payoff: Any, field: str, says: str) -> None:
    good = _sent("price", PRICE["europeans"])[1]["payoffs"]
    status, found = _sent("price", _with(PRICE["europeans"], payoff))
    assert status == 200
    assert found["payoffs"][:2] == good
    last = found["payoffs"][2]
    assert (last["status"], last["field"]) == ("error", field)
    assert says in last["message"]
    PriceAnswer.model_validate(found)


def test_a_bad_contract_of_a_simulation_between_good_ones() -> None:
    good = PRICE["barrier"]["payoffs"][0]
    payoffs = [good, {**good, "barrier": 90.0}, {"type": "gap"}, good]
    _, found = _sent("price", {**PRICE["barrier"], "payoffs": payoffs})
    assert [p["status"] for p in found["payoffs"]] == ["ok", "error", "error", "ok"]
    expected = PriceRequest.model_validate({**PRICE["barrier"], "payoffs": [good, good]})
    assert found["payoffs"][0]["value"] == PriceResult.of(expected, expected.build()).payoffs[0].value


def test_contracts_all_bad() -> None:
    status, found = _sent("price", {**PRICE["europeans"], "payoffs": [{"type": "european"}, 3]})
    assert status == 200
    assert [p["status"] for p in found["payoffs"]] == ["error", "error"]


def test_greeks_of_a_bad_contract_and_of_a_book_with_one() -> None:
    early = {"type": "american", "strike": 100.0, "expiry": 1.0}
    status, found = _sent("greeks", _with(GREEKS["europeans"], early))
    assert status == 200
    assert [p["status"] for p in found["payoffs"]] == ["ok", "ok", "error"]
    status, found = _sent("greeks", _with(GREEKS["europeans"], early, greeks={"total": True}))
    assert status == 422
    assert "greeks.total needs every payoff" in found["detail"]


def test_greeks_that_one_contract_has_not_are_given_for_its_neighbours() -> None:
    """A barrier too close to the spot, and a second derivative that rights to exercise early do not have."""
    close = {"type": "barrier", "strike": 100.0, "barrier": 100.001, "expiry": 1.0, "style": "up-and-out"}
    early = {"type": "bermudan", "strike": 100.0, "dates": [0.5, 1.0]}
    engine = {"type": "monte_carlo", "paths": 256, "max_dt": 0.5, "least_squares": {"outer": 4, "inner": 2}}
    for bad, which, says in ((close, "delta", "within 0.01 %"), (early, "volga", "leave it out")):
        changes = {"engine": engine, "greeks": {"which": [which]}}
        status, found = _sent("greeks", _with(PRICE["europeans"], bad, **changes))
        assert status == 200
        assert [p["status"] for p in found["payoffs"]] == ["ok", "ok", "error"]
        assert found["payoffs"][2]["field"] == "payoffs.2"
        assert says in found["payoffs"][2]["message"]
    status, found = _sent("greeks", _with(PRICE["europeans"], greeks={"which": ["delt"]}))
    assert (status, found["field"]) == (422, "greeks")


def test_what_several_underlyings_do_not_have_is_said_of_the_contract() -> None:
    flat = {"model": "black_scholes", "vol": 0.2}
    pair = {"model": "multi_asset", "models": [flat, flat], "correlation": [[1.0, 0.5], [0.5, 1.0]]}
    request = {"model": pair, "market": [{"spot": 100.0}, {"spot": 90.0}],
               "payoffs": [{"type": "spread", "strike": 0.0, "expiry": 1.0}]}  # fmt: skip
    status, found = _sent("scenarios", request)
    assert status == 200
    assert "several underlyings" in found["payoffs"][0]["message"]


WRONG = [
    ("price", {"model": None}, "give a model"),
    ("price", {"model": {"model": "heston", "v0": 0.04}}, "model"),
    ("price", {"model": {"model": "black_scholes", "vol": -0.2}}, "model"),
    ("price", {"market": {}}, "market"),
    ("price", {"market": {"spot": 0.0}}, "market.spot"),
    ("price", {"engine": {"type": "monte_carlo", "device": "cuda:7"}}, "engine"),
    ("price", {"engine": {"type": "monte_carlo", "scheme": "no"}}, "engine.scheme"),
    ("price", {"engine": {"type": "monte_carlo", "compile": "always"}}, "engine.compile"),
    ("price", {"engine": {"type": "fourier", "tolerance": 7}}, "engine.tolerance"),
    ("price", {"model": None, "fit": {"file": "/etc/passwd"}}, "fit"),
    ("price", {"payoffs": []}, "payoffs"),
    ("price", {"payoffs": {}}, "payoffs"),
    ("greeks", {"greeks": {"which": ["nonsense"]}}, "greeks"),
    ("greeks", {"greeks": {"units": "furlongs"}}, "greeks.units"),
]


@pytest.mark.parametrize(("endpoint", "change", "field"), WRONG)
def test_what_is_wrong_with_the_whole_request_is_said_once(endpoint: str, change: dict[str, Any], field: str) -> None:
    status, found = _sent(endpoint, {**PRICE["europeans"], **change})
    assert status == 422
    assert found["status"] == 422
    assert found["detail"]
    assert (found["field"] or found["detail"]).startswith(field)


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b"1e999", b'"x"', b"[" * 100_000, b"\xff\xfe", b"NaN"])
def test_what_is_no_request(body: bytes) -> None:
    for endpoint in ("price", "greeks", "implied_vol"):
        status, answered = alone(endpoint, body)
        assert status == 422
        assert json.loads(answered)["detail"]


def test_implied_vol_by_item() -> None:
    price = float(black_price(100.0, 110.0, 0.5, 0.3, 0.98))
    request = {
        "price": [price, 0.0, 99.0, -1.0],
        "forward": 100.0,
        "strike": 110.0,
        "expiry": 0.5,
        "discount_factor": 0.98,
    }
    status, found = _sent("implied_vol", request)
    assert status == 200
    assert found["items"][0]["vol"] == pytest.approx(0.3, abs=1e-14)
    statuses = [item["status"] for item in found["items"]]
    assert statuses == ["ok", "at_intrinsic", "above_maximum", "below_intrinsic"]
    ImpliedVolAnswer.model_validate(found)


def test_implied_vol_of_one_option_and_of_lists_that_differ() -> None:
    one = {"price": 8.0, "forward": 100.0, "strike": 100.0, "expiry": 1.0}
    assert len(_sent("implied_vol", one)[1]["items"]) == 1
    several = _sent("implied_vol", {**one, "is_call": [True, False, True]})[1]["items"]
    assert len({item["vol"] for item in several}) == 1
    assert len(several) == 3
    status, found = _sent("implied_vol", {**one, "strike": [90.0, 100.0], "price": [1.0, 2.0, 3.0]})
    assert status == 422
    assert "equally long" in found["detail"]


def _without_seconds(reply: tuple[int, bytes]) -> tuple[int, Any]:
    status, body = reply
    return status, {key: value for key, value in json.loads(body).items() if key != "seconds"}


def test_tasks_together_are_answered_as_alone() -> None:
    barrier = PRICE["barrier"]
    tasks = [
        ("price", {**barrier, "market": {"spot": 90.0}}),
        ("price", PRICE["europeans"]),
        ("price", {**barrier, "market": {"spot": 95.0, "rate": 0.05}}),
        ("price", {**barrier, "payoffs": [*barrier["payoffs"], {"type": "european"}]}),
        ("price", {**barrier, "model": {**barrier["model"], "v0": -1.0}}),
        ("greeks", GREEKS["europeans"]),
        ("price", {**barrier, "model": {**barrier["model"], "v0": 0.09}}),
        ("price", []),
    ]
    sent = [(endpoint, json.dumps(request).encode()) for endpoint, request in tasks]
    together = [_without_seconds(reply) for reply in answer(sent)]
    assert together == [_without_seconds(alone(*task)) for task in sent]
    assert [status for status, _ in together] == [200, 200, 200, 200, 422, 200, 200, 422]


def test_fits_are_priced_beside_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one simulation, and in one go of integrals."""
    strikes, vols = [90.0, 100.0, 110.0] * 2, [0.22, 0.2, 0.19] * 2
    surface = Surface.from_vols([0.5] * 3 + [1.0] * 3, strikes, vols, 102.0, 0.97, spot=100.0)
    fit = CalibrationSpec(model="heston").fit(surface)
    monkeypatch.setattr(answers, "library", lambda name: [fit])
    sent = []
    for name in PRICE:
        one = _with(PRICE[name], payoffs=PRICE[name]["payoffs"][:1])
        named = {key: value for key, value in one.items() if key not in ("model", "market")} | {"fit": "any"}
        sent += [("price", json.dumps(request).encode()) for request in (one, named)]
    expected = [_without_seconds(alone(*task)) for task in sent]
    assert [status for status, _ in expected] == [200] * len(sent)
    monkeypatch.setattr(answers, "alone", lambda *task: pytest.fail("not together"))
    assert [_without_seconds(reply) for reply in answer(sent)] == expected


def test_a_database_that_is_away_is_said_to_whom_it_concerns(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(name: str) -> Any:
        raise OperationalError("SELECT", {}, ConnectionError("refused"))

    monkeypatch.setattr(answers, "library", away)
    plain = _with(PRICE["barrier"], market={"spot": 90.0})
    named = {key: value for key, value in plain.items() if key != "model"} | {"fit": "any"}
    sent = [("price", json.dumps(request).encode()) for request in (plain, named, plain)]
    found = answer(sent)
    assert [status for status, _ in found] == [200, 503, 200]
    assert "database does not answer" in json.loads(found[1][1])["detail"]
