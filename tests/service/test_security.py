"""Keys, rates and quotas; and requests that are made to harm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")
httpx = pytest.importorskip("httpx")

from sqlalchemy.exc import OperationalError

from qsde.cli.app import app as cli
from qsde.errors import InputError
from service.edge import Edge
from service.errors import Problem
from service.examples import PRICE
from service.metrics import Metrics
from service.security.keys import Key, Keys, digest_of
from service.security.rates import Quotas, Rates, check_rates
from service.settings import Settings
from service.storage.database import Database
from service.storage.tables import KeyRow


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys.of(Settings(data_dir=tmp_path))


def test_only_digests_are_stored(keys: Keys, tmp_path: Path) -> None:
    secret = keys.create("desk", rate=5.0)
    assert keys.in_use()[digest_of(secret.encode())].rate == 5.0
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert secret.encode() not in stored
    assert secret.removeprefix("qsde_").encode() not in stored
    with Database.open("", tmp_path).session() as session:
        row = session.get(KeyRow, "desk")
    assert row is not None
    assert len(row.digest) == 64


def test_a_revoked_key_stays_in_the_list_and_its_name_is_not_given_again(keys: Keys) -> None:
    keys.create("desk")
    keys.revoke("desk")
    assert keys.in_use() == {}
    assert [key.name for key in keys.all() if key.revoked] == ["desk"]
    with pytest.raises(InputError, match="take another name"):
        keys.create("desk")
    with pytest.raises(InputError, match="no key 'desk' in use"):
        keys.revoke("desk")


@pytest.mark.parametrize("name", ["", " desk", "a\nb", "x" * 101])
def test_bad_names(keys: Keys, name: str) -> None:
    with pytest.raises(InputError, match="name: "):
        keys.create(name)


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSDE_DATA_DIR", str(tmp_path))
    run = CliRunner().invoke
    made = run(cli, ["keys", "create", "desk", "--rate", "7", "--quota", "9"])
    assert made.exit_code == 0
    assert made.stdout.startswith("qsde_")
    assert made.stdout.strip() not in run(cli, ["keys", "list"]).stdout
    assert "desk" in run(cli, ["keys", "list"]).stdout
    assert run(cli, ["keys", "revoke", "desk"]).exit_code == 0
    again = run(cli, ["keys", "revoke", "desk"])
    assert again.exit_code == 2
    assert "no key 'desk'" in again.stderr


def test_a_bucket_holds_a_second_and_fills_up_again() -> None:
    now = [0.0]
    rates = Rates(lambda: now[0])
    assert [rates.wait("a", 2.0) for _ in range(2)] == [0.0, 0.0]
    assert rates.wait("a", 2.0) == pytest.approx(0.5)
    assert rates.wait("b", 2.0) == 0.0
    now[0] = 0.5
    assert rates.wait("a", 2.0) == 0.0
    assert rates.wait("a", 2.0) == pytest.approx(0.5)
    now[0] = 100.0
    assert [rates.wait("a", 2.0) > 0 for _ in range(3)] == [False, False, True]


def test_slow_rates_let_one_in() -> None:
    now = [0.0]
    rates = Rates(lambda: now[0])
    assert rates.wait("a", 0.1) == 0.0
    assert rates.wait("a", 0.1) == pytest.approx(10.0)


def test_quotas_are_shared_by_services_and_begin_anew_each_day(tmp_path: Path, keys: Keys) -> None:
    day = ["2026-01-01"]
    database = Database.open("", tmp_path)
    one, other = Quotas(lambda: day[0]), Quotas(lambda: day[0])
    assert [one.take("a", 3) for _ in range(2)] == [True, True]
    one.flush(database)
    other.flush(database)
    assert [other.take("a", 3) for _ in range(2)] == [True, False]
    other.flush(database)
    one.flush(database)
    assert not one.take("a", 3)
    assert one.take("b", 3)
    day[0] = "2026-01-02"
    assert one.take("a", 3)


def test_limits_are_named_with_the_time_to_wait() -> None:
    settings, rates, quotas = Settings(key_rate=1.0, key_quota=2), Rates(lambda: 0.0), Quotas()
    check_rates(Key("a"), settings, rates, quotas)
    with pytest.raises(Problem) as often:
        check_rates(Key("a"), settings, rates, quotas)
    assert (often.value.status, often.value.document.limit) == (429, {"key_rate": 1.0})
    assert often.value.headers == {"Retry-After": "2"}
    check_rates(Key("a", rate=0.0), settings, rates, quotas)
    with pytest.raises(Problem) as much:
        check_rates(Key("a", rate=0.0), settings, rates, quotas)
    assert (much.value.status, much.value.document.limit) == (429, {"key_quota": 2})
    check_rates(Key("a", rate=0.0, quota=5), settings, rates, quotas)


def test_keys_made_and_revoked_while_the_service_runs(
    guarded: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.security.gate._AT_ONCE", 0.0)
    address, folder = guarded
    with httpx.Client(base_url=address, timeout=60) as client:
        assert client.get("/v1/models").status_code == 401
        for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz"):
            assert client.get(path).status_code < 400
        made = Keys.of(Settings(data_dir=folder))
        client.headers["X-API-Key"] = made.create("desk", rate=1.0)
        assert client.get("/v1/models").status_code == 200
        refused = client.get("/v1/models")
        assert refused.status_code == 429
        assert refused.json()["limit"] == {"key_rate": 1.0}
        assert int(refused.headers["retry-after"]) >= 1
        made.revoke("desk")
        client.get("/v1/models", headers={"X-API-Key": "unknown"})  # has the keys read again
        assert client.get("/v1/models").status_code == 401


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with httpx.Client(base_url=address, timeout=60) as found:
        yield found


def test_headers_and_no_foreign_pages(client: Any) -> None:
    answer = client.post("/v1/price", json=PRICE["europeans"], headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert client.options("/v1/price", headers=asked).status_code == 405


PATHS = ["/v1/fits/..%2f..%2fetc%2fpasswd", "/v1/jobs/%2e%2e", "/v1/report/..%5c..%5cetc", "/v1/surfaces/%00"]


@pytest.mark.parametrize("path", PATHS)
def test_paths_lead_nowhere(client: Any, path: str) -> None:
    assert client.get(path).status_code in (404, 405, 422)


def _body(**change: Any) -> bytes:
    return json.dumps({**PRICE["europeans"], **change}).encode()


HARMFUL = {
    "nested lists": b"[" * 50_000,
    "nested objects": b'{"model":' * 5_000,
    "a number of 50,000 digits": b'{"market": {"spot": ' + b"9" * 50_000 + b"}}",
    "a huge exponent": b'{"market": {"spot": 1e999999999}}',
    "NaN": _body(market={"spot": float("nan")}),
    "infinity": _body(market={"spot": float("inf")}),
    "a fit of another place": _body(model=None, fit={"file": "../../etc/passwd"}),
    "half a surrogate": b'{"model": {"model": "\\ud800"}}',
    "no UTF-8": b'{"model": "\xff\xfe"}',
}


@pytest.mark.parametrize("name", list(HARMFUL))
@pytest.mark.parametrize("endpoint", ["price", "greeks", "scenarios", "calibrations"])
def test_harmful_bodies_are_refused(client: Any, endpoint: str, name: str) -> None:
    answer = client.post(f"/v1/{endpoint}", content=HARMFUL[name], headers={"content-type": "application/json"})
    assert answer.status_code in (400, 413, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_last_of_two_equal_keys_counts(client: Any) -> None:
    """As in Python, JavaScript and PostgreSQL: what a proxy that checks requests is likely to see, too."""
    body = _body().replace(b'"spot": 100.0', b'"spot": -1.0, "spot": 100.0')
    assert (
        client.post("/v1/price", content=body).json()["payoffs"]
        == client.post("/v1/price", content=_body()).json()["payoffs"]
    )


def test_a_packed_body_is_not_unpacked(client: Any) -> None:
    import gzip

    packed = gzip.compress(b" " * (50 << 20))
    answer = client.post("/v1/price", content=packed, headers={"content-encoding": "gzip"})
    assert answer.status_code in (413, 415, 422)


def _parquet(rows: int) -> bytes:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    one = {"strike": 100.0, "option_type": "C", "expiry": "2026-06-19", "bid": 1.0, "ask": 1.1}
    target = pa.BufferOutputStream()
    table = pa.table({name: pa.array([value]).take(pa.array([0] * rows)) for name, value in one.items()})
    pq.write_table(table, target, compression="zstd")
    packed: bytes = target.getvalue().to_pybytes()
    return packed


def test_a_small_parquet_of_many_rows_is_refused(tight: str) -> None:
    bomb = _parquet(1 << 17)
    assert len(bomb) < 1 << 14
    answer = httpx.post(f"{tight}/v1/surfaces", content=bomb, timeout=60)
    assert answer.status_code in (413, 422)
    assert "limit" in answer.json()["detail"] or answer.json()["limit"]


def test_keys_that_cannot_be_read_are_a_503() -> None:
    """Not an error of the service: whoever sent a key may send it again."""

    class Away:
        async def owner(self, path: str, headers: Any) -> str:
            raise OperationalError("SELECT", {}, ConnectionError("refused"))

    edge: Any = Edge(lambda *args: None, Metrics(), Away())  # type: ignore[arg-type]
    answer = asyncio.run(_get(edge))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert "database does not answer" in answer.json()["detail"]


async def _get(app: Any) -> Any:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://any") as client:
        return await client.get("/v1/models")
