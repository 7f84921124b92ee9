"""What of pyroute2 encodes and decodes messages about links, imported without the rest of it.

Any import from pyroute2 runs its `__init__.py`, which imports all of it (DNS, 9P, nftables, a database of objects): 0.1 s of each
start of the server and 6 MB. So while this module is imported the package is there without having been run.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _not_run(name: str) -> Iterator[None]:
    """Have a package whose submodules can be imported, without running its `__init__.py`; it is as if nobody had asked for it."""
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None:  # it has been run already, or the import says that there is none
        yield
        return
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[name]


with _not_run("pyroute2"):
    from pyroute2.netlink import NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR
    from pyroute2.netlink.exceptions import NetlinkDecodeError, NetlinkError
    from pyroute2.netlink.marshal import Marshal
    from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK, RTMGRP_LINK
    from pyroute2.netlink.rtnl.ifinfmsg import IFF_LOOPBACK, IFF_LOWER_UP, IFF_MULTICAST, IFF_UP, ifinfmsg


class LinkMarshal(Marshal):  # type: ignore[misc] # pyroute2 ships no types
    """Decodes what a netlink socket says of links."""

    msg_map = {RTM_NEWLINK: ifinfmsg, RTM_DELLINK: ifinfmsg}  # noqa: RUF012 - as pyroute2 has it; each instance copies it


__all__ = [
    "IFF_LOOPBACK",
    "IFF_LOWER_UP",
    "IFF_MULTICAST",
    "IFF_UP",
    "NLMSG_DONE",
    "NLMSG_ERROR",
    "NLM_F_DUMP",
    "NLM_F_DUMP_INTR",
    "NLM_F_REQUEST",
    "RTMGRP_LINK",
    "RTM_DELLINK",
    "RTM_GETLINK",
    "RTM_NEWLINK",
    "LinkMarshal",
    "NetlinkDecodeError",
    "NetlinkError",
    "ifinfmsg",
]
