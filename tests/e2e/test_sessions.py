"""Sessions of controllers against a real daemon and kernel: the conversations of the contract, deaths, take-overs, restarts."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.api.bench import refusal
from tests.e2e.ctl import Ctl
from tests.e2e.router import PROGRAMMED, Router, bulk
from tests.e2e.session import READY, RETAIN, WITHDRAW, Session
from tests.e2e.view import Watching
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel

DOCUMENT = Path(__file__).parents[2] / "docs/sessions.md"


def owner_of(router: Router, name: str = "sdn") -> sv.Owner:
    """What the daemon says of an owner."""
    return next((one for one in router.daemon.status().owners if one.name == name), sv.Owner())


def wait_owner(router: Router, condition: Callable[[sv.Owner], bool], seconds: float = 20) -> sv.Owner:
    """Wait until an owner is as it should be."""
    wait_until(lambda: condition(owner_of(router)), seconds, lambda: f"never: {owner_of(router)}")
    return owner_of(router)


def is_orphaned(owner: sv.Owner) -> bool:
    """Whether its session has ended."""
    return not owner.connected and owner.HasField("lease") and owner.HasField("hold_until")


# --- the three conversations -----------------------------------------------------------------------------------------


def test_controller_starts_dies_and_is_replaced(router: Router) -> None:
    sender = router.sender()
    wanted = [router.route(sender, "down1"), *bulk(router.family, 5299, router.source, "down1", "down2")]
    gone = list(bulk(router.family, 12, router.source, "down2", first=0x90000))
    with Session(router.daemon.socket) as leader:
        opened = leader.open(epoch=40, hold=120, on_expiry=WITHDRAW)
        assert (opened.owner, opened.epoch, opened.entries) == ("sdn", 40, 0)
        assert leader.program([*wanted[:5198], *gone]) == []
        leader.close()
    with Session(router.daemon.socket) as leader:
        opened = leader.open(epoch=41, hold=120, on_expiry=WITHDRAW)
        assert (opened.epoch, opened.entries) == (41, 5210)
        assert opened.instance_id == router.daemon.status().instance_id
        synced = leader.replay(wanted, max_deletions=500)
        assert (synced.deleted, synced.entries, synced.HasField("error")) == (12, 5300, False)
        router.check_leaves(sender, "down1")
        leader.die()
    owner = wait_owner(router, is_orphaned)
    assert (owner.entries, owner.stale) == (5300, 5300)
    assert 100 < owner.hold_until.seconds - time.time() <= 121
    router.check_leaves(sender, "down1")
    notices = router.notices()
    with Session(router.daemon.socket) as standby:
        assert standby.open(epoch=42, hold=120, on_expiry=WITHDRAW).entries == 5300
        synced = standby.replay(wanted, max_deletions=500)
        assert (synced.deleted, synced.entries) == (0, 5300)
        assert notices.take() == 0, "nothing was touched in the kernel"
        assert owner_of(router).stale == 0
        with Session(router.daemon.socket) as old:
            with pytest.raises(grpc.RpcError) as caught:
                old.open(epoch=41)
            found = refusal(caught.value)
            assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STALE_EPOCH")
            assert found.metadata["highest"] == "42"
        assert owner_of(router).connected
        router.check_leaves(sender, "down1")


def test_operator_replaces_and_patches(router: Router, tmp_path: Path) -> None:
    ctl = Ctl(f"unix:{router.daemon.socket}")
    routes = [router.route(n, "down1") for n in range(1, 199)]
    file = tmp_path / "routes.yaml"

    def write(part: list[t.Route]) -> None:
        lines = [f"- {{group: '{r.group}', source: '{r.source}', iif: up, oifs: [{r.oifs[0].interface}]}}\n" for r in part]
        file.write_text("".join(lines))

    write(routes[:197])
    ctl.run("route", "replace", "-f", str(file))
    write([*routes[2:196], router.route(197, "down2"), *(router.route(n, "down1") for n in (300, 301, 302))])
    planned = ctl.call("route", "replace", "-f", str(file), "-n", "--exit-code")
    assert planned.returncode == 3, planned
    assert "+3 ~1 -2 =194" in planned.stdout + planned.stderr, planned
    assert len(router.daemon.list_routes()) == 197
    ctl.run("route", "replace", "-f", str(file))
    assert len(router.daemon.list_routes()) == 198
    ctl.run("route", "patch", routes[2].group, router.source, "--add-oif", "down2")
    assert set(router.status(3).installed_oifs) == {"down1", "down2"}


def test_reactive_controller_routes_what_comes(router: Router) -> None:
    router.daemon.interfaces.SetInterface(sv.SetInterfaceRequest(interface="up", pinned=True), timeout=10)
    wait_until(lambda: "up" in router.vifs())
    sender = router.sender()
    with Watching(router.daemon, kinds=[sv.KIND_SOURCE]) as watching:
        watching.until(lambda view: view.synced)
        sender.send()
        watching.until(lambda view: len(view.of("source")) == 1)
        (seen,) = watching.view.of("source").values()
        assert (seen.interface, seen.cause) == ("up", t.Source.CAUSE_NO_ROUTE)
        router.put(router.route(sender, "down1", iif=seen.interface))
        watching.until(lambda view: not view.of("source"))
    router.check_leaves(sender, "down1")


def test_the_documents_example_runs(router: Router) -> None:
    text = DOCUMENT.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    for old, new in (("/run/mcastd/mcastd.sock", str(router.daemon.socket)), ("eth0", "up"), ("eth1", "down1")):
        assert old in text
        text = text.replace(old, new)
    if router.family is Family.IPV6:
        text = text.replace("239.1.1.{n}", "ff3e::{n:x}").replace("10.0.0.5", router.source)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    assert lines[1:] == ["done up to op 100", "deleted 0 of 100 ", "done up to op 101"]
    assert lines[0].startswith("the owner has 0 routes")
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": 100}


# --- deaths ----------------------------------------------------------------------------------------------------------


def test_what_is_withdrawn_goes_when_the_hold_time_is_over(router: Router) -> None:
    sender, other = router.sender(1), router.sender(2)
    router.put(router.route(other, "down2"), owner="sdn")
    with Session(router.daemon.socket) as session:
        session.open(hold=2, on_expiry=WITHDRAW)
        assert session.program([router.route(sender, "down1")]) == []
        session.die()
    began = time.monotonic()
    wait_owner(router, is_orphaned)
    router.check_leaves(sender, "down1")
    assert router.status(sender).stale
    assert not router.status(other).stale, "a unary call wrote it"
    owner = wait_owner(router, lambda owner: owner.entries == 1)
    assert 1.5 < time.monotonic() - began < 15
    assert (owner.stale, owner.HasField("lease"), owner.HasField("hold_until")) == (0, False, False)
    wait_until(lambda: router.key(sender) not in router.kernel())
    router.check_leaves(other, "down2")


def test_what_is_retained_stays(router: Router) -> None:
    sender = router.sender()
    with Session(router.daemon.socket) as session:
        session.open(hold=0.5, on_expiry=RETAIN)
        assert session.program([router.route(sender, "down1")]) == []
        session.die()
    owner = wait_owner(router, is_orphaned)
    notices = router.notices()
    wait_until(lambda: time.time() > owner.hold_until.ToNanoseconds() / 1e9 + 1, 10)
    assert (owner_of(router).entries, owner_of(router).stale) == (1, 1)
    router.check_leaves(sender, "down1")
    assert notices.take() == 0


def test_half_open_connection_is_found(router: Router) -> None:
    """A controller that is stopped answers no ping: 10 s until one is sent, 5 s for the answer."""
    command = [sys.executable, "-m", "tests.e2e.session", str(router.daemon.socket), "sdn"]
    controller = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert controller.stdin is not None
    assert controller.stdout is not None
    try:
        assert os.read(controller.stdout.fileno(), 1) == READY
        assert owner_of(router).connected
        os.kill(controller.pid, signal.SIGSTOP)
        began = time.monotonic()
        wait_owner(router, is_orphaned, 40)
        assert time.monotonic() - began < 20
    finally:
        controller.kill()
        controller.wait()
        controller.stdin.close()
        controller.stdout.close()


# --- the server's own restarts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_expiry", [RETAIN, WITHDRAW])
def test_server_killed_under_a_session(router: Router, on_expiry: int) -> None:
    sender = router.sender()
    routes = [router.route(sender, "down1"), *bulk(router.family, 500, router.source, "down1")]
    with Session(router.daemon.socket) as session:
        first = session.open(epoch=7, hold=120, on_expiry=on_expiry)
        assert session.program(routes) == []
        notices = router.notices()
        router.wait_server_after(router.daemon.kill_server())
        assert refusal(session.ended()).code == grpc.StatusCode.UNAVAILABLE
    owner = wait_owner(router, is_orphaned)
    assert (owner.epoch, owner.entries, owner.stale, owner.lease.on_expiry) == (7, 501, 501, on_expiry)
    assert owner.lease.hold_time.seconds == 120
    router.check_leaves(sender, "down1")
    with Session(router.daemon.socket) as session:
        opened = session.open(epoch=7, hold=120, on_expiry=on_expiry)
        assert opened.entries == 501
        assert opened.instance_id != first.instance_id
        assert (session.replay(routes).deleted, owner_of(router).stale) == (0, 0)
        assert notices.take() == 0
        session.close()


def test_hold_time_runs_on_over_restarts(router: Router) -> None:
    with Session(router.daemon.socket) as session:
        session.open(hold=4, on_expiry=WITHDRAW)
        assert session.program(bulk(router.family, 10, router.source, "down1")) == []
        session.close()
    held = wait_owner(router, is_orphaned).hold_until
    router.wait_server_after(router.daemon.kill_server())
    assert owner_of(router).hold_until == held
    wait_owner(router, lambda owner: owner.entries == 0)
    assert time.time() > held.ToNanoseconds() / 1e9 - 0.1
    wait_until(lambda: router.kernel() == {})


# --- take-overs ------------------------------------------------------------------------------------------------------


def test_two_controllers_fight_with_epochs(router: Router) -> None:
    """Each takes over from the other, always with a later epoch, and programs what it wants: the last one has it all its way."""
    epochs = iter(range(1, 41))
    lock = threading.Lock()
    ends: list[str] = []
    wanted = {name: list(bulk(router.family, 300, router.source, name)) for name in ("down1", "down2")}
    last: list[tuple[int, str]] = []

    def fight(name: str) -> None:
        while True:
            with lock:
                epoch = next(epochs, 0)
            if not epoch:
                return
            with Session(router.daemon.socket) as session:
                try:
                    session.open(epoch=epoch, hold=60, on_expiry=WITHDRAW)
                    session.replay(wanted[name])
                except grpc.RpcError as exc:
                    found = refusal(exc)
                    ends.append(found.reason)
                    assert int(found.metadata.get("by", found.metadata.get("highest", "0"))) > epoch
                else:
                    last.append((epoch, name))

    fighters = [threading.Thread(target=fight, args=(name,)) for name in wanted]
    for one in fighters:
        one.start()
    for one in fighters:
        one.join(60)
    assert set(ends) <= {"SUPERSEDED", "STALE_EPOCH"}
    owner = wait_owner(router, is_orphaned)
    assert (owner.epoch, owner.entries) == (40, 300)
    epoch, name = max(last)
    assert epoch == 40
    routes = router.daemon.list_routes()
    assert {oif.interface for one in routes for oif in one.oifs} == {name}
    assert all(one.status.state == PROGRAMMED for one in routes)
    assert {oifs for _, oifs in router.kernel().values()} == {(name,)}


# --- many routes -----------------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("heavy")
def test_replay_of_hundred_thousand_routes_calls_the_kernel_for_nothing(router: Router) -> None:
    routes = list(bulk(router.family, 100_000, router.source, "down1"))
    with Session(router.daemon.socket) as session:
        session.open()
        assert session.program(routes) == []
        session.die()
    assert wait_owner(router, is_orphaned).stale == 100_000
    notices = router.notices()
    with Session(router.daemon.socket) as session:
        session.open()
        began = time.monotonic()
        synced = session.replay(routes)
        took = time.monotonic() - began
        assert (synced.deleted, synced.entries) == (0, 100_000)
        assert notices.take() == 0
        assert owner_of(router).stale == 0
        session.close()
    assert took < 10, "with the test's own encoding; a tenth of it is usual"
