"""kill -9: every job that was accepted ends, once, whatever ended before it; on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")
httpx = pytest.importorskip("httpx")

from qsde.io import read_quotes
from qsde.spec import CalibrationSpec, MarketSpec
from service.examples import CALIBRATIONS

ROOT = Path(__file__).parents[2]
DAX = ROOT / "data" / "dax_2002-07-05" / "dax_2002-07-05.csv"
#: Quick ones, and ones that run for a second or so.
SPECS: list[dict[str, Any]] = [
    *({"model": "black_scholes", "seed": i} for i in range(2)),
    *({"model": "heston", "seed": i} for i in range(2)),
    *({"model": "bates", "seed": i, "starts": 40} for i in range(3)),
]


def _processes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("processes", ROOT / "benchmarks" / "processes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


processes = _processes()


@pytest.fixture(scope="module")
def expected() -> list[dict[str, float]]:
    """Parameters by the library itself."""
    surface = MarketSpec().surface(next(read_quotes(DAX).surfaces()))
    specs = [CalibrationSpec.model_validate(spec) for spec in SPECS]
    return [spec.fit(surface).params for spec in specs]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Any]:
    """One service on SQLite."""
    found = processes.Service(tmp_path / "log", data_dir=tmp_path / "data", workers=1, job_workers=1)
    found.start()
    yield found
    found.kill()


def _sent(service: Any) -> list[str]:
    """Ids of jobs, one for each of `SPECS`."""
    with httpx.Client(base_url=service.address, timeout=60) as client:
        surface = client.post("/v1/surfaces", content=DAX.read_bytes()).json()["surfaces"][0]["id"]
        sent = [client.post("/v1/calibrations", json={"surface": surface, "calibration": spec}) for spec in SPECS]
    assert [answer.status_code for answer in sent] == [202] * len(SPECS)
    return [answer.json()["job"] for answer in sent]


def _until(service: Any, job: str, *states: str) -> Any:
    with httpx.Client(base_url=service.address, timeout=60) as client:
        for _ in range(1200):
            found = client.get(f"/v1/jobs/{job}").json()
            if found["state"] in states:
                return found
            time.sleep(0.05)
    raise AssertionError(f"not {' or '.join(states)}: {found}")


def _check(service: Any, jobs: list[str], expected: list[dict[str, float]]) -> None:
    """All have succeeded, with the digits of the library, and nothing else is stored."""
    with httpx.Client(base_url=service.address, timeout=60) as client:
        for job, params in zip(jobs, expected, strict=True):
            assert _until(service, job, "succeeded", "failed", "cancelled")["state"] == "succeeded"
            model = client.get(f"/v1/fits/{job}").json()["model"]
            assert {name: model[name] for name in params} == params
        assert sorted(fit["id"] for fit in client.get("/v1/fits?limit=200").json()["fits"]) == sorted(jobs)


def test_killed_while_jobs_run_and_wait(service: Any, expected: list[dict[str, float]]) -> None:
    jobs = _sent(service)
    _until(service, jobs[4], "running", "succeeded")
    children = service.children()
    assert len(children) >= 3
    service.kill()
    for _ in range(300):
        if not any(os.path.exists(f"/proc/{pid}") for pid in children):
            break
        time.sleep(0.1)
    else:
        pytest.fail("processes of the service outlive it")
    service.start()
    _check(service, jobs, expected)
    _check_stop(service)


def _check_stop(service: Any) -> None:
    """Told to end, it does not wait for clients that follow a job; the job is left to the next service."""
    with httpx.Client(base_url=service.address, timeout=60) as client:
        sent = {**CALIBRATIONS["heston"], "calibration": {"model": "heston_kou", "starts": 10_000}}
        job = client.post("/v1/calibrations", json=sent).json()["job"]
        with client.stream("GET", f"/v1/jobs/{job}/events") as following:
            lines = following.iter_lines()
            assert next(lines) == "id: 0"
            service.stop()
            assert "event: succeeded" not in list(lines)


@pytest.mark.slow  # starts a service of its own
def test_processes_of_the_service_are_killed_under_it(service: Any, expected: list[dict[str, float]]) -> None:
    jobs = _sent(service)
    _until(service, jobs[4], "running", "succeeded")
    (worker,) = (pid for child in service.children() for pid in processes.descendants(child))
    os.kill(worker, signal.SIGKILL)
    _until(service, jobs[5], "running", "succeeded")
    runner = next(child for child in service.children() if processes.descendants(child))
    os.kill(runner, signal.SIGKILL)
    _check(service, jobs, expected)


def test_two_services_on_postgresql_of_which_one_is_killed(tmp_path: Path, expected: list[dict[str, float]]) -> None:
    missing = processes.postgres_missing()
    if missing:
        pytest.skip(missing)
    settings = {"data_dir": tmp_path / "data", "workers": 1, "job_workers": 1}
    with contextlib.ExitStack() as stack:
        with processes.postgres() as url:
            services = [processes.Service(tmp_path / f"log{i}", database_url=url, **settings) for i in range(2)]
            for service in services:
                service.start()
                stack.callback(service.kill)
            jobs = _sent(services[0])
            _until(services[1], jobs[5], "running", "succeeded")
            services[0].kill()
            _check(services[1], jobs, expected)
        with httpx.Client(base_url=services[1].address, timeout=60) as client:
            assert client.get(f"/v1/jobs/{jobs[0]}").status_code == 503, "PostgreSQL has ended, the service has not"
            assert client.get("/metrics").status_code == 200
