"""SIGTERM, SIGINT and SIGHUP as something a selector can wait for."""

import signal
import socket

ENDING = (signal.SIGTERM, signal.SIGINT)
RELOADING = (signal.SIGHUP,)
_TAKEN = ENDING + RELOADING
_IGNORED = (signal.SIGPIPE,)


class Signals:
    """Signals that ask for the end, or for the configuration to be read again, readable from `fileno`."""

    def __init__(self) -> None:
        """Take over the signals; from here on they only make the descriptor readable."""
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in _TAKEN:
            signal.signal(number, lambda *_: None)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._reader.fileno()

    def take(self) -> list[signal.Signals]:
        """The signals that have come since the last call."""
        try:
            data = self._reader.recv(64)
        except BlockingIOError:
            return []
        return [signal.Signals(number) for number in data if number in _TAKEN]

    def close(self) -> None:
        """Give the signals that ask for the end back to their default; what is said after that may still find no reader."""
        signal.set_wakeup_fd(-1)
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)
        for number in RELOADING:
            signal.signal(number, signal.SIG_IGN)
        self._reader.close()
        self._writer.close()
