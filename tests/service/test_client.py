"""The Python client: the library's own types from a running service, and patience with a busy one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")
httpx = pytest.importorskip("httpx")

from qsde.client import AsyncClient, Client, ContractsFailed, JobFailed, Retry, ServiceError
from qsde.errors import InputError
from qsde.greeks import greeks
from qsde.greeks.scenarios import scenarios
from qsde.market.implied_vol import implied_vol
from qsde.pricing.price import price
from qsde.spec import GreeksRequest, PriceRequest
from service.examples import CALIBRATIONS, GREEKS, IMPLIED_VOL, PRICE, SCENARIOS
from service.scenarios import ScenariosRequest

BAD = {"type": "european", "strike": 100.0, "expiry": 300.0}


@pytest.fixture
def service(address: str) -> Iterator[Client]:
    with Client(address) as found:
        yield found


@pytest.mark.parametrize("name", list(PRICE))
def test_prices(service: Client, name: str) -> None:
    found = service.price(PRICE[name])
    job = PriceRequest.model_validate(PRICE[name]).build()
    with torch.no_grad():
        expected = price(job.model, job.payoffs, job.market, job.engine)
    for column in ("value", "std_error", "numerical_error"):
        torch.testing.assert_close(getattr(found, column), getattr(expected, column), rtol=0, atol=0, equal_nan=True)
    assert (found.methods, found.n_paths) == (expected.methods, expected.n_paths)


@pytest.mark.parametrize("name", list(GREEKS))
def test_greeks(service: Client, name: str) -> None:
    found = service.greeks(GREEKS[name])
    request = GreeksRequest.model_validate(GREEKS[name])
    job = request.build()
    expected = greeks(job.model, job.payoffs, job.market, job.engine, request.greeks.which)
    assert torch.equal(found.value, expected.value)
    assert torch.equal(found.std_error, expected.std_error)
    assert torch.equal(found["vega"], expected["vega"])
    assert (found.unit("vega"), found.methods) == (expected.unit("vega"), expected.methods)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_scenarios(service: Client, name: str) -> None:
    found = service.scenarios(SCENARIOS[name])
    request = ScenariosRequest.model_validate(SCENARIOS[name])
    job, ladder = request.build(), request.scenarios
    expected = scenarios(job.model, job.payoffs, job.market, job.engine, ladder.spots, ladder.vols, ladder.which)
    for column in ("value", "std_error", "pnl", "pnl_std_error", "knocked", "levels"):
        assert torch.equal(getattr(found, column), getattr(expected, column)), column
    assert found.frame().columns.tolist() == expected.frame().columns.tolist()


def test_implied_vol(service: Client) -> None:
    request = {**IMPLIED_VOL["smile"], "price": torch.tensor([12.5, 7.97, -1.0], dtype=torch.float64)}
    found = service.implied_vol(**request)
    numbers = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in request.items()}
    numbers["t"] = numbers.pop("expiry")
    expected = implied_vol(**numbers)
    assert torch.equal(found.vol, expected.vol)
    assert torch.equal(found.status, expected.status)


def test_fits_come_whole(service: Client, tmp_path: Path) -> None:
    seen: list[str] = []
    job = service.calibrate(CALIBRATIONS["black_scholes"])
    fit = service.wait(job, lambda job: seen.append(job.state), every=0.05)
    assert seen[-1] == "succeeded"
    request = {"fit": {"file": job}, "payoffs": PRICE["europeans"]["payoffs"], "engine": {"type": "fourier"}}
    own = PriceRequest.model_validate(request).build(lambda _: [fit])
    expected = price(own.model, own.payoffs, own.market, own.engine).value
    assert torch.equal(service.price(request).value, expected)
    assert "<html" in service.report(job)
    with pytest.raises(ServiceError, match="409"):
        service.cancel(job)


def test_failed_contracts_are_named_and_the_others_kept(service: Client) -> None:
    request = {**PRICE["europeans"], "payoffs": [*PRICE["europeans"]["payoffs"], BAD]}
    with pytest.raises(ContractsFailed, match=r"payoffs\.2") as failed:
        service.price(request)
    assert list(failed.value.failed) == [2]
    assert torch.equal(failed.value.found.value[:2], service.price(PRICE["europeans"]).value)
    assert failed.value.found.value[2].isnan()


def test_bad_requests_do_not_travel() -> None:
    def fails(_: Any) -> Any:
        raise AssertionError("it was sent")

    with (
        Client("http://nowhere", transport=httpx.MockTransport(fails)) as service,
        pytest.raises(InputError, match="strike"),
    ):
        service.price({**PRICE["europeans"], "payoffs": [{"type": "european", "strike": "low"}]})


def test_limits_have_names(service: Client) -> None:
    with pytest.raises(ServiceError) as refused:
        service.price({**PRICE["europeans"], "payoffs": PRICE["europeans"]["payoffs"] * 100})
    assert (refused.value.status, refused.value.limit) == (422, {"max_contracts": 100.0})
    assert refused.value.request_id


def test_many_at_once(address: str) -> None:
    async def prices() -> list[Any]:
        async with AsyncClient(address) as service:
            return await asyncio.gather(*(service.price(PRICE["europeans"]) for _ in range(8)))

    found = asyncio.run(prices())
    assert all(torch.equal(one.value, found[0].value) for one in found)


def _answers(*given: tuple[int, dict[str, str]]) -> tuple[list[Any], Callable[[Any], Any]]:
    """Requests that came, and a server that gives these answers in turn and then a job that has failed."""
    came: list[Any] = []

    def answer(request: Any) -> Any:
        came.append(request)
        if len(came) <= len(given):
            status, headers = given[len(came) - 1]
            if status == 0:
                raise httpx.ConnectError("away")
            return httpx.Response(status, headers=headers, json={"detail": "come again"})
        return httpx.Response(200, json={"id": "a", "state": "failed", "error": "no quotes"})

    return came, answer


QUICK = Retry(first=0.001)


@pytest.mark.parametrize("first", [(503, {}), (429, {"retry-after": "0"}), (0, {})])
def test_busy_services_are_asked_again(first: tuple[int, dict[str, str]]) -> None:
    came, answer = _answers(first, first)
    with Client("http://here", retry=QUICK, transport=httpx.MockTransport(answer)) as service:
        assert service.job("a").state == "failed"
    assert len(came) == 3


@pytest.mark.parametrize("first", [(422, {}), (429, {"retry-after": "3600"})])
def test_what_will_not_change_is_not_asked_again(first: tuple[int, dict[str, str]]) -> None:
    came, answer = _answers(first)
    with (
        Client("http://here", retry=QUICK, transport=httpx.MockTransport(answer)) as service,
        pytest.raises(ServiceError, match="come again"),
    ):
        service.job("a")
    assert len(came) == 1


def test_creations_keep_their_key() -> None:
    came, answer = _answers((503, {}), (503, {}))
    with Client("http://here", retry=QUICK, transport=httpx.MockTransport(answer)) as service, pytest.raises(KeyError):
        service.calibrate({})
    assert len({request.headers["idempotency-key"] for request in came}) == 1


def test_the_last_refusal_is_told() -> None:
    _, answer = _answers(*[(503, {})] * 9)
    with (
        Client("http://here", retry=QUICK, transport=httpx.MockTransport(answer)) as service,
        pytest.raises(ServiceError, match="503"),
    ):
        service.job("a")


def test_failed_jobs_are_told_by_both() -> None:
    _, answer = _answers()

    async def waits() -> None:
        async with AsyncClient("http://here", transport=httpx.MockTransport(answer)) as service:
            await service.wait("a")

    with pytest.raises(JobFailed, match="no quotes"):
        asyncio.run(waits())
    with (
        Client("http://here", transport=httpx.MockTransport(answer)) as service,
        pytest.raises(JobFailed, match="no quotes"),
    ):
        service.wait("a")


def test_keys_are_sent() -> None:
    came, answer = _answers()
    with Client("http://here", key="secret", transport=httpx.MockTransport(answer)) as service:
        service.job("../../etc")
    assert came[0].headers["x-api-key"] == "secret"
    assert came[0].url.path == "/v1/jobs/etc"
    assert json.loads(came[0].content or b"null") is None


def test_both_have_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)
