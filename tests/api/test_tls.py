"""The API over TLS: whom it lets in, what each may do, and that certificates and roles change under open streams."""

import asyncio
import datetime as dt
import shutil
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.model.principal import ANYBODY, Principal, Quota
from mcastd.model.settings import Access
from tests.api.bench import refusal
from tests.api.remote import LOOPBACK, Remotely, flow, remotely
from tests.api.rig import refused
from tests.fakesession import batch, opening
from tests.pki import Credentials, Pki

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DENIED = grpc.StatusCode.PERMISSION_DENIED

YEAR = dt.timedelta(days=365)

WATCHES = 100


@pytest.mark.parametrize("family", LOOPBACK)
async def test_a_principal_is_served(tmp_path: Path, family: int) -> None:
    async with remotely(tmp_path, family) as at, at.client("alice") as alice:
        assert (await alice.put(flow(1))).created == 1
        (route,) = await at.rig.listed()
        assert route.status.owner == "alice"


@pytest.mark.parametrize(
    "make,said",
    [
        (lambda _at, _tmp: None, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        (lambda _at, tmp: Pki(tmp / "other").named("alice"), "certificate signature failure"),
        (lambda at, _tmp: at.pki.client("alice", begins=-YEAR, ends=dt.timedelta(seconds=-5)), "CERTIFICATE_VERIFY_FAILED"),
        (lambda at, _tmp: at.pki.client("alice", begins=dt.timedelta(hours=1), ends=YEAR), "CERTIFICATE_VERIFY_FAILED"),
        (lambda at, _tmp: at.pki.server, "CERTIFICATE_VERIFY_FAILED"),
    ],
    ids=["no certificate", "another CA", "expired", "not yet valid", "not a client's"],
)
async def test_a_certificate_that_is_not_good_gets_no_connection(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], make: Callable[[Remotely, Path], Credentials | None], said: str
) -> None:
    """The client learns no more than that; gRPC's own line on standard error says why."""
    async with remotely(tmp_path) as at:
        async with at.client(make(at, tmp_path)) as client:
            assert (await refused(client.status())).code is UNAVAILABLE
        async with at.client("alice") as alice:
            await alice.status()
    assert said in capfd.readouterr().err


async def test_a_server_of_another_ca_is_refused_by_the_client(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at:
        other = Pki(tmp_path / "other")
        async with at.client("alice", ca=other.ca) as alice:
            found = await refused(alice.status())
    assert (found.code, "CERTIFICATE_VERIFY_FAILED" in found.message) == (UNAVAILABLE, True)


@pytest.mark.parametrize(
    "who,method,code",
    [
        ("eve", "status", None),
        ("eve", "put", DENIED),
        ("eve", "shutdown", DENIED),
        ("alice", "put", None),
        ("alice", "shutdown", DENIED),
        ("root", "shutdown", None),
        ("mallory", "status", DENIED),
    ],
)
async def test_roles(tmp_path: Path, who: str, method: str, code: grpc.StatusCode | None) -> None:
    async with remotely(tmp_path) as at, at.client(who) as client:
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "status": client.status,
            "put": lambda: client.put(flow(1)),
            "shutdown": lambda: client.daemon.Shutdown(sv.ShutdownRequest(), timeout=10),
        }
        if code is None:
            await calls[method]()
            return
        found = await refused(calls[method]())
        assert (found.code, found.reason) == (code, "NOT_ALLOWED")
        assert who in found.message
        assert await at.rig.listed() == []
        assert not at.rig.ended.is_set()


async def test_whoever_is_not_named_may_be_somebody(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at:
        at.rig.daemon.principals.replace({ANYBODY: Principal(ANYBODY, Access.WRITE, "guests")})
        async with at.client("mallory") as mallory:
            assert (await mallory.put(flow(1))).created == 1
        (route,) = await at.rig.listed()
        assert route.status.owner == "guests"


SPIFFE, URI = "spiffe://lab/ns/default/sa/sdn", "https://controllers.example/1"


@pytest.mark.parametrize(
    "certificate,name",
    [
        ({"common_name": "cn", "uris": (URI, SPIFFE), "dns": ("dns.example",)}, None),
        ({"common_name": "cn", "uris": (SPIFFE,), "dns": ("dns.example",)}, SPIFFE),
        ({"common_name": "cn", "uris": (URI, "https://second.example"), "dns": ("dns.example",)}, URI),
        ({"common_name": "cn", "dns": ("dns.example", "second.example")}, "dns.example"),
        ({"common_name": "cn"}, "cn"),
        ({}, ""),
        ({"common_name": SPIFFE}, ""),
        ({"dns": (SPIFFE,), "common_name": "cn"}, "cn"),
    ],
    ids=["several URIs", "SPIFFE", "URI", "DNS", "common name", "nothing", "common name like a URI", "DNS name like a URI"],
)
async def test_which_name_of_a_certificate_counts(tmp_path: Path, certificate: dict[str, Any], name: str | None) -> None:
    async with remotely(tmp_path) as at:
        names = [SPIFFE, URI, "https://second.example", "dns.example", "second.example", "cn"]
        at.rig.daemon.principals.replace({one: Principal(one, Access.VIEW, "somebody") for one in names})
        async with at.client(at.pki.client(**certificate)) as client:
            if name:
                await client.status()
            at.rig.daemon.principals.replace({})
            found = await refused(client.status())
    # A SPIFFE id among several URIs is none (X509-SVID, section 2): the first URI counts.
    assert found.metadata["principal"] == (URI if name is None else name)


async def test_a_spiffe_id_among_others_is_nobody(tmp_path: Path) -> None:
    """Who may have any URI beside his own would be the principal of that name otherwise."""
    async with remotely(tmp_path) as at:
        at.rig.daemon.principals.replace({one: Principal(one, Access.ADMIN, "somebody") for one in (SPIFFE, ANYBODY)})
        async with at.client(at.pki.client(uris=(SPIFFE, URI))) as client:
            found = await refused(client.status())
        assert (found.code, found.reason, found.metadata["principal"]) == (DENIED, "NOT_ALLOWED", SPIFFE)
        async with at.client(at.pki.client(uris=(SPIFFE,))) as client:
            await client.status()


async def test_an_owner_changes_its_own_entries_alone(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at, at.client("alice") as alice, at.client("bob") as bob, at.client("root") as root:
        at.principals(alice=Access.WRITE, bob=Access.WRITE, root=Access.ADMIN)
        await alice.put(flow(1))
        result = await bob.put(flow(2), t.Route(group="232.1.0.1", source="10.0.0.1", iif="up", oifs=[t.Oif(interface="down2")]))
        assert (result.created, result.failed) == (1, 1)
        assert [one.error.reason for one in result.changes if one.HasField("error")] == ["OWNED_BY_OTHER"]
        for attempt in (
            bob.put(flow(3), owner="alice"),
            bob.put(flow(1), take_over=True),
            bob.routes.DeleteRoutes(rs.DeleteRoutesRequest(all=True, options=rs.WriteOptions(owner="alice")), timeout=10),
        ):
            assert (await refused(attempt)).code is DENIED
        await bob.routes.DeleteRoutes(rs.DeleteRoutesRequest(all=True), timeout=10)
        assert [one.status.owner for one in await at.rig.listed()] == ["alice"]
        assert (await root.put(flow(4), owner="alice")).created == 1


async def test_a_session_belongs_to_the_principal(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at, at.client("alice") as alice:
        call: Any = alice.session()
        await call.write(opening(""))
        assert (await call.read()).opened.owner == "alice"
        other: Any = alice.session()
        await other.write(opening("bob"))
        with pytest.raises(grpc.RpcError) as caught:
            await other.read()
        assert refusal(caught.value).code is DENIED


# --- changes ---------------------------------------------------------------------------------------------------------


async def told(watch: Any, group: str) -> None:
    """Read until a watch has told of a route to this group."""
    async with asyncio.timeout(30):
        while group not in str(await watch.read()):
            pass


async def test_streams_of_who_may_not_have_them_any_more_end(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at, at.client("alice") as alice, at.client("eve") as eve, at.client("bob") as bob:
        at.principals(alice=Access.WRITE, eve=Access.VIEW, bob=Access.WRITE)
        session: Any = alice.session()
        await session.write(opening(""))
        assert (await session.read()).HasField("opened")
        watches: list[Any] = [client.watch() for client in (alice, eve, bob)]
        for watch in watches:
            await watch.read()
        at.principals(alice=Access.VIEW, bob=Access.WRITE)  # alice may write no more, eve is nobody
        with pytest.raises(grpc.RpcError) as caught:
            await asyncio.wait_for(session.read(), 10)
        assert refusal(caught.value).code is DENIED
        with pytest.raises(grpc.RpcError) as caught:
            await told(watches[1], "nothing")
        assert (refusal(caught.value).code, refusal(caught.value).reason) == (DENIED, "NOT_ALLOWED")
        assert (await refused(eve.status())).code is DENIED
        await bob.put(flow(7))
        await told(watches[0], "232.1.0.7")
        await told(watches[2], "232.1.0.7")


async def test_who_is_admin_no_more_does_not_write_for_others(tmp_path: Path) -> None:
    """Neither through the session that he has for another, nor through a stream that has yet to say whose it is."""
    async with remotely(tmp_path) as at, at.client("root") as root:
        at.principals(root=Access.ADMIN, bob=Access.WRITE)
        for_bob, own, undecided = (root.session() for _ in range(3))
        for call, owner in ((for_bob, "bob"), (own, "")):
            await call.write(opening(owner))
            assert (await call.read()).HasField("opened")
        await ended(at, "root", 3)
        at.principals(root=Access.WRITE, bob=Access.WRITE)
        for call in (for_bob, undecided):
            with pytest.raises(grpc.RpcError) as caught:
                await asyncio.wait_for(call.read(), 10)
            assert (refusal(caught.value).code, refusal(caught.value).reason) == (DENIED, "NOT_ALLOWED")
        await own.write(batch(rs.ProgramRoutesRequest.Op(id=1, put=flow(1))))
        assert (await own.read()).ack.acked_through == 1
        assert [one.status.owner for one in await at.rig.listed()] == ["root"]


async def test_a_stream_goes_on_for_the_owner_it_began_for_alone(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at, at.client("alice") as alice:
        watch: Any = alice.watch()
        await watch.read()
        at.rig.daemon.principals.replace({"alice": Principal("alice", Access.WRITE, "another")})
        with pytest.raises(grpc.RpcError) as caught:
            await told(watch, "nothing")
        assert refusal(caught.value).code is DENIED


async def shown(at: Remotely) -> bytes:
    """The certificate that a new handshake sees."""
    client = at.pki.named("alice")
    context = ssl.create_default_context(cafile=str(at.pki.ca))
    context.load_cert_chain(client.cert, client.key)
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(at.remote.host, at.remote.port, ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


async def test_certificates_change_under_open_watches(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at, at.client("alice") as alice:
        credentials = at.pki.named("eve")
        clients = [at.client(credentials) for _ in range(WATCHES)]
        watches: list[Any] = [client.watch() for client in clients]
        await asyncio.gather(*(watch.read() for watch in watches))
        before = await shown(at)
        at.pki.init("nobody", renew=True)
        at.certificates.refresh()
        assert at.certificates.problem == ""
        assert await shown(at) != before
        await alice.put(flow(9))
        await asyncio.gather(*(told(watch, "232.1.0.9") for watch in watches))
        async with at.client("eve") as eve:
            await eve.status()
        for client in clients:
            await client.channel.close(None)


async def test_another_ca_counts_for_new_connections(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at, at.client("eve") as eve:
        watch: Any = eve.watch()
        await watch.read()
        other, credentials = Pki(tmp_path / "other"), at.pki.named("alice")
        ours = Path(shutil.copy(at.pki.ca, tmp_path / "ca.pem"))
        shutil.copy(other.ca, at.pki.ca)
        at.certificates.refresh()
        async with at.client(other.named("eve"), ca=ours) as newcomer, at.client(credentials, ca=ours) as late:
            await newcomer.status()
            assert (await refused(late.status())).code is UNAVAILABLE
        await at.rig.put(flow(3))
        await told(watch, "232.1.0.3")


async def test_files_of_no_use_change_nothing(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at:
        before = await shown(at)
        at.pki.server.cert.write_text("not a certificate\n")
        at.certificates.refresh()
        at.certificates.refresh()
        assert str(at.pki.server.cert) in at.certificates.problem
        assert await shown(at) == before
        async with at.client("alice") as alice:
            await alice.status()
        at.pki.init("nobody", renew=True)
        at.certificates.refresh()
        assert at.certificates.problem == ""
        assert await shown(at) != before


# --- limits ----------------------------------------------------------------------------------------------------------


def quota(name: str, **values: int) -> Principal:
    """A principal who may write, but not more than this."""
    return Principal(name, Access.WRITE, name, Quota(**values))


async def test_streams_of_a_principal(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at, at.client("alice") as alice, at.client("alice") as again, at.client("bob") as bob:
        at.principals(alice=quota("alice", streams=2), bob=quota("bob", streams=2))
        first: Any = alice.watch()
        second: Any = again.watch()
        await first.read()
        await second.read()
        third: Any = alice.watch()
        with pytest.raises(grpc.RpcError) as caught:
            await third.read()
        found = refusal(caught.value)
        assert (found.code, found.reason, found.metadata) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "STREAM_LIMIT",
            {"limit": "2"},
        )
        await alice.status()
        other: Any = bob.watch()
        await other.read()
        first.cancel()
        await ended(at, "alice", 1)
        fourth: Any = alice.watch()
        await fourth.read()


async def ended(at: Remotely, name: str, left: int) -> None:
    """Wait until so many streams of a principal are left."""
    async with asyncio.timeout(10):
        while at.rig.daemon.principals._quotas.streams(name) != left:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.002)


async def test_requests_of_a_principal(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at, at.client("alice") as alice, at.client("bob") as bob:
        at.principals(alice=quota("alice", requests=2), bob=Access.WRITE)
        for _ in range(4):
            await alice.status()
        found = await refused(alice.status())
        assert (found.code, found.reason, found.metadata["limit"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT", "2")
        assert found.retry_seconds is not None
        assert abs(found.retry_seconds - float(found.metadata["retry_after"])) < 0.001
        assert 0 < found.retry_seconds <= 0.5
        await bob.status()
        await asyncio.sleep(found.retry_seconds + 0.01)
        await alice.status()


async def test_messages_of_a_stream_wait(tmp_path: Path) -> None:
    """A set of more messages than may come at once is not refused: it takes its time."""
    async with remotely(tmp_path) as at, at.client("alice") as alice:
        at.principals(alice=quota("alice", requests=20))
        messages = [rs.ReplaceRoutesRequest(header=rs.ReplaceRoutesRequest.Header())]
        messages += [rs.ReplaceRoutesRequest(chunk=rs.ReplaceRoutesRequest.Chunk(routes=[flow(n)])) for n in range(1, 60)]
        began = asyncio.get_running_loop().time()
        answer: Any = await alice.routes.ReplaceRoutes(iter(messages), timeout=30)
        took = asyncio.get_running_loop().time() - began
        assert answer.result.created == 59
        assert took >= (1 + 60 - 40) / 20 * 0.9


async def test_routes_of_a_principal(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at, at.client("alice") as alice, at.client("root") as root:
        at.principals(alice=quota("alice", routes=3), root=Access.ADMIN)
        await root.put(*(flow(n) for n in range(100, 110)))
        await alice.put(flow(1), flow(2))
        found = await refused(alice.put(flow(3), flow(4)))
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ROUTE_LIMIT")
        assert found.metadata == {"limit": "3", "would": "4", "owner": "alice"}
        assert (await alice.put(flow(1), flow(3))).created == 1
        for attempt in (
            alice.put(flow(4), validate_only=True),
            alice.routes.ReplaceRoutes(iter(whole_set(4)), timeout=10),
        ):
            assert (await refused(attempt)).metadata["limit"] == "3"
        answer: Any = await alice.routes.ReplaceRoutes(iter(whole_set(3)), timeout=10)
        assert answer.result.unchanged == 3
        assert (await root.put(flow(4), owner="alice")).created == 1  # an operator may give more


def whole_set(count: int) -> list[rs.ReplaceRoutesRequest]:
    """The messages of a set of routes 1 to `count`."""
    chunk = rs.ReplaceRoutesRequest.Chunk(routes=[flow(n) for n in range(1, count + 1)])
    return [rs.ReplaceRoutesRequest(header=rs.ReplaceRoutesRequest.Header()), rs.ReplaceRoutesRequest(chunk=chunk)]


async def test_routes_of_a_session(tmp_path: Path) -> None:
    async with remotely(tmp_path) as at, at.client("alice") as alice:
        at.principals(alice=quota("alice", routes=3))
        call: Any = alice.session()
        await call.write(opening(""))
        assert (await call.read()).HasField("opened")
        for first, count, refused_ids in ((1, 3, []), (4, 2, [4, 5])):
            ops = [rs.ProgramRoutesRequest.Op(id=n, put=flow(n)) for n in range(first, first + count)]
            await call.write(rs.ProgramRoutesRequest(batch=rs.ProgramRoutesRequest.Batch(ops=ops)))
            ack = (await call.read()).ack
            assert [one.id for one in ack.exceptions] == refused_ids
            assert {one.error.reason for one in ack.exceptions} <= {"ROUTE_LIMIT"}
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK


async def test_new_limits_hold_for_sessions_that_are_up(tmp_path: Path) -> None:
    """Controllers keep theirs for weeks: an operator who gives more, or less, means them."""
    async with remotely(tmp_path) as at, at.client("alice") as alice:
        at.principals(alice=quota("alice", routes=1))
        call: Any = alice.session()
        await call.write(opening(""))
        assert (await call.read()).HasField("opened")
        for number, limit, refused_ids in ((1, 1, []), (2, 1, [2]), (3, 2, []), (4, 2, [4]), (5, 0, [])):
            at.principals(alice=quota("alice", routes=limit))
            await call.write(batch(rs.ProgramRoutesRequest.Op(id=number, put=flow(number))))
            assert [one.id for one in (await call.read()).ack.exceptions] == refused_ids
        at.principals(alice=quota("alice", requests=4))
        began = asyncio.get_running_loop().time()
        for number in range(6, 18):
            await call.write(batch(rs.ProgramRoutesRequest.Op(id=number, put=flow(number))))
            await call.read()
        assert asyncio.get_running_loop().time() - began >= (12 - 8) / 4 * 0.9
