"""mcastd.keeper.memory: what the log says is what is so, whatever was said and whenever a snapshot was made."""

import json
import os
import selectors
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcastd.keeper import memory as module
from mcastd.keeper.channel import ChannelError, Message
from mcastd.keeper.controls import Controls
from mcastd.keeper.fdstore import FdStore
from mcastd.keeper.held import Held, HeldRequest
from mcastd.keeper.memory import RUN, STATE_NAME, Memory, Parts, Run, new_run, replay
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.rules import PolicyRules
from mcastd.keeper.statelog import StateLog, UnreadableState
from mcastd.keeper.tables import Tables
from mcastd.keeper.templates import bodies, learned_bodies
from mcastd.kernel import rawsock
from mcastd.model.address import Family
from mcastd.model.interface import VIFS_MAX
from mcastd.model.template import TemplateAction, TemplateChange, TemplateKey

TABLES = (0, 7)
RULE = {"table": 7, "iif": "up", "priority": 900, "family": 4, "add": True}


@pytest.fixture(autouse=True)
def _kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rawsock, "open_mroute", lambda _family, _table=0: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    monkeypatch.setattr(module, "SNAPSHOT_FROM", 500)


class Side:
    """A keeper's parts, with what they remember."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        tables = Tables(self.selector, Outbox())
        self.parts = Parts(tables, Held(), PolicyRules(), Controls())
        for table in TABLES:
            tables.open(table)
        self.memory = Memory(FdStore({}), self.parts, new_run())

    def say(self, message: Message, body: bytes) -> None:
        """As Requests does it."""
        if message is Message.RULE:
            self.parts.rules.remember(json.loads(body))
        elif message is Message.STORE_FD:
            values = json.loads(body)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                fds = () if values["name"] in self.parts.held.names() else (os.dup(sock.fileno()),)
            self.parts.held.store(HeldRequest(values["name"], values["note"]), fds)
        elif message is Message.DROP_FD:
            self.parts.held.drop(json.loads(body)["name"])
        else:
            self.parts.tables.replay(message, body)
        self.memory.record(message, body)

    def known(self) -> dict[str, Any]:
        """What is so."""
        held, tables = self.parts.held, self.parts.tables
        return {
            "notes": {name: held.note(name) for name in held.names()},
            "rules": set(self.parts.rules.rules()),
            "run": self.memory.run,
            **{
                f"{one.table} {one.family}": (
                    sorted(one.vif_map),
                    {key: one.fastpath.template(key) for key in one.fastpath.keys()},  # noqa: SIM118 - a method
                )
                for one in tables.sockets()
            },
        }

    def successor(self) -> dict[str, Any]:
        """What the next one knows."""
        fd = next(one.fd for one in self.memory.descriptors() if one.name == STATE_NAME)
        other = Side()
        try:
            replayed = replay(StateLog.adopt(os.dup(fd)), other.parts)
            return {**other.known(), "notes": replayed.notes, "run": replayed.run}
        finally:
            other.close()

    def close(self) -> None:
        self.parts.tables.close_all()
        self.parts.held.close_all()
        self.memory.close()
        self.selector.close()


@pytest.fixture
def side() -> Iterator[Side]:
    made = Side()
    made.memory.begin(None)
    yield made
    made.close()


def template(number: int, *, there: bool = True, table: int = 7, learned: int = 0) -> TemplateChange:
    key = TemplateKey(table, Family.IPV4, bytes([232, 0, 0, number]), 32, bytes(4), 0, "")
    action = TemplateAction(1, bytes([255]) * VIFS_MAX, 0) if there else None
    return TemplateChange(key, bytes([number]) * 8, action, learned, 100)


def vif_map(table: int, *entries: list[object]) -> tuple[Message, bytes]:
    return Message.VIF_MAP, json.dumps({"table": table, "family": 4, "entries": list(entries)}).encode()


numbers = st.integers(0, 30)
messages = st.one_of(
    st.builds(
        lambda table, vifs: [vif_map(table, *([vif, vif + 1, f"eth{vif}"] for vif in sorted(vifs)))],
        st.sampled_from(TABLES),
        st.sets(st.integers(0, 31), max_size=4),
    ),
    st.builds(
        lambda some, there, whole: [
            (Message.TEMPLATES, body)
            for body in bodies(7, Family.IPV4, [template(n, there=there or whole) for n in sorted(some)], whole=whole)
        ],
        st.sets(numbers, max_size=30),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(
        lambda some, count: [
            (Message.LEARNED, body) for body in learned_bodies(7, Family.IPV4, [(bytes([n]) * 8, count) for n in sorted(some)])
        ],
        st.sets(numbers, max_size=5),
        st.integers(-3, 9),
    ),
    st.just([(Message.CLOSE_TABLE, b'{"table": 7}')]),
    st.builds(
        lambda n, note: [(Message.STORE_FD, json.dumps({"name": f"join-{n}", "note": note}).encode())],
        numbers,
        st.sampled_from(["", "a/b"]),
    ),
    st.builds(lambda n: [(Message.DROP_FD, json.dumps({"name": f"join-{n}"}).encode())], numbers),
    st.builds(
        lambda n, add: [(Message.RULE, json.dumps({**RULE, "priority": n + 1, "add": add}).encode())], numbers, st.booleans()
    ),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(said=st.lists(st.tuples(messages, st.integers(0, 6)), max_size=25))
def test_successor_knows_what_is_so(said: list[tuple[list[tuple[Message, bytes]], int]]) -> None:
    """Whatever is said, with pieces of snapshots at any moment in between."""
    side = Side()
    side.memory.begin(None)
    try:
        for group, steps in said:
            for message, body in group:
                side.say(message, body)
            for _ in range(steps):
                if side.memory.wants_step():
                    side.memory.step()
        side.memory.started_server()
        assert side.successor() == side.known()
        while side.memory.wants_step():
            side.memory.keep_times(0.0)
        assert side.successor() == side.known()
        assert side.memory.next_at() is None
    finally:
        side.close()


def test_log_stays_short(side: Side) -> None:
    for n in range(2000):
        side.say(*vif_map(0, [n % 32, 5, "eth0"]))
        if side.memory.wants_step():
            side.memory.step()
    fd = next(one.fd for one in side.memory.descriptors() if one.name == STATE_NAME)
    log = StateLog.adopt(os.dup(fd))
    assert log.size < 20_000
    log.close()


def test_no_snapshot_cuts_off_the_first_parts_of_a_set(side: Side) -> None:
    (whole,) = bodies(7, Family.IPV4, [template(n) for n in range(20)], whole=True)
    head, parts = whole[:5], whole[6:]
    size = len(parts) // 20
    side.say(Message.TEMPLATES, head + bytes([4 | 1]) + parts[: 10 * size])
    for _ in range(200):
        side.say(*vif_map(0, [1, 5, "eth0"]))
        assert not side.memory.wants_step()
    side.say(Message.TEMPLATES, head + bytes([4 | 2]) + parts[10 * size :])
    assert side.memory.wants_step()
    assert side.successor() == side.known()


def say_again(side: Side, times: int) -> None:
    for _ in range(times):
        side.say(*vif_map(0, [1, 5, "eth0"]))


def test_a_set_that_never_ends_does_not_fill_the_memory(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARE", 20_000)
    (whole,) = bodies(7, Family.IPV4, [template(n) for n in range(20)], whole=True)
    head, parts = whole[:5], whole[6:]
    side.say(Message.TEMPLATES, head + bytes([4 | 1]) + parts)
    with pytest.raises(ChannelError, match="bytes of things that are to be remembered"):
        say_again(side, 2000)
    side.memory.started_server()
    assert side.memory.wants_step(), "the next server begins with a short log"
    while side.memory.wants_step():
        side.memory.step()
    say_again(side, 100)
    assert side.successor() == side.known()


def test_learned_entries_are_counted_on(side: Side) -> None:
    (body,) = bodies(7, Family.IPV4, [template(1, learned=2)], whole=False)
    side.say(Message.TEMPLATES, body)
    side.parts.tables.on_learned(7, Family.IPV4, {bytes([1]) * 8: 3})
    assert side.successor()["7 4"][1][template(1).key].learned == 5


def test_where_nothing_can_be_recorded_the_state_is_spoilt(side: Side, caplog: pytest.LogCaptureFixture) -> None:
    """Half of it would be worse than none."""
    fd = os.dup(next(one.fd for one in side.memory.descriptors() if one.name == STATE_NAME))
    log: Any = side.memory._log
    log.append = refuse
    side.say(*vif_map(0, [1, 5, "eth0"]))
    side.say(*vif_map(0, [2, 5, "eth0"]))
    assert caplog.text.count("can't be recorded any more") == 1
    with pytest.raises(UnreadableState, match="version 0"):
        StateLog.adopt(fd)
    os.close(fd)
    assert STATE_NAME not in {one.name for one in side.memory.descriptors()}
    # A re-execution needs one, and makes it if it can.
    side.memory.ensure()
    side.memory.ensure()
    assert side.successor() == side.known()
    assert side.known()["0 4"][0] == [(2, 5, "eth0")]


def refuse(_kind: int, _body: bytes) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "kind,body",
    [
        (RUN, b"{}"),
        (RUN, b"[]"),
        (Message.VIF_MAP, b'{"table": 0}'),
        (Message.RULE, b"{}"),
        (Message.TEMPLATES, b"x"),
        (Message.HELLO, b"{}"),
        (200, b"{}"),
    ],
)
def test_record_that_nobody_may_say_is_damage(side: Side, kind: int, body: bytes) -> None:
    log = StateLog.create()
    log.append(kind, body)
    with pytest.raises(UnreadableState, match=f"of kind {int(kind)}"):
        replay(log, side.parts)
    log.close()


def test_servers_are_counted_over_restarts(side: Side) -> None:
    first = side.memory.run
    for _ in range(3):
        side.memory.started_server()
    assert side.successor()["run"] == Run(first.started_at, first.started_monotonic, 3)


def test_without_a_store_nothing_is_kept(side: Side) -> None:
    assert not side.memory.keeps
    side.memory.keeps = True
    assert not side.memory.keeps
