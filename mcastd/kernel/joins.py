"""The pool of join sockets: memberships spread over as many sockets as the kernel's limits make necessary.

A membership lasts as long as some process has its socket. So a copy of each socket is kept elsewhere, under a name and with a
note of what it may have joined, before it joins anything; a successor asks the kernel what of that is so.

The kernel's limits are not read: a socket that refuses is full until something leaves it, or until there are no more sockets to
be had. Guesses of the limits, made from refusals, only decide how many memberships are planned for a socket at once.
"""

import errno
import logging
import socket
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from mcastd.kernel.joinlist import listed_spots
from mcastd.kernel.joinnotes import GROUPS_MAX, Spot, note_of, read_note
from mcastd.kernel.joinsocket import FULL, JoinSocket, number_of
from mcastd.model.address import Family
from mcastd.model.join import Membership

SOCKETS_MAX = 4096
"""Join sockets at once; each is a descriptor here and one in the keeper."""

_GROUPS_GUESS = {Family.IPV4: 20, Family.IPV6: GROUPS_MAX}
_SOURCES_GUESS = {Family.IPV4: 10, Family.IPV6: 64}
_GUESS_MIN = 4
"""A refusal may have other causes; with too low a guess each membership would get a socket of its own."""

_log = logging.getLogger(__name__)


class Keeping(NamedTuple):
    """What is to be kept, or noted, of one socket."""

    name: str
    note: str
    fd: int | None
    """None = it is kept already: the note alone changes."""


class Holder(Protocol):
    """Whoever keeps copies of the sockets beyond this process; called in the thread that works the pool."""

    def store(self, keepings: list[Keeping]) -> list[int]:
        """Returns when each is kept with its note: 0, or an errno."""

    def drop(self, names: list[str]) -> None:
        """Forget these copies."""


class HeldSocket(NamedTuple):
    """A socket that was kept, with its name and note."""

    name: str
    note: str
    sock: socket.socket


class _Plan:
    """Where some memberships are to be joined; nothing has happened yet."""

    def __init__(self) -> None:
        self.indices: dict[JoinSocket, list[int]] = {}
        self.groups: dict[JoinSocket, set[Spot]] = {}
        """Groups that a socket has not joined so far."""
        self.sources: dict[Spot, dict[JoinSocket, int]] = {}
        """How many sources of a group a socket shall join."""

    def add(self, one: JoinSocket, membership: Membership, index: int) -> None:
        spot = Spot(membership.ifindex, membership.group)
        self.indices.setdefault(one, []).append(index)
        if spot not in one.spots:
            self.groups.setdefault(one, set()).add(spot)
        if membership.source:
            counts = self.sources.setdefault(spot, {})
            counts[one] = counts.get(one, 0) + 1


class JoinPool:
    """Memberships in the network namespace of the thread that joins them. One thread at a time works it."""

    def __init__(self, holder: Holder, sockets_max: int = SOCKETS_MAX) -> None:
        """Start with none."""
        self._holder = holder
        self._sockets_max = sockets_max
        self._next = 1
        self._sockets: dict[int, JoinSocket] = {}
        self._room: dict[Family, dict[int, JoinSocket]] = {family: {} for family in Family}
        """Those that may take further groups."""
        self._source_room: dict[Spot, dict[int, JoinSocket]] = {}
        """Those that have joined sources of a group, and may take further ones."""
        self._where: dict[Membership, JoinSocket] = {}
        self._groups_guess = dict(_GROUPS_GUESS)
        self._sources_guess = dict(_SOURCES_GUESS)

    @property
    def memberships(self) -> Collection[Membership]:
        """What is joined."""
        return self._where.keys()

    @property
    def sockets(self) -> int:
        """How many sockets there are."""
        return len(self._sockets)

    def close(self) -> None:
        """Close our copies; what the holder keeps stays joined."""
        for one in self._sockets.values():
            one.sock.close()

    # --- adoption ----------------------------------------------------------------------------------------------------

    def adopt(self, held: Iterable[HeldSocket]) -> set[Membership]:
        """Take over sockets that were kept, which are the pool's from now on; what they have joined, as the kernel says."""
        unwanted = []
        listed = {family: listed_spots(family) for family in Family}
        for name, note, sock in held:
            family = Family.IPV4 if sock.family == socket.AF_INET else Family.IPV6
            number, spots = number_of(name), read_note(note, family)
            if number is None or spots is None or number in self._sockets:
                _log.warning("a kept socket is given up: it is none of ours", extra={"socket": name})
                sock.close()
                unwanted.append(name)
                continue
            one = JoinSocket(number, family, sock)
            one.noted = spots
            self._add(one)
            for spot in spots:
                self._adopt_spot(one, spot, alive=spot in listed[family])
            self._drop_empty([one])
        if unwanted:
            self._holder.drop(unwanted)
        return set(self._where)

    def _adopt_spot(self, one: JoinSocket, spot: Spot, *, alive: bool) -> None:
        """`alive` = the interface has joined the group: a socket says so also of one that went and came back."""
        found = [Membership(*spot, source) for source in one.probe(spot)]
        if not alive or not found or not self._where.keys().isdisjoint(found):
            one.leave_spot(spot)  # Gone, joined by no source, or on another socket as well: of no use here.
            return
        for membership in found:
            self._took(one, membership)

    # --- joining -----------------------------------------------------------------------------------------------------

    def join(self, wanted: Sequence[Membership]) -> list[int]:
        """Join what is not joined yet; an errno for each. EMFILE: no further socket is to be had for it."""
        errnos = [0] * len(wanted)
        waiting = list({one: n for n, one in enumerate(wanted) if one not in self._where}.values())
        again = True
        while waiting:
            plan, homeless = self._plan(wanted, waiting)
            if homeless and again:
                again = False
                self._forget_limits()  # One may have been raised since a socket was full.
                continue
            for n in homeless:
                errnos[n] = errno.EMFILE
            waiting = []
            for one in self._keep(plan, errnos):
                waiting += self._join_on(one, plan.indices[one], wanted, errnos)
            self._drop_empty(plan.indices)
        return errnos

    def _plan(self, wanted: Sequence[Membership], indices: Iterable[int]) -> tuple[_Plan, list[int]]:
        """Where each may be joined, and those for which there is no socket."""
        plan, homeless = _Plan(), []
        for n in indices:
            membership = wanted[n]
            spot = Spot(membership.ifindex, membership.group)
            one = self._with_source_room(plan, spot, membership.family) if membership.source else None
            one = one or self._with_group_room(plan, spot, membership.family)
            if one is None:
                homeless.append(n)
            else:
                plan.add(one, membership, n)
        return plan, homeless

    def _with_source_room(self, plan: _Plan, spot: Spot, family: Family) -> JoinSocket | None:
        """A socket that has sources of the group, or shall have some, and may take one more."""
        planned, guess = plan.sources.get(spot, {}), self._sources_guess[family]
        for one in self._source_room.get(spot, {}).values():
            have = len(one.spots[spot])
            if have + planned.get(one, 0) < max(guess, 2 * have):
                return one
        return next((one for one, count in planned.items() if spot not in one.spots and count < guess), None)

    def _with_group_room(self, plan: _Plan, spot: Spot, family: Family) -> JoinSocket | None:
        """A socket that has nothing of the group and may take one more; made if there is none."""
        guess = self._groups_guess[family]
        for one in self._room[family].values():
            have, planned = len(one.spots), plan.groups.get(one, ())
            if spot not in one.spots and spot not in planned and have + len(planned) < min(GROUPS_MAX, max(guess, 2 * have)):
                return one
        if self.sockets >= self._sockets_max:
            return None
        try:
            one = JoinSocket.open(self._next, family)
        except OSError as exc:
            _log.warning("no further join socket can be opened", extra={"error": exc.strerror, "sockets": self.sockets})
            return None
        self._add(one)
        return one

    def _add(self, one: JoinSocket) -> None:
        self._next = max(self._next, one.number + 1)
        self._sockets[one.number] = self._room[one.family][one.number] = one

    def _keep(self, plan: _Plan, errnos: list[int]) -> list[JoinSocket]:
        """Have the holder know, before it is so, what the sockets may have joined; the sockets of which it does."""
        keepings, notes = [], {}
        for one, spots in plan.groups.items():
            if one.noted is None or not spots <= one.noted:
                notes[one] = spots.union(one.spots)
                keepings.append(Keeping(one.name, note_of(notes[one]), one.sock.fileno() if one.noted is None else None))
        refused = set()
        for (one, noted), number in zip(notes.items(), self._holder.store(keepings) if keepings else [], strict=True):
            if not number:
                one.noted = frozenset(noted)
                continue
            refused.add(one)
            for n in plan.indices[one]:
                errnos[n] = number
        return [one for one in plan.indices if one not in refused]

    def _join_on(self, one: JoinSocket, indices: Iterable[int], wanted: Sequence[Membership], errnos: list[int]) -> list[int]:
        """Join on one socket; those for which it has no room."""
        elsewhere = []
        for n in indices:
            membership = wanted[n]
            spot = Spot(membership.ifindex, membership.group)
            if (one.full and spot not in one.spots) or spot in one.full_spots:
                elsewhere.append(n)
                continue
            number = one.join(membership)
            if not number:
                self._took(one, membership)
            elif number not in FULL or not one.spots:  # What has no room on an empty socket has none anywhere.
                errnos[n] = number
            else:
                self._has_no_room(one, spot)
                elsewhere.append(n)
        return elsewhere

    def _took(self, one: JoinSocket, membership: Membership) -> None:
        spot, family = Spot(membership.ifindex, membership.group), one.family
        sources = one.spots.setdefault(spot, set())
        sources.add(membership.source)
        self._where[membership] = one
        self._groups_guess[family] = max(self._groups_guess[family], len(one.spots))
        if membership.source:
            self._sources_guess[family] = max(self._sources_guess[family], len(sources))
            self._source_room.setdefault(spot, {})[one.number] = one

    def _has_no_room(self, one: JoinSocket, spot: Spot) -> None:
        """A socket has refused a group, or a further source of one that it has."""
        if spot in one.spots:
            one.full_spots.add(spot)
            self._forget_source_room(one, spot)
            self._sources_guess[one.family] = max(_GUESS_MIN, len(one.spots[spot]))
        else:
            one.full = True
            self._room[one.family].pop(one.number, None)
            self._groups_guess[one.family] = max(_GUESS_MIN, len(one.spots))

    def _forget_limits(self) -> None:
        for one in self._sockets.values():
            self._has_room(one)

    def _has_room(self, one: JoinSocket) -> None:
        """A socket that was full need not be so any more."""
        one.full = False
        self._room[one.family][one.number] = one
        for spot in one.full_spots:
            self._source_room.setdefault(spot, {})[one.number] = one
        one.full_spots.clear()

    def _forget_source_room(self, one: JoinSocket, spot: Spot) -> None:
        sockets = self._source_room.get(spot)
        if sockets is not None:
            sockets.pop(one.number, None)
            if not sockets:
                del self._source_room[spot]

    # --- leaving -----------------------------------------------------------------------------------------------------

    def leave(self, unwanted: Sequence[Membership]) -> list[int]:
        """Leave what is joined; an errno for each: if it is not 0, that stays joined."""
        touched: dict[JoinSocket, None] = {}
        errnos = []
        for membership in unwanted:
            one = self._where.get(membership)
            errnos.append(self._leave_on(one, membership) if one is not None else 0)
            if one is not None:
                touched[one] = None
        for one in touched:
            self._has_room(one)
        self._drop_empty(touched)
        return errnos

    def _leave_on(self, one: JoinSocket, membership: Membership) -> int:
        spot = Spot(membership.ifindex, membership.group)
        number, gone = one.leave(membership), [membership]
        if number == errno.ENODEV:  # The interface has gone, and every source of the group there with it.
            number, gone = one.leave_spot(spot), [Membership(*spot, source) for source in one.spots[spot]]
        if number not in {0, errno.EADDRNOTAVAIL}:
            return number
        for each in gone:
            del self._where[each]
            one.spots[spot].discard(each.source)
        if not one.spots[spot]:
            del one.spots[spot]
            one.full_spots.discard(spot)
            self._forget_source_room(one, spot)
        return 0

    def _drop_empty(self, sockets: Iterable[JoinSocket]) -> None:
        """Close sockets that have joined nothing."""
        empty = [one for one in sockets if not one.spots]
        if kept := [one.name for one in empty if one.noted is not None]:
            self._holder.drop(kept)
        for one in empty:
            one.sock.close()
            del self._sockets[one.number]
            self._room[one.family].pop(one.number, None)
