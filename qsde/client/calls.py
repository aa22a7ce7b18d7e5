"""Each operation once, for both clients: what is sent, and the library's own types made of what is answered."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from pydantic_core import from_json, to_json
from torch import Tensor

from qsde.calibration.fit import Fit
from qsde.client.errors import ContractsFailed, JobFailed
from qsde.errors import VolStatus
from qsde.greeks.greeks import Greeks
from qsde.greeks.scenarios import Scenarios
from qsde.greeks.table import Greek
from qsde.market.implied_vol import ImpliedVol
from qsde.pricing.price import Prices
from qsde.spec import GreeksRequest, JobRequest, PriceRequest, checked, load_fits

T = TypeVar("T")
Body = Mapping[str, Any] | JobRequest
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Call(Generic[T]):
    """One operation.

    Attributes:
        method, path: what is called.
        parse: makes the result of the body of the answer.
        content, headers, params: what is sent.
    """

    method: str
    path: str
    parse: Callable[[bytes], T]
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A calibration.

    Attributes:
        id: its id, which will be that of the fit.
        state: "queued", "running", "succeeded", "failed" or "cancelled".
        done, total: parts of the work.
        error: why it failed.
    """

    id: str
    state: str
    done: int = 0
    total: int = 0
    error: str | None = None

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state not in ("queued", "running")

    def require(self) -> str:
        """The id of the fit.

        Raises:
            JobFailed: there is none.
        """
        if self.state != "succeeded":
            raise JobFailed(f"job {self.id} {self.state}: {self.error or 'no reason given'}")
        return self.id


def price(request: Body) -> Call[Prices]:
    """`POST /v1/price`."""
    return Call("POST", "/v1/price", _prices, _checked(PriceRequest, request), _JSON)


def greeks(request: Body) -> Call[Greeks]:
    """`POST /v1/greeks`."""
    return Call("POST", "/v1/greeks", _greeks, _checked(GreeksRequest, request), _JSON)


def scenarios(request: Body) -> Call[Scenarios]:
    """`POST /v1/scenarios`."""
    content = request.model_dump_json().encode() if isinstance(request, JobRequest) else to_json(request)
    return Call("POST", "/v1/scenarios", _scenarios, content, _JSON)


def implied_vol(request: Mapping[str, Any]) -> Call[ImpliedVol]:
    """`POST /v1/implied-vol`."""
    plain = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in request.items()}
    return Call("POST", "/v1/implied-vol", _vols, to_json(plain), _JSON)


def upload(path: str | Path, options: Mapping[str, str]) -> Call[list[dict[str, Any]]]:
    """`POST /v1/surfaces`."""
    return Call(
        "POST", "/v1/surfaces", lambda body: list(from_json(body)["surfaces"]), Path(path).read_bytes(),
        {"content-type": "application/octet-stream", **_once()}, options,
    )  # fmt: skip


def calibrate(request: Mapping[str, Any]) -> Call[str]:
    """`POST /v1/calibrations`; the result is the id of the job."""
    return Call("POST", "/v1/calibrations", lambda b: str(from_json(b)["job"]), to_json(request), {**_JSON, **_once()})


def job(job_id: str) -> Call[Job]:
    """`GET /v1/jobs/{id}`."""
    return Call("GET", f"/v1/jobs/{_plain(job_id)}", _job)


def cancel(job_id: str) -> Call[Job]:
    """`DELETE /v1/jobs/{id}`."""
    return Call("DELETE", f"/v1/jobs/{_plain(job_id)}", _job)


def fit(fit_id: str) -> Call[Fit]:
    """`GET /v1/fits/{id}/file`."""
    return Call("GET", f"/v1/fits/{_plain(fit_id)}/file", lambda body: load_fits(body, f"fit {fit_id}")[0])


def report(fit_id: str) -> Call[str]:
    """`GET /v1/report/{id}`."""
    return Call("GET", f"/v1/report/{_plain(fit_id)}", bytes.decode)


def models() -> Call[dict[str, Any]]:
    """`GET /v1/models`."""
    return Call("GET", "/v1/models", from_json)


def _checked(kind: type[JobRequest], request: Body) -> bytes:
    """The body; a bad request is refused here, before it travels."""
    spec = request if isinstance(request, JobRequest) else checked(kind, request)
    return bytes(spec.model_dump_json(exclude_unset=True).encode())


def _once() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def _plain(given: str) -> str:
    return "".join(c for c in given if c.isalnum())


def _prices(body: bytes) -> Prices:
    data = from_json(body)
    items, failed = _items(data)

    methods = tuple(item.get("method", "") for item in items)

    def column(name: str) -> Tensor:
        # exact prices have no standard error, which is 0
        exact = [name == "std_error" and item.get("numerical_error") is not None for item in items]
        missing = [0.0 if known else math.nan for known in exact]
        values = [m if item.get(name) is None else item[name] for item, m in zip(items, missing, strict=True)]
        return torch.tensor(values, dtype=torch.float64)

    return _all(Prices.of(column, methods, data["n_paths"] or 0, data["seconds"]), failed)


def _greeks(body: bytes) -> Greeks:
    data = from_json(body)
    items, failed = _items(data)
    names = {value["greek"]: value["unit"] for item in items for value in item.get("greeks", ())}

    def table(name: str) -> Tensor:
        rows = [{value["greek"]: value[name] for value in item.get("greeks", ())} for item in items]
        missing = 0.0 if name == "std_error" and not data["n_paths"] else math.nan
        cells = [[missing if row.get(greek) is None else row[greek] for greek in names] for row in rows]
        return torch.tensor(cells, dtype=torch.float64).reshape(len(items), len(names))

    found = Greeks(
        payoffs=tuple(item.get("type") or "" for item in items),
        greeks=tuple(Greek(name, name, "price", name, 1.0, unit) for name, unit in names.items()),
        value=table("value"),
        std_error=table("std_error"),
        units=data["units"],
        methods=tuple(item.get("method", "") for item in items),
        n_paths=data["n_paths"] or 0,
        seconds=data["seconds"],
    )
    return _all(found, failed)


def _scenarios(body: bytes) -> Scenarios:
    data = from_json(body)
    items, failed = _items(data)
    spots, vols = (torch.tensor(data[name], dtype=torch.float64) for name in ("spots", "vols"))
    names = next((tuple(item["values"]) for item in items if "values" in item), ("price", "pnl"))

    def table(part: str, missing: float) -> Tensor:
        """[payoffs, names, S, V]."""
        empty = torch.full((len(spots), len(vols)), missing, dtype=torch.float64)
        rows = [item.get(part) or {} for item in items]
        tables = [[torch.tensor(row[n], dtype=torch.float64) if n in row else empty for n in names] for row in rows]
        return torch.stack([torch.stack(row) for row in tables])

    value, error = table("values", math.nan), table("std_errors", math.nan if data["n_paths"] else 0.0)
    found = Scenarios(
        payoffs=tuple(item.get("type") or "" for item in items),
        spots=spots,
        vols=vols,
        levels=torch.tensor(data["levels"], dtype=torch.float64),
        which=names[:-1],
        value=value[:, :-1],
        std_error=error[:, :-1],
        pnl=value[:, -1],
        pnl_std_error=error[:, -1],
        knocked=torch.tensor([item.get("knocked", [False] * len(spots)) for item in items]),
        units=data["units"],
        methods=tuple(item.get("method", "") for item in items),
        n_paths=data["n_paths"] or 0,
        seconds=data["seconds"],
    )
    return _all(found, failed)


def _vols(body: bytes) -> ImpliedVol:
    items = from_json(body)["items"]
    vols = [0.0 if item["vol"] is None else item["vol"] for item in items]
    statuses = [int(VolStatus[item["status"].upper()]) for item in items]
    return ImpliedVol(torch.tensor(vols, dtype=torch.float64), torch.tensor(statuses))


def _job(body: bytes) -> Job:
    data = from_json(body)
    progress = data.get("progress") or {}
    return Job(data["id"], data["state"], progress.get("done", 0), progress.get("total", 0), data.get("error"))


def _items(data: Any) -> tuple[list[Any], dict[int, str]]:
    """Contracts, and what is wrong with those that failed."""
    items = data["payoffs"]
    return items, {i: item["message"] for i, item in enumerate(items) if item["status"] == "error"}


def _all(found: T, failed: dict[int, str]) -> T:
    if failed:
        raise ContractsFailed(failed, found)
    return found
