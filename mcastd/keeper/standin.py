"""Who answers upcalls while the keeper is executed anew: a copy of the old image, for as long as Python starts.

    old image ─fork─► stand-in: reads upcalls, and answers them from the templates, which nobody changes meanwhile
        │ ◄────ready─────┤
        │ execve         │
        ▼                │
    new image ──relief──►┤  once it has the templates
              ◄──done────┘  what was answered is in a memfd

Without it a flow that begins meanwhile would lose all but its first packets: the kernel keeps four (ipmr_cache_unresolved).
"""

import json
import logging
import os
import select
import signal
import socket
import time
from typing import NamedTuple, NoReturn

from mcastd.keeper import reexec
from mcastd.keeper.channel import RECORD_SIZE, Message
from mcastd.keeper.memory import Memory
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.process import status_text
from mcastd.keeper.reexec import HandedStandIn, Handover
from mcastd.keeper.tables import MrouteSocket, Tables
from mcastd.keeper.templates import learned_bodies
from mcastd.model.address import Family

SECONDS = 60.0
"""How long it stays when nobody relieves it: an image that knows nothing of it would read half of the upcalls."""

READY_SECONDS = 0.1
RELIEF_SECONDS = 1.0
"""How long it may take to begin, and to say what it has done: some milliseconds, unless others want the processors."""

_READY = b"r"
_RELIEF = b"x"
_DONE = b"d"

_log = logging.getLogger(__name__)


class Report(NamedTuple):
    """What became of the upcalls that it has read."""

    records: bytes
    losses: list[list[int]]
    lost: list[list[int]]
    """Both as in Handover."""
    learned: list[tuple[int, int, list[tuple[str, int]]]]
    """Table, family, and how many entries each template has made, by its name in hexadecimal."""
    lately: list[tuple[int, int, dict[str, float]]]
    """Table, family, and when entries were made (FastPath.lately), by their keys in hexadecimal."""

    def pack(self) -> bytes:
        """One line of JSON, and the records."""
        return json.dumps(self[1:]).encode() + b"\n" + self.records

    @classmethod
    def unpack(cls, data: bytes) -> "Report":
        """Undo `pack`; ValueError or TypeError if it was never written to its end."""
        line, newline, records = data.partition(b"\n")
        if not newline or len(records) % RECORD_SIZE:
            raise ValueError("it breaks off")
        return cls(records, *json.loads(line))


def execute(handover: Handover, memory: Memory, outbox: Outbox) -> None:
    """Become the new image, while somebody answers upcalls; OSError if that can't be, and all is as before."""
    handover.stand_in = _start(memory.parts.tables)
    try:
        reexec.execute(handover)
    finally:
        relieve(handover.stand_in, memory, outbox)


def relieve(handed: HandedStandIn | None, memory: Memory, outbox: Outbox) -> None:
    """End the stand-in, and know what it has done as if this image had; from here on it is for this one to read upcalls."""
    if handed is None:
        return
    with socket.socket(fileno=handed.channel) as channel, open(handed.report, "rb") as file:
        channel.settimeout(RELIEF_SECONDS)
        try:
            channel.send(_RELIEF, socket.MSG_NOSIGNAL)
            while channel.recv(1) == _READY:  # which has come too late for the image before
                pass
        except TimeoutError:
            os.kill(handed.pid, signal.SIGKILL)
        except (BrokenPipeError, ConnectionResetError):
            _log.warning("what answered upcalls meanwhile has ended by itself")
        status = os.waitstatus_to_exitcode(os.waitpid(handed.pid, 0)[1])
        file.seek(0)
        data = file.read()
    try:
        report = Report.unpack(data)
        _take(report, memory, outbox)
    except (ValueError, TypeError) as exc:
        details = {"status": status_text(status), "error": str(exc)}
        _log.error("what answered upcalls meanwhile does not say what it has done: its entries are strange ones", extra=details)
        return
    _log.info("upcalls were answered meanwhile", extra={"upcalls": len(report.records) // RECORD_SIZE})


def _take(report: Report, memory: Memory, outbox: Outbox) -> None:
    tables = memory.parts.tables
    outbox.take_over(report.records, report.losses)
    tables.lost_before(report.lost)
    for table, version, counts in report.learned:
        for body in learned_bodies(table, Family(version), [(bytes.fromhex(name), count) for name, count in counts]):
            tables.replay(Message.LEARNED, body)
            memory.record(Message.LEARNED, body)
    for table, version, lately in report.lately:
        one = tables.get(table, Family(version))
        if one is not None:
            one.fastpath.lately.update((bytes.fromhex(key), at) for key, at in lately.items())


def _start(tables: Tables) -> HandedStandIn | None:
    """Fork; None where that can't be: the kernel keeps the first packets of each flow."""
    ours, theirs = socket.socketpair()
    report = os.memfd_create("mcastd-stand-in")
    try:
        pid = os.fork()
    except OSError as exc:
        _log.warning("nobody answers upcalls while the keeper is executed anew", extra={"error": exc.strerror})
        ours.close()
        theirs.close()
        os.close(report)
        return None
    if pid == 0:
        _stand_in(tables.sockets(), theirs, report)
    theirs.close()
    # On a single processor it would else not come to run before the new image waits for something.
    if not select.select([ours], [], [], READY_SECONDS)[0]:
        _log.warning("what is to answer upcalls while the keeper is executed anew is slow to start")
    return HandedStandIn(pid, ours.detach(), report)


def _stand_in(sockets: list[MrouteSocket], channel: socket.socket, report: int) -> NoReturn:
    """All that the copy does. It never returns, and nothing of the keeper is undone at its end.

    It touches neither the keeper's selector nor its log, which both images share; and has no copy of what tells others by its
    end that the keeper is gone.
    """
    code = os.EX_SOFTWARE
    try:
        _close_all_but({0, 1, 2, channel.fileno(), report, *(one.sock.fileno() for one in sockets)})
        outbox = Outbox()
        if _answer(sockets, channel, outbox):
            reexec.write_all(report, _report(sockets, outbox).pack())
            channel.send(_DONE, socket.MSG_NOSIGNAL)
        code = os.EX_OK
    except BaseException:  # noqa: BLE001 - whatever it is: this copy of the program must not go on as the program
        _log.critical("answering upcalls meanwhile has failed", exc_info=True)
    os._exit(code)


def _answer(sockets: list[MrouteSocket], channel: socket.socket, outbox: Outbox) -> bool:
    """Answer upcalls until somebody else does; False if the keeper has died."""
    poll, until = select.poll(), time.monotonic() + SECONDS
    reading = {one.sock.fileno(): one for one in sockets}
    for one in sockets:
        one.fastpath.made = {}
        poll.register(one.sock, select.POLLIN)
    poll.register(channel, select.POLLIN)
    channel.send(_READY, socket.MSG_NOSIGNAL)
    while (left := until - time.monotonic()) > 0:
        ready = [fd for fd, _ in poll.poll(left * 1000)]
        if channel.fileno() in ready:
            try:
                return channel.recv(1) == _RELIEF
            except ConnectionResetError:  # it has not even read that this one is ready
                return False
        for fd in ready:
            reading[fd].read(outbox)
    return True


def _report(sockets: list[MrouteSocket], outbox: Outbox) -> Report:
    records, losses = outbox.hand_over()
    return Report(
        records,
        losses,
        [[one.table, one.family, one.lost] for one in sockets],
        [(one.table, one.family, [(name.hex(), count) for name, count in one.fastpath.made.items()]) for one in sockets],
        [(one.table, one.family, {key.hex(): at for key, at in one.fastpath.lately.items()}) for one in sockets],
    )


def _close_all_but(kept: set[int]) -> None:
    first = 0
    for fd in sorted(kept):
        if first < fd:  # os.closerange(0, 0) closes everything (Python 3.11)
            os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
