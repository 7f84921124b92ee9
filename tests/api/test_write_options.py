"""Options of writes: who writes, fencing, preconditions, dry runs, taking over."""

from collections.abc import Callable

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from tests.api.bench import Bench, Client, good, group, intents, key_of, refused
from tests.testbed.daemon import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("api-write-options")]

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def owner_of(client: Client, name: str) -> sv.Owner:
    """The owner's entry in GetStatus."""
    return next(owner for owner in client.status().owners if owner.name == name)


# --- owners ----------------------------------------------------------------------------------------------------------


def test_the_owner_is_that_of_the_socket(bench: Bench) -> None:
    bench.admin.put(good(1))
    bench.write.put(good(2))
    assert {one.group: one.status.owner for one in bench.view.listed()} == {group(1): "local", group(2): "alice"}


def test_a_socket_may_say_its_own_owner(bench: Bench) -> None:
    assert bench.write.put(good(1), owner="alice").created == 1


def test_an_admin_acts_for_others(bench: Bench) -> None:
    bench.admin.put(good(1), owner="bob.-_9")
    assert [one.status.owner for one in bench.view.listed()] == ["bob.-_9"]
    assert owner_of(bench.view, "bob.-_9").entries == 1


WRITES: dict[str, Callable[[Client, rs.WriteOptions], object]] = {
    "PutRoutes": lambda client, options: client.routes.PutRoutes(
        rs.PutRoutesRequest(routes=[good(9)], options=options), timeout=10
    ),
    "PatchRoutes": lambda client, options: client.routes.PatchRoutes(
        rs.PatchRoutesRequest(patches=[t.RoutePatch(key=key_of(good(1)), remove_oifs=["down1"])], options=options), timeout=10
    ),
    "DeleteRoutes": lambda client, options: client.delete(all=True, options=options),
    "ReplaceRoutes": lambda client, options: client.replace([good(9)], options=options),
    "SetInterface": lambda client, options: client.interfaces.SetInterface(
        sv.SetInterfaceRequest(interface="down2", pinned=True, options=options), timeout=10
    ),
}


@pytest.mark.parametrize("rpc", WRITES)
@pytest.mark.parametrize("options", [rs.WriteOptions(owner="bob"), rs.WriteOptions(take_over=True)], ids=["owner", "take_over"])
def test_a_write_socket_acts_for_itself_alone(bench: Bench, rpc: str, options: rs.WriteOptions) -> None:
    bench.admin.put(good(1), owner="bob")
    before = bench.snapshot()
    found = refused(lambda: WRITES[rpc](bench.write, options))
    assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED")
    assert found.metadata == {"need": "admin", "have": "write"}
    assert "options." in found.message
    assert "admin access" in found.message
    assert bench.snapshot() == before


@pytest.mark.parametrize("rpc", WRITES)
def test_a_view_socket_writes_nothing(bench: Bench, rpc: str) -> None:
    bench.admin.put(good(1))
    before = bench.snapshot()
    found = refused(lambda: WRITES[rpc](bench.view, rs.WriteOptions(validate_only=True)))
    assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED")
    assert found.metadata == {"need": "write", "have": "view"}
    assert rpc in found.message
    assert bench.snapshot() == before


def test_an_entry_has_one_owner(bench: Bench) -> None:
    bench.admin.put(good(1), good(2), owner="bob")
    result = bench.write.put(good(1, 4, "down2"), good(3))
    assert (result.created, result.failed) == (1, 1)
    (change,) = result.changes
    assert (change.id, change.action, change.error.reason, change.error.code) == (
        0,
        rs.RouteChange.ACTION_NONE,
        "OWNED_BY_OTHER",
        6,
    )
    assert dict(change.error.metadata) == {"owner": "bob"}
    assert "bob" in change.error.message
    patched = bench.write.patch(t.RoutePatch(key=key_of(good(2)), add_oifs=[t.Oif(interface="down2")]))
    assert [one.error.reason for one in patched.changes] == ["OWNED_BY_OTHER"]
    deleted = bench.write.delete(key_of(good(1)), key_of(good(3)))
    assert (deleted.deleted, deleted.failed, deleted.changes[0].error.reason) == (1, 1, "OWNED_BY_OTHER")
    assert [list(one.oifs) for one in bench.view.listed()] == [[t.Oif(interface="down1")]] * 2


def test_the_same_route_of_another_owner_is_not_taken_for_ones_own(bench: Bench) -> None:
    bench.admin.put(good(1), owner="bob")
    result = bench.write.put(good(1))
    assert (result.unchanged, result.failed, result.changes[0].error.reason) == (0, 1, "OWNED_BY_OTHER")


def test_a_replacement_leaves_others_alone(bench: Bench) -> None:
    bench.admin.put(good(1), good(2), owner="bob")
    result = bench.write.replace([good(2), good(3)])
    assert (result.created, result.deleted, result.failed) == (1, 0, 1)
    assert {one.group: one.status.owner for one in bench.view.listed()} == {group(1): "bob", group(2): "bob", group(3): "alice"}


def test_taking_over(bench: Bench) -> None:
    bench.admin.put(good(1), good(2), good(3), owner="bob")
    bob = owner_of(bench.view, "bob")
    result = bench.admin.put(good(1), good(2, 4, "down2"), take_over=True)
    assert (result.updated, result.failed) == (2, 0)
    assert {one.group: one.status.owner for one in bench.view.listed()} == {group(1): "local", group(2): "local", group(3): "bob"}
    assert owner_of(bench.view, "bob").entries == 1
    assert owner_of(bench.view, "bob").revision > bob.revision, "what bob asks for has changed, though not by bob"
    assert bench.admin.delete(key_of(good(3)), options=rs.WriteOptions(take_over=True)).deleted == 1


# --- fencing ---------------------------------------------------------------------------------------------------------


def test_a_stale_epoch_is_fenced_off(own_bench: Bench) -> None:
    admin = own_bench.admin
    admin.put(good(1), epoch=41)
    assert owner_of(admin, "local").epoch == 41
    admin.put(good(2), epoch=41)
    admin.put(good(3), epoch=42)
    before = own_bench.snapshot()
    for rpc, call in WRITES.items():
        found = refused(lambda call=call: call(admin, rs.WriteOptions(epoch=41)))  # type: ignore[misc]
        assert (found.code, found.reason, found.metadata) == (PRECONDITION, "STALE_EPOCH", {"highest": "42", "owner": "local"}), (
            rpc
        )
        assert "42" in found.message
    assert own_bench.snapshot() == before
    assert admin.put(good(4)).created == 1, "epoch 0 means no fencing"
    assert own_bench.write.put(good(5), epoch=1).created == 1, "each owner has epochs of its own"


def test_the_highest_epoch_survives_a_killed_server(own_bench: Bench) -> None:
    admin = own_bench.admin
    admin.put(good(1), epoch=2**64 - 2)
    instance = admin.status().instance_id
    own_bench.daemon.kill_server()

    def back() -> bool:
        try:
            return admin.status().instance_id != instance
        except grpc.RpcError:
            return False

    wait_until(back, 20)
    found = refused(lambda: admin.put(good(2), epoch=7))
    assert (found.reason, found.metadata["highest"]) == ("STALE_EPOCH", str(2**64 - 2))
    assert admin.put(good(2), epoch=2**64 - 1).created == 1


def test_an_epoch_is_kept_even_where_nothing_else_changes(own_bench: Bench) -> None:
    admin = own_bench.admin
    admin.put(good(1))
    admin.put(good(1), epoch=5)
    assert refused(lambda: admin.put(good(1), epoch=4)).reason == "STALE_EPOCH"


def test_a_dry_run_raises_no_epoch(own_bench: Bench) -> None:
    admin = own_bench.admin
    admin.put(good(1), epoch=5)
    admin.put(good(1), epoch=9, validate_only=True)
    assert owner_of(admin, "local").epoch == 5
    assert refused(lambda: admin.put(good(1), epoch=4, validate_only=True)).reason == "STALE_EPOCH"


# --- revisions -------------------------------------------------------------------------------------------------------


def test_if_revision_refuses_what_was_written_meanwhile(bench: Bench) -> None:
    bench.admin.put(good(1))
    read = owner_of(bench.admin, "local").revision
    bench.admin.put(good(2), if_revision=read)
    now = owner_of(bench.admin, "local").revision
    assert now > read
    before = bench.snapshot()
    for rpc, call in WRITES.items():
        found = refused(lambda call=call: call(bench.admin, rs.WriteOptions(if_revision=read)))  # type: ignore[misc]
        assert (found.code, found.reason) == (grpc.StatusCode.ABORTED, "REVISION_MISMATCH"), rpc
        assert found.metadata == {"now": str(now), "owner": "local"}
    assert bench.snapshot() == before
    bench.write.put(good(3))
    assert bench.admin.put(good(4), if_revision=now).created == 1, "what another owner writes does not count"


def test_a_flapping_link_does_not_move_what_an_owner_asks_for(own_bench: Bench) -> None:
    own_bench.admin.put(good(1))
    read, revision = owner_of(own_bench.admin, "local").revision, own_bench.admin.status().revision
    own_bench.router.ip("link set down1 down")
    wait_until(lambda: own_bench.admin.listed()[0].status.state == t.ROUTE_STATE_PARTIAL)
    assert own_bench.admin.status().revision > revision
    assert own_bench.admin.put(good(2), if_revision=read).created == 1


def test_the_revision_of_an_answer_is_what_if_revision_takes(bench: Bench) -> None:
    revision = bench.admin.put(good(1)).revision
    for n in range(2, 6):
        revision = bench.admin.put(good(n), if_revision=revision).revision
    assert refused(lambda: bench.admin.put(good(9), if_revision=revision - 1)).reason == "REVISION_MISMATCH"


# --- dry runs --------------------------------------------------------------------------------------------------------


def test_a_dry_run_gives_the_diff_and_changes_nothing(bench: Bench) -> None:
    bench.admin.put(good(1), good(2), good(3))
    before = bench.snapshot()
    wanted = [good(1), good(2, 4, "down2"), good(4), good(5)]
    result = bench.admin.replace(wanted, options=rs.WriteOptions(validate_only=True), return_changes=True)
    assert (result.created, result.updated, result.deleted, result.unchanged, result.failed) == (2, 1, 1, 1, 0)
    diff = {(change.after.group or change.before.group): change for change in result.changes}
    assert {name: change.action for name, change in diff.items()} == {
        group(2): rs.RouteChange.ACTION_UPDATE,
        group(3): rs.RouteChange.ACTION_DELETE,
        group(4): rs.RouteChange.ACTION_CREATE,
        group(5): rs.RouteChange.ACTION_CREATE,
    }
    assert intents([diff[group(2)].before, diff[group(2)].after]) == [good(2), good(2, 4, "down2")]
    assert intents([diff[group(3)].before]) == [good(3)]
    assert not diff[group(3)].HasField("after")
    assert not diff[group(4)].HasField("before")
    assert result.revision == before[0]
    assert bench.snapshot() == before
    applied = bench.admin.replace(wanted, return_changes=True)
    assert [(c.action, c.id) for c in applied.changes] == [(c.action, c.id) for c in result.changes], "the plan is what is done"


@pytest.mark.parametrize("rpc", WRITES)
def test_a_dry_run_of_any_write_changes_nothing(bench: Bench, rpc: str) -> None:
    bench.admin.put(good(1))
    interfaces = bench.admin.interfaces.ListInterfaces(sv.ListInterfacesRequest(), timeout=10)
    before = bench.snapshot()
    WRITES[rpc](bench.admin, rs.WriteOptions(validate_only=True))
    assert bench.snapshot() == before
    now = bench.admin.interfaces.ListInterfaces(sv.ListInterfacesRequest(), timeout=10)
    assert [(one.name, one.pinned, one.ttl_threshold) for one in now.interfaces] == [
        (one.name, one.pinned, one.ttl_threshold) for one in interfaces.interfaces
    ]


def test_changes_are_returned_on_demand(bench: Bench) -> None:
    assert list(bench.admin.put(good(1)).changes) == []
    result = bench.admin.put(good(1), good(2), good(1, 4, "down2"), return_changes=True)
    assert [(c.action, c.id) for c in result.changes] == [(rs.RouteChange.ACTION_CREATE, 1), (rs.RouteChange.ACTION_UPDATE, 2)]
    assert result.changes[0].after.status.state == t.ROUTE_STATE_PROGRAMMED


def test_what_does_not_forward_is_always_told(bench: Bench) -> None:
    nowhere = good(2)
    nowhere.iif = "absent0"
    result = bench.admin.put(good(1), nowhere, good(3, 4, "down1", "absent1"))
    assert (result.created, result.failed) == (3, 0)
    assert [(c.id, c.after.status.state, c.after.status.last_error.reason) for c in result.changes] == [
        (1, t.ROUTE_STATE_PENDING, "NO_SUCH_INTERFACE"),
        (2, t.ROUTE_STATE_PARTIAL, "NO_SUCH_INTERFACE"),
    ]
    assert result.changes[0].after.status.last_error.metadata["interface"] == "absent0"
    assert not any(c.HasField("error") for c in result.changes), "it has not failed, it waits (RouteChange.error)"
    again = bench.admin.put(good(1), nowhere)
    assert (again.unchanged, [(c.id, c.action) for c in again.changes]) == (2, [(1, rs.RouteChange.ACTION_NONE)])


# --- all or nothing ---------------------------------------------------------------------------------------------------


def test_all_or_nothing_with_an_item_that_is_not_ours(bench: Bench) -> None:
    bench.admin.put(good(50), owner="bob")
    before = bench.snapshot()
    found = refused(lambda: bench.admin.put(good(1), good(2), good(50), all_or_nothing=True))
    assert (found.code, found.reason, found.metadata) == (grpc.StatusCode.ALREADY_EXISTS, "OWNED_BY_OTHER", {"owner": "bob"})
    assert "item 2" in found.message
    assert "nothing was changed" in found.message
    assert bench.snapshot() == before


def test_all_or_nothing_of_patches(bench: Bench) -> None:
    bench.admin.put(good(1))
    before = bench.snapshot()
    patches = [t.RoutePatch(key=key_of(good(n)), remove_oifs=["down1"]) for n in (1, 2)]
    found = refused(lambda: bench.admin.patch(*patches, all_or_nothing=True))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert bench.snapshot() == before


# --- guards ----------------------------------------------------------------------------------------------------------


def test_max_deletions_guards_a_replacement(bench: Bench) -> None:
    bench.admin.put(*[good(n) for n in range(1, 11)])
    before = bench.snapshot()
    found = refused(lambda: bench.admin.replace([good(n) for n in range(4, 20)], max_deletions=2))
    assert (found.code, found.reason, found.metadata) == (PRECONDITION, "TOO_MANY_DELETIONS", {"would": "3", "max": "2"})
    assert bench.snapshot() == before
    assert bench.admin.replace([good(n) for n in range(4, 20)], max_deletions=3).deleted == 3


def test_a_cookie_narrows_a_replacement(bench: Bench) -> None:
    bench.admin.put(good(1, cookie="a"), good(2, cookie="a"), good(3, cookie="b"), good(4))
    result = bench.admin.replace([good(2, cookie="a"), good(5, cookie="a")], cookie="a")
    assert (result.created, result.deleted, result.unchanged) == (1, 1, 1)
    assert [one.group for one in bench.admin.listed()] == [group(n) for n in (2, 3, 4, 5)]
    before = bench.snapshot()
    found = refused(lambda: bench.admin.replace([good(2, cookie="a"), good(5, cookie="b")], cookie="a"))
    assert (found.reason, found.metadata["field"], found.metadata["value"]) == ("INVALID_VALUE", "routes[1].cookie", "b")
    assert refused(lambda: bench.admin.replace([good(1)], cookie="c" * 65)).metadata["field"] == "header.cookie"
    assert bench.snapshot() == before
