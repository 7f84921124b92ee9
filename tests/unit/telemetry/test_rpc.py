"""mcastd.telemetry.rpc: the series of gRPC servers."""

from prometheus_client import CollectorRegistry

from mcastd.telemetry.rpc import RpcMetrics

LABELS = {"grpc_type": "unary", "grpc_service": "mcast.v1.RouteService", "grpc_method": "PutRoutes"}


def test_a_call_from_begin_to_end() -> None:
    registry = CollectorRegistry()
    one = RpcMetrics(registry).method(*LABELS.values())
    value = registry.get_sample_value
    for name in ("started_total", "msg_received_total", "msg_sent_total", "handling_seconds_count"):
        assert value(f"grpc_server_{name}", LABELS) == 0
    assert value("grpc_server_handled_total", {**LABELS, "grpc_code": "OK"}) == 0
    began = one.begin()
    assert value("grpc_server_started_total", LABELS) == 1
    assert value("grpc_server_handled_total", {**LABELS, "grpc_code": "OK"}) == 0
    one.received()
    one.sent()
    one.end(began, "OK")
    one.end(one.begin(), "NotFound")
    assert value("grpc_server_msg_received_total", LABELS) == value("grpc_server_msg_sent_total", LABELS) == 1
    assert value("grpc_server_handled_total", {**LABELS, "grpc_code": "OK"}) == 1
    assert value("grpc_server_handled_total", {**LABELS, "grpc_code": "NotFound"}) == 1
    assert value("grpc_server_handling_seconds_count", LABELS) == 2
