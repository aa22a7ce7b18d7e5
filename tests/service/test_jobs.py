"""Uploads, calibrations, their events and fits over HTTP, in one service; what survives its end is in test_recovery."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")
httpx = pytest.importorskip("httpx")

from qsde.io import read_quotes
from qsde.spec import CalibrationSpec, MarketSpec, PriceRequest, PriceResult
from service.examples import CALIBRATIONS, UPLOADS

DAX = Path(__file__).parents[2] / "data" / "dax_2002-07-05" / "dax_2002-07-05.csv"
SEVERAL = Path(__file__).parents[2] / "data" / "sepp_multiasset_surfaces" / "surfaces_btc_spy_gld.csv"
#: Runs for many seconds.
LONG = {**CALIBRATIONS["heston"], "calibration": {"model": "heston_kou", "starts": 10_000}}
ENDED = {"succeeded", "failed", "cancelled"}


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with httpx.Client(base_url=address, timeout=60) as found:
        yield found


@pytest.fixture
def strict(tight: str) -> Iterator[Any]:
    with httpx.Client(base_url=tight, timeout=60) as found:
        yield found


@pytest.fixture(scope="module")
def dax(address: str) -> str:
    """Id of the DAX surface."""
    answer = httpx.post(f"{address}/v1/surfaces", content=DAX.read_bytes(), timeout=60)
    (surface,) = answer.json()["surfaces"]
    return str(surface["id"])


def _problem(answer: Any, status: int) -> Any:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()


def _ended(client: Any, job: str, seconds: float = 60) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = client.get(f"/v1/jobs/{job}").json()
        if found["state"] in ENDED:
            return found
        time.sleep(0.1)
    raise AssertionError(f"the job has not ended after {seconds} s: {found}")


def _events(client: Any, job: str, **headers: str) -> list[tuple[str, str, Any]]:
    """Id, name and data of the events of a job, until they end."""
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = answer.read().decode()
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["id"], lines["event"], json.loads(lines["data"])))
    return found


# Surfaces


def test_a_stored_surface_and_its_report(client: Any, dax: str) -> None:
    found = client.get(f"/v1/surfaces/{dax}").json()
    expected = MarketSpec().surface(next(read_quotes(DAX).surfaces()))
    assert (found["underlying"], found["quotes"], found["read"], found["spot"]) == ("DAX", 104, 104, expected.spot)
    assert [e["forward"] for e in found["expiries"]] == expected.slices["forward"].tolist()
    assert found["warnings"] == list(expected.warnings)
    assert dax in [surface["id"] for surface in client.get("/v1/surfaces?limit=200").json()["surfaces"]]


def test_several_surfaces_in_one_file_and_one_that_is_chosen(client: Any) -> None:
    every = client.post("/v1/surfaces", content=SEVERAL.read_bytes())
    names = sorted(surface["underlying"] for surface in every.json()["surfaces"])
    assert names == ["BTC", "GLD", "SPY"]
    assert every.headers["location"] == "/v1/surfaces"
    one = client.post("/v1/surfaces?symbol=SPY&min_days=30", content=SEVERAL.read_bytes())
    (surface,) = one.json()["surfaces"]
    assert surface["underlying"] == "SPY"
    assert surface["set_aside"]
    assert one.headers["location"] == f"/v1/surfaces/{surface['id']}"
    none = _problem(client.post("/v1/surfaces?symbol=XYZ", content=SEVERAL.read_bytes()), 422)
    assert "SPY" in none["detail"]


def test_forms_json_and_packed_files_make_the_same_surface(client: Any) -> None:
    text = b"underlying,quote_date,t_years,strike,option_type,implied_vol,forward\n" + b"".join(
        b"X,2024-01-02,0.5,%d,%s,0.2,100\n" % (k, b"C" if k >= 100 else b"P") for k in (80, 90, 100, 110, 120)
    )
    records = [dict(zip(text.split(b"\n")[0].decode().split(","), row.decode().split(","), strict=True))
               for row in text.split(b"\n")[1:-1]]  # fmt: skip
    sent = [
        client.post("/v1/surfaces?spot=99", content=text),
        client.post("/v1/surfaces?spot=99", content=gzip.compress(text)),
        client.post("/v1/surfaces?spot=99", json=records),
        client.post("/v1/surfaces", files={"file": ("../../etc/x.csv", text)}, data={"spot": "99"}),
    ]
    for answer in sent:
        assert answer.status_code == 201, answer.text
    reports = [
        {name: value for name, value in answer.json()["surfaces"][0].items() if name not in ("id", "created")}
        for answer in sent
    ]
    assert reports[0]["quotes"] == 5
    assert reports[0]["spot"] == 99
    assert all(report == reports[0] for report in reports)


@pytest.mark.parametrize(
    ("query", "content", "says"),
    [
        ("", b"", "empty"),
        ("", b"a,b\n1,2\n", "columns"),
        ("", b"\x00\x01\x02", "binary"),
        ("", b"PAR1 and nothing else", "Parquet"),
        ("", b"PK\x03\x04rest", "zip"),
        ("", b"[" * 10_000, "JSON"),
        (
            "",
            b'[{"strike":1,"option_type":"C","t_years":1,"implied_vol":0.2,"forward":1,"underlying":"\\ud800"}]',
            "UTF-8",
        ),
        ("?min_days=-1", b"x", "min_days"),
        ("?nonsense=1", b"x", "nonsense"),
        ("?rate=5", b"x", "percent"),
        ("?column_map={", b"x", "column_map"),
        ("?treasury=/etc/passwd", b"x", "treasury"),
    ],
)
def test_uploads_that_cannot_be_read(client: Any, query: str, content: bytes, says: str) -> None:
    document = _problem(client.post(f"/v1/surfaces{query}", content=content), 422)
    assert says in document["detail"]
    assert "/uploads/" not in document["detail"]


def test_a_form_without_a_file(client: Any) -> None:
    assert _problem(client.post("/v1/surfaces", files={"other": b"x"}), 422)["field"] == "file"
    broken = {"content-type": "multipart/form-data; boundary=x"}
    _problem(client.post("/v1/surfaces", content=b"nonsense", headers=broken), 422)
    _problem(client.post("/v1/surfaces", content=b"x", headers={"content-type": "multipart/form-data"}), 422)


def test_limits_of_uploads(strict: Any) -> None:
    document = _problem(strict.post("/v1/surfaces", content=b"x" * (1 << 15)), 413)
    assert document["limit"] == {"max_upload_bytes": 1 << 14}
    form = strict.post("/v1/surfaces", files={"file": b"x" * (1 << 15)})
    assert _problem(form, 413)["limit"] == {"max_upload_bytes": 1 << 14}
    bomb = gzip.compress(b"strike,option_type\n" + b"1,C\n" * (1 << 20))
    assert len(bomb) < 1 << 14
    assert "limit" in _problem(strict.post("/v1/surfaces", content=bomb), 422)["detail"]
    rows = [{**row, "underlying": name} for name in "ABC" for row in UPLOADS["records"]]
    assert _problem(strict.post("/v1/surfaces", json=rows), 422)["limit"] == {"max_surfaces": 2}


# Jobs


def test_a_calibration_is_that_of_the_library(client: Any, dax: str) -> None:
    sent = {"surface": dax, "calibration": {"model": "heston", "fixed": {"kappa": 3.0}, "seed": 5}}
    accepted = client.post("/v1/calibrations", json=sent)
    assert accepted.status_code == 202
    job = accepted.json()["job"]
    assert accepted.headers["location"] == f"/v1/jobs/{job}"
    found = _ended(client, job)
    assert (found["state"], found["fit"], found["error"]) == ("succeeded", job, None)
    assert found["created"] <= found["ended"]
    spec = CalibrationSpec.model_validate(sent["calibration"])
    surface = MarketSpec().surface(next(read_quotes(DAX).surfaces()))
    expected = spec.fit(surface)
    fit = client.get(f"/v1/fits/{job}").json()
    assert {name: fit["model"][name] for name in expected.params} == expected.params
    assert fit["std_errors"] == pytest.approx(expected.std_errors, nan_ok=True, rel=0)
    assert fit["rmse_bp"] == expected.rmse_bp
    assert fit["surface"] == dax
    assert job in [one["id"] for one in client.get("/v1/fits?limit=200").json()["fits"]]

    request = {"payoffs": [{"type": "european", "strike": 4500.0, "expiry": 0.5}], "engine": {"type": "fourier"}}
    priced = client.post("/v1/price", json={"fit": job, **request})
    asked = PriceRequest.model_validate({"fit": "anything", **request})
    with torch.no_grad():
        result = PriceResult.of(asked, asked.build(lambda file: [expected]))
    assert priced.json()["payoffs"][0]["value"] == result.payoffs[0].value
    assert priced.json()["model"] == fit["model"]
    greeks = client.post("/v1/greeks", json={"fit": {"file": job, "model": "heston"}, **request})
    assert greeks.json()["payoffs"][0]["status"] == "ok"
    report = client.get(f"/v1/report/{job}")
    assert report.headers["content-type"].startswith("text/html")
    assert "DAX" in report.text
    assert "sandbox allow-scripts" in report.headers["content-security-policy"]


def test_a_fit_that_is_none(client: Any) -> None:
    request = {"payoffs": [{"type": "european", "strike": 4500.0, "expiry": 0.5}], "engine": {"type": "fourier"}}
    document = _problem(client.post("/v1/price", json={"fit": "0" * 32, **request}), 422)
    assert document["field"] == "fit"
    assert "/v1/fits" in document["detail"]


def test_events_to_the_end_and_again_from_the_middle(client: Any) -> None:
    sent = {**CALIBRATIONS["heston"], "calibration": {"model": "heston_kou", "starts": 3000, "max_iterations": 30}}
    job = client.post("/v1/calibrations", json=sent).json()["job"]
    found = _events(client, job)
    assert found[0][:2] == ("0", "started")
    progress = [data for _, name, data in found if name == "progress"]
    assert progress
    assert [one["done"] for one in progress] == sorted(one["done"] for one in progress)
    assert all(0 <= one["done"] <= one["total"] for one in progress)
    assert found[-1][:2] == ("end", "succeeded")
    assert found[-1][2] == client.get(f"/v1/jobs/{job}").json()
    assert found[-1][2]["progress"] == progress[-1]
    middle = found[1][0]
    assert _events(client, job, **{"Last-Event-ID": middle}) == found[2:]
    assert _events(client, job, **{"Last-Event-ID": "9" * 30}) == found[-1:], "what no event has"
    assert client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": "end"}).status_code == 204


def test_cancelled_while_it_runs_and_while_it_waits(client: Any) -> None:
    running = client.post("/v1/calibrations", json=LONG).json()["job"]
    waiting = client.post("/v1/calibrations", json=LONG).json()["job"]
    names: list[str] = []
    following = threading.Thread(target=lambda: names.extend(name for _, name, _ in _events(client, running)))
    following.start()
    while client.get(f"/v1/jobs/{running}").json()["state"] != "running":
        time.sleep(0.05)
    assert client.get(f"/v1/jobs/{waiting}").json()["state"] == "queued"
    for job in (waiting, running):
        cancelled = client.delete(f"/v1/jobs/{job}")
        assert (cancelled.status_code, cancelled.json()["state"], cancelled.json()["fit"]) == (200, "cancelled", None)
        assert "cancelled" in _problem(client.delete(f"/v1/jobs/{job}"), 409)["detail"]
        _problem(client.get(f"/v1/fits/{job}"), 404)
    following.join(timeout=30)
    assert names[0] == "started"
    assert names[-1] == "cancelled"
    quick = client.post("/v1/calibrations", json=CALIBRATIONS["black_scholes"]).json()["job"]
    assert _ended(client, quick)["state"] == "succeeded", "the worker of the cancelled job is not free"
    assert client.get(f"/v1/jobs/{running}").json()["state"] == "cancelled"


def test_a_job_that_cannot_be_done_says_why(client: Any, dax: str) -> None:
    sent = {"surface": dax, "calibration": {"model": "heston", "fixed": {"kappa": -3.0}}}
    found = _ended(client, client.post("/v1/calibrations", json=sent).json()["job"])
    assert (found["state"], found["fit"]) == ("failed", None)
    assert "kappa" in found["error"]
    assert _events(client, found["id"])[-1][1] == "failed"


def test_metrics_count_jobs_by_state(client: Any) -> None:
    def count(state: str) -> float:
        (line,) = (x for x in client.get("/metrics").text.splitlines() if x.startswith(f'qsde_jobs{{state="{state}"}}'))
        return float(line.split()[-1])

    before = count("succeeded"), count("cancelled")
    _ended(client, client.post("/v1/calibrations", json=CALIBRATIONS["black_scholes"]).json()["job"])
    client.delete(f"/v1/jobs/{client.post('/v1/calibrations', json=LONG).json()['job']}")
    assert (count("succeeded"), count("cancelled")) == (before[0] + 1, before[1] + 1)
    assert count("queued") == 0


def test_jobs_are_listed_in_pages(client: Any) -> None:
    sent = [client.post("/v1/calibrations", json=CALIBRATIONS["black_scholes"]).json()["job"] for _ in range(3)]
    first = client.get("/v1/jobs?limit=2").json()
    assert [job["id"] for job in first["jobs"]] == sent[:0:-1]
    second = client.get("/v1/jobs", params={"limit": 2, "cursor": first["next"]}).json()
    assert second["jobs"][0]["id"] == sent[0]
    assert _problem(client.get("/v1/jobs?cursor=nonsense"), 422)["field"] == "cursor"
    assert _problem(client.get("/v1/jobs?limit=1000"), 422)["field"] == "limit"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"quotes": None}, "surface or quotes"),
        ({"surface": "0" * 32}, "surface or quotes"),
        ({"quotes": None, "surface": "0" * 32}, "no surface"),
        ({"quotes": None, "surface": "../../etc"}, "surface"),
        ({"quotes": []}, "quotes"),
        ({"quotes": [{"strike": 1.0}]}, "columns"),
        ({"quotes": [*UPLOADS["records"], {**UPLOADS["records"][0], "underlying": "OTHER"}]}, "one underlying"),
        ({"calibration": {"model": "nonsense"}}, "calibration.model"),
        ({"calibration": {"model": "heston", "starts": 0}}, "calibration.starts"),
        ({"calibration": {}}, "calibration.model"),
    ],
)
def test_calibrations_that_make_no_sense_are_refused_at_once(client: Any, change: Any, says: str) -> None:
    document = _problem(client.post("/v1/calibrations", json={**CALIBRATIONS["heston"], **change}), 422)
    assert says in document["detail"]


@pytest.mark.parametrize("path", ["surfaces/x", "jobs/x", "jobs/x/events", "fits/x", "report/x", f"jobs/{'0' * 32}"])
def test_what_is_not_there(client: Any, path: str) -> None:
    _problem(client.get(f"/v1/{path}"), 404)
    if path.startswith("jobs"):
        answer = client.delete(f"/v1/{path}")
        _problem(answer, 405 if path.endswith("events") else 404)


def test_limits_of_jobs(strict: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        job = strict.post("/v1/calibrations", json=LONG).json()["job"]
        following = pool.submit(_events, strict, job)
        time.sleep(0.5)
        refused = strict.get(f"/v1/jobs/{job}/events")
        assert _problem(refused, 429)["limit"] == {"max_event_streams": 1}
        other = strict.post("/v1/calibrations", json=CALIBRATIONS["black_scholes"])
        refused = strict.post("/v1/calibrations", json=CALIBRATIONS["black_scholes"])
        assert _problem(refused, 429)["limit"] == {"max_jobs": 2}
        assert int(refused.headers["retry-after"]) > 0
        name, data = following.result()[-1][1:]
    assert name == "failed"
    assert "max_job_seconds" in data["error"]
    assert _ended(strict, other.json()["job"])["state"] == "succeeded"


# Idempotency-Key


def test_the_same_key_and_request_creates_once(client: Any) -> None:
    headers = {"Idempotency-Key": "calibrate-1"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: client.post("/v1/calibrations", json=CALIBRATIONS["heston"], headers=headers), range(8))
        )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["location"] for answer in answers}) == 1
    surface = answers[0].json()["surface"]
    listed = [job for job in client.get("/v1/jobs?limit=200").json()["jobs"] if job["surface"] == surface]
    assert len(listed) == 1
    other = client.post("/v1/calibrations", json=CALIBRATIONS["black_scholes"], headers=headers)
    assert "Idempotency-Key" in _problem(other, 409)["detail"]


def test_keys_of_uploads(client: Any) -> None:
    headers = {"Idempotency-Key": "upload-1"}
    first = client.post("/v1/surfaces?spot=100", json=UPLOADS["records"], headers=headers)
    again = client.post("/v1/surfaces?spot=100", json=UPLOADS["records"], headers=headers)
    assert (again.status_code, again.content) == (201, first.content)
    _problem(client.post("/v1/surfaces?spot=101", json=UPLOADS["records"], headers=headers), 409)
    _problem(client.post("/v1/surfaces?spot=100", json=UPLOADS["records"][1:], headers=headers), 409)
    _problem(client.post("/v1/surfaces", json=UPLOADS["records"], headers={"Idempotency-Key": "a b"}), 422)


def test_what_failed_may_be_sent_again_with_its_key(client: Any) -> None:
    headers = {"Idempotency-Key": "upload-2"}
    _problem(client.post("/v1/surfaces", content=b"nonsense", headers=headers), 422)
    assert client.post("/v1/surfaces", json=UPLOADS["records"], headers=headers).status_code == 201
