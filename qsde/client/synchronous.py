"""The synchronous client."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from qsde.calibration.fit import Fit
from qsde.client import calls
from qsde.client.calls import Body, Call, Job
from qsde.client.retry import Retry
from qsde.client.session import arguments_of, is_refused_for_now, library, result_of, settings_of
from qsde.greeks.greeks import Greeks
from qsde.greeks.scenarios import Scenarios
from qsde.market.implied_vol import ImpliedVol
from qsde.pricing.price import Prices

T = TypeVar("T")
Progress = Callable[[Job], None]


class Client:
    """The service at an address: every method is one operation and returns a type of the library.

    Requests are sent again, after a while, where the service is busy or away (`Retry`).

    Args:
        url: address of the service, such as "http://127.0.0.1:8000".
        key: API key, if the service asks for one.
        timeout: seconds to wait for an answer.
        retry: when a request is sent again.
        transport: of httpx, for tests.

    Raises:
        ServiceError: (all methods) the answer is no result; it names the field or the limit.
        ContractsFailed: (price, greeks, scenarios) some contracts failed; it has the others.

    Example:
        >>> def main():
        ...     with Client("http://127.0.0.1:8000") as service:
        ...         return service.price(
        ...             {
        ...                 "model": {"model": "black_scholes", "vol": 0.2},
        ...                 "market": {"spot": 100.0},
        ...                 "payoffs": [{"type": "european", "strike": 100.0, "expiry": 1.0}],
        ...                 "engine": {"type": "fourier"},
        ...             }
        ...         )
    """

    def __init__(
        self, url: str, key: str | None = None, timeout: float = 60.0, retry: Retry | None = None, transport: Any = None
    ) -> None:
        self._retry = retry or Retry()
        self._errors = library().TransportError
        self._http = library().Client(**settings_of(url, key, timeout), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def price(self, request: Body) -> Prices:
        """Prices of contracts under one model in one market.

        Args:
            request: a `qsde.spec.PriceRequest`, or the same as a dictionary.
        """
        return self._run(calls.price(request))

    def greeks(self, request: Body) -> Greeks:
        """Greeks of contracts under one model in one market.

        Args:
            request: a `qsde.spec.GreeksRequest`, or the same as a dictionary.
        """
        return self._run(calls.greeks(request))

    def scenarios(self, request: Body) -> Scenarios:
        """Prices and Greeks on a ladder of spots times a ladder of vols.

        Args:
            request: a price request with `scenarios`: {"spots": [...], "vols": [...]}.
        """
        return self._run(calls.scenarios(request))

    def implied_vol(self, **numbers: Any) -> ImpliedVol:
        """Black volatilities of European options.

        Args:
            **numbers: price, forward, strike, expiry, discount_factor, is_call: numbers, lists or tensors.
        """
        return self._run(calls.implied_vol(numbers))

    def upload(self, path: str | Path, **options: str) -> list[dict[str, Any]]:
        """Stores the surfaces of a file of quotes; their ids and quality reports.

        Args:
            path: any file that `qsde inspect` reads.
            **options: how to read it, such as symbol="SPX" or rate="0.03".
        """
        return self._run(calls.upload(path, options))

    def calibrate(self, request: Mapping[str, Any]) -> str:
        """Accepts a calibration as a job; its id.

        Args:
            request: `surface` (an id) or `quotes`, and `calibration`: {"model": "heston", ...}.
        """
        return self._run(calls.calibrate(request))

    def job(self, job_id: str) -> Job:
        """A job and its progress.

        Args:
            job_id: what `calibrate` returned.
        """
        return self._run(calls.job(job_id))

    def cancel(self, job_id: str) -> Job:
        """Cancels a job that has not ended.

        Args:
            job_id: what `calibrate` returned.
        """
        return self._run(calls.cancel(job_id))

    def fit(self, fit_id: str) -> Fit:
        """A stored fit, whole.

        Args:
            fit_id: its id, which is that of its job.
        """
        return self._run(calls.fit(fit_id))

    def report(self, fit_id: str) -> str:
        """The HTML report of a fit.

        Args:
            fit_id: its id.
        """
        return self._run(calls.report(fit_id))

    def models(self) -> dict[str, Any]:
        """Models, their parameters and domains."""
        return self._run(calls.models())

    def wait(self, job_id: str, progress: Progress | None = None, every: float = 0.5) -> Fit:
        """Waits until a job has ended.

        Args:
            job_id: what `calibrate` returned.
            progress: called with the job whenever it is looked at.
            every: seconds between two looks.

        Raises:
            JobFailed: it ended without a fit.
        """
        while True:
            job = self.job(job_id)
            if progress is not None:
                progress(job)
            if job.ended:
                return self.fit(job.require())
            time.sleep(every)

    def _run(self, call: Call[T]) -> T:
        for wait in self._retry.waits(random.Random()):
            try:
                answer = self._http.request(**arguments_of(call))
            except self._errors:
                time.sleep(wait)
                continue
            seconds = self._retry.asked(wait, answer.headers) if is_refused_for_now(answer) else None
            if seconds is None:
                return result_of(call, answer)
            time.sleep(seconds)
        return result_of(call, self._http.request(**arguments_of(call)))
