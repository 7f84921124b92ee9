"""Metrics of the API's calls, under the names of go-grpc-prometheus, for which dashboards exist.

The API does not know of this: it is given an observer (mcastd.api.ports.RpcObserver).
"""

import time

from prometheus_client import CollectorRegistry, Counter, Histogram

_LABELS = ["grpc_type", "grpc_service", "grpc_method"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class RpcMetrics:
    """The families, and what observes each method."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register them."""
        self.started = Counter("grpc_server_started", "Calls that were begun.", _LABELS, registry=registry)
        self.handled = Counter(
            "grpc_server_handled",
            "Calls that were ended, by the status that they ended with.",
            [*_LABELS, "grpc_code"],
            registry=registry,
        )
        self.received = Counter("grpc_server_msg_received", "Messages received from clients.", _LABELS, registry=registry)
        self.sent = Counter("grpc_server_msg_sent", "Messages sent to clients.", _LABELS, registry=registry)
        self.seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from a call's begin to its end; a watch lasts as long as its client wants.",
            _LABELS,
            buckets=_SECONDS,
            registry=registry,
        )

    def method(self, kind: str, service: str, method: str) -> "MethodMetrics":
        """What observes the calls of one method; its series start at 0. `kind`: unary, client_stream, server_stream, ..."""
        return MethodMetrics(self, (kind, service, method))


class MethodMetrics:
    """The series of one method, looked up once."""

    def __init__(self, families: RpcMetrics, labels: tuple[str, str, str]) -> None:
        """Of these families, with these labels."""
        self._handled, self._labels = families.handled, labels
        self._started = families.started.labels(*labels)
        self._seconds = families.seconds.labels(*labels)
        self.received = families.received.labels(*labels).inc
        self.sent = families.sent.labels(*labels).inc
        self._ok = families.handled.labels(*labels, "OK")

    def begin(self) -> float:
        """A call begins; what `end` wants to know."""
        self._started.inc()
        return time.perf_counter()

    def end(self, began: float, code: str) -> None:
        """It has ended with this status, in gRPC's words (OK, NotFound)."""
        self._seconds.observe(time.perf_counter() - began)
        if code == "OK":
            self._ok.inc()
        else:
            self._handled.labels(*self._labels, code).inc()
