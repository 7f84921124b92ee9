"""Telling the service manager how we are: sd_notify(3) without its library."""

import logging
import os
import socket

_log = logging.getLogger(__name__)


class Notifier:
    """States for the socket that $NOTIFY_SOCKET names; silent where nobody asked."""

    def __init__(self, address: str | None = None) -> None:
        """Take the address (default: the environment's); a leading @ means an abstract socket (unix(7))."""
        address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def send(self, state: str) -> bool:
        """Send lines such as READY=1; False if its queue is full now. One that is not there is only worth a warning."""
        if not self._address:
            return True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            try:
                sock.sendto(state.encode(), self._address)
            except BlockingIOError:
                return False
            except OSError as exc:
                _log.warning("the service manager could not be told", extra={"state": state, "error": exc.strerror})
        return True
