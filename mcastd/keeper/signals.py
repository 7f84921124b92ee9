"""SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 as something a selector can wait for."""

import signal
import socket

ENDING = (signal.SIGTERM, signal.SIGINT)
RELOADING = (signal.SIGHUP,)
UPGRADING = (signal.SIGUSR2,)
REEXECUTING = (signal.SIGUSR1,)
_TAKEN = ENDING + RELOADING + UPGRADING + REEXECUTING
_IGNORED = (signal.SIGPIPE,)


class Signals:
    """Signals that ask for the end, for the configuration to be read again, for another program, readable from `fileno`."""

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
        self.let_in()  # An image that is executed in place begins with all of them blocked.

    def keep_out(self) -> None:
        """Have them wait in the kernel: in the next image of this process they would end it before it handles them."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)

    def let_in(self) -> None:
        """Undo `keep_out`."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TAKEN)

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._reader.fileno()

    def waiting(self) -> bool:
        """Whether some have come that `take` would return."""
        try:
            return bool(self._reader.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

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
        for number in RELOADING + UPGRADING + REEXECUTING:
            signal.signal(number, signal.SIG_IGN)
        self._reader.close()
        self._writer.close()
