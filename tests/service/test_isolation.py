"""A key sees what was made with it, and nothing of any other key."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")
httpx = pytest.importorskip("httpx")

from service.examples import CALIBRATIONS, GREEKS, PRICE, SCENARIOS, UPLOADS
from service.security.keys import Keys
from service.settings import Settings
from service.storage.database import Database
from service.storage.pages import owned, page
from service.storage.tables import FitRow, JobRow, SurfaceRow


@dataclass(frozen=True)
class Desks:
    """Two keys of one service, the first of which has a surface, a job and its fit."""

    one: Any
    other: Any
    surface: str
    job: str
    folder: Path


@pytest.fixture(scope="module")
def desks(guarded: tuple[str, Path]) -> Iterator[Desks]:
    address, folder = guarded
    keys = Keys.of(Settings(data_dir=folder))
    secrets = [keys.create(name) for name in ("one", "other")]
    one, other = (httpx.Client(base_url=address, timeout=60, headers={"X-API-Key": secret}) for secret in secrets)
    with one, other:
        while one.get("/v1/jobs").status_code == 401:  # keys are read again before long
            time.sleep(0.1)
        accepted = one.post("/v1/calibrations", json=CALIBRATIONS["black_scholes"]).json()
        assert _ended(one, accepted["job"]) == "succeeded"
        yield Desks(one, other, accepted["surface"], accepted["job"], folder)


def _ended(client: Any, job: str) -> str:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        state = str(client.get(f"/v1/jobs/{job}").json()["state"])
        if state in ("succeeded", "failed", "cancelled"):
            return state
        time.sleep(0.1)
    raise AssertionError("the job has not ended")


@pytest.mark.parametrize(
    "path", ["surfaces/{surface}", "jobs/{job}", "jobs/{job}/events", "fits/{job}", "fits/{job}/file", "report/{job}"]
)
def test_things_of_another_key_are_not_there(desks: Desks, path: str) -> None:
    def of(client: Any, surface: str, job: str) -> Any:
        return client.get(f"/v1/{path}".format(surface=surface, job=job))

    nothing = "0" * 32
    assert of(desks.one, desks.surface, desks.job).status_code == 200
    hidden, absent = of(desks.other, desks.surface, desks.job), of(desks.other, nothing, nothing)
    assert hidden.status_code == absent.status_code == 404
    assert hidden.text.replace(desks.surface, nothing).replace(desks.job, nothing) == absent.text


@pytest.mark.parametrize("kind", ["surfaces", "jobs", "fits"])
def test_lists_hold_what_is_of_the_key(desks: Desks, kind: str) -> None:
    def ids(client: Any) -> list[str]:
        return [item["id"] for item in client.get(f"/v1/{kind}").json()[kind]]

    assert (desks.surface if kind == "surfaces" else desks.job) in ids(desks.one)
    assert set(ids(desks.other)) & set(ids(desks.one)) == set()


def test_jobs_of_another_key_are_not_cancelled(desks: Desks) -> None:
    assert desks.one.delete(f"/v1/jobs/{desks.job}").status_code == 409
    assert desks.other.delete(f"/v1/jobs/{desks.job}").status_code == 404


def test_surfaces_of_another_key_are_not_calibrated(desks: Desks) -> None:
    body = {"surface": desks.surface, "calibration": {"model": "black_scholes"}}
    refused = desks.other.post("/v1/calibrations", json=body)
    assert (refused.status_code, refused.json()["field"]) == (422, "surface")
    assert desks.one.post("/v1/calibrations", json=body).status_code == 202


@pytest.mark.parametrize(
    ("path", "example"),
    [("price", PRICE["europeans"]), ("price", PRICE["barrier"]), ("greeks", GREEKS["europeans"]),
     ("scenarios", SCENARIOS["europeans"])],
)  # fmt: skip
def test_fits_of_another_key_price_nothing(desks: Desks, path: str, example: dict[str, Any]) -> None:
    body = {name: value for name, value in example.items() if name != "model"} | {"fit": desks.job}
    assert desks.one.post(f"/v1/{path}", json=body).status_code == 200
    refused = desks.other.post(f"/v1/{path}", json=body)
    assert (refused.status_code, refused.json()["field"]) == (422, "fit")


def test_fits_of_another_key_stand_beside_no_report(desks: Desks) -> None:
    own = desks.other.post("/v1/calibrations", json=CALIBRATIONS["black_scholes"]).json()["job"]
    assert _ended(desks.other, own) == "succeeded"
    assert desks.other.get(f"/v1/report/{own}").status_code == 200
    assert desks.other.get(f"/v1/report/{own}?beside={desks.job}").status_code == 404


def test_each_key_has_its_own_idempotency_keys(desks: Desks) -> None:
    def post(client: Any) -> str:
        answer = client.post("/v1/surfaces", content=json.dumps(UPLOADS["records"]), headers={"Idempotency-Key": "k"})
        assert answer.status_code == 201
        return str(answer.json()["surfaces"][0]["id"])

    assert post(desks.one) == post(desks.one) != post(desks.other)


def test_without_keys_all_is_there(desks: Desks) -> None:
    database = Database.open("", desks.folder)
    with database.session() as session:
        for table, row_id in ((SurfaceRow, desks.surface), (JobRow, desks.job), (FitRow, desks.job)):
            assert owned(session, table, row_id, "") is not None
            assert {row.owner for row in page(session, table, 200, None, "")[0]} >= {"one"}
    database.close()
