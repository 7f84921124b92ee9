"""Policy rules of multicast routing by rtnetlink: which table a packet is looked up in, by the interface it came in on.

Standard library only: the keeper changes rules by it, the server reads them. Those made by it bear RTPROT_MROUTED (17), as the
kernel's own entries of a routing daemon do; no other is ever changed or deleted.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator

from mcastd.kernel._native import lib
from mcastd.kernel.rawsock import canonical_table
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused, McastdError, Reason
from mcastd.model.interface import IFNAMSIZ
from mcastd.model.rule import Rule

PROTOCOL_OURS: int = lib.RTPROT_MROUTED
"""FRA_PROTOCOL of our rules."""

_FAMILIES = {Family.IPV4: 128, Family.IPV6: 129}
"""RTNL_FAMILY_IPMR, RTNL_FAMILY_IP6MR (linux/rtnetlink.h)."""

# linux/netlink.h, linux/rtnetlink.h, linux/fib_rules.h
_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE, _NLM_F_DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
_FR_ACT_TO_TBL = 1
_FRA_IIFNAME, _FRA_PRIORITY, _FRA_TABLE, _FRA_PROTOCOL = 3, 6, 15, 21

_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
_RULE = struct.Struct("=8BI")
"""struct fib_rule_hdr: family, dst_len, src_len, tos, table, two unused, action, flags."""
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")
_NUMBER = struct.Struct("=I")

_TIMEOUT = struct.pack("@ll", 10, 0)
"""struct timeval; the kernel answers within the call that asks."""

_CHANGED_ALREADY = {True: errno.EEXIST, False: errno.ENOENT}


def change_rule(rule: Rule, family: Family, *, add: bool) -> bool:
    """Add or delete one of our rules; False = it was there, or gone, already. Adding needs CAP_NET_ADMIN.

    Raises KernelRefused, or McastdError NOT_ALLOWED.
    """
    flags = _NLM_F_REQUEST | _NLM_F_ACK | (_NLM_F_CREATE | _NLM_F_EXCL if add else 0)
    request = _message(_RTM_NEWRULE if add else _RTM_DELRULE, flags, family, _attributes(rule))
    with _open() as sock:
        sock.send(request)
        for kind, payload in _messages(sock.recv(4096)):
            if kind == _NLMSG_ERROR:
                number: int = -_ERRNO.unpack_from(payload)[0]
                if number in {0, _CHANGED_ALREADY[add]}:
                    return number == 0
                raise _refusal(rule, family, number, add=add)
    raise _refusal(rule, family, errno.EPROTO, add=add)


def our_rules(family: Family) -> set[Rule]:
    """Our rules of one family as the kernel has them, in the network namespace of this thread. Needs no capability.

    Raises KernelRefused.
    """
    found: set[Rule] = set()
    with _open() as sock:
        sock.send(_message(_RTM_GETRULE, _NLM_F_REQUEST | _NLM_F_DUMP, family, b""))
        while True:
            for kind, payload in _messages(sock.recv(1 << 16)):
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    number = -_ERRNO.unpack_from(payload)[0]
                    raise KernelRefused("RTM_GETRULE", number, f"the policy rules can't be read: {os.strerror(number)}")
                if kind == _RTM_NEWRULE and (rule := _read_rule(payload, family)) is not None:
                    found.add(rule)


def _open() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
    return sock


def _message(kind: int, flags: int, family: Family, attributes: bytes) -> bytes:
    body = _RULE.pack(_FAMILIES[family], 0, 0, 0, 0, 0, 0, _FR_ACT_TO_TBL if attributes else 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def _attributes(rule: Rule) -> bytes:
    """What tells the rule from all others; the kernel deletes the first that is like it in all of them."""
    values = (
        (_FRA_IIFNAME, rule.iif.encode("utf-8") + b"\0"),
        (_FRA_PRIORITY, _NUMBER.pack(rule.priority)),
        (_FRA_TABLE, _NUMBER.pack(rule.table)),
        (_FRA_PROTOCOL, bytes([PROTOCOL_OURS])),
    )
    return b"".join(
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4) for kind, value in values
    )


def _read_rule(payload: bytes, family: Family) -> Rule | None:
    """A rule of ours; None = somebody else's, or of another kind."""
    found = dict(_read_attributes(payload[_RULE.size :]))
    if found.get(_FRA_PROTOCOL) != bytes([PROTOCOL_OURS]) or _FRA_IIFNAME not in found or _FRA_TABLE not in found:
        return None
    iif = found[_FRA_IIFNAME].rstrip(b"\0").decode("utf-8", "backslashreplace")
    priority = _NUMBER.unpack(found.get(_FRA_PRIORITY, bytes(4)))[0]
    return Rule(canonical_table(family, _NUMBER.unpack(found[_FRA_TABLE])[0]), iif, priority, (family,))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += length + -length % 4


def _read_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[at + _ATTRIBUTE.size : at + length]
        at += length + -length % 4


def _refusal(rule: Rule, family: Family, number: int, *, add: bool) -> McastdError:
    call = "RTM_NEWRULE" if add else "RTM_DELRULE"
    what = f"the rule that IPv{family.value} packets from {rule.iif} are looked up in table {rule.table}"
    if number in {errno.EPERM, errno.EACCES}:
        return McastdError(Reason.NOT_ALLOWED, f"{what} can't be changed: that needs CAP_NET_ADMIN", call=call)
    if number in {errno.EAFNOSUPPORT, errno.EOPNOTSUPP}:
        options = "IP_MROUTE_MULTIPLE_TABLES" if family is Family.IPV4 else "IPV6_MROUTE_MULTIPLE_TABLES"
        text = f"{what} can't be changed: the kernel has no multicast policy rules (it needs CONFIG_{options})"
    else:
        text = f"{what} can't be {'added' if add else 'deleted'}: {os.strerror(number)}"
    return KernelRefused(call, number, text, interface=rule.iif, table=rule.table)


def fits(name: str) -> bool:
    """Whether it can be an interface's name, as the kernel has it (dev_valid_name, net/core/dev.c)."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size < IFNAMSIZ and name not in {".", ".."} and not any(c in "/:\0" or c.isspace() for c in name)
