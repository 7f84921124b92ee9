"""What leaves a namespace, by interface: one capture for all interfaces, also of those that come later."""

import socket
from collections import Counter
from typing import Any

from tests.testbed import Namespace, Sender
from tests.testbed.traffic import PAYLOAD, Tally

_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_UDP = 17


class Departures(Tally):
    """Sees every numbered packet that leaves any interface of a namespace, in one order."""

    def __init__(self, namespace: Namespace) -> None:
        """Look from now on."""
        self._left: dict[int, Counter[str]] = {}
        # Protocol 0 is bound to no interface and hears nothing until it is set, inside the namespace.
        with namespace.entered():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ALL))
        super().__init__(sock, f"capture of what leaves {namespace.label}")

    def by_interface(self, sender: Sender) -> Counter[str]:
        """How many packets of a sender have left each interface."""
        with self._changed:
            self.count(sender)  # RuntimeError if the capture itself has lost any
            return Counter(self._left.get(sender.stream, ()))

    def _payload(self, packet: bytes, address: Any) -> bytes:
        if address[2] != _PACKET_OUTGOING or len(packet) < 48:
            return b""
        if packet[0] >> 4 == 4 and packet[9] == _UDP:
            payload = packet[(packet[0] & 0xF) * 4 + 8 :]
        elif packet[0] >> 4 == 6 and packet[6] == _UDP:
            payload = packet[48:]
        else:
            return b""
        if len(payload) >= PAYLOAD.size:
            self._left.setdefault(PAYLOAD.unpack_from(payload)[1], Counter())[address[0]] += 1
        return payload
