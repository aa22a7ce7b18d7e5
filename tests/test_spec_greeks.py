"""Requests for Greeks: the numbers of the library and of Black, the way to JSON and back, and refusals."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from qsde.errors import InputError
from qsde.greeks import GREEKS, greeks
from qsde.market.underlying import Market
from qsde.models import Heston
from qsde.noise import Antithetic, Threefry
from qsde.payoffs import Asian, Digital
from qsde.pricing import MonteCarlo
from qsde.spec import GreeksRequest, GreeksResult, PriceRequest, parsed

FLAT = {"model": "black_scholes", "vol": 0.2}
HESTON = {"model": "heston", "v0": 0.04, "kappa": 1.5, "theta": 0.05, "sigma": 0.4, "rho": -0.7}
CALL = {"type": "european", "strike": 100.0, "expiry": 1.0}
DIGITAL = {"type": "digital", "strike": 105.0, "expiry": 1.0, "cash": 10.0}
ASIAN = {"type": "asian", "strike": 100.0, "fixings": [0.5, 1.0]}
BARRIER = {"type": "barrier", "strike": 100.0, "barrier": 85.0, "expiry": 1.0, "style": "down-and-out"}
DIVIDEND = {"type": "cash", "time": 0.5, "amount": 2.0}
FEW = {"type": "monte_carlo", "paths": 2048, "max_dt": 0.25, "noise": "antithetic", "seed": 5}


def request(**changes: Any) -> GreeksRequest:
    plain = {"model": FLAT, "market": {"spot": 100.0, "rate": 0.05}, "payoffs": [CALL], "engine": {"type": "fourier"}}
    return parsed(GreeksRequest, json.dumps({**plain, **changes}))


def answer(**changes: Any) -> GreeksResult:
    wanted = request(**changes)
    return GreeksResult.of(wanted, wanted.build())


def refused(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        answer(**changes)
    return str(caught.value).removeprefix("JSON: ")


def values(found: GreeksResult, row: int = 0) -> dict[str, float]:
    return {greek.greek: greek.value for greek in found.payoffs[row].greeks}


def test_fourier_greeks_are_those_of_black_to_the_last_digits() -> None:
    found = answer(greeks={"units": "raw"})
    d1 = (math.log(1.0) + (0.05 + 0.02) * 1.0) / 0.2
    d2 = d1 - 0.2
    density, n1, n2 = (
        math.exp(-(d1**2) / 2) / math.sqrt(2 * math.pi),
        *(0.5 * math.erfc(-d / math.sqrt(2)) for d in (d1, d2)),
    )
    worth = 100 * math.exp(-0.05)
    assert values(found) == pytest.approx(
        {
            "price": 100 * n1 - worth * n2,
            "delta": n1,
            "gamma": density / 20,
            "vega": 100 * density,
            "theta": -100 * density * 0.1 - 0.05 * worth * n2,
            "rho": worth * n2,
            "dividend_rho": -100 * n1,
            "vanna": -density * d2 / 0.2,
            "volga": 100 * density * d1 * d2 / 0.2,
            "charm": -density * (2 * 0.05 - d2 * 0.2) / (2 * 0.2),
            "d_vol": 100 * density,
        },
        rel=1e-9,
    )
    assert found.n_paths is None
    assert found.payoffs[0].method == "fourier"
    assert all(greek.std_error is None for greek in found.payoffs[0].greeks)


def test_units_of_traders() -> None:
    names = ["price", "delta", "vega", "theta", "rho", "vanna", "d_vol"]
    raw, trader = (answer(greeks={"which": names, "units": units}) for units in ("raw", "trader"))
    for a, b, scale in zip(raw.payoffs[0].greeks, trader.payoffs[0].greeks, (1, 1, 0.01, 1 / 365, 0.01, 0.01, 1),
                           strict=True):  # fmt: skip
        assert b.value == pytest.approx(a.value * scale, rel=1e-14)
    units = {greek.greek: greek.unit for greek in trader.payoffs[0].greeks}
    assert units == {name: GREEKS[name].unit for name in names[:-1]} | {"d_vol": "per 1.00 of vol"}


def test_simulated_greeks_are_the_ones_of_the_library() -> None:
    which = ["price", "delta", "vega"]
    found = answer(model=HESTON, payoffs=[DIGITAL, ASIAN], engine=FEW, greeks={"which": which})
    model = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7)
    book = [Digital(105.0, 1.0, cash=10.0), Asian(100.0, (0.5, 1.0))]
    ours = greeks(model, book, Market(100.0, rate=0.05), MonteCarlo(2048, 0.25, noise=Antithetic(Threefry(5))), which)
    assert [list(values(found, i).values()) for i in (0, 1)] == ours.value.tolist()
    assert [[g.std_error for g in p.greeks] for p in found.payoffs] == ours.std_error.tolist()
    assert [p.type for p in found.payoffs] == ["digital", "asian"]
    assert [p.method for p in found.payoffs] == list(ours.methods)
    assert found.n_paths == 2048


def test_without_an_engine_the_library_chooses_for_the_book() -> None:
    auto = {"type": "auto", "paths": 2048, "max_dt": 0.25}
    simulation = {**auto, "type": "monte_carlo"}
    delta = {"which": ["delta"]}
    model = parsed(GreeksRequest, json.dumps({"model": FLAT, "market": {"spot": 100.0}, "payoffs": [CALL]}))
    assert [p.method for p in GreeksResult.of(model, model.build()).payoffs] == ["fourier"]
    for payoffs in ([CALL, ASIAN], [ASIAN]):
        found = answer(model=HESTON, payoffs=payoffs, engine=auto, greeks=delta).payoffs
        assert found == answer(model=HESTON, payoffs=payoffs, engine=simulation, greeks=delta).payoffs
    by_method = {**delta, "method": "pathwise"}
    assert [p.method for p in answer(engine=auto, greeks=by_method).payoffs] == ["pathwise"]


def test_both_engines_agree() -> None:
    which = ["price", "delta", "gamma", "vega", "rho", "d_kappa"]
    exact = answer(model=HESTON, payoffs=[CALL, DIGITAL], greeks={"which": which})
    simulated = answer(model=HESTON, payoffs=[CALL, DIGITAL], engine={**FEW, "paths": 1 << 13, "max_dt": 0.125},
                       greeks={"which": which})  # fmt: skip
    for a, b in zip(exact.payoffs, simulated.payoffs, strict=True):
        for greek, sampled in zip(a.greeks, b.greeks, strict=True):
            assert abs(greek.value - sampled.value) < 4.5 * (sampled.std_error or 0)


def test_several_underlyings_have_numbers() -> None:
    """The right to exchange one for the other: homogeneous, so that it is worth its deltas (Margrabe 1978)."""
    pair = {"model": "multi_asset", "models": [FLAT, {**FLAT, "vol": 0.3}], "correlation": [[1, 0.5], [0.5, 1]]}
    found = answer(model=pair, market=[{"spot": 100.0}, {"spot": 95.0}], engine={**FEW, "paths": 1 << 13},
                   payoffs=[{"type": "spread", "strike": 0.0, "expiry": 1.0}],
                   greeks={"which": ["price", "delta_1", "delta_2"]})  # fmt: skip
    worth = values(found)
    assert worth["price"] == pytest.approx(100 * worth["delta_1"] + 95 * worth["delta_2"], rel=0.01)
    vol = math.sqrt(0.2**2 + 0.3**2 - 0.06)
    d = math.log(100 / 95) / vol + vol / 2
    assert abs(worth["delta_1"] - 0.5 * math.erfc(-d / math.sqrt(2))) < 4 * (found.payoffs[0].greeks[1].std_error or 0)
    assert parsed(GreeksResult, found.model_dump_json()) == found


def test_a_total_is_the_sum() -> None:
    each = answer(payoffs=[CALL, DIGITAL])
    total = answer(payoffs=[CALL, DIGITAL], greeks={"total": True})
    (book,) = total.payoffs
    assert book.type == "book"
    assert values(total) == pytest.approx({k: v + values(each, 1)[k] for k, v in values(each).items()}, rel=1e-12)


@pytest.mark.parametrize("changes", [{}, {"engine": FEW, "payoffs": [ASIAN], "greeks": {"which": ["delta"]}}])
def test_the_answer_survives_json_and_gives_the_digits_again(changes: dict[str, Any]) -> None:
    first = answer(**changes)
    again = parsed(GreeksResult, first.model_dump_json())
    assert again == first
    second = GreeksResult.of(again.request, again.request.build())
    assert second.payoffs == first.payoffs
    assert second.model == first.model


def test_a_price_request_is_a_request_for_all_greeks() -> None:
    wanted = parsed(PriceRequest, request().model_dump_json(exclude={"greeks"}))
    assert parsed(GreeksRequest, wanted.model_dump_json()) == request()
    assert request().greeks.which is None


def test_progress_comes_to_its_end() -> None:
    wanted = request(engine=FEW, greeks={"which": ["delta"]})
    seen: list[tuple[int, int]] = []
    GreeksResult.of(wanted, wanted.build(), lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"greeks": {"which": ["delta", "speed"]}}, "greeks: no Greek 'speed' for BlackScholes here; there are price"),
        ({"greeks": {"which": ["d_kappa"]}}, "greeks: no Greek 'd_kappa' for BlackScholes here; there are price"),
        ({"greeks": {"which": []}}, "greeks.which: needs at least 1, has 0"),
        ({"greeks": {"which": "delta"}}, "greeks.which: input should be a valid array (got 'delta')"),
        ({"greeks": {"units": "percent"}}, "greeks.units: input should be 'trader' or 'raw' (got 'percent')"),
        ({"greeks": {"method": "bump"}}, "greeks.method: input should be 'auto', "),
        ({"greeks": {"method": "pathwise"}}, "greeks.method: 'pathwise' is for simulations; leave it out with the f"),
        ({"greeks": {"total": 2}}, "greeks.total: input should be a valid boolean"),
        ({"greeks": {"whcih": ["delta"]}}, "greeks.whcih: extra inputs are not permitted"),
        ({"payoffs": [CALL, ASIAN]}, "payoffs.1: exact Greeks are those of payoffs of the price at expiry and of Ame"),
        ({"payoffs": [CALL, {**CALL, "type": "american"}], "model": HESTON},
         "payoffs.1: American has no exact price under Heston, only under BlackScholes; use {\"type\": "),
        ({"payoffs": [CALL, DIGITAL], "engine": FEW, "greeks": {"method": "pathwise"}},
         "payoffs.1: Digital jumps, so its pathwise Greeks would be wrong; use method='likelihood'"),
        ({"payoffs": [CALL, {**CALL, "strike": -1}]}, "payoffs.1.strike: must be positive and finite, got -1.0"),
        ({"payoffs": [ASIAN], "engine": FEW, "greeks": {"method": "conditional"}},
         "payoffs.0: Asian under BlackScholes has no conditional mean in closed form; use "),
        ({"model": HESTON, "engine": {**FEW, "max_dt": 1e-7}}, "greeks: more than 1,048,576 steps are needed"),
        ({"model": {**FLAT, "vol": [0.1, 0.2]}}, "model.vol: input should be a valid number"),  # no batches
    ],
)  # fmt: skip
def test_bad_requests_name_the_field(changes: dict[str, Any], message: str) -> None:
    assert refused(**changes).startswith(message)


def test_rights_to_exercise_early_have_greeks_with_a_frozen_policy() -> None:
    put = {"type": "bermudan", "strike": 100.0, "dates": [0.5, 1.0], "kind": "put"}
    found = answer(payoffs=[CALL, put], engine=FEW, greeks={"which": ["price", "delta"]})
    assert found.payoffs[1].method.startswith("pathwise, frozen policy")
    assert -1 < found.payoffs[1].greeks[1].value < 0
