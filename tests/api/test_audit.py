"""The audit log as calls over TLS and through a Unix socket make it: who, what, and what came of it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.model.settings import Access
from tests.api.bench import key_of, stream
from tests.api.remote import Remotely, flow, remotely
from tests.api.rig import refused
from tests.api.waiting import until
from tests.auditlines import Lines
from tests.fakesession import batch, opening


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    return Lines(monkeypatch)


@pytest.fixture
async def at(tmp_path: Path, lines: Lines) -> AsyncIterator[Remotely]:
    del lines  # from the beginning
    async with remotely(tmp_path) as found:
        yield found


COUNTS = ("added", "updated", "deleted", "unchanged", "failed")


async def test_each_write_is_a_line(at: Remotely, lines: Lines) -> None:
    async with at.client("alice") as alice:
        await alice.put(flow(1), flow(2))
        await alice.put(flow(1), flow(3), validate_only=True)
        await alice.routes.PatchRoutes(rs.PatchRoutesRequest(patches=[t.RoutePatch(key=key_of(flow(1)), remove_oifs=["down1"])]))
        await alice.routes.DeleteRoutes(rs.DeleteRoutesRequest(keys=[key_of(flow(1))]))
        await alice.routes.ReplaceRoutes(stream([flow(2), flow(4)]))
        await alice.joins.PutJoins(sv.PutJoinsRequest(joins=[t.Join(interface="up", group="232.1.1.1", source="10.0.0.1")]))
        await alice.routes.FlushLearned(rs.FlushLearnedRequest())
        await alice.status()
        [_ async for _ in alice.routes.ListRoutes(rs.ListRoutesRequest())]
    assert lines.fields("audit", "method", "owner", *COUNTS) == [
        ("write", "PutRoutes", "alice", 2, 0, 0, 0, 0),
        ("dry-run", "PutRoutes", "alice", 1, 0, 0, 1, 0),
        ("write", "PatchRoutes", "alice", 0, 1, 0, 0, 0),
        ("write", "DeleteRoutes", "alice", 0, 0, 1, 0, 0),
        ("write", "ReplaceRoutes", "alice", 1, 0, 0, 1, 0),
        ("write", "PutJoins", "alice", 1, 0, 0, 0, 0),
        ("write", "FlushLearned", None, None, None, None, None, None),
    ]
    assert {one.principal for one in lines.records} == {"alice"}  # type: ignore[attr-defined]
    assert all(one.peer.startswith("ipv4:127.0.0.1:") for one in lines.records)  # type: ignore[attr-defined]
    revisions = [one.revision for one in lines.records if hasattr(one, "revision")]
    assert revisions == sorted(revisions)


async def test_a_unix_socket_is_a_principal(at: Remotely, lines: Lines) -> None:
    await at.rig.put(flow(1))
    await at.rig.interfaces.SetInterface(sv.SetInterfaceRequest(interface="up", pinned=True))
    await at.rig.status.Shutdown(sv.ShutdownRequest())
    (address,) = {one.principal for one in lines.records}  # type: ignore[attr-defined]
    assert address.startswith("unix:/")
    assert lines.fields("audit", "method", "peer") == [
        ("write", "PutRoutes", None),
        ("write", "SetInterface", None),
        ("write", "Shutdown", None),
    ]


async def test_each_refusal_is_a_line(at: Remotely, lines: Lines) -> None:
    async with at.client("eve") as eve, at.client("alice") as alice, at.client("mallory") as mallory:
        await refused(eve.put(flow(1)))
        await refused(alice.put(flow(1), owner="bob"))
        await refused(alice.put(t.Route(group="nonsense")))
        await refused(mallory.status())
    assert lines.fields("levelname", "audit", "principal", "method", "owner", "reason") == [
        ("WARNING", "refused", "eve", "PutRoutes", None, "NOT_ALLOWED"),
        ("WARNING", "refused", "alice", "PutRoutes", "bob", "NOT_ALLOWED"),
        ("WARNING", "refused", "alice", "PutRoutes", "alice", "INVALID_GROUP"),
        ("WARNING", "refused", "mallory", "GetStatus", None, "NOT_ALLOWED"),
    ]


async def test_sessions(at: Remotely, lines: Lines) -> None:
    async with at.client("alice") as alice:
        first: Any = alice.session()
        await first.write(opening("", epoch=4))
        await first.read()
        ops = [rs.ProgramRoutesRequest.Op(id=n, put=flow(n)) for n in (1, 2)]
        await first.write(batch(*ops, rs.ProgramRoutesRequest.Op(id=3, put=t.Route(group="nonsense"))))
        await first.read()
        second: Any = alice.session()
        await second.write(opening("", epoch=5))
        await second.read()
        await until(lambda: len(lines.records) == 3)
        await second.done_writing()
        await until(lambda: len(lines.records) == 4)
    assert lines.fields("audit", "owner", "epoch", "added", "failed", "reason") == [
        ("session-opened", "alice", 4, 0, 0, None),
        ("session-opened", "alice", 5, 0, 0, None),
        ("session-ended", "alice", 4, 2, 1, "SUPERSEDED"),
        ("session-ended", "alice", 5, 0, 0, None),
    ]


async def test_what_ends_a_stream_is_told(at: Remotely, lines: Lines) -> None:
    async with at.client("alice") as alice:
        watch = alice.watch()
        await watch.read()
        at.principals(bob=Access.VIEW)
        await until(lambda: len(lines.records) == 1)
    assert lines.fields("audit", "principal", "method", "reason") == [("refused", "alice", "Watch", "NOT_ALLOWED")]
