"""A server in strange hands does to the keeper what it can: the keeper never waits and never grows, and starts another one."""

import json
import os
import signal
import time
from collections.abc import Callable

import pytest

from mcastd.keeper.channel import Message
from mcastd.keeper.templates import FIRST, PART, bodies, learned_bodies
from mcastd.model.address import Family
from mcastd.model.interface import VIFS_MAX
from mcastd.model.template import TemplateAction, TemplateChange, TemplateKey
from tests.e2e.keeper_bench import KeeperBench, eventually, status_of

pytestmark = pytest.mark.kernel

StartKeeper = Callable[..., KeeperBench]

KILLED = "the server said what no server may say: it is killed"
NAME = b"template"


def template(learned: int) -> TemplateChange:
    key = TemplateKey(0, Family.IPV4, bytes([239, 1, 0, 0]), 16, bytes(4), 0, "")
    return TemplateChange(key, NAME, TemplateAction(1, bytes([255]) * VIFS_MAX, 0), learned, 100)


def memory(keeper: KeeperBench) -> int:
    """Kilobytes that it has in memory."""
    return int(status_of(keeper.pid)["VmRSS"].split()[0])


@pytest.mark.parametrize("message", [Message.READY, Message.VIF_MAP, Message.STORE_FD], ids=lambda one: one.name)
@pytest.mark.parametrize("count", [1, 100])
def test_no_descriptor_makes_the_keeper_wait(start_keeper: StartKeeper, message: Message, count: int) -> None:
    """The keeper's would be the last copy of a TCP socket with data on its way and SO_LINGER."""
    keeper = start_keeper()
    server, began = keeper.server(), time.monotonic()
    server.tell("descriptor", int(message), "tcp", count)
    second = keeper.server()
    assert len(second.ask("open_table", 5)) == 2
    assert time.monotonic() - began < 10
    assert keeper.logged(KILLED)


def test_what_waits_to_be_read_does_not_either_when_it_is_killed(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    server, began = keeper.server(), time.monotonic()
    os.kill(keeper.pid, signal.SIGSTOP)  # until both have been sent
    server.ask("garbage", "00" * 8)
    server.ask("descriptor", int(Message.READY), "tcp", 2)
    os.kill(keeper.pid, signal.SIGCONT)
    second = keeper.server()
    assert len(second.ask("open_table", 5)) == 2
    assert time.monotonic() - began < 10


def test_counts_of_learned_entries_that_can_not_be(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    server = keeper.server()
    (put,) = bodies(0, Family.IPV4, [template(2**32 - 1)], whole=False)
    (counts,) = learned_bodies(0, Family.IPV4, [(NAME, 2**31 - 1)])
    server.tell("repeat", int(Message.TEMPLATES), put.hex(), 1)
    server.tell("repeat", int(Message.LEARNED), counts.hex(), 30_000)  # so that a snapshot is made
    server.tell("repeat", int(Message.TELL_TEMPLATES), json.dumps({"table": 0, "family": 4, "first": 0}).encode().hex(), 1)
    server.tell("exit", 3)
    assert len(keeper.server().ask("open_table", 5)) == 2
    assert "Traceback" not in keeper.log.read_text()


def test_a_set_that_never_ends(start_keeper: StartKeeper) -> None:
    """The log of the state can't be made shorter while a set is coming, so there is an end to that."""
    keeper = start_keeper()
    server, before = keeper.server(), memory(keeper)
    (first,) = bodies(0, Family.IPV4, [template(0)], whole=True)
    server.tell("repeat", int(Message.TEMPLATES), (first[:5] + bytes([PART | FIRST]) + first[6:]).hex(), 1)
    server.tell("repeat", int(Message.LEARNED), (first[:5] + bytes(1 + 12 * 2000)).hex(), 10_000)
    second = keeper.server()
    assert keeper.logged(KILLED)
    assert keeper.logged("things that are to be remembered, again and again")
    assert len(second.ask("open_table", 5)) == 2
    eventually(lambda: memory(keeper) < before + 10_000, "the keeper is as small as before")
