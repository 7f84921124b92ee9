"""mcastd.keeper.controls: what the kernel refuses, and what a server may ask; the sockets themselves are in tests/netns."""

import errno
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from mcastd.keeper.channel import ChannelError, Frame, Message, decode, encode, take_error
from mcastd.keeper.controls import Controls
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.requests import Requests
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused, McastdError, Reason
from mcastd.model.router_discovery import CONTROL_KIND, CONTROL_NUMBER_MAX


class Refusing:
    """socket.socket that always fails."""

    number = errno.EPERM

    def __init__(self, *_: object) -> None:
        raise OSError(self.number, "refused")


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> type[Refusing]:
    monkeypatch.setattr(socket, "socket", Refusing)
    return Refusing


@pytest.mark.parametrize("family", Family)
def test_what_the_kernel_refuses_is_said(refusing: type[Refusing], family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(McastdError, match="CAP_NET_RAW") as caught:
        Controls().open(CONTROL_KIND, family, 0)
    assert caught.value.reason is Reason.NOT_ALLOWED
    monkeypatch.setattr(refusing, "number", errno.EAFNOSUPPORT)
    with pytest.raises(KernelRefused, match="refused") as refused:
        Controls().open(CONTROL_KIND, family, 0)
    assert refused.value.errno == errno.EAFNOSUPPORT


def requests(outbox: Outbox) -> Requests:
    tables: Any = None
    return Requests(tables, outbox, lambda: None, lambda _keep: None)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "icmp", "family": 4, "number": 0},
        {"kind": [CONTROL_KIND], "family": 4, "number": 0},
        {"kind": CONTROL_KIND, "family": 5, "number": 0},
        {"kind": CONTROL_KIND, "family": 4},
        {"kind": CONTROL_KIND, "family": 6, "number": CONTROL_NUMBER_MAX + 1},
        {"kind": CONTROL_KIND, "family": 6, "number": -1},
    ],
)
def test_server_that_asks_for_what_is_not_in_the_list(values: dict[str, object]) -> None:
    with pytest.raises(ChannelError):
        requests(Outbox()).handle(decode(encode(Message.OPEN_CONTROL, 1, values)))


@pytest.mark.usefixtures("refusing")
def test_refusal_is_the_reply() -> None:
    outbox = Outbox()
    sent: list[tuple[Frame, tuple[int, ...]]] = []
    values: dict[str, object] = {"kind": CONTROL_KIND, "family": 4, "number": 0}
    requests(outbox).handle(decode(encode(Message.OPEN_CONTROL, 7, values)))

    def send(data: bytes, fds: Sequence[int] = ()) -> bool:
        sent.append((decode(data), tuple(fds)))
        return True

    outbox.flush(send)
    ((frame, fds),) = sent
    error = take_error(frame.values())
    assert (frame.message, frame.request, fds) == (Message.REPLY, 7, ())
    assert error is not None
    assert error.reason is Reason.NOT_ALLOWED
