"""mcastd.api.principals: whom a certificate names, what he may do, and what becomes of his streams when that changes."""

import asyncio
from typing import Any

import pytest

from mcast.v1 import route_service_pb2 as rs
from mcastd.api.auth import write_options
from mcastd.api.ports import Caller
from mcastd.api.principals import Principals, SocketCallers, principal_of
from mcastd.model.errors import McastdError, Reason
from mcastd.model.principal import ANYBODY, Principal, Quota
from mcastd.model.settings import Access, Listen, Remote
from mcastd.runtime.tasks import spawn
from tests.api.waiting import until

NAMES = {
    "peer_spiffe_id": [b"spiffe://lab/sdn"],
    "peer_uri": [b"https://one", b"https://two"],
    "peer_dns": [b"one.example", b"two.example"],
    "x509_common_name": [b"one"],
}


@pytest.mark.parametrize(
    "without,name",
    [(0, "spiffe://lab/sdn"), (1, "https://one"), (2, "one.example"), (3, "one"), (4, "")],
)
def test_which_name_counts(without: int, name: str) -> None:
    left = list(NAMES)[without:]
    assert principal_of({key: NAMES[key] for key in left}) == name


def test_an_empty_name_is_none() -> None:
    assert principal_of({"peer_uri": [], "peer_dns": [b""], "x509_common_name": [b"one"]}) == "one"


def test_a_spiffe_id_beside_other_uris_is_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """GRPC does not call it one then; taken as the first URI it would be the principal of that name."""
    with pytest.raises(McastdError, match="the only URI") as caught:
        principal_of({"peer_uri": [b"spiffe://lab/sdn", b"https://two"], "x509_common_name": [b"one"]})
    assert caught.value.reason is Reason.NOT_ALLOWED
    assert caught.value.problem.metadata == {"principal": "spiffe://lab/sdn"}
    assert caplog.records == []


@pytest.mark.parametrize("key", ["peer_dns", "x509_common_name"])
@pytest.mark.parametrize("name", [b"spiffe://lab/sdn", b"https://one"])
def test_a_uri_as_another_kind_of_name_is_none(key: str, name: bytes) -> None:
    assert principal_of({key: [name]}) == ""


def test_a_name_that_is_no_utf_8_is_nobody_else() -> None:
    assert principal_of({"x509_common_name": [b"al\xffice"]}) == "al\\xffice"


class Context:
    """A call by somebody."""

    def __init__(self, name: str) -> None:
        self._name = name

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_common_name": [self._name.encode()]}

    def peer(self) -> str:
        return "ipv6:%5B::1%5D:5"


def context(name: str) -> Any:
    return Context(name)


def known(*names: str, access: Access = Access.WRITE, quota: Quota | None = None) -> Principals:
    found = Principals()
    found.replace({name: Principal(name, access, f"of-{name}", quota or Quota()) for name in names})
    return found


def test_a_principal() -> None:
    found = known("alice").identify(context("alice"))
    assert found == Caller(Access.WRITE, "of-alice", "alice", "ipv6:[::1]:5", Quota())


def test_each_call_has_an_entry_of_its_own() -> None:
    for callers, who in ((known("alice"), context("alice")), (SocketCallers(Listen("/s")), context("alice"))):
        assert callers.identify(who).entry is not callers.identify(who).entry


@pytest.mark.parametrize("name", ["mallory", "", "*", "alice2", "ALICE"])
def test_a_stranger(name: str) -> None:
    with pytest.raises(McastdError) as caught:
        known("alice").identify(context(name))
    assert caught.value.reason is Reason.NOT_ALLOWED
    assert caught.value.problem.metadata == {"principal": name}


def test_anybody() -> None:
    found = known(ANYBODY, "alice")
    assert found.identify(context("mallory")).owner == "of-*"
    assert found.identify(context("mallory")).principal == "mallory"
    assert found.identify(context("alice")).owner == "of-alice"


@pytest.mark.parametrize(
    "listen", [Listen("/s", access=Access.VIEW, owner="eve"), Remote("::1", 1, "", "", "", Access.VIEW, "eve")]
)
def test_callers_of_a_socket_are_all_the_same(listen: Listen | Remote) -> None:
    found = SocketCallers(listen)
    caller = found.identify(context("whoever"))
    assert caller == Caller(Access.VIEW, "eve", listen.address)
    for _ in range(10_000):
        found.request(caller)


def test_quotas_hold_for_each_name_alone() -> None:
    found = known(ANYBODY, quota=Quota(streams=1))
    one, other = found.identify(context("one")), found.identify(context("other"))

    async def calls() -> None:
        with found.under_way(one, Access.VIEW), found.under_way(other, Access.VIEW):
            with pytest.raises(McastdError) as caught, found.under_way(one, Access.VIEW):
                pass
            assert caught.value.reason is Reason.STREAM_LIMIT

    asyncio.run(calls())


class Stream:
    """A stream that is open."""

    def __init__(self, principals: Principals, name: str, access: Access = Access.VIEW) -> None:
        self.begun = asyncio.Event()
        self.caller = principals.identify(context(name))
        self.task = spawn(self._run(principals, self.caller, access), name)

    async def _run(self, principals: Principals, caller: Caller, access: Access) -> None:
        with principals.under_way(caller, access):
            self.begun.set()
            await asyncio.Event().wait()


async def see(stream: Stream, *, goes_on: bool) -> None:
    """Whether a stream goes on, or ends since its caller may not have it any more."""
    if goes_on:
        await asyncio.sleep(0)
        assert not stream.task.done()
        return
    with pytest.raises(McastdError) as caught:
        await asyncio.wait_for(stream.task, 10)
    assert caught.value.reason is Reason.NOT_ALLOWED


@pytest.mark.parametrize(
    "after,goes_on",
    [
        (Principal("alice", Access.WRITE, "of-alice"), True),
        (Principal("alice", Access.ADMIN, "of-alice", Quota(1, 1, 1)), True),
        (Principal("alice", Access.VIEW, "of-alice"), False),
        (Principal("alice", Access.WRITE, "another"), False),
        (None, False),
        (Principal(ANYBODY, Access.WRITE, "of-alice"), True),
    ],
)
async def test_a_stream_goes_on_for_as_long_as_its_caller_may_have_it(after: Principal | None, goes_on: bool) -> None:
    found = known("alice", "bob")
    alice, bob = Stream(found, "alice", Access.WRITE), Stream(found, "bob", Access.WRITE)
    await alice.begun.wait()
    await bob.begun.wait()
    stays = Principal("bob", Access.WRITE, "of-bob")
    found.replace({"bob": stays} | ({} if after is None else {after.name: after}))
    await see(alice, goes_on=goes_on)
    assert not bob.task.done()
    for task in (alice.task, bob.task):
        task.cancel()
    await until(lambda: not found._open)


@pytest.mark.parametrize(
    "asked,goes_on",
    [
        (rs.WriteOptions(), True),
        (rs.WriteOptions(owner="bob"), False),
        (rs.WriteOptions(take_over=True), False),
        (None, False),
    ],
    ids=["for his own", "for another", "taking over", "nothing yet"],
)
async def test_who_is_admin_no_more_does_not_go_on_as_one(asked: rs.WriteOptions | None, goes_on: bool) -> None:
    """What a stream may do was looked at when it began, so one that acts for others ends, and one that still could."""
    found = known("alice", access=Access.ADMIN)
    stream, watch = Stream(found, "alice", Access.WRITE), Stream(found, "alice")
    await stream.begun.wait()
    await watch.begun.wait()
    if asked is not None:
        write_options(asked, stream.caller)
    found.replace({"alice": Principal("alice", Access.WRITE, "of-alice")})
    await see(stream, goes_on=goes_on)
    assert not watch.task.done()
    for task in (stream.task, watch.task):
        task.cancel()
    await until(lambda: not found._open)


async def test_a_stream_is_ended_once(caplog: pytest.LogCaptureFixture) -> None:
    """A second cancellation would reach it while it cleans up."""
    found = known("alice")
    alice = Stream(found, "alice")
    await alice.begun.wait()
    found.replace({})
    found.replace({})
    with pytest.raises(McastdError):
        await alice.task
    assert alice.task.cancelling() == 0
    assert len(caplog.records) == 1


@pytest.mark.parametrize("owner,limit", [("", 7), ("bob", 0)])
async def test_new_limits_hold_for_streams_that_are_open(owner: str, limit: int) -> None:
    """But not those of who acts for another, who may have as many as there may be."""
    found = known("alice", access=Access.ADMIN, quota=Quota(routes=5))
    alice = Stream(found, "alice", Access.WRITE)
    await alice.begun.wait()
    write_options(rs.WriteOptions(owner=owner), alice.caller)
    found.replace({"alice": Principal("alice", Access.ADMIN, "of-alice", Quota(routes=7))})
    assert alice.caller.entry.routes_max == limit
    alice.task.cancel()
    await until(lambda: not found._open)


async def test_a_client_who_leaves_is_no_revocation() -> None:
    found = known("alice")
    alice = Stream(found, "alice")
    await alice.begun.wait()
    alice.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alice.task
