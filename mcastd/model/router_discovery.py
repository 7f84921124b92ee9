"""Multicast router discovery (RFC 4286): the numbers of its messages, groups and times."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from mcastd.model.address import Family

CONTROL_KIND = "router-discovery"
"""What server and keeper call the sockets of router discovery."""

CONTROL_NUMBER_MAX = 63
"""Highest number of a control socket of one family: each has room for net.ipv4.igmp_max_memberships, 20 by default."""

INTERVAL = 20
"""Seconds between unsolicited advertisements (AdvertisementInterval, section 3.1.1), where the configuration says nothing."""

INTERVAL_MIN = 4
INTERVAL_MAX = 180
"""What the interval may be (section 3.1.1)."""


class Message(IntEnum):
    """Messages by their type in IGMP; section 7 has those of ICMPv6 in the same order."""

    ADVERTISEMENT = 0x30
    """A router is here: sent to all snoopers."""
    SOLICITATION = 0x31
    """Who routes here? Sent to all routers."""
    TERMINATION = 0x32
    """A router stops being one here: sent to all snoopers."""


TYPES: Mapping[Family, Mapping[Message, int]] = MappingProxyType(
    {
        Family.IPV4: MappingProxyType({message: message.value for message in Message}),
        Family.IPV6: MappingProxyType({message: number for number, message in enumerate(Message, 151)}),
    }
)
"""The type byte of each message, in IGMP and in ICMPv6."""

ALL_SNOOPERS: Mapping[Family, str] = MappingProxyType({Family.IPV4: "224.0.0.106", Family.IPV6: "ff02::6a"})
"""Where routers send."""

ALL_ROUTERS: Mapping[Family, str] = MappingProxyType({Family.IPV4: "224.0.0.2", Family.IPV6: "ff02::2"})
"""Where solicitations are sent."""
