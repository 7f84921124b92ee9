"""The API's sockets: made aside, put in their places, handed over, with real gRPC servers."""

import stat
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from mcastd.api.sockets import ApiSockets
from mcastd.model.errors import McastdError
from mcastd.model.settings import SEATS_MAX, SOCKET_PATH_MAX, Listen
from tests.api.remote import free_port
from tests.pki import Pki


def names(directory: Path) -> list[str]:
    """What is there."""
    return sorted(path.name for path in directory.iterdir())


async def stop(*sockets: ApiSockets) -> None:
    """End the servers."""
    for one in sockets:
        for server, _ in one:
            await server.stop(0)


async def test_socket_is_made_aside_with_its_mode_and_then_in_its_place(tmp_path: Path) -> None:
    listens = [Listen(str(tmp_path / "a"), 0o640), Listen(str(tmp_path / "b"), 0o666)]
    sockets = ApiSockets(listens, 3)
    sockets.bind()
    sockets.bind()
    assert names(tmp_path) == ["a.new3", "b.new3"]
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names(tmp_path)] == [0o640, 0o666]
    sockets.publish()
    assert names(tmp_path) == ["a", "b"]
    for server, _ in sockets:
        await server.start()
    await stop(sockets)
    assert names(tmp_path) == ["a", "b"]
    sockets.withdraw()
    assert names(tmp_path) == []


async def test_path_leads_to_the_successor_without_a_gap(tmp_path: Path) -> None:
    listens = [Listen(str(tmp_path / "a"))]
    old, new = ApiSockets(listens, 1), ApiSockets(listens, 2)
    for sockets in (old, new):
        ((server, _),) = sockets
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)  # type: ignore[attr-defined]
    old.publish()
    for server, _ in old:
        await server.start()
    new.bind()
    old.hand_over(2)
    async with grpc.aio.insecure_channel(listens[0].address) as channel:
        call = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=10)
        await stop(old)  # gRPC removes the name that it has bound, and only that
        assert names(tmp_path) == ["a"]
        old.withdraw()
        assert names(tmp_path) == ["a"]
        new.publish()  # there is nothing left to do
        for server, _ in new:
            await server.start()
        assert (await call).status == health_pb2.HealthCheckResponse.SERVING
    await stop(new)


async def test_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    sockets = ApiSockets([Listen(str(tmp_path / "none" / "a"))])
    with pytest.raises(McastdError, match="does its directory exist"):
        sockets.bind()
    await stop(sockets)


def test_longest_path_has_room_for_the_name_aside() -> None:
    assert len(Listen("x" * SOCKET_PATH_MAX).path_of(SEATS_MAX)) == 107


async def test_an_address_without_certificates_keeps_no_other_waiting(tmp_path: Path) -> None:
    """Where nobody serves: a server that is prepared beside one that does must not take its place."""
    pki = Pki(tmp_path / "tls")
    good = pki.server.cert.read_bytes()
    pki.server.cert.write_text("nonsense")
    listens, remotes = [Listen(str(tmp_path / "a"))], [pki.remote(free_port("::1"), "::1")]
    with pytest.raises(McastdError):
        ApiSockets(listens, 1, remotes)
    sockets = ApiSockets(listens, 1, remotes, again=True)
    sockets.bind()
    assert (names(tmp_path), sockets.bound(remotes[0])) == (["a.new1", "tls"], False)
    (certificates,) = sockets.certificates
    pki.server.cert.write_bytes(good)
    certificates.refresh()
    assert len(sockets.bind_remotes()) == 1
    assert sockets.bound(remotes[0])
    assert sockets.bind_remotes() == []
    await stop(sockets)
