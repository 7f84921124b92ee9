"""mcastd.keeper.standin: what a stand-in has answered is known to whoever relieves it, and it never outlives its use."""

import errno
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from typing import NoReturn

import pytest

from mcastd.keeper import reexec, standin
from mcastd.keeper.channel import RECORD_SIZE, Losses, Message, UpcallRecord
from mcastd.keeper.controls import Controls
from mcastd.keeper.fastpath import FastPath
from mcastd.keeper.fdstore import FdStore
from mcastd.keeper.held import Held
from mcastd.keeper.memory import Memory, Parts, new_run
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.reexec import HandedStandIn, Handover
from mcastd.keeper.rules import PolicyRules
from mcastd.keeper.standin import Report
from mcastd.keeper.tables import MrouteSocket, Tables
from mcastd.keeper.templates import bodies
from mcastd.kernel import rawsock, upcall
from mcastd.kernel.upcall import Received, Upcall
from mcastd.model.address import Family
from mcastd.model.event import Answer, UpcallKind
from mcastd.model.interface import VIFS_MAX
from mcastd.model.template import TemplateAction, TemplateChange, TemplateKey
from tests.descriptors import open_descriptors

GROUP, SOURCE, NAME = b"\xe8\0\0\1", b"\x0a\0\0\1", b"template"
KEY = bytes(4) + GROUP + SOURCE
TEMPLATE = TemplateKey(0, Family.IPV4, bytes([232, 0, 0, 0]), 8, bytes(4), 0, "")


class Side:
    """The parts of a keeper that a stand-in has to do with; the kernel is a pair of sockets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel: list[socket.socket] = []
        monkeypatch.setattr(rawsock, "open_mroute", self._open)
        monkeypatch.setattr(upcall, "receive", _receive)
        monkeypatch.setattr(FastPath, "answer", _answer)
        self.selector = selectors.DefaultSelector()
        self.outbox = Outbox()
        self.tables = Tables(self.selector, self.outbox)
        self.tables.open_default()
        self.memory = Memory(FdStore({}), Parts(self.tables, Held(), PolicyRules(), Controls()), new_run())
        self.memory.begin(None)
        template = TemplateChange(TEMPLATE, NAME, TemplateAction(1, bytes([255]) * VIFS_MAX, 0), 0, 9)
        (put,) = bodies(0, Family.IPV4, [template], whole=False)
        self.tables.replay(Message.TEMPLATES, put)

    def _open(self, *_: object) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.kernel.append(theirs)
        return ours

    def learned(self) -> int:
        found = self.socket().fastpath.template(TEMPLATE)
        assert found is not None
        return found.learned

    def socket(self) -> MrouteSocket:
        return self.tables.sockets()[0]

    def close(self) -> None:
        self.tables.close_all()
        self.memory.close()
        self.selector.close()
        for one in self.kernel:
            one.close()


def _receive(sock: socket.socket, limit: int) -> Received:
    data = sock.recv(64)
    if data == b"fail":
        raise ValueError("what nobody has thought of")
    return Received([Upcall(UpcallKind.NOCACHE, 1, GROUP, SOURCE)], int(data), 0)


def _answer(self: FastPath, group: bytes, source: bytes, vif: int) -> tuple[Answer, bytes]:
    self.made[NAME] = self.made.get(NAME, 0) + 1
    self.lately[KEY] = 12.5
    return Answer.INSTALLED, NAME


@pytest.fixture
def side(monkeypatch: pytest.MonkeyPatch) -> Iterator[Side]:
    before = open_descriptors()
    made = Side(monkeypatch)
    yield made
    made.close()
    assert open_descriptors() == before


def executed(monkeypatch: pytest.MonkeyPatch, side: Side, meanwhile: object) -> None:
    """Try to become another image, which ends like this."""

    def execute(handover: Handover) -> NoReturn:
        assert callable(meanwhile)
        meanwhile(handover.stand_in)
        raise OSError(errno.ENOEXEC, "no")

    monkeypatch.setattr(reexec, "execute", execute)
    handover = Handover(settings={}, named=[], stored=[], locks={}, listening=[], reloads=None)
    with pytest.raises(OSError, match="no"):
        standin.execute(handover, side.memory, side.outbox)


def wait_read(side: Side) -> None:
    """Wait until somebody has read all upcalls."""
    end = time.monotonic() + 20
    with selectors.DefaultSelector() as selector:
        selector.register(side.socket().sock, selectors.EVENT_READ)
        while selector.select(0):
            assert time.monotonic() < end
            time.sleep(0.001)


def test_what_it_has_answered_is_known_to_who_relieves_it(monkeypatch: pytest.MonkeyPatch, side: Side) -> None:
    def meanwhile(_: HandedStandIn) -> None:
        for total in (1, 2, 7):
            side.kernel[0].send(str(total).encode())
        wait_read(side)

    size = side.memory._log.size if side.memory._log is not None else 0
    executed(monkeypatch, side, meanwhile)
    records, losses = side.outbox.hand_over()
    assert (len(records) // RECORD_SIZE, losses) == (3, [[0, Family.IPV4, 7, 0]])
    assert (side.learned(), side.socket().lost, side.socket().fastpath.lately) == (3, 7, {KEY: 12.5})
    assert side.socket().fastpath.made == {}
    assert side.memory._log is not None
    assert side.memory._log.size > size, "the next keeper is to know of them, too"


@pytest.mark.parametrize(
    "damage,words",
    [
        (lambda handed: os.kill(handed.pid, signal.SIGKILL), "signal SIGKILL"),
        (lambda handed: os.kill(handed.pid, signal.SIGSTOP), "signal SIGKILL"),
    ],
    ids=["killed", "stopped"],
)
def test_one_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, side: Side, caplog: pytest.LogCaptureFixture, damage: object, words: str
) -> None:
    monkeypatch.setattr(standin, "RELIEF_SECONDS", 0.1)
    executed(monkeypatch, side, damage)
    assert "does not say what it has done" in caplog.text
    assert words in str([vars(one) for one in caplog.records])
    assert side.learned() == 0


def test_a_fault_of_its_own_ends_it_alone(monkeypatch: pytest.MonkeyPatch, side: Side, caplog: pytest.LogCaptureFixture) -> None:
    def meanwhile(_: HandedStandIn) -> None:
        side.kernel[0].send(b"fail")
        wait_read(side)

    executed(monkeypatch, side, meanwhile)
    assert "does not say what it has done" in caplog.text
    assert "exit code 70" in str([vars(one) for one in caplog.records])


def test_it_ends_with_the_keeper(side: Side) -> None:
    handed = standin._start(side.tables)
    assert handed is not None
    os.close(handed.channel)
    assert os.waitpid(handed.pid, 0)[1] == 0
    assert os.pread(handed.report, 1, 0) == b""
    os.close(handed.report)


def test_it_ends_by_itself_and_says_so(monkeypatch: pytest.MonkeyPatch, side: Side, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(standin, "SECONDS", 1.0)

    def meanwhile(handed: HandedStandIn) -> None:
        os.waitid(os.P_PID, handed.pid, os.WEXITED | os.WNOWAIT)

    side.kernel[0].send(b"1")
    executed(monkeypatch, side, meanwhile)
    assert side.learned() == 1
    assert "has ended by itself" in caplog.text


def test_where_no_process_can_be_had_it_goes_without(
    monkeypatch: pytest.MonkeyPatch, side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "too many")

    monkeypatch.setattr(os, "fork", refuse)
    seen: list[HandedStandIn | None] = []
    executed(monkeypatch, side, seen.append)
    assert seen == [None]
    assert "nobody answers upcalls" in caplog.text


def test_report_is_read_as_it_was_written() -> None:
    outbox = Outbox()
    outbox.add_record(UpcallRecord(0, Family.IPV6, UpcallKind.NOCACHE, 3, bytes(16), bytes(16), 1.0, Answer.NONE, NAME))
    outbox.add_losses(Losses(0, Family.IPV6, 1, 2))
    records, losses = outbox.hand_over()
    report = Report(records, losses, [[0, 6, 9]], [[0, 6, [["00ff", 4]]]], [[0, 6, {"0a": 1.5}]])  # type: ignore[list-item]
    assert Report.unpack(report.pack()) == report
    for cut in (0, 5, len(report.pack()) - 1):
        with pytest.raises((ValueError, TypeError)):
            Report.unpack(report.pack()[:cut])
