"""What tests of the kernel adapter share: a router with VIFs, addresses, and packed forwardings."""

import struct

from mcastd.kernel.mroute import Mroute
from mcastd.kernel.rawsock import open_mroute
from mcastd.model.address import Family, address_text, exact_key, pack_address
from tests.testbed import Sender, Testbed


def group(family: Family, number: int = 1) -> str:
    """A group by number, 1 to 65,535."""
    return f"239.1.{number >> 8}.{number & 0xFF}" if family is Family.IPV4 else f"ff3e::1:{number:x}"


def key_of(family: Family, number: int, table: int = 0, source: str = "") -> bytes:
    """Key of an entry by number, 1 to 16,777,215: all of one group, each of a source of its own, unless that is given."""
    text = source or (
        f"10.{number >> 16}.{number >> 8 & 0xFF}.{number & 0xFF}"
        if family is Family.IPV4
        else f"fd01::{number >> 16:x}:{number & 0xFFFF:x}"
    )
    return exact_key(table, pack_address(group(family)), pack_address(text))


def forwarding(family: Family, parent: int, *vifs: int, ttl: int = 1) -> bytes:
    """What Forwarding.packed is: a parent and its outgoing VIFs."""
    if family is Family.IPV4:
        return struct.pack("=H", parent) + bytes(ttl if vif in vifs else 255 for vif in range(32))
    return struct.pack("=H8I", parent, sum(1 << vif for vif in vifs), *[0] * 7)


class Routed:
    """A star of two receivers whose router has the multicast routing socket of one family."""

    def __init__(self, bed: Testbed, family: Family) -> None:
        self.bed = bed
        self.family = family
        self.star = bed.star(receivers=2)
        self.router = self.star.router
        with self.router.entered():
            self.sock = bed.close_with(open_mroute(family))
        self.mroute = Mroute(self.sock, family)
        for vif, port in enumerate((self.star.uplink, *self.star.downlinks)):
            self.mroute.add_vif(vif, port.ifindex)

    def sender(self, number: int = 1, source: str | None = None) -> Sender:
        """The source's sender to a group by number."""
        return self.star.source.sender(group(self.family, number), source=source)

    def forward(self, *vifs: int, parent: int = 0) -> bytes:
        """A packed forwarding from the source's VIF to others."""
        return forwarding(self.family, parent, *vifs)

    def key(self, sender: Sender) -> bytes:
        """Key of what a sender sends."""
        return exact_key(0, pack_address(sender.group), pack_address(sender.source))

    def program(self, sender: Sender, *vifs: int, parent: int = 0) -> bytes:
        """Program the entry of a sender, and return its key."""
        key = self.key(sender)
        assert self.mroute.program([key], [self.forward(*vifs, parent=parent)]) is None
        return key

    def text(self, packed: bytes) -> str:
        """An address as text."""
        return address_text(packed)
