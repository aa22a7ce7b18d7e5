"""The pricing service under load from a second process on loopback.

European prices by Fourier: 64 clients that wait for each answer, one option under Heston parameters of its own in each
request, against an endpoint of the same application with the same schemas that prices nothing. Simulations: 64 requests
of one model family at once, against the same requests one after the other, on equal seeds; the digits must agree. The
service has a worker process for each core, which the load shares with them: requests at once are shared among the
workers, one at a time has one worker. The load is written by hand on sockets: a client library would take longer than
the service.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from harness import Row, arguments, report

CLIENTS = 64
HOST = "127.0.0.1"


def serve(port: int) -> None:
    """The service, and beside it an endpoint that reads and answers alike but prices nothing."""
    import uvicorn
    from pydantic_core import to_json

    from qsde.spec import PriceRequest
    from service.app import create_app
    from service.limits import body_of
    from service.reading import read_job
    from service.schemas import PriceAnswer, Priced
    from service.settings import Settings

    settings = Settings(max_path_steps=1 << 40, job_workers=0, auth="off")
    app = create_app(settings)

    @app.post("/nothing")
    async def nothing(request: Request) -> Response:
        spec = read_job(PriceRequest, await body_of(request, settings)).request
        assert spec.model is not None
        priced = [
            Priced(type=payoff.name, method="fourier", value=1.0, numerical_error=1e-13) for payoff in spec.payoffs
        ]
        answer = PriceAnswer(seconds=0.0, n_paths=None, model=spec.model, engine=spec.engine, payoffs=priced)
        return Response(to_json(answer), media_type="application/json")

    sys.stderr = open("/dev/null", "w")  # noqa: SIM115
    uvicorn.run(app, host=HOST, port=port, access_log=False, log_level="error")


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes) -> bytes:
    """One request on an open connection."""
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer + await reader.read(1000)
    length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return await reader.readexactly(int(length.split(b":")[1]))


async def load(port: int, path: str, bodies: Sequence[bytes], clients: int) -> tuple[float, list[float], list[bytes]]:
    """Seconds in all, seconds of each, and the answers, of clients that share the requests."""
    streams = [await asyncio.open_connection(HOST, port) for _ in range(clients)]
    seconds, answers = [0.0] * len(bodies), [b""] * len(bodies)
    numbers = iter(range(len(bodies)))

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for i in numbers:
            began = time.perf_counter()
            answers[i] = await ask(reader, writer, path, bodies[i])
            seconds[i] = time.perf_counter() - began
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client(*stream) for stream in streams))
    return time.perf_counter() - began, seconds, answers


def heston(draw: random.Random) -> dict[str, Any]:
    u = draw.uniform
    return {
        "model": "heston", "v0": u(0.02, 0.09), "kappa": u(0.5, 4.0), "theta": u(0.02, 0.09), "sigma": u(0.2, 1.0),
        "rho": u(-0.9, 0.0),
    }  # fmt: skip


def requests(count: int, payoff: dict[str, Any], engine: dict[str, Any]) -> list[bytes]:
    draw = random.Random(1)
    return [
        json.dumps(
            {
                "model": heston(draw),
                "market": {"spot": 100.0, "rate": draw.uniform(0.0, 0.05)},
                "payoffs": [{**payoff, "strike": draw.uniform(85.0, 115.0)}],
                "engine": engine,
            }
        ).encode()
        for _ in range(count)
    ]


def fourier(port: int, count: int, rounds: int) -> list[Row]:
    bodies = requests(count, {"type": "european", "expiry": 1.0}, {"type": "fourier"})
    prices, nothing, latencies = [], [], []
    for _ in range(rounds):
        seconds, each, _ = asyncio.run(load(port, "/v1/price", bodies, CLIENTS))
        prices.append(count / seconds)
        latencies += each
        nothing.append(count / asyncio.run(load(port, "/nothing", bodies, CLIENTS))[0])
    cuts = statistics.quantiles(latencies, n=100)
    p50, p99 = cuts[49], cuts[98]
    return [
        Row("European prices, 64 clients", statistics.median(prices), statistics.median(nothing), 0.6, "/s", True,
            "peer: the same endpoint without pricing"),
        Row("p50 against a tenth of p99", p99 / 10, p50, 1.0, "s", False, f"p50 {p50:.4f} s, p99 {p99:.4f} s"),
    ]  # fmt: skip


QUARTERS = [0.25, 0.5, 0.75, 1.0]
#: Payoff and paths. The Asian has a control variate whose exact price takes longer than 1,024 of its paths.
SIMULATED: dict[str, tuple[dict[str, Any], int]] = {
    f"{kind}, {paths:,} paths": ({"type": kind, **terms}, paths)
    for kind, terms in (
        ("european", {"expiry": 1.0}),
        ("fixed_lookback", {"expiry": 1.0, "monitoring": QUARTERS}),
        ("asian", {"fixings": QUARTERS}),
    )
    for paths in (1024, 4096, 16384)
}


def payoffs_of(answers: Sequence[bytes]) -> list[Any]:
    found = [json.loads(answer)["payoffs"] for answer in answers]
    assert all(payoff["status"] == "ok" for payoffs in found for payoff in payoffs), found[0]
    return found


def simulated(port: int, name: str, rounds: int) -> Row:
    payoff, paths = SIMULATED[name]
    bodies = requests(CLIENTS, payoff, {"type": "monte_carlo", "paths": paths})
    together, alone = [], []
    for _ in range(rounds):
        seconds, _, answers = asyncio.run(load(port, "/v1/price", bodies, CLIENTS))
        together.append(CLIENTS / seconds)
        seconds, _, expected = asyncio.run(load(port, "/v1/price", bodies, 1))
        alone.append(CLIENTS / seconds)
        assert payoffs_of(answers) == payoffs_of(expected), "the digits depend on the company"
    note = "64 at once against one at a time, same digits"
    return Row(name, statistics.median(together), statistics.median(alone), 4.0, "/s", True, note)


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection((HOST, port)).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the service did not start")


def main() -> int:
    options = arguments(__doc__)
    port = free_port()
    # not a daemon: it has workers of its own
    service = multiprocessing.get_context("spawn").Process(target=serve, args=(port,))
    service.start()
    try:
        wait_for(port)
        rounds = 3 if options.quick else 7
        rows = fourier(port, 1_000 if options.quick else 5_000, rounds)
        rows += [simulated(port, name, rounds) for name in SIMULATED]
    finally:
        service.terminate()
        service.join()
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
