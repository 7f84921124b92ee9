"""Sockets by table and family, over a kernel that does as the test says."""

import errno
import selectors
import socket
from collections.abc import Callable, Iterator, Sequence

import pytest

from mcastd.keeper.channel import Losses, Message, decode, take_losses
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.tables import Tables
from mcastd.keeper.templates import FIRST, PART
from mcastd.kernel import rawsock, upcall
from mcastd.kernel.upcall import Received, Upcall, UpcallKind
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused, McastdError, Reason
from mcastd.model.interface import VIFS_MAX
from mcastd.model.settings import TABLES_MAX
from mcastd.model.template import TemplateAction, TemplateChange, TemplateKey
from tests.descriptors import open_descriptors

Refusal = Callable[[Family, int], McastdError | None]


class FakeKernel:
    """Hands out ordinary sockets and refuses what it is told to."""

    def __init__(self) -> None:
        self.refuse: Refusal = lambda _family, _table: None
        self.opened: list[tuple[Family, int]] = []
        self.reads: list[Received | OSError] = []

    def open_mroute(self, family: Family, table: int) -> socket.socket:
        error = self.refuse(family, table)
        if error is not None:
            raise error
        self.opened.append((family, table))
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def receive(self, _sock: socket.socket, limit: int) -> Received:
        assert limit >= 1
        found = self.reads.pop(0) if self.reads else Received([], 0, 0)
        if isinstance(found, OSError):
            raise found
        return found


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    fake = FakeKernel()
    monkeypatch.setattr(rawsock, "open_mroute", fake.open_mroute)
    monkeypatch.setattr(upcall, "receive", fake.receive)
    return fake


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def made(kernel: FakeKernel, outbox: Outbox) -> Iterator[Tables]:
    with selectors.DefaultSelector() as selector:
        made = Tables(selector, outbox)
        yield made
        made.close_all()
        assert not selector.get_map()


def busy(only: int, family: Family | None = None) -> Refusal:
    def refuse(asked: Family, table: int) -> McastdError | None:
        return McastdError(Reason.MROUTE_SOCKET_BUSY, "busy") if table == only and family in {None, asked} else None

    return refuse


def keys(made: Tables) -> list[tuple[int, Family]]:
    return [(one.table, one.family) for one in made.sockets()]


def losses(outbox: Outbox) -> list[Losses]:
    found = []

    def send(data: bytes, _fds: Sequence[int]) -> bool:
        frame = decode(data)
        if frame.message is Message.LOSSES:
            found.append(take_losses(frame.values()))
        return True

    outbox.flush(send)
    return found


def test_kernel_without_ipv6_leaves_ipv4(made: Tables, kernel: FakeKernel, caplog: pytest.LogCaptureFixture) -> None:
    kernel.refuse = lambda family, _: KernelRefused("socket", errno.EAFNOSUPPORT, "no IPv6") if family is Family.IPV6 else None
    made.open_default()
    made.open(5)
    assert keys(made) == [(0, Family.IPV4), (5, Family.IPV4)]
    assert "IPv4 alone" in caplog.text


@pytest.mark.parametrize("reason", [Reason.MROUTE_SOCKET_BUSY, Reason.NOT_ALLOWED])
def test_ipv6_that_is_refused_is_no_missing_ipv6(made: Tables, kernel: FakeKernel, reason: Reason) -> None:
    kernel.refuse = lambda family, _: McastdError(reason, "no") if family is Family.IPV6 else None
    with pytest.raises(McastdError) as caught:
        made.open_default()
    assert caught.value.reason is reason


def test_half_open_table_is_closed_again(made: Tables, kernel: FakeKernel) -> None:
    made.open_default()
    kernel.refuse = busy(5, Family.IPV6)
    before = open_descriptors()
    with pytest.raises(McastdError):
        made.open(5)
    assert open_descriptors() == before
    assert keys(made) == [(0, Family.IPV4), (0, Family.IPV6)]


def test_open_table_is_not_opened_again(made: Tables, kernel: FakeKernel) -> None:
    made.open_default()
    assert made.open(5) == made.open(5)
    assert made.open(0) == made.sockets()[:2]
    assert kernel.opened == [(family, table) for table in (0, 5) for family in Family]


def test_number_of_tables_is_limited(made: Tables) -> None:
    made.open_default()
    for table in range(1, TABLES_MAX + 1):
        made.open(table + 300)
    with pytest.raises(McastdError) as caught:
        made.open(1)
    assert caught.value.reason is Reason.TOO_MANY_ITEMS


def test_losses_are_what_is_new_in_the_kernels_running_total(made: Tables, kernel: FakeKernel, outbox: Outbox) -> None:
    made.open_default()
    one = made.sockets()[1]
    for total in (0, 3, 3, 10, 0, 2**32 - 2, 10):
        kernel.reads.append(Received([], total, 0))
        one.read(outbox)
    assert losses(outbox) == [Losses(0, Family.IPV6, 10, 0)]


def test_the_next_image_does_not_tell_of_losses_again(made: Tables, kernel: FakeKernel, outbox: Outbox) -> None:
    made.open_default()
    made.lost_before([[0, 4, 100], [7, 4, 5]])
    kernel.reads = [Received([], 100, 0), Received([], 103, 0)]
    four = made.get(0, Family.IPV4)
    assert four is not None
    four.read(outbox)
    four.read(outbox)
    assert losses(outbox) == [Losses(0, Family.IPV4, 3, 0)]


def test_losses_go_on_over_the_wrap(made: Tables, kernel: FakeKernel, outbox: Outbox) -> None:
    made.open_default()
    one = made.sockets()[0]
    for total in (2**31 - 1, 2**32 - 2, 2):
        kernel.reads.append(Received([], total, 0))
        one.read(outbox)
    assert losses(outbox) == [Losses(0, Family.IPV4, 2**32 + 2, 0)]


def test_error_of_a_socket_does_not_end_the_draining(
    made: Tables, kernel: FakeKernel, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    made.open_default()
    one = Upcall(UpcallKind.NOCACHE, 1, b"\xe8\0\0\1", b"\x0a\0\0\1")
    kernel.reads = [Received([one], 0, 0), OSError(errno.ENETDOWN, "down"), Received([], 0, 2), Received([one], 0, 0)]
    made.drain(made.sockets()[0])
    assert kernel.reads == []
    assert "reading upcalls failed" in caplog.text
    assert "no upcall" in caplog.text


@pytest.mark.parametrize("reason", [Reason.MROUTE_SOCKET_BUSY, Reason.NOT_ALLOWED])
def test_default_table_is_opened_in_both_families_or_not_at_all(made: Tables, kernel: FakeKernel, reason: Reason) -> None:
    before = open_descriptors()
    kernel.refuse = lambda family, _table: McastdError(reason, "no") if family is Family.IPV6 else None
    with pytest.raises(McastdError):
        made.open_default()
    assert made.sockets() == []
    assert open_descriptors() == before
    kernel.refuse = lambda _family, _table: None
    made.open_default()
    assert [one.family for one in made.sockets()] == [Family.IPV4, Family.IPV6]


def test_there_are_no_more_templates_than_there_can_be_routes(kernel: FakeKernel, outbox: Outbox) -> None:
    assert kernel.opened == []
    with selectors.DefaultSelector() as selector:
        made = Tables(selector, outbox, 5)
        made.open(0)
        four, six = (made.get(0, family) for family in Family)
        assert four is not None
        assert six is not None
        made.take(four, 0, [template(n) for n in range(3)])
        made.take(six, PART | FIRST, [template(n, Family.IPV6) for n in range(2)])
        for one in (four, six):
            with pytest.raises(McastdError, match="5 templates, in force or coming, which is the limit") as refused:
                made.take(one, 0, [template(7, one.family)])
            assert refused.value.reason is Reason.TOO_MANY_ITEMS
        made.take(four, 0, [template(0, there=False)])
        made.take(four, 0, [template(7)])
        assert (len(four.fastpath), made.templates()) == (3, 5)
        made.close_all()


def template(number: int, family: Family = Family.IPV4, *, there: bool = True) -> TemplateChange:
    zeros = bytes(3 if family is Family.IPV4 else 15)
    key = TemplateKey(0, family, bytes([240 + number]) + zeros, 8, b"\0" + zeros, 0, "")
    return TemplateChange(key, bytes([number]) * 8, TemplateAction(1, bytes(VIFS_MAX), 0) if there else None, 0, 100)
