"""tests.testbed: that what it says of packets is true, and that it leaves nothing behind."""

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mcastd.model.address import Family
from tests.netns.routed import group
from tests.testbed import Testbed
from tests.testbed.bed import Port
from tests.testbed.traffic import Direction

pytestmark = pytest.mark.kernel

RATE = 10_000
COUNT = 10_000


@pytest.fixture
def link(testbed: Testbed) -> tuple[Port, Port]:
    """Two namespaces, directly joined."""
    return testbed.connect(testbed.namespace("a"), "eth0", testbed.namespace("b"), "eth0")


def test_ten_thousand_packets_a_second_without_a_loss(link: tuple[Port, Port], family: Family) -> None:
    sender = link[0].sender(group(family))
    receiver, leaving, entering = link[1].receiver(group(family)), link[0].capture(), link[1].capture(Direction.IN)
    sender.send(5)
    flow = sender.start(RATE, COUNT)

    assert flow.wait() == COUNT
    for tally in (receiver, leaving, entering):
        tally.wait(sender)
        assert tally.missing(sender) == []
        assert tally.duplicates(sender) == 0
    delays = sorted(receiver.delays(sender))
    assert 0 < delays[len(delays) // 2] < 1


def test_a_flow_without_end_is_stopped_and_goes_on(link: tuple[Port, Port], family: Family) -> None:
    sender = link[0].sender(group(family))
    receiver = link[1].receiver(group(family))
    first = sender.start(1000)
    with pytest.raises(RuntimeError, match="already"):
        sender.start(1000)
    receiver.wait(sender, 50)
    count = first.stop()
    second = sender.start(1000, 10)
    assert second.wait() == 10

    assert sender.sent == count + 10
    receiver.wait(sender)


def test_missing_packets_are_named(link: tuple[Port, Port], family: Family) -> None:
    sender = link[0].sender(group(family))
    sender.send(3)  # nobody has joined yet
    receiver = link[1].receiver(group(family))
    sender.send(2)

    with pytest.raises(AssertionError, match=r"2 of 5 packets came; first missing: \[0, 1, 2\]"):
        receiver.wait(sender, timeout=0.3)
    assert receiver.missing(sender) == [0, 1, 2]


def test_a_source_specific_receiver_gets_its_source_alone(link: tuple[Port, Port], family: Family) -> None:
    ipv4 = family is Family.IPV4
    wanted, other = ("10.9.9.1", "10.9.9.2") if ipv4 else ("fd09::1", "fd09::2")
    text = "232.1.1.1" if ipv4 else "ff3e::232"
    receiver, entering = link[1].receiver(text, source=wanted), link[1].capture(Direction.IN)
    senders = [link[0].sender(text, source=source) for source in (other, wanted)]
    for sender in senders:
        sender.send(4)

    receiver.wait(senders[1])
    entering.wait(senders[0])
    assert receiver.count(senders[0]) == 0


def test_hops_are_as_asked_for(link: tuple[Port, Port], family: Family) -> None:
    receiver = link[1].bed.close_with(link[1].namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM))
    receiver.settimeout(5)
    with link[1].namespace.entered():
        receiver.bind(("eth0", 0x0800 if family is Family.IPV4 else 0x86DD))
    link[0].sender(group(family), hops=7).send(1)

    magic = b"mct1"
    packet = next(data for data in iter(lambda: receiver.recv(2048), b"") if magic in data)
    assert packet[8 if family is Family.IPV4 else 7] == 7


PROGRAM = """
import sys, time
from tests.testbed import Testbed
bed = Testbed()
star = bed.star()
flow = star.source.sender("239.1.1.1").start(100)
process = bed.popen(star.router, ["sleep", "1000"])
while open(f"/proc/{process.pid}/comm").read() != "sleep\\n":
    time.sleep(0.001)  # so far it is tied to nobody
print(flow._process.pid, process.pid, flush=True)
time.sleep(1000)
"""


def test_nothing_outlives_a_killed_owner(testbed: Testbed) -> None:
    owner = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert owner.stdout is not None
    watched = [os.pidfd_open(int(text)) for text in owner.stdout.readline().split()]
    owner.kill()
    assert owner.wait() == -signal.SIGKILL
    owner.stdout.close()

    alive = [fd for fd in watched if not ended(fd)]
    for fd in alive:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    for fd in watched:
        os.close(fd)
    assert len(watched) == 2
    assert alive == []


def ended(pidfd: int) -> bool:
    """Whether a process ends within some seconds."""
    return bool(select.select([pidfd], [], [], 10)[0])


def test_close_ends_processes_and_namespaces() -> None:
    with Testbed() as bed:
        space = bed.namespace()
        process = bed.popen(space, ["sleep", "1000"])
        fd = space.fd
        assert Path(f"/proc/{process.pid}/ns/net").stat().st_ino == os.fstat(fd).st_ino
    assert process.returncode == -signal.SIGTERM
    assert space.fd == -1
    bed.close()
