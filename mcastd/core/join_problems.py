"""What is wrong with memberships: errno of a join or leave, and interfaces that can't be joined on, as Problems.

Remedies name the kernel's own limits: net.ipv4.igmp_max_memberships and igmp_max_msf (net/ipv4/igmp.c), net.ipv6.mld_max_msf
(net/ipv6/mcast.c), net.core.optmem_max (sock_kmalloc, net/core/sock.c).
"""

import errno
import os

from mcastd.model.address import Family, address_text
from mcastd.model.errors import Problem, Reason
from mcastd.model.join import JoinKey, Membership

LEFT = frozenset({0, errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO})
"""Results of a leave after which the membership is not there: it was not, or its interface is not."""

JOINED = frozenset({0, errno.EADDRINUSE})
"""Results of a join after which the membership is there."""

_NO_ROOM = frozenset({errno.ENOBUFS, errno.ENOMEM})
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
_NO_LINK = frozenset({errno.ENODEV, errno.ENXIO})


def membership_text(membership: Membership, interface: str) -> str:
    """(S,G) and interface for people."""
    source = address_text(membership.source) if membership.source else "*"
    return f"({source}, {address_text(membership.group)}) on {interface}"


def refused(membership: Membership, interface: str, number: int, *, leaving: bool = False) -> Problem:
    """Why a membership could not be joined, or left."""
    call = f"MCAST_{'LEAVE' if leaving else 'JOIN'}_{'SOURCE_GROUP' if membership.source else 'GROUP'}"
    metadata = {
        "interface": interface,
        "group": address_text(membership.group),
        "source": address_text(membership.source) if membership.source else "",
        "errno": str(number),
        "call": call,
    }
    what = membership_text(membership, interface)
    if number in _NO_LINK and not leaving:
        remedy = "it has gone meanwhile, or has no IPv6 (net.ipv6.conf.*.disable_ipv6): it is tried again when it changes"
        return Problem(Reason.NO_SUCH_INTERFACE, f"{what} could not be joined, {os.strerror(number)}: {remedy}", metadata)
    if number in _NO_ROOM | _NO_DESCRIPTOR:
        reason = Reason.SOURCE_FILTER_LIMIT if membership.source and number == errno.ENOBUFS else Reason.MEMBERSHIP_LIMIT
        return Problem(reason, f"{what} could not be joined, {os.strerror(number)}: {_room(membership, number)}", metadata)
    verb = "left" if leaving else "joined"
    text = f"{what} could not be {verb}, {os.strerror(number)} ({call}): it is tried again"
    return Problem(Reason.KERNEL_ERROR, text, metadata)


def _room(membership: Membership, number: int) -> str:
    """What to do where there is no room for a membership."""
    if number in _NO_DESCRIPTOR:
        ipv4 = membership.family is Family.IPV4
        more = "raise net.ipv4.igmp_max_memberships and igmp_max_msf" if ipv4 else "raise net.core.optmem_max"
        return f"there are no more sockets: {more}, so that each takes more, allow more open files (LimitNOFILE), or join less"
    if number == errno.ENOMEM:
        return "raise net.core.optmem_max, or join less"
    if membership.family is Family.IPV6:
        return "raise net.ipv6.mld_max_msf, or join less" if membership.source else "join less"
    return f"raise net.ipv4.{'igmp_max_msf' if membership.source else 'igmp_max_memberships'}, or join less"


def is_refusal(problem: Problem | None) -> bool:
    """Whether a join has failed, rather than waits for its interface."""
    return problem is not None and problem.reason not in {Reason.NO_SUCH_INTERFACE, Reason.NOT_MULTICAST_CAPABLE}


def no_such_interface(name: str) -> Problem:
    """A join waits for its interface."""
    text = f"there is no interface {name}: it is joined as soon as there is"
    return Problem(Reason.NO_SUCH_INTERFACE, text, {"interface": name})


def not_capable(name: str) -> Problem:
    """An interface that carries no multicast."""
    text = f"interface {name} is not able to multicast: name another, or enable it there ('ip link set {name} multicast on')"
    return Problem(Reason.NOT_MULTICAST_CAPABLE, text, {"interface": name})


def too_many(key: JoinKey, limit: int) -> Problem:
    """A join that does not fit among the others."""
    text = (
        f"{key} stands for {key.size} memberships on each interface, and all joins together may come to {limit}"
        " (setting memberships_max): it is joined when others have left"
    )
    return Problem(Reason.MEMBERSHIP_LIMIT, text, {"limit": str(limit), "would": str(key.size)})
