"""The service under mixed load for a long time: memory must stay where it is after the first tenth of the time.

Eight clients ask for prices by Fourier and by simulation, Greeks, scenarios and implied vols, send bad requests and
broken ones, and leave before they are answered. `--minutes 10` is the length of the acceptance run; `--quick` takes one
minute. What is flat: the median of the last quarter of the time is at most a twentieth above that of the second.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from footprint import Watch
from harness import Row, parser, report
from processes import Service

from service.examples import GREEKS, IMPLIED_VOL, PRICE, SCENARIOS

CLIENTS = 8
#: Share of requests whose client leaves at once, and of bad ones.
LEAVES, BAD = 0.02, 0.1


def made(draw: random.Random) -> tuple[str, Any]:
    """A path and a body, new numbers in each."""
    path, examples = draw.choice(
        [("price", PRICE), ("price", PRICE), ("greeks", GREEKS), ("scenarios", SCENARIOS), ("implied-vol", IMPLIED_VOL)]
    )
    body = dict(draw.choice(list(examples.values())))
    if "model" in body:
        body["model"] = {**body["model"], "v0": draw.uniform(0.02, 0.09)}
        body["market"] = {**body["market"], "spot": draw.uniform(90, 110)}
        if draw.random() < BAD:
            body[draw.choice(["model", "market", "payoffs", "engine"])] = draw.choice([None, {}, [], "x" * 1000, 1e300])
    return f"/v1/{path}", body


def client(address: str, number: int, until: float, answers: Counter[str]) -> None:
    """One client; it counts its answers."""
    draw = random.Random(number)
    with httpx.Client(base_url=address, timeout=60) as http:
        while time.monotonic() < until:
            path, body = made(draw)
            try:
                answer = http.post(path, json=body, timeout=0.001 if draw.random() < LEAVES else 60)
                answers[str(answer.status_code)] += 1
            except httpx.TimeoutException:
                answers["left"] += 1


def soak(service: Service, seconds: float) -> tuple[Counter[str], list[int]]:
    """Answers by status, and memory every half a second."""
    counts = [Counter[str]() for _ in range(CLIENTS)]
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=client, args=(service.address, i, until, count)) for i, count in enumerate(counts)
    ]
    with Watch(service) as watch:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(counts, Counter()), watch.seen


def main() -> int:
    asked = parser(__doc__)
    asked.add_argument("--minutes", type=float, default=10.0, help="how long, without --quick")
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder) / "log", data_dir=folder, workers=1, job_workers=0)
        service.start()
        try:
            answers, seen = soak(service, 60.0 if options.quick else 60 * options.minutes)
        finally:
            service.stop()
    quarter = len(seen) // 4
    second, last = statistics.median(seen[quarter : 2 * quarter]), statistics.median(seen[-quarter:])
    shares = ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))
    server = sum(count for status, count in answers.items() if status.startswith("5"))
    rows = [
        Row("memory, last quarter", last / 2**20, 1.05 * second / 2**20, 1.0, "MiB", False,
            f"peer: second quarter and 5 %; peak {max(seen) / 2**20:.0f} MiB"),
        Row("5xx (plus 1)", server + 1, 1.0, 1.0, "", False, shares),
    ]  # fmt: skip
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
