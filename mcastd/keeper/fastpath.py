"""The fast path: a packet without an entry is answered from a template at once, whatever the server does.

The first packets of a flow wait in the kernel, four at most; what counts is the time until the entry is there.
"""

import errno
import logging
import sys
import time
from itertools import islice

from mcastd.keeper.channel import NO_TEMPLATE
from mcastd.keeper.templates import FIRST, LAST, PART
from mcastd.kernel._native import ffi, lib
from mcastd.model.address import Family, table_prefix
from mcastd.model.event import Answer
from mcastd.model.interface import VIFS_MAX
from mcastd.model.template import TemplateAction, TemplateChange, TemplateIndex, TemplateKey

RELEASES_MAX = 1000
"""Stray packets let go in a second; those beyond it wait in the kernel until it gives up on them, 10 s later."""

LEARNED_MAX = 2**32 - 1
"""What the messages that tell of a template can say of its learned entries."""

WAITING_MAX = 1000
"""Packets without an answer that may be left waiting in the kernel in 10 s; those beyond it are let go. The kernel walks through
all that wait for each packet of a new source and each new entry (ipmr_cache_unresolved, ipmr_mfc_add): with 20,000 of them a
packet takes it half a millisecond (measured)."""

LATELY = 1.0
"""Seconds after an answer in which another upcall of its (S,G) says that a packet is stuck, see `FastPath._stuck`."""

LATELY_MAX = 1024
"""Answers that are remembered for it."""

_log = logging.getLogger(__name__)


class Held:
    """A template in force."""

    __slots__ = ("_packed", "action", "allowed", "cap", "family", "learned", "name")

    def __init__(self, template: TemplateChange, action: TemplateAction) -> None:
        """Take over what the server said."""
        self.name = template.name
        self.family = template.key.family
        self.action = action
        self.allowed = action.allowed
        self.learned = template.learned
        self.cap = template.cap
        self._packed: dict[int, bytes] = {}

    def packed(self, vif: int) -> bytes:
        """Forwarding.packed of the entry for packets that come in on a VIF."""
        found = self._packed.get(vif)
        if found is None:
            found = self._packed[vif] = self.action.forwarding(self.family, vif)
        return found


class FastPath:
    """The templates of one table and family, and the answers that they give."""

    def __init__(self, fd: int, table: int, family: Family) -> None:
        """Program through this multicast routing socket."""
        self._fd = fd
        self._family = family
        self._prefix = table_prefix(table)
        self._index: TemplateIndex[Held] = TemplateIndex(family)
        self._held: dict[TemplateKey, Held] = {}
        self._by_name: dict[bytes, Held] = {}
        self._staged: list[TemplateChange] = []
        ipv4 = family is Family.IPV4
        self._program = lib.mr_program4 if ipv4 else lib.mr_program6
        self._counters = lib.mr_counters4 if ipv4 else lib.mr_counters6
        self._errno = ffi.new("int32_t[1]")
        self._values = ffi.new("uint64_t[3]")
        self._delete = lib.mr_delete4 if ipv4 else lib.mr_delete6
        self._nowhere = (b"\xff" if ipv4 else b"\0") * VIFS_MAX
        self._releases = 0
        self._releases_since = 0.0
        self._waiting = 0
        self._waiting_since = 0.0
        self.lately: dict[bytes, float] = {}
        """When entries were made (time.monotonic()), by their keys; the last LATELY_MAX."""
        self._where = {"table": table, "family": family.name}
        self.made: dict[bytes, int] = {}
        """Learned entries by the name of their template, made since somebody has looked."""

    def __len__(self) -> int:
        """Templates in force."""
        return len(self._held)

    def answer(self, group: bytes, source: bytes, vif: int) -> tuple[Answer, bytes]:
        """Answer a NOCACHE upcall: what was done, and the name of the template."""
        held, done = self._index.find(group, source, vif), Answer.INSTALLED
        if held is None:
            # While the stray packet waits, the kernel says nothing of those that come in where the templates are for.
            allowed = 0
            for other in self._index.covering(group, source):
                allowed |= other.allowed
            if not allowed:
                self._leave_waiting(self._prefix + group + source, vif)
                return Answer.NONE, NO_TEMPLATE
            vif, done = allowed.bit_length() - 1, Answer.ELSEWHERE
            held = self._index.find(group, source, vif)
            if held is None or allowed != 1 << vif:
                self._let_stray_go(self._prefix + group + source, vif)
                return Answer.NONE, NO_TEMPLATE
        return self._install(self._prefix + group + source, held, vif, done), held.name

    def _install(self, key: bytes, held: Held, vif: int, done: Answer) -> Answer:
        if not self._counters(self._fd, 1, key, self._values, self._errno):
            if not self._stuck(key):
                return Answer.PRESENT
            self._delete(self._fd, 1, key, self._errno)
        elif held.learned >= held.cap:
            self._leave_waiting(key, vif)
            return Answer.CAPPED
        if self._program(self._fd, 1, key, held.packed(vif), self._errno):
            number = self._errno[0]
            _log.warning(
                "the kernel refused a learned entry", extra={**self._where, "errno": errno.errorcode.get(number, number)}
            )
            return Answer.REFUSED
        held.learned += 1
        self.made[held.name] = self.made.get(held.name, 0) + 1
        self._remember(key)
        return done

    def _stuck(self, key: bytes) -> bool:
        """Whether a packet of an (S,G) waits although its entry is there, and would until the kernel gives up on it.

        One that looks for the entry just before it is made, and queues up just after all that waited was let go, waits by itself
        and calls again (ip_mr_input, ipmr_mfc_add). Only a new entry lets it go: replacing one does not look at what waits.
        While the entry is there no other upcall of its (S,G) comes: so just after our own answer it can be nothing else.
        """
        made_at = self.lately.get(key)
        return made_at is not None and time.monotonic() - made_at < LATELY

    def _remember(self, key: bytes) -> None:
        self.lately.pop(key, None)
        if len(self.lately) >= LATELY_MAX:
            del self.lately[next(iter(self.lately))]
        self.lately[key] = time.monotonic()

    def _let_stray_go(self, key: bytes, vif: int) -> None:
        """Let a stray packet go where it can't be said on which VIF the others will come in."""
        now = time.monotonic()
        if now - self._releases_since >= 1:
            self._releases, self._releases_since = 0, now
        if self._releases < RELEASES_MAX:
            self._releases += 1
            self._release(key, vif)
        else:
            self._leave_waiting(key, vif)

    def _leave_waiting(self, key: bytes, vif: int) -> None:
        """Leave a packet to the server and to time, unless too many wait already: then the next one of its source calls again."""
        now = time.monotonic()
        if now - self._waiting_since >= 10:
            self._waiting, self._waiting_since = 0, now
        if self._waiting < WAITING_MAX:
            self._waiting += 1
        else:
            self._release(key, vif)

    def _release(self, key: bytes, vif: int) -> None:
        """Let the kernel drop a packet that waits.

        The entry lives for some microseconds and forwards nothing. If the server makes one of this key in between, its record of
        this upcall has it look, and put it back.
        """
        if self._counters(self._fd, 1, key, self._values, self._errno):
            self._program(self._fd, 1, key, vif.to_bytes(2, sys.byteorder) + self._nowhere, self._errno)
            self._delete(self._fd, 1, key, self._errno)

    def tell(self, first: int, count: int) -> list[TemplateChange]:
        """Some of the templates in force, in the order in which they came."""
        part = map(self.template, islice(self._held, first, first + count))
        return [template for template in part if template is not None]

    @property
    def staging(self) -> int:
        """How many templates of a whole set wait for its last part."""
        return len(self._staged)

    def abandon(self) -> None:
        """The server is gone that was about to send the rest of a set."""
        self._staged = []

    def keys(self) -> list[TemplateKey]:
        """Keys of all templates in force."""
        return list(self._held)

    def template(self, key: TemplateKey) -> TemplateChange | None:
        """A template in force, with the count of its learned entries now."""
        held = self._held.get(key)
        return TemplateChange(key, held.name, held.action, held.learned, held.cap) if held is not None else None

    def take(self, flags: int, templates: list[TemplateChange]) -> None:
        """Take changes, or a part of a whole set; with the last part the set is in force."""
        if not flags & PART:
            for template in templates:
                self._put(template)
            return
        if flags & FIRST:
            self._staged = []
        self._staged += templates
        if flags & LAST:
            self._index, self._held, self._by_name = TemplateIndex(self._family), {}, {}
            staged, self._staged = self._staged, []
            for template in staged:
                self._put(template)

    def correct(self, counts: list[tuple[bytes, int]]) -> None:
        """Add to the counts of learned entries what the server says: entries have gone, mostly.

        Differences, not counts: those would leave out the entries of which the server has yet to hear, thousands in a flood.
        """
        for name, count in counts:
            held = self._by_name.get(name)
            if held is not None:
                held.learned = min(max(0, held.learned + count), LEARNED_MAX)

    def _put(self, template: TemplateChange) -> None:
        if template.action is None:
            held = self._held.pop(template.key, None)
            if held is not None:
                self._index.remove(template.key)
                self._by_name.pop(held.name, None)
            return
        held, before = Held(template, template.action), self._held.get(template.key)
        if before is not None:
            held.learned = before.learned
        self._held[template.key] = held
        self._by_name[template.name] = held
        self._index.put(template.key, held)
