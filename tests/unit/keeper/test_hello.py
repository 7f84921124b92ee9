"""mcastd.keeper.hello: what a server is told first, in its order."""

import selectors
import socket
from collections.abc import Sequence

import pytest

from mcastd.keeper.channel import Frame, Message, decode
from mcastd.keeper.controls import Controls
from mcastd.keeper.fdstore import FdStore
from mcastd.keeper.held import Held, HeldRequest
from mcastd.keeper.hello import say_hello
from mcastd.keeper.memory import Memory, Parts, new_run
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.rules import PolicyRules
from mcastd.keeper.tables import Tables
from mcastd.kernel import rawsock
from mcastd.model.settings import Settings

SETTINGS = Settings(listens=(), state_dir="", user="x", uid=0, gid=0, change_user=False)


@pytest.mark.parametrize("kept", [False, True])
def test_hello_sockets_and_what_is_held(monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    monkeypatch.setattr(rawsock, "open_mroute", lambda _family, _table=0: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    outbox, selector = Outbox(), selectors.DefaultSelector()
    tables, held = Tables(selector, outbox), Held()
    tables.open_default()
    held.store(HeldRequest("join-1", "note"), (socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach(),))
    environment = {"NOTIFY_SOCKET": "/nonexistent", "FDSTORE": "9"} if kept else {}
    memory = Memory(FdStore(environment), Parts(tables, held, PolicyRules(), Controls()), new_run())
    sent: list[tuple[Frame, int]] = []

    def send(data: bytes, fds: Sequence[int]) -> bool:
        sent.append((decode(data), len(fds)))
        return True

    say_hello(outbox, SETTINGS, memory)
    assert outbox.flush(send)
    assert [(frame.message, fds) for frame, fds in sent] == [
        (Message.HELLO, 0),
        (Message.SOCKET, 1),
        (Message.SOCKET, 1),
        (Message.STORED, 1),
    ]
    hello = sent[0][0].values()
    assert (hello["sockets"], hello["stored"], hello["starts"], hello["kept"]) == (2, 1, 1, kept)
    assert Settings.from_json(hello["settings"]) == SETTINGS
    tables.close_all()
    held.close_all()
    selector.close()
