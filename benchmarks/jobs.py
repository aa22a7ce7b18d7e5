"""Calibration jobs of a service that is killed (-9) again and again: every one that was accepted must end, once.

On SQLite one service is killed at random moments, while jobs are sent and while they run, and started again. On
PostgreSQL two services share the queue; one is killed half-way and stays dead. In the end every job must have a fit
whose numbers are those of the library, to the last digit. The requests carry an Idempotency-Key, so that a client that
got no answer may send again; what was answered is never sent again.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import Row, arguments, report
from processes import Service, postgres, postgres_missing

from qsde.io import read_quotes
from qsde.spec import CalibrationSpec, MarketSpec

DAX = Path(__file__).parents[1] / "data" / "dax_2002-07-05" / "dax_2002-07-05.csv"
_ENDED = ("succeeded", "failed", "cancelled")


def specs(count: int) -> list[dict[str, Any]]:
    """Calibrations of four models, no two alike; the longer ones take about a second."""
    draw = random.Random(3)
    kinds = [{"model": "black_scholes"}, {"model": "heston"}, {"model": "heston", "starts": 40}, {"model": "bates"}]
    return [{**draw.choice(kinds), "seed": i} for i in range(count)]


def own(calibrations: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Parameters and errors by the library itself, on one thread as in a worker."""
    torch.set_num_threads(1)
    surface = MarketSpec().surface(next(read_quotes(DAX).surfaces()))
    fits = [CalibrationSpec.model_validate(spec).fit(surface) for spec in calibrations]
    return [{**fit.params, "rmse_bp": fit.rmse_bp} for fit in fits]


def call(method: str, url: str, body: bytes | None = None, **headers: str) -> Any:
    """The answer as JSON."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def until_answered(
    services: Sequence[Service], method: str, path: str, body: bytes | None = None, **headers: str
) -> Any:
    """The answer of the first service that gives one, however long they are gone."""
    for _ in range(3000):
        for service in services:
            try:
                return call(method, service.address + path, body, **headers)
            except urllib.error.HTTPError as error:
                if error.code not in (429, 503):
                    raise
            except OSError:
                pass
        time.sleep(0.1)
    raise RuntimeError("no service has answered for five minutes")


def send(services: Sequence[Service], calibrations: Sequence[dict[str, Any]], pause: float) -> list[str]:
    """Ids of the jobs, sent one after the other."""
    surface = until_answered(services, "POST", "/v1/surfaces", DAX.read_bytes(), **{"Idempotency-Key": "dax"})
    jobs = []
    for i, spec in enumerate(calibrations):
        body = json.dumps({"surface": surface["surfaces"][0]["id"], "calibration": spec}).encode()
        answer = until_answered(services, "POST", "/v1/calibrations", body, **{"Idempotency-Key": f"job-{i}"})
        jobs.append(str(answer["job"]))
        time.sleep(pause)
    return jobs


def every(services: Sequence[Service], path: str, field: str) -> list[Any]:
    """All items of a list in pages."""
    found: list[Any] = []
    cursor = ""
    while True:
        page = until_answered(services, "GET", f"{path}?limit=200{cursor}")
        found += page[field]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


def wait(services: Sequence[Service]) -> list[Any]:
    """All jobs, when all have ended."""
    while True:
        jobs = every(services, "/v1/jobs", "jobs")
        if all(job["state"] in _ENDED for job in jobs):
            return jobs
        time.sleep(0.5)


def rows(name: str, services: Sequence[Service], sent: Sequence[str], expected: Sequence[dict[str, float]],
         note: str) -> list[Row]:  # fmt: skip
    """What became of the jobs."""
    jobs = wait(services)
    assert sorted(job["id"] for job in jobs) == sorted(sent), "jobs that were not accepted, or that are lost"
    fits = {fit["id"] for fit in every(services, "/v1/fits", "fits")}
    equal = 0
    for job, numbers in zip(sent, expected, strict=True):
        if job in fits:
            fit = until_answered(services, "GET", f"/v1/fits/{job}")
            equal += {name: {**fit["model"], **fit}[name] for name in numbers} == numbers
    count = len(sent)
    unlike = "peer: as many jobs as were accepted"
    return [
        Row(f"{name}: jobs that ended in a result", len(fits), count, 1.0, "", True, note),
        Row(f"{name}: results equal to the library's own, to the last digit", equal, count, 1.0, "", True, unlike),
    ]


def killed_again_and_again(count: int, kills: int) -> list[Row]:
    """One service on SQLite."""
    calibrations, draw = specs(count), random.Random(7)
    expected = own(calibrations)
    with tempfile.TemporaryDirectory(prefix="qsde-jobs-") as folder:
        service = Service(Path(folder) / "log", data_dir=Path(folder) / "data", workers=1, job_workers=1)
        service.start()
        sent: list[str] = []
        # jobs are sent over about as long as the kills take, and those of the last kills run when all are sent
        sending = threading.Thread(target=lambda: sent.extend(send([service], calibrations, 0.05)), daemon=True)
        sending.start()
        began = time.perf_counter()
        for i in range(kills):
            if i % 2:  # while jobs run; the other half at any moment, also while the service starts its processes
                wait_for(partial(_more, [service], len(every([service], "/v1/fits", "fits")), count))
            time.sleep(draw.uniform(0.0, 4.0))
            service.kill()
            service.start()
        sending.join()
        found = rows("SQLite", [service], sent, expected, "")
        seconds = time.perf_counter() - began
        service.stop()
    when = "half of them 0 to 4 s after a start, half 0 to 4 s after a result"
    note = f"{kills} kills -9, {when}; {seconds:.0f} s in all"
    return [Row(r.figure, r.ours, r.peer, r.floor, r.unit, True, r.note or note) for r in found]


def one_of_two(count: int) -> list[Row]:
    """Two services on PostgreSQL, of which one is killed when a third of the jobs is done, and stays dead."""
    missing = postgres_missing()
    if missing:
        return [Row("PostgreSQL, two services", float("nan"), None, note=missing)]
    calibrations = specs(count)
    expected = own(calibrations)
    with tempfile.TemporaryDirectory(prefix="qsde-jobs-") as folder, postgres() as url, ExitStack() as stack:
        settings = {"database_url": url, "data_dir": Path(folder) / "data", "workers": 1, "job_workers": 1}
        services = [Service(Path(folder) / f"log{i}", **settings) for i in range(2)]
        for service in services:
            service.start()
            stack.callback(service.kill)
        sent: list[str] = []
        sending = threading.Thread(target=lambda: sent.extend(send(services, calibrations, 0.0)), daemon=True)
        sending.start()
        wait_for(lambda: len(every(services, "/v1/fits", "fits")) >= count // 3)
        services[0].kill()
        sending.join()
        note = "two services share the queue; one is killed -9 when a third is done, and stays dead"
        return rows("PostgreSQL", services[1:], sent, expected, note)


def _more(services: Sequence[Service], before: int, most: int) -> bool:
    now = len(every(services, "/v1/fits", "fits"))
    return now > before or now == most


def wait_for(done: Callable[[], bool]) -> None:
    while not done():
        time.sleep(0.1)


def main() -> int:
    options = arguments(__doc__)
    count, kills = (20, 2) if options.quick else (200, 20)
    found = [*killed_again_and_again(count, kills), *one_of_two(count)]
    return 0 if report(found, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
