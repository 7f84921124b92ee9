"""mcastd.api.principals: whom a certificate names, what he may do, and what becomes of his streams when that changes."""

import asyncio
from typing import Any

import pytest

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
    assert found == Caller(Access.WRITE, "of-alice", "alice", "ipv6:%5B::1%5D:5", Quota())


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
        self.task = spawn(self._run(principals, principals.identify(context(name)), access), name)

    async def _run(self, principals: Principals, caller: Caller, access: Access) -> None:
        with principals.under_way(caller, access):
            self.begun.set()
            await asyncio.Event().wait()


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
    if goes_on:
        await asyncio.sleep(0)
        assert not alice.task.done()
    else:
        with pytest.raises(McastdError) as caught:
            await asyncio.wait_for(alice.task, 10)
        assert caught.value.reason is Reason.NOT_ALLOWED
    assert not bob.task.done()
    for task in (alice.task, bob.task):
        task.cancel()
    await until(lambda: not found._open)


async def test_a_client_who_leaves_is_no_revocation() -> None:
    found = known("alice")
    alice = Stream(found, "alice")
    await alice.begun.wait()
    alice.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alice.task
