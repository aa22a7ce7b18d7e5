"""What Prometheus collects."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one application, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = r = CollectorRegistry()
        self.latency = Histogram(
            "qsde_request_seconds", "Time from request to answer.", ["route", "status"], registry=r, buckets=_SECONDS
        )
        self.queue = Gauge("qsde_queue_requests", "Requests that wait for a worker.", registry=r)
        self.refused = Counter("qsde_queue_refused", "Requests refused because too many waited.", registry=r)
        self.dropped = Counter("qsde_dropped", "Requests whose client left before the answer.", registry=r)
        self.restarts = Counter("qsde_worker_restarts", "Workers that were replaced.", ["reason"], registry=r)
        self.jobs = Gauge("qsde_jobs", "Jobs by state.", ["state"], registry=r)
        self._batch = Histogram(
            "qsde_batch_requests", "Requests sent to a worker together.", registry=r, buckets=_REQUESTS
        )
        self._path_steps = Counter("qsde_path_steps", "Estimated path-steps simulated.", registry=r)
        self._busy = Counter("qsde_worker_busy_seconds", "Seconds that workers computed.", registry=r)

    def computed(self, requests: int, path_steps: float, seconds: float) -> None:
        """A worker has computed a batch."""
        self._batch.observe(requests)
        self._path_steps.inc(path_steps)
        self._busy.inc(seconds)

    def text(self) -> bytes:
        """The text format."""
        text: bytes = generate_latest(self._registry)
        return text
