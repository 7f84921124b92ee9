"""The server is killed while templates work: no packet is lost, new flows are learned all the same, and known when it is back."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import grpc
import pytest

from mcastd.model.address import Family
from tests.e2e import templates
from tests.e2e.router import Router, group
from tests.e2e.templates import EVERY_GROUP, LEARNED, STOP, Spray, prefix, template
from tests.testbed import Sender, Testbed
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel

RATE = 1000
NEW = 300
FIRST = 0x10000
KILLS = 3
CHANGES = 9


@pytest.fixture
def flowing(router: Router) -> Iterator[tuple[Router, list[Sender]]]:
    """A router with three flows of 1,000 packets a second through templates; afterwards none has lost a packet."""
    near = template(prefix(router.family, 1, 8), "up", "down1")
    templates.put(router, near, template(EVERY_GROUP[router.family], "", "down2"))
    templates.pin(router.daemon, "down1")
    senders = [router.sender(number) for number in (1, 2, 0x300)]
    for sender in senders:
        templates.check_learned(router, sender, "down2" if sender is senders[2] else "down1")
    flows = [sender.start(RATE) for sender in senders]
    yield router, senders
    for flow in flows:
        flow.stop()
    for sender in senders:
        router.departures.wait(sender)
        assert router.departures.duplicates(sender) == 0
        assert templates.packets(router, sender) == sender.sent


def test_new_flows_are_learned_without_a_server(flowing: tuple[Router, list[Sender]]) -> None:
    """From the ring of records, and the kernel's own dump; nothing is made anew, and nothing written that is there already."""
    router, senders = flowing
    server = router.daemon.kill_server()
    spray = Spray(router.star.source, router.family)
    spray.send_numbers(range(FIRST, FIRST + NEW))
    router.departures.wait(spray, NEW)
    before = router.kernel()
    assert len(before) == NEW + len(senders)
    notices = router.notices()
    router.wait_server_after(server)
    wait_until(lambda: len(templates.learned(router.daemon)) == len(before))
    known = templates.learned(router.daemon)
    assert known.keys() == before.keys()
    assert {one.status.origin for one in known.values()} == {LEARNED}
    assert all(list(known[key].status.installed_oifs) == list(paths[1]) for key, paths in before.items())
    assert notices.take() == 0
    assert router.kernel() == before
    # What was learned meanwhile counts, changes with its template, and goes with it.
    assert templates.flush(router.daemon, group=group(router.family, FIRST)) == 1
    templates.put(router, template(EVERY_GROUP[router.family], "", "down1"))
    assert {oifs for _, oifs in router.kernel().values()} == {("down1",)}


def test_killed_during_a_burst(flowing: tuple[Router, list[Sender]]) -> None:
    """Part of the records has reached the old server, part is on its way, part comes when there is none."""
    router, senders = flowing
    spray = Spray(router.star.source, router.family)
    spray.spray(FIRST, 4000, rate=8000)
    servers = []
    while spray.spraying:
        if (pid := router.daemon.server_pid()) and pid not in servers:
            time.sleep(random.uniform(0, 0.2))
            servers.append(router.daemon.kill_server())
    assert spray.finish() == 4000
    router.wait_server_after(servers[-1])
    router.departures.wait(spray, 4000)
    wait_until(lambda: len(templates.learned(router.daemon)) == 4000 + len(senders), 20)
    assert len(router.kernel()) == 4000 + len(senders)


def test_stop_filters_are_known_again(router: Router) -> None:
    templates.pin(router.daemon, "up")
    unwanted = [router.sender(number) for number in range(1, 4)]
    for sender in unwanted:
        router.check_leaves(sender, count=1)
        templates.wait_entry(router, sender)
    notices = router.notices()
    server = router.daemon.kill_server()
    router.wait_server_after(server)
    known = templates.learned(router.daemon)
    assert known.keys() == {router.key(sender) for sender in unwanted}
    assert {one.status.origin for one in known.values()} == {STOP}
    assert notices.take() == 0
    templates.put(router, template(unwanted[0].group, "", "down1"))
    router.check_leaves(unwanted[0], "down1")
    assert router.kernel()[router.key(unwanted[1])] == ("up", ())


def more_than(router: Router, sender: Sender, count: int) -> bool:
    """Whether more packets of a flow have left."""
    return router.departures.count(sender) > count


def insist(call: Callable[[], object]) -> None:
    """Call until a server has answered."""

    def answered() -> bool:
        try:
            call()
        except grpc.RpcError:
            return False
        return True

    wait_until(answered, 30)


def test_templates_change_under_kills(testbed: Testbed, family: Family) -> None:
    """A template that comes, goes and changes while its flows run and servers die: the end is what was acknowledged last."""
    with Router(testbed, family) as router:
        general = template(EVERY_GROUP[family], "", "down2")
        templates.put(router, general)
        senders = [router.sender(number) for number in range(1, 6)]
        for sender in senders:
            templates.check_learned(router, sender, "down2")
        flows = [sender.start(RATE / 4) for sender in senders]
        spray = Spray(router.star.source, family)
        spray.spray(0x20, 0x40, rounds=0, rate=500)
        killing = threading.Event()

        def kill() -> None:
            for _ in range(KILLS):
                while not router.daemon.serving():
                    killing.wait(0.02)
                if killing.wait(random.uniform(0, 0.4)):
                    return
                router.daemon.kill_server()

        killer = threading.Thread(target=kill)
        killer.start()
        special = template(prefix(family, 1, 8), "up", "down1")
        try:
            for n in range(CHANGES):
                oif = ("down1", "down2", "gone")[n % 3]
                if oif == "gone":
                    insist(partial(router.daemon.delete, templates.key(special)))
                else:
                    insist(partial(router.daemon.put, template(special.group, "up", oif)))
                seen = router.departures.count(senders[0])
                assert router.departures.wait_until(partial(more_than, router, senders[0], seen + 60), 10)
        finally:
            killing.set()
            killer.join()
        router.daemon.wait_ready()
        wait_until(lambda: {oifs for _, oifs in router.kernel().values()} == {("down2",)}, 10, lambda: str(router.kernel()))
        spray.stop()
        for flow in flows:
            flow.stop()
        for sender in senders:
            router.departures.wait(sender)
            assert router.departures.duplicates(sender) == 0
        assert {one.status.template.group for one in templates.learned(router.daemon).values()} == {
            templates.canonical(general.group)
        }
