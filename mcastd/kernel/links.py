"""Links as the kernel reports them: a snapshot, then every change; nothing is missed between the two.

The messages are encoded and decoded by pyroute2, on a netlink socket of our own: after ENOBUFS, which a burst of changes causes,
pyroute2's asyncio socket raises the same error for good ("the only solution is to close the socket and create a new one",
pyroute2/netlink/rtnl/iprsocket.py, 0.9.7), it has no bound on what it queues, and it drops a message that it cannot decode.
"""

import asyncio
import errno
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator

from mcastd.kernel.rtnl import (
    IFF_LOOPBACK,
    IFF_LOWER_UP,
    IFF_MULTICAST,
    IFF_UP,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTMGRP_LINK,
    LinkMarshal,
    NetlinkDecodeError,
    NetlinkError,
    ifinfmsg,
)
from mcastd.model.event import LinkChanged, LinkEvent, LinkGone, LinksResync
from mcastd.model.interface import Link

RECEIVE_BUFFER = 4 << 20
"""Bytes asked for, as far as net.core.rmem_max allows; beyond them the snapshot is taken again."""

_RTEXT_FILTER_SKIP_STATS = 1 << 3
_RECEIVE_SIZE = 64 << 10

START_PATIENCE = 30.0
"""Seconds for the first snapshot: 100,000 links need 20."""

UNREADABLE_MAX = 5
"""Snapshots in a row that may hold what cannot be decoded."""

_UNREADABLE = (NetlinkDecodeError, NetlinkError, struct.error, ValueError, LookupError, TypeError, AttributeError)
"""What pyroute2's decoder raises at bytes that it does not expect."""

_WARNED_MAX = 1000
"""Names remembered as warned of; none is warned of beyond them."""

QUEUE_MAX = 10_000
"""Changes that wait for a slow reader; with more they become one LinksResync."""

_RESYNC_DELAY = 0.05
"""Seconds between lost changes and the next snapshot: whatever made the burst may still be at it."""

_log = logging.getLogger(__name__)


class LinkMonitor:
    """Links of the network namespace in which `start` was called. Needs no capability.

    One reader iterates; iteration ends after `close`. Subscription and snapshot share one socket, in whose queue the kernel puts
    both in order, so a change is either in the snapshot or comes after it. Use it in one event loop, and from its thread only.
    """

    def __init__(self, receive_buffer: int = RECEIVE_BUFFER) -> None:
        """`receive_buffer` in bytes: small ones are for tests."""
        self._receive_buffer = receive_buffer
        self._marshal = LinkMarshal()
        self._sock: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: asyncio.Queue[LinkEvent | None] = asyncio.Queue()
        self._snapshot: asyncio.Future[list[Link]] | None = None
        self._links: dict[int, Link] = {}
        self._dumping = False
        self._sequence = 0
        self._retry: asyncio.TimerHandle | None = None
        self._failure: OSError | None = None
        self._unreadable = 0
        """Snapshots in a row that were given up because of what could not be decoded."""
        self._warned: set[bytes] = set()
        self._closed = False

    async def start(self) -> list[Link]:
        """Subscribe, and return all links; iterate for what happens after that.

        OSError if the kernel refuses, TimeoutError (which is one) if there is no whole snapshot within START_PATIENCE.
        """
        if self._loop is not None:
            raise RuntimeError("started twice")
        self._loop = asyncio.get_running_loop()
        self._snapshot = self._loop.create_future()
        self._open()
        try:
            async with asyncio.timeout(START_PATIENCE):
                return await self._snapshot
        except TimeoutError as exc:
            self.close()
            raise TimeoutError(errno.ETIMEDOUT, f"no whole snapshot of the links within {START_PATIENCE:g} s") from exc

    def close(self) -> None:
        """End the iteration and close the socket; may be called twice."""
        self._closed = True
        self._stop()
        if self._retry is not None:
            self._retry.cancel()
        if self._snapshot is not None and not self._snapshot.done():
            self._snapshot.cancel()
        self._events.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[LinkEvent]:
        return self

    async def __anext__(self) -> LinkEvent:
        event = await self._events.get()
        if event is not None:
            return event
        self._events.put_nowait(None)  # for whoever else asks
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration

    def _open(self) -> None:
        """Subscribe and ask for all links, on a new socket: a dump that ENOBUFS broke cannot be repeated on its own (EBUSY)."""
        assert self._loop is not None  # noqa: S101 - start() set it
        self._retry = None
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self._sock.bind((0, RTMGRP_LINK))
        self._links = {}
        self._dumping = True
        self._sequence += 1
        request = ifinfmsg()
        request["header"]["type"] = RTM_GETLINK
        request["header"]["flags"] = NLM_F_REQUEST | NLM_F_DUMP
        request["header"]["sequence_number"] = self._sequence
        request["attrs"] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
        request.encode()
        self._sock.send(request.data)
        self._loop.add_reader(self._sock, self._readable)

    def _stop(self) -> None:
        if self._sock is not None:
            assert self._loop is not None  # noqa: S101 - there is no socket without it
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    def _resync(self) -> None:
        assert self._loop is not None  # noqa: S101 - called by the loop
        self._stop()
        self._retry = self._loop.call_later(_RESYNC_DELAY, self._reopen)

    def _reopen(self) -> None:
        try:
            self._open()
        except OSError as exc:
            self._fail(exc)

    def _fail(self, exc: OSError) -> None:
        self._stop()
        self._failure = exc
        if self._snapshot is not None and not self._snapshot.done():
            self._snapshot.set_exception(exc)
        self._events.put_nowait(None)

    def _readable(self) -> None:
        """Take one datagram, so that a burst leaves room for others in the loop (a message costs 0.2 ms)."""
        assert self._sock is not None  # noqa: S101 - it is what became readable
        try:
            data, _, flags, sender = self._sock.recvmsg(_RECEIVE_SIZE)
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno == errno.ENOBUFS:
                self._resync()
            else:
                self._fail(exc)
            return
        if sender[0] != 0:
            return  # not from the kernel
        if flags & socket.MSG_TRUNC:
            self._resync()
            return
        try:
            for message in self._marshal.parse(data):
                if not self._take(message):
                    return
        except _UNREADABLE as exc:
            self._cannot_read(exc)

    def _cannot_read(self, exc: Exception) -> None:
        """Take everything again, a few times: nobody knows what else the datagram said."""
        self._unreadable += 1
        if self._unreadable > UNREADABLE_MAX:
            self._fail(OSError(errno.EBADMSG, f"what the kernel says of links cannot be decoded: {exc!r}"))
            return
        _log.warning("what the kernel says of a link cannot be decoded: all are read again", exc_info=exc)
        self._resync()

    def _take(self, message: ifinfmsg) -> bool:
        """Handle one message; False = the rest of the datagram does not matter any more."""
        header = message["header"]
        ours = self._dumping and header["sequence_number"] == self._sequence
        if ours and header["flags"] & NLM_F_DUMP_INTR:
            self._resync()
            return False
        if header["type"] == NLMSG_ERROR:
            code = header["error"].code if header["error"] is not None else errno.EIO
            self._fail(OSError(code, f"RTM_GETLINK: {os.strerror(code)}"))
            return False
        if ours and header["type"] == NLMSG_DONE:
            self._dumped()
        elif header["type"] == RTM_NEWLINK and message["family"] == socket.AF_UNSPEC:
            self._changed(self._link(message))
        elif header["type"] == RTM_DELLINK and message["family"] == socket.AF_UNSPEC:
            # A bridge's port says the same in family AF_BRIDGE when it leaves the bridge: the link stays.
            self._gone(message["index"])
        return True

    def _dumped(self) -> None:
        self._dumping = False
        self._unreadable = 0
        links = list(self._links.values())
        if self._snapshot is not None and not self._snapshot.done():
            self._snapshot.set_result(links)
        else:
            self._events.put_nowait(LinksResync(tuple(links)))

    def _changed(self, link: Link) -> None:
        if self._links.get(link.ifindex) == link:
            return
        self._links[link.ifindex] = link
        self._emit(LinkChanged(link))

    def _gone(self, ifindex: int) -> None:
        link = self._links.pop(ifindex, None)
        if link is not None:
            self._emit(LinkGone(ifindex, link.name))

    def _emit(self, event: LinkEvent) -> None:
        if self._dumping:
            return  # it is in what the dump gives
        if self._events.qsize() >= QUEUE_MAX:
            while not self._events.empty():
                self._events.get_nowait()
            event = LinksResync(tuple(self._links.values()))
        self._events.put_nowait(event)

    def _link(self, message: ifinfmsg) -> Link:
        flags = message["flags"]
        return Link(
            ifindex=message["index"],
            name=self._name(message.get_attr("IFLA_IFNAME")),
            up=flags & IFF_UP != 0 and flags & IFF_LOWER_UP != 0,
            multicast=flags & IFF_MULTICAST != 0 and flags & IFF_LOOPBACK == 0,
        )

    def _name(self, found: object) -> str:
        """The name as text: to the kernel it is any bytes (dev_valid_name), which pyroute2 leaves where they are no UTF-8."""
        if isinstance(found, str):
            return found
        if not isinstance(found, bytes):
            raise TypeError(f"an interface's name is {found!r}")
        name = found.decode("utf-8", "backslashreplace")
        if found not in self._warned and len(self._warned) < _WARNED_MAX:
            self._warned.add(found)
            _log.warning("an interface's name is not UTF-8: its other bytes are written as \\xNN", extra={"interface": name})
        return name
