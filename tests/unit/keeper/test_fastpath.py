"""The fast path, over a kernel that is a dictionary: which upcall gets which answer, and what is written."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.core.templates import template_name
from mcastd.keeper.channel import NO_TEMPLATE, ChannelError
from mcastd.keeper.fastpath import LATELY, LATELY_MAX, RELEASES_MAX, WAITING_MAX, FastPath
from mcastd.keeper.templates import FIRST, LAST, PART, bodies, read_templates
from mcastd.kernel.upcall import decode
from mcastd.model.address import Family, exact_key
from mcastd.model.event import Answer
from mcastd.model.interface import VIFS_MAX
from mcastd.model.template import TemplateAction, TemplateChange, TemplateKey

TABLE = 7
UP, DOWN, THIRD = 0, 1, 2
OIFS = (DOWN, 5)

families = pytest.mark.parametrize("family", Family)


class FakeKernel:
    """What the native functions do, on a dictionary."""

    def __init__(self, path: FastPath) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.calls: list[str] = []
        self.refuse = 0
        self.meanwhile: Callable[[], None] | None = None
        """What somebody else does between a look and a write."""
        calls: Any = path
        calls._program, calls._counters, calls._delete = self.program, self.counters, self.delete

    def counters(self, _fd: int, _n: int, key: bytes, _values: Any, _errnos: Any) -> int:
        return int(key not in self.entries)

    def program(self, _fd: int, _n: int, key: bytes, packed: bytes, errnos: Any) -> int:
        self.calls.append("program")
        if self.refuse:
            errnos[0] = self.refuse
            return 1
        self.entries[key] = packed
        return 0

    def delete(self, _fd: int, _n: int, key: bytes, _errnos: Any) -> int:
        self.calls.append("delete")
        return int(self.entries.pop(key, None) is None)


def address(family: Family, *last: int) -> bytes:
    first = b"\xe8" if family is Family.IPV4 else b"\xff"
    size = 4 if family is Family.IPV4 else 16
    return first + bytes(size - 1 - len(last)) + bytes(last)


def source(family: Family, number: int = 1) -> bytes:
    size = 4 if family is Family.IPV4 else 16
    return (10 << 8 * (size - 1) | number).to_bytes(size, "big")


def action(family: Family, allowed: int, oifs: tuple[int, ...] = OIFS, named: int = 0) -> TemplateAction:
    if family is Family.IPV4:
        return TemplateAction(allowed, bytes(1 if n in oifs else 255 for n in range(VIFS_MAX)), named)
    return TemplateAction(allowed, sum(1 << n for n in oifs).to_bytes(4, sys.byteorder) + bytes(VIFS_MAX - 4), named)


def change(
    family: Family, group: bytes, drop: int = 0, iif: str = "up", allowed: int = 1 << UP, cap: int = 10, **more: Any
) -> TemplateChange:
    key = TemplateKey(TABLE, family, group, 8 * len(group) - drop, bytes(len(group)), 0, iif)
    does = more.pop("action", action(family, allowed))
    return TemplateChange(key, template_name(key.pack()), does, more.pop("learned", 0), cap)


def made(family: Family) -> tuple[FastPath, FakeKernel]:
    path = FastPath(-1, TABLE, family)
    return path, FakeKernel(path)


@families
def test_new_flow_is_installed_from_its_template(family: Family) -> None:
    path, kernel = made(family)
    one = change(family, address(family, 1, 0), drop=8, allowed=1 << UP | 1 << DOWN)
    path.take(0, [one])
    group = address(family, 1, 9)
    for vif in (UP, DOWN):
        key = exact_key(TABLE, group, source(family, vif))
        assert path.answer(group, source(family, vif), vif) == (Answer.INSTALLED, one.name)
        assert one.action is not None
        assert kernel.entries[key] == one.action.forwarding(family, vif)
    assert kernel.calls == ["program", "program"]


@families
def test_an_entry_that_somebody_else_made_stays_as_it_is(family: Family) -> None:
    path, kernel = made(family)
    one = change(family, address(family, 1))
    path.take(0, [one])
    kernel.entries[exact_key(TABLE, address(family, 1), source(family))] = b"theirs"
    assert path.answer(address(family, 1), source(family), UP) == (Answer.PRESENT, one.name)
    assert not kernel.calls


@families
def test_a_packet_that_is_stuck_beside_its_entry_is_let_go(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a new entry lets go of what waits; another upcall right after our answer says that something does."""
    clock = [1000.0]
    monkeypatch.setattr("mcastd.keeper.fastpath.time.monotonic", lambda: clock[0])
    path, kernel = made(family)
    one = change(family, address(family, 1), cap=1)
    path.take(0, [one])
    group, key = address(family, 1), exact_key(TABLE, address(family, 1), source(family))
    assert path.answer(group, source(family), UP)[0] is Answer.INSTALLED
    before = dict(kernel.entries)
    assert path.answer(group, source(family), UP) == (Answer.INSTALLED, one.name), "at the cap, too: the entry is there already"
    assert (kernel.calls, kernel.entries) == (["program", "delete", "program"], before)
    clock[0] += LATELY
    assert path.answer(group, source(family), UP)[0] is Answer.PRESENT, "that is too late to be it"
    assert kernel.entries[key] == before[key]


def test_answers_are_not_remembered_without_end() -> None:
    path, _ = made(Family.IPV4)
    path.take(0, [change(Family.IPV4, address(Family.IPV4, 1), cap=2 * LATELY_MAX + 10)])
    for number in range(LATELY_MAX + 5):
        path.answer(address(Family.IPV4, 1), source(Family.IPV4, number), UP)
    assert path.answer(address(Family.IPV4, 1), source(Family.IPV4, 0), UP)[0] is Answer.PRESENT
    assert path.answer(address(Family.IPV4, 1), source(Family.IPV4, LATELY_MAX + 4), UP)[0] is Answer.INSTALLED
    assert len(path.lately) == LATELY_MAX


@families
def test_what_no_template_covers_is_left_alone(family: Family) -> None:
    path, kernel = made(family)
    assert path.answer(address(family, 1), source(family), UP) == (Answer.NONE, NO_TEMPLATE)
    path.take(0, [change(family, address(family, 1))])
    assert path.answer(address(family, 2), source(family), UP) == (Answer.NONE, NO_TEMPLATE)
    assert not kernel.calls


@families
def test_cap_and_corrections(family: Family) -> None:
    """Entries that have gone make room; what is corrected adds to what was counted meanwhile."""
    path, kernel = made(family)
    one = change(family, address(family, 1), cap=3, learned=1)
    path.take(0, [one])
    answers = [path.answer(address(family, 1), source(family, n), UP)[0] for n in range(4)]
    assert answers == [Answer.INSTALLED, Answer.INSTALLED, Answer.CAPPED, Answer.CAPPED]
    assert len(kernel.entries) == 2
    path.correct([(one.name, -1), (b"another!", -5)])
    assert path.answer(address(family, 1), source(family, 7), UP)[0] is Answer.INSTALLED
    assert path.answer(address(family, 1), source(family, 8), UP)[0] is Answer.CAPPED
    path.correct([(one.name, -100)])
    path.correct([(one.name, 2)])
    assert path.answer(address(family, 1), source(family, 9), UP)[0] is Answer.INSTALLED
    assert path.answer(address(family, 1), source(family, 10), UP)[0] is Answer.CAPPED


@families
def test_no_correction_makes_a_count_that_cannot_be_told(family: Family) -> None:
    path, _ = made(family)
    one = change(family, address(family, 1), cap=3, learned=2**32 - 1)
    path.take(0, [one])
    path.correct([(one.name, 2**31 - 1), (one.name, 2**31 - 1)])
    (body,) = bodies(TABLE, family, path.tell(0, 1), whole=False)
    assert [told.learned for told in read_templates(body).templates] == [2**32 - 1]


@families
def test_changed_template_keeps_its_count(family: Family) -> None:
    """The server's number is older than ours."""
    path, kernel = made(family)
    group = address(family, 1)
    path.take(0, [change(family, group, cap=2)])
    path.answer(group, source(family, 1), UP)
    path.take(0, [change(family, group, cap=2, learned=0, action=action(family, 1 << UP, (THIRD,)))])
    assert path.answer(group, source(family, 2), UP)[0] is Answer.INSTALLED
    assert kernel.entries[exact_key(TABLE, group, source(family, 2))] == action(family, 1, (THIRD,)).forwarding(family, UP)
    assert path.answer(group, source(family, 3), UP)[0] is Answer.CAPPED
    path.take(0, [change(family, group)._replace(action=None)])
    assert path.answer(group, source(family, 3), UP)[0] is Answer.NONE
    assert len(path) == 0
    path.take(0, [change(family, group, cap=2, learned=1)])
    assert path.answer(group, source(family, 3), UP)[0] is Answer.INSTALLED


@families
def test_whole_set_is_in_force_with_its_last_part(family: Family) -> None:
    path, _ = made(family)
    old, first, second = (change(family, address(family, n)) for n in (1, 2, 3))
    path.take(0, [old])
    path.take(PART | FIRST, [first])
    assert path.answer(old.key.group, source(family), UP)[0] is Answer.INSTALLED
    assert path.answer(first.key.group, source(family), UP)[0] is Answer.NONE
    path.take(PART | FIRST, [second])  # A server that died halfway; the next begins anew.
    path.take(PART | LAST, [])
    assert len(path) == 1
    assert path.answer(old.key.group, source(family, 2), UP)[0] is Answer.NONE
    assert path.answer(first.key.group, source(family, 2), UP)[0] is Answer.NONE
    assert path.answer(second.key.group, source(family, 2), UP)[0] is Answer.INSTALLED
    path.take(PART | FIRST | LAST, [])
    assert len(path) == 0


@families
def test_stray_packet_makes_the_entry_of_the_one_interface_that_is_meant(family: Family) -> None:
    """What comes in there must not wait behind it."""
    path, kernel = made(family)
    one = change(family, address(family, 1), cap=1)
    path.take(0, [one])
    key = exact_key(TABLE, one.key.group, source(family))
    assert path.answer(one.key.group, source(family), DOWN) == (Answer.ELSEWHERE, one.name)
    assert one.action is not None
    assert kernel.entries == {key: one.action.forwarding(family, UP)}
    assert path.answer(one.key.group, source(family, 2), DOWN) == (Answer.CAPPED, one.name)


@families
def test_stray_packet_is_let_go_where_several_interfaces_are_meant(family: Family) -> None:
    path, kernel = made(family)
    group = address(family, 1)
    path.take(0, [change(family, group), change(family, group, iif="t*", allowed=1 << THIRD)])
    assert path.answer(group, source(family), DOWN) == (Answer.NONE, NO_TEMPLATE)
    assert kernel.calls == ["program", "delete"]
    assert not kernel.entries
    key = exact_key(TABLE, group, source(family, 2))
    kernel.entries[key] = b"an exact route's"
    assert path.answer(group, source(family, 2), DOWN) == (Answer.NONE, NO_TEMPLATE)
    assert kernel.entries[key] == b"an exact route's"


@families
def test_more_specific_template_elsewhere_is_no_reason_to_refuse(family: Family) -> None:
    """A general one takes what comes in on the other interfaces."""
    path, _ = made(family)
    group = address(family, 1)
    wide = change(family, address(family, 0), drop=8, iif="", allowed=2**VIFS_MAX - 1)
    path.take(0, [change(family, group), wide])
    assert path.answer(group, source(family), DOWN) == (Answer.INSTALLED, wide.name)


@families
@pytest.mark.parametrize("why", ["capped", "unwanted"])
def test_kernel_never_has_too_many_packets_waiting(family: Family, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number they are let go, for ten seconds."""
    clock = [1000.0]
    monkeypatch.setattr("mcastd.keeper.fastpath.time.monotonic", lambda: clock[0])
    path, kernel = made(family)
    group, want = address(family, 1), Answer.NONE
    if why == "capped":
        path.take(0, [change(family, group, cap=0)])
        want = Answer.CAPPED
    assert {path.answer(group, source(family, n), UP)[0] for n in range(WAITING_MAX)} == {want}
    assert not kernel.calls
    assert path.answer(group, source(family), UP)[0] is want
    assert kernel.calls == ["program", "delete"]
    assert not kernel.entries
    clock[0] += 10
    assert path.answer(group, source(family), UP)[0] is want
    assert kernel.calls == ["program", "delete"]


@families
def test_strays_that_are_let_go_are_limited(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of their packets would call."""
    monkeypatch.setattr("mcastd.keeper.fastpath.time.monotonic", lambda: 1000.0)
    path, kernel = made(family)
    group = address(family, 1)
    path.take(0, [change(family, group, iif="*", allowed=1 << UP | 1 << THIRD)])
    for _ in range(RELEASES_MAX + 5):
        path.answer(group, source(family), DOWN)
    assert kernel.calls.count("delete") == RELEASES_MAX


@families
def test_refusal_of_the_kernel_is_told_and_not_counted(family: Family) -> None:
    path, kernel = made(family)
    one = change(family, address(family, 1), cap=1)
    path.take(0, [one])
    kernel.refuse = 12
    assert path.answer(one.key.group, source(family), UP) == (Answer.REFUSED, one.name)
    kernel.refuse = 0
    assert path.answer(one.key.group, source(family), UP) == (Answer.INSTALLED, one.name)


@given(st.sampled_from(Family), st.lists(st.binary(max_size=48), max_size=20), st.data())
def test_random_upcalls_and_damaged_messages_disturb_nothing(family: Family, packets: list[bytes], data: st.DataObject) -> None:
    """Whatever comes from the kernel, and whatever a server says: an answer or a ChannelError."""
    path, kernel = made(family)
    kinds = st.sampled_from([(1 << UP, "up"), (1 << UP | 1 << THIRD, "*"), (2**VIFS_MAX - 1, ""), (0, "gone")])
    (body,) = bodies(
        TABLE,
        family,
        [
            change(family, address(family, n), drop=8 * n, iif=iif, allowed=bits)
            for n, (bits, iif) in enumerate(data.draw(st.lists(kinds, max_size=3)))
        ],
        whole=data.draw(st.booleans()),
    )
    at = data.draw(st.integers(0, max(0, len(body) - 1)))
    damaged = data.draw(st.sampled_from([body, body[:at], body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :]]))
    try:
        found = read_templates(damaged)
    except ChannelError:
        found = read_templates(body)
    if found.family is family:
        path.take(found.flags, found.templates)
    upcalls = [one for one in (decode(family, packet) for packet in packets) if one is not None]
    for one in upcalls:
        answer, name = path.answer(one.group, one.source, one.vif)
        assert (name == NO_TEMPLATE) is (answer is Answer.NONE)
        assert (exact_key(TABLE, one.group, one.source) in kernel.entries) is (
            answer in {Answer.INSTALLED, Answer.PRESENT, Answer.ELSEWHERE}
        )
    vif, group = (
        data.draw(st.integers(0, 65535)),
        data.draw(st.binary(min_size=len(source(family)), max_size=len(source(family)))),
    )
    assert path.answer(group, source(family), vif)[0] in set(Answer)


@families
def test_it_tells_what_it_goes_by(family: Family) -> None:
    """From any place on; so a server that has lost its state learns what its predecessor had put."""
    path = FastPath(-1, TABLE, family)
    size = 4 if family is Family.IPV4 else 16
    action = TemplateAction(1, bytes(VIFS_MAX), 0)
    put = [
        TemplateChange(
            TemplateKey(TABLE, family, bytes((239, *[n] * (size - 1))), 8 * size, bytes(size), 0, "eth0"), bytes(8), action, n, 9
        )
        for n in range(5)
    ]
    path.take(0, put)
    assert [*path.tell(0, 3), *path.tell(3, 3)] == put
    assert path.tell(5, 3) == []
