"""What tests of a running daemon share: a router with mcastd in a star, spoken to in one family and watched from outside."""

import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.kernel import mfc_dump
from mcastd.model.address import Family, exact_key, pack_address
from tests.e2e.departures import Departures
from tests.e2e.notices import MfcNotices
from tests.testbed import Port, Sender, Testbed
from tests.testbed.daemon import McastdProcess, route, wait_until

PROGRAMMED = t.ROUTE_STATE_PROGRAMMED
PARTIAL = t.ROUTE_STATE_PARTIAL
PENDING = t.ROUTE_STATE_PENDING

_PROC_VIFS = {Family.IPV4: "/proc/thread-self/net/ip_mr_vif", Family.IPV6: "/proc/thread-self/net/ip6_mr_vif"}


def group(family: Family, number: int = 1) -> str:
    """A group by number, 0 to 16,777,215 less two blocks."""
    if family is Family.IPV4:
        return f"{232 + (number >> 20)}.{number >> 16 & 15}.{number >> 8 & 255}.{number & 255}"
    return f"ff3e::{number >> 16:x}:{number & 0xFFFF:x}"


def key_of(one: t.Route) -> bytes:
    """The daemon's key of a route, which kernel dumps have too."""
    return exact_key(one.table, pack_address(one.group), pack_address(one.source))


class Router:
    """A star whose router runs mcastd."""

    def __init__(self, bed: Testbed, family: Family, receivers: int = 2, **options: Any) -> None:
        """Build and start; routes and streams of the methods are of `family`, `options` those of `start`."""
        self.bed = bed
        self.family = family
        self.star = bed.star(receivers)
        self.namespace = self.star.router
        self.source = self.star.source.address(family)
        self._stack = ExitStack()
        self._marker = self.star.uplink.sender(group(family, 0xFFFF))
        self.departures = Departures(self.namespace)
        self._stack.callback(self.departures.close)
        self.daemon = self.start(**options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the daemon, and the capture."""
        self._stack.close()

    def start(self, *, arguments: Sequence[str] = (), directory: Path | None = None, **options: Any) -> McastdProcess:
        """Start a daemon here (another one, once the first has ended); `options` are those of McastdProcess."""
        self.daemon = self._stack.enter_context(McastdProcess(self.namespace, directory, *arguments, **options))
        return self.daemon

    def wait_server_after(self, pid: int) -> None:
        """Wait until a server serves that comes after this one, which was killed."""
        wait_until(lambda: self.daemon.server_pid() not in {0, pid}, 20)
        self.daemon.wait_ready()

    # --- routes ------------------------------------------------------------------------------------------------------

    def sender(self, number: int = 1, *, hops: int = 16) -> Sender:
        """The source's sender to a group by number."""
        return self.star.source.sender(group(self.family, number), hops=hops)

    def route(self, to: Sender | int, *oifs: str, iif: str = "up", **fields: object) -> t.Route:
        """The route of a stream, or of a group by number."""
        return route(to.group if isinstance(to, Sender) else group(self.family, to), self.source, iif, *oifs, **fields)

    def key(self, sender: Sender) -> bytes:
        """Key of a stream, as kernel dumps have it."""
        return exact_key(0, pack_address(sender.group), pack_address(sender.source))

    def put(self, *routes: t.Route, **options: object) -> rs.WriteResult:
        """PutRoutes of which no item is refused."""
        result = self.daemon.put(*routes, **options)
        assert result.failed == 0, result
        return result

    def status(self, to: Sender | int) -> t.RouteStatus:
        """What has become of a route."""
        return self.daemon.state(to.group if isinstance(to, Sender) else group(self.family, to), self.source)

    def wait_state(self, to: Sender | int, state: "t.RouteState", *oifs: str) -> None:
        """Wait until a route is in a state, and the kernel's entry sends to what the status says (`oifs`, if given)."""
        name = to.group if isinstance(to, Sender) else group(self.family, to)
        key = exact_key(0, pack_address(name), pack_address(self.source))

        def there() -> bool:
            status = self.status(to)
            if status.state != state or (oifs and set(status.installed_oifs) != set(oifs)):
                return False
            entry = self.kernel().get(key)
            return entry is None if state == PENDING else entry is not None and set(entry[1]) == set(status.installed_oifs)

        wait_until(there, 20, lambda: f"never in that state: {self.status(to)}; in the kernel: {self.kernel().get(key)}")

    def states(self) -> Counter[str]:
        """How many of all routes are in which state."""
        return Counter(t.RouteState.Name(one.status.state) for one in self.daemon.list_routes())

    def plug(self, name: str) -> Port:
        """Make an interface of the router, up, with a namespace behind it whose end is returned; the daemon has heard of it."""
        near, _ = self.bed.connect(self.bed.namespace(f"behind {name}"), "eth0", self.namespace, name)
        self.wait_links(name)
        return near

    def wait_links(self, *names: str) -> None:
        """Wait until the daemon has heard that these interfaces are up."""

        def heard() -> bool:
            listed = self.daemon.interfaces.ListInterfaces(sv.ListInterfacesRequest(), timeout=10).interfaces
            return set(names) <= {one.name for one in listed if one.up}

        wait_until(heard, 20)

    # --- the kernel --------------------------------------------------------------------------------------------------

    def notices(self) -> MfcNotices:
        """Count the kernel's notifications of changes from now on."""
        return self._stack.enter_context(MfcNotices(self.namespace, self.family))

    def dump(self, table: int = 0) -> mfc_dump.MfcDump:
        """What the kernel has."""
        return self.namespace.run(lambda: mfc_dump.dump(self.family, table))

    def kernel(self, table: int = 0) -> dict[bytes, tuple[str, tuple[str, ...]]]:
        """Name of the iif and sorted names of the oifs of every entry in the kernel, by key."""
        found = self.dump(table)
        names = self.interface_names()
        paths = [(names.get(iif, ""), tuple(sorted(names[oif] for oif, _ in oifs))) for iif, oifs in found.paths]
        return {row[7]: paths[row[4]] for row in found.rows() if not row[6]}

    def interface_names(self) -> dict[int, str]:
        """Names of the router's interfaces by index."""
        return dict(self.namespace.run(socket.if_nameindex))

    def vifs(self) -> dict[str, int]:
        """Numbers of the VIFs that the kernel has in the default table, by interface."""
        with self.namespace.entered():
            lines = Path(_PROC_VIFS[self.family]).read_text().splitlines()[1:]
        return {fields[1]: int(fields[0]) for fields in map(str.split, lines)}

    def rename(self, old: str, new: str) -> None:
        """Rename an interface, the way that every kernel allows: while it is down."""
        self.namespace.ip(f"link set dev {old} down", f"link set dev {old} name {new}", f"link set dev {new} up")
        self.namespace.wait_running(new)

    # --- packets -----------------------------------------------------------------------------------------------------

    def check_leaves(self, sender: Sender, *interfaces: str, count: int = 20) -> None:
        """Send packets of a stream, and see them leave these interfaces, each once, and no other."""
        self._pass_marker()
        before = self.departures.by_interface(sender)
        sender.send(count)
        self._pass_marker()
        want = Counter(dict.fromkeys(interfaces, count))
        self.departures.wait_until(lambda: self.departures.by_interface(sender) - before == want)
        assert dict(self.departures.by_interface(sender) - before) == dict(want)

    def _pass_marker(self) -> None:
        """See a packet of the router's own leave: whatever was forwarded before it has been counted by then."""
        self._marker.send()
        self.departures.wait(self._marker)


def bulk(
    family: Family, count: int, source: str, *oifs: str, first: int = 0x10000, iif: str = "up", **fields: object
) -> Iterator[t.Route]:
    """Routes of one source to so many groups."""
    outgoing = [t.Oif(interface=name) for name in oifs]
    for number in range(first, first + count):
        yield t.Route(group=group(family, number), source=source, iif=iif, oifs=outgoing, **fields)  # type: ignore[arg-type]


def keys_of(routes: Iterable[t.Route]) -> set[bytes]:
    """The keys of routes."""
    return {key_of(one) for one in routes}
