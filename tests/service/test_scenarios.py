"""Ladders by the service: the library's own numbers, with a status for each contract."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")

from qsde.greeks.scenarios import scenarios
from service.answers import alone
from service.examples import SCENARIOS
from service.limits import work_of
from service.reading import read_job
from service.scenarios import ScenariosAnswer, ScenariosRequest


def _sent(request: Any) -> tuple[int, Any]:
    status, body = alone("scenarios", json.dumps(request).encode())
    return status, json.loads(body)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_ladders_are_the_library_s(name: str) -> None:
    status, found = _sent(SCENARIOS[name])
    assert status == 200
    ScenariosAnswer.model_validate(found)
    request = ScenariosRequest.model_validate(SCENARIOS[name])
    job, ladder = request.build(), request.scenarios
    expected = scenarios(job.model, job.payoffs, job.market, job.engine, ladder.spots, ladder.vols, ladder.which)
    for row, payoff in enumerate(found["payoffs"]):
        for column, table in payoff["values"].items():
            assert table == expected[column][row].tolist()
        assert (payoff["std_errors"] is None) == (expected.n_paths == 0)
        assert payoff["knocked"] == expected.knocked[row].tolist()
    assert 0.0 in found["spots"]
    assert found["levels"] == expected.levels.tolist()


def test_knocked_out_where_the_spot_crosses_the_barrier() -> None:
    (payoff,) = _sent(SCENARIOS["barrier"])[1]["payoffs"]
    assert payoff["knocked"] == [False, False, True]
    assert payoff["values"]["price"][2] == [0.0, 0.0]


def test_a_bad_contract_does_not_fail_its_neighbours() -> None:
    good = SCENARIOS["europeans"]["payoffs"]
    bad = [{"type": "american", "strike": 100.0, "expiry": 1.0}, {"type": "european", "strike": -1.0, "expiry": 1.0}]
    status, found = _sent({**SCENARIOS["europeans"], "payoffs": [good[0], *bad, good[1]]})
    assert status == 200
    assert [payoff["status"] for payoff in found["payoffs"]] == ["ok", "error", "error", "ok"]
    assert [payoff["field"] for payoff in found["payoffs"][1:3]] == ["payoffs.1", "payoffs.2.strike"]
    neighbours = [found["payoffs"][i]["values"] for i in (0, 3)]
    assert neighbours == [payoff["values"] for payoff in _sent(SCENARIOS["europeans"])[1]["payoffs"]]


def test_american_options_have_exact_ladders_next_to_simulated_contracts() -> None:
    """A Bermudan, which has none, is set aside; so is the American where its price is not exact."""
    option = {"type": "american", "strike": 100.0, "expiry": 1.0}
    payoffs = [option, {"type": "asian", "strike": 100.0, "fixings": [0.5, 1.0]},
               {"type": "bermudan", "strike": 100.0, "dates": [0.5, 1.0]}]  # fmt: skip
    request = {
        "model": {"model": "black_scholes", "vol": 0.2},
        "market": {"spot": 100.0, "rate": 0.03},
        "engine": {"type": "auto", "paths": 256},
    }
    status, found = _sent({**request, "payoffs": payoffs})
    assert status == 200
    assert [payoff["status"] for payoff in found["payoffs"]] == ["ok", "ok", "error"]
    assert [payoff["method"] for payoff in found["payoffs"][:2]] == ["boundary", "pathwise"]
    assert found["payoffs"][2]["field"] == "payoffs.2"
    alone_ = _sent({**request, "payoffs": [option]})[1]
    assert alone_["n_paths"] is None
    for mine, theirs in zip(
        alone_["payoffs"][0]["values"]["price"], found["payoffs"][0]["values"]["price"], strict=True
    ):
        assert mine == pytest.approx(theirs, rel=1e-12)
    heston = {**request, "model": SCENARIOS["barrier"]["model"], "payoffs": [option]}
    status, found = _sent(heston)
    assert (status, found["payoffs"][0]["field"]) == (200, "payoffs.0")
    assert "exact price under Heston" in found["payoffs"][0]["message"]


@pytest.mark.parametrize(
    ("ladder", "field"),
    [({"spots": [-1.0]}, "scenarios.spots"), ({"which": ["rho"]}, "scenarios.which"), ({"vols": []}, "scenarios.vols")],
)
def test_bad_ladders_are_refused(ladder: dict[str, Any], field: str) -> None:
    status, found = _sent({**SCENARIOS["europeans"], "scenarios": ladder})
    assert status == 422
    assert found["field"].startswith(field)


def test_work_grows_with_the_ladder() -> None:
    def work(spots: int, vols: int) -> float:
        ladder = {"spots": [0.01 * i for i in range(spots)], "vols": [0.01 * i for i in range(vols)]}
        request = {**SCENARIOS["barrier"], "scenarios": ladder}
        read = read_job(ScenariosRequest, json.dumps(request).encode())
        assert read.request.model is not None
        return work_of(read, read.request.model).path_steps

    assert work(1, 1) < work(5, 1) < work(5, 3)
    assert work(1, 3) == 3 * work(1, 1)
