"""Owns the controller's own metrics, and serves them over HTTP for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """All of them; names begin with mcast_controller_."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.epoch = self._gauge("epoch", "Epoch with which this replica leads; 0 = it stands by.")
        self.flows = self._gauge("flows", "Flows that are known.")
        self.moves = self._gauge("source_moves", "Flows whose source has turned up elsewhere, since the start.")
        self.refused = self._gauge("flows_refused", "Sightings of new flows that found no room, since the start.")
        self.unreached = self._gauge("receivers_unreached", "Receivers of flows to which there is no way now.")
        self.links_down = self._gauge("links_down", "Links that are down.")
        self.pending = self._gauge("pending", "1 while something is still to be told or answered.")
        self.wishes_valid = self._gauge(
            "wishes_valid", "Whether the wishes file could be read last time; 0 = an older one holds."
        )
        self.router_up = self._gauge("router_connected", "Whether a router's watch stands.", "router")
        self.router_attached = self._gauge("router_attached", "Whether a router takes orders from this replica.", "router")
        self.router_routes = self._gauge("router_routes", "Routes that a router was told.", "router")
        self.writes = Counter(
            "mcast_controller_writes", "Routes written or deleted, by router.", ["router"], registry=self.registry
        )
        self.failures = Counter(
            "mcast_controller_write_failures", "Routes that a router refused.", ["router", "reason"], registry=self.registry
        )
        self.late = Counter(
            "mcast_controller_late_answers", "Steps that went on without a router's answer.", ["router"], registry=self.registry
        )
        self.converge = Histogram(
            "mcast_controller_converge_seconds",
            "From the first event of a change until all routers had answered.",
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def serve(self, host: str, port: int) -> None:
        """Serve them at http://HOST:PORT/metrics, from a thread; OSError where the address cannot be had."""
        start_http_server(port, addr=host, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"mcast_controller_{name}", text, labels, registry=self.registry)
