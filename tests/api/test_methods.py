"""Every method of the contract answers, at the access level that its option says; health and reflection."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor, descriptor_pb2, message_factory
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from mcast.cli.v1 import options_pb2
from mcast.v1 import route_service_pb2, services_pb2
from tests.api.bench import Bench, Client, Refusal, refusal

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("api-methods")]

METHODS = {
    f"{service.name}.{method.name}": method
    for file in (route_service_pb2.DESCRIPTOR, services_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
}

ENDS_THE_DAEMON = "DaemonService.Shutdown"


def call(client: Client, method: descriptor.MethodDescriptor) -> Refusal | None:
    """Call a method with an empty request, or a stream of one; None if it answers."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = message_factory.GetMessageClass(method.input_type)()
    if method.name == "Shutdown":
        request = services_pb2.ShutdownRequest(keep_forwarding=True)  # which is refused, so that the daemon stays
    streams: Any = {
        (False, False): client.channel.unary_unary,
        (False, True): client.channel.unary_stream,
        (True, False): client.channel.stream_unary,
        (True, True): client.channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    stub = streams(
        path,
        request_serializer=type(request).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    try:
        answer = stub(iter([request]) if method.client_streaming else request, timeout=10)
        if method.name == "Watch":  # It never ends by itself.
            next(answer)
            answer.cancel()
        elif method.server_streaming:
            list(answer)
    except grpc.RpcError as exc:
        return refusal(exc)
    return None


def needed(method: descriptor.MethodDescriptor) -> int:
    """The level that the contract's option gives the method."""
    options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
    return int(options.Extensions[options_pb2.access])  # type: ignore[index] # The stubs lack custom options.


def test_the_methods_are_those_of_the_contract() -> None:
    assert len(METHODS) == 17


@pytest.mark.parametrize("name", METHODS)
def test_every_method_answers(bench: Bench, name: str) -> None:
    found = call(bench.admin, METHODS[name])
    if found is not None:
        assert found.reason in {"INVALID_GROUP", "INVALID_VALUE", "INVALID_INTERFACE", "NOT_IMPLEMENTED", "NO_SESSION"}
        assert found.metadata["field"]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("have", ["view", "write", "admin"])
def test_each_socket_gives_its_access_and_no_more(bench: Bench, name: str, have: str) -> None:
    method = METHODS[name]
    need, levels = needed(method), ["", "view", "write", "admin"]
    assert 1 <= need <= 3
    found = call({"view": bench.view, "write": bench.write, "admin": bench.admin}[have], method)
    if levels.index(have) < need:
        assert found is not None
        assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED")
        assert found.metadata == {"need": levels[need], "have": have}
        assert f"{method.name} needs {levels[need]} access" in found.message
    else:
        assert found is None or found.reason != "NOT_ALLOWED"


def test_the_levels_are_those_agreed() -> None:
    level = {name: needed(method) for name, method in METHODS.items()}
    assert {name for name, need in level.items() if need == 3} == {
        "DaemonService.Shutdown",
        "DaemonService.ReloadConfiguration",
    }
    readers = ("Get", "List", "Watch")
    assert {name for name, need in level.items() if need == 1} == {n for n in METHODS if n.split(".")[1].startswith(readers)}


def test_an_unknown_method_is_unimplemented(bench: Bench) -> None:
    stub = bench.admin.channel.unary_unary("/mcast.v1.RouteService/Frobnicate", bytes, bytes)
    with pytest.raises(grpc.RpcError) as caught:
        stub(b"", timeout=5)
    assert refusal(caught.value).code == grpc.StatusCode.UNIMPLEMENTED


# --- health ----------------------------------------------------------------------------------------------------------

SERVICES = sorted({f"mcast.v1.{name.split('.')[0]}" for name in METHODS})


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_health_is_told_of_each_service_on_each_socket(bench: Bench, service: str) -> None:
    for client in (bench.admin, bench.write, bench.view):
        answer = client.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_an_unknown_service_is_not_found(bench: Bench) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        bench.view.health.Check(health_pb2.HealthCheckRequest(service="mcast.v1.Nonsense"), timeout=5)
    assert refusal(caught.value).code == grpc.StatusCode.NOT_FOUND


# --- reflection ------------------------------------------------------------------------------------------------------


def reflect(
    client: Client, version: str, *requests: reflection_pb2.ServerReflectionRequest
) -> list[reflection_pb2.ServerReflectionResponse]:
    """Ask the reflection service; v1 and v1alpha have the same messages."""
    stub = client.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return list(stub(iter(requests), timeout=10))


def files(responses: list[reflection_pb2.ServerReflectionResponse]) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    """The files of some answers."""
    for response in responses:
        for file in response.file_descriptor_response.file_descriptor_proto:
            yield descriptor_pb2.FileDescriptorProto.FromString(file)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_the_services(bench: Bench, version: str) -> None:
    (answer,) = reflect(bench.view, version, reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in answer.list_services_response.service}
    assert names == {
        *SERVICES,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("how", ["symbol", "file", "extension"])
def test_reflection_keeps_the_comments(bench: Bench, version: str, how: str) -> None:
    requests = {
        "symbol": [
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
            for symbol in ("mcast.v1.RouteService", "mcast.v1.Watch", "mcast.v1.Route", "mcast.v1.EventService.Watch")
        ],
        "file": [
            reflection_pb2.ServerReflectionRequest(file_by_filename=f"mcast/v1/{name}.proto")
            for name in ("route_service", "services", "types")
        ],
        "extension": [
            reflection_pb2.ServerReflectionRequest(
                file_containing_extension=reflection_pb2.ExtensionRequest(
                    containing_type="google.protobuf.MethodOptions", extension_number=50411
                )
            )
        ],
    }[how]
    found = {file.name: file for file in files(reflect(bench.view, version, *requests)) if file.package.startswith("mcast.")}
    assert found
    for file in found.values():
        comments = {tuple(where.path): where.leading_comments.strip() for where in file.source_code_info.location}
        for number, service in enumerate(file.service):
            assert comments[6, number], service.name
            for at, method in enumerate(service.method):
                assert comments[6, number, 2, at], method.name
        for number, message in enumerate(file.message_type):
            assert comments[4, number], message.name
    if how == "file":
        put = "Create or replace routes.\n\n Idempotent. Answers when the kernel has taken each route (or refused it)."
        comments = {
            tuple(w.path): w.leading_comments.strip() for w in found["mcast/v1/route_service.proto"].source_code_info.location
        }
        assert comments[6, 0, 2, 0] == put


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_is_enough_to_build_every_message(bench: Bench, version: str) -> None:
    """As grpcurl does: from a symbol and what the files import, all the way down."""
    known: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    wanted = ["mcast/v1/services.proto"]
    while wanted:
        name = wanted.pop()
        if name in known:
            continue
        answers = reflect(bench.view, version, reflection_pb2.ServerReflectionRequest(file_by_filename=name))
        known.update((file.name, file) for file in files(answers))
        wanted.extend(known[name].dependency)
    messages = message_factory.GetMessages(list(known.values()))
    assert "mcast.v1.WatchResponse" in messages


def test_reflection_of_nonsense_is_an_answer(bench: Bench) -> None:
    answers = reflect(
        bench.view,
        "v1",
        reflection_pb2.ServerReflectionRequest(file_by_filename="nonsense.proto"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="mcast.v1.Nonsense"),
        reflection_pb2.ServerReflectionRequest(),
    )
    codes = [answer.error_response.error_code for answer in answers]
    assert codes == [grpc.StatusCode.NOT_FOUND.value[0]] * 2 + [grpc.StatusCode.INVALID_ARGUMENT.value[0]]
