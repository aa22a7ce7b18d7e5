"""What both clients share: how they introduce themselves, and what they make of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import from_json

from qsde import __version__
from qsde.client.calls import Call
from qsde.client.errors import ServiceError
from qsde.client.retry import AGAIN
from qsde.errors import InputError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")


def library() -> Any:
    """The module httpx.

    Raises:
        InputError: it is not installed.
    """
    try:
        import httpx
    except ModuleNotFoundError:
        raise InputError("httpx is not installed: pip install 'qsde[client]'") from None
    return httpx


def settings_of(url: str, key: str | None, timeout: float) -> dict[str, Any]:
    """Arguments of an httpx client."""
    headers = {"user-agent": f"qsde/{__version__}", **({"x-api-key": key} if key else {})}
    return {"base_url": url, "headers": headers, "timeout": timeout}


def arguments_of(call: Call[T]) -> dict[str, Any]:
    """Arguments of an httpx request."""
    return {
        "method": call.method, "url": call.path, "content": call.content, "headers": dict(call.headers),
        "params": dict(call.params),
    }  # fmt: skip


def is_refused_for_now(answer: httpx.Response) -> bool:
    """Whether the same request may be answered later."""
    return answer.status_code in AGAIN


def result_of(call: Call[T], answer: httpx.Response) -> T:
    """What an answer says.

    Raises:
        ServiceError: it is no result.
        ContractsFailed: some contracts failed.
    """
    if answer.status_code < 300:
        return call.parse(answer.content)
    try:
        problem = from_json(answer.content)
    except ValueError:
        problem = None
    known = problem if isinstance(problem, dict) else {"title": answer.reason_phrase}
    raise ServiceError(answer.status_code, known, answer.headers.get("x-request-id", ""))
