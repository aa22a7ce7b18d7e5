"""The pricing service from Python: requests in, the library's own types out."""

from qsde.client.asynchronous import AsyncClient
from qsde.client.calls import Job
from qsde.client.errors import ContractsFailed, JobFailed, ServiceError
from qsde.client.retry import Retry
from qsde.client.synchronous import Client

__all__ = ["AsyncClient", "Client", "ContractsFailed", "Job", "JobFailed", "Retry", "ServiceError"]
