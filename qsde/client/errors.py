"""What the service says when it does not say yes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsde.errors import QsdeError


class ServiceError(QsdeError):
    """An answer other than a result (RFC 9457).

    Attributes:
        status: HTTP status.
        field: where in the request, such as "model.rho"; None if it is about no one field.
        limit: the limit of the service that was met, by name.
        request_id: what the service calls the request in its logs.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], request_id: str = "") -> None:
        self.status = status
        self.field: str | None = problem.get("field")
        self.limit: dict[str, float] | None = problem.get("limit")
        self.request_id = request_id
        super().__init__(f"{status}: {problem.get('detail') or problem.get('title') or 'no reason given'}")


class ContractsFailed(QsdeError):
    """Some contracts of a request could not be priced.

    Attributes:
        failed: what is wrong with each, by its place in the request.
        found: the others, as the method would have returned them; numbers of those that failed are NaN.
    """

    def __init__(self, failed: Mapping[int, str], found: Any) -> None:
        self.failed, self.found = dict(failed), found
        super().__init__("; ".join(self.failed.values()))


class JobFailed(QsdeError):
    """A calibration that ended without a fit: it failed, or was cancelled."""
