"""mcastd.keeper.opening: patience with a table that is taken, and none with anything else."""

import os
import selectors
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from mcastd.keeper import opening
from mcastd.keeper.failure import EX_NOPERM, EX_UNAVAILABLE, CannotRun
from mcastd.keeper.opening import open_tables
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.signals import Signals
from mcastd.keeper.tables import Tables
from mcastd.kernel import rawsock
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Settings

SETTINGS = Settings(listens=(), state_dir="", user="x", uid=0, gid=0, change_user=False, tables=(5,))


@pytest.fixture
def signals() -> Iterator[Signals]:
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)
    }
    made = Signals()
    yield made
    made.close()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tables]:
    monkeypatch.setattr(opening, "_RETRY", 0.005)
    made = Tables(selectors.DefaultSelector(), Outbox())
    yield made
    made.close_all()


def refuse(monkeypatch: pytest.MonkeyPatch, reason: Reason, times: int) -> list[tuple[int, Family]]:
    """Have the kernel refuse the first sockets of table 5; what was tried."""
    tried: list[tuple[int, Family]] = []

    def open_mroute(family: Family, table: int = 0) -> socket.socket:
        tried.append((table, family))
        if table == 5 and sum(one == (5, Family.IPV4) for one in tried) <= times:
            raise McastdError(reason, "no", table=table)
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    monkeypatch.setattr(rawsock, "open_mroute", open_mroute)
    return tried


def test_waits_and_opens_nothing_twice(monkeypatch: pytest.MonkeyPatch, tables: Tables, signals: Signals) -> None:
    tried = refuse(monkeypatch, Reason.MROUTE_SOCKET_BUSY, 3)
    assert open_tables(tables, SETTINGS, signals)
    assert [(one.table, one.family) for one in tables.sockets()] == [(0, 4), (0, 6), (5, 4), (5, 6)]
    assert tried.count((0, Family.IPV4)) == tried.count((0, Family.IPV6)) == 1


@pytest.mark.parametrize("reason,code", [(Reason.MROUTE_SOCKET_BUSY, EX_UNAVAILABLE), (Reason.NOT_ALLOWED, EX_NOPERM)])
def test_gives_up(monkeypatch: pytest.MonkeyPatch, tables: Tables, signals: Signals, reason: Reason, code: int) -> None:
    monkeypatch.setattr(opening, "PATIENCE", 0.02)
    refuse(monkeypatch, reason, 1000)
    with pytest.raises(CannotRun) as caught:
        open_tables(tables, SETTINGS, signals)
    assert caught.value.exit_code == code
    assert [one.table for one in tables.sockets()] == [0, 0]


def test_signal_ends_the_waiting(monkeypatch: pytest.MonkeyPatch, tables: Tables, signals: Signals) -> None:
    refuse(monkeypatch, Reason.MROUTE_SOCKET_BUSY, 1000)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        os.kill(os.getpid(), number)
    found: Any = open_tables(tables, SETTINGS, signals)
    assert found is False
