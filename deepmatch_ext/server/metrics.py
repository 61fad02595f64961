"""The server's metrics for Prometheus."""

from __future__ import annotations

from typing import Any

from deepmatch_ext._checks import missing_extra


class Metrics:
    """The metrics at /metrics.

    Args:
        service: The `Service` that they describe.
    """

    def __init__(self, service: Any) -> None:
        try:
            import prometheus_client
        except ModuleNotFoundError as error:
            raise missing_extra("A server", "prometheus_client", "serve") from error
        self.content_type, self._generate = prometheus_client.CONTENT_TYPE_LATEST, prometheus_client.generate_latest
        self.registry = prometheus_client.CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry}
        self.requests = prometheus_client.Counter(
            "recommend_requests", "Requests by path and status", ["path", "status"], **made
        )
        buckets = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
        self.seconds = prometheus_client.Histogram(
            "recommend_seconds", "Seconds from a request for recommendations to its answer", buckets=buckets, **made
        )
        sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        self.batch_size = prometheus_client.Histogram(
            "recommend_batch_size", "Requests computed together", buckets=sizes, **made
        )
        self.loads = prometheus_client.Counter("recommend_loads", "Loads of new versions by result", ["result"], **made)
        version = prometheus_client.Gauge("recommend_version", "The version that is served", **made)
        version.set_function(lambda: service.export.version)
        waiting = prometheus_client.Gauge("recommend_waiting", "Requests that wait for a batch", **made)
        waiting.set_function(lambda: service.waiting)

    def text(self) -> bytes:
        """All metrics, in Prometheus's text format."""
        return self._generate(self.registry)
