"""InterfaceService: interfaces, their VIFs, and what owners set of them."""

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.api import fields
from mcastd.api.auth import write_options
from mcastd.api.ports import Caller, Context, DaemonPort
from mcastd.core.shapes import Shape
from mcastd.core.wishes import check_interface
from mcastd.model.address import Family
from mcastd.model.errors import Reason
from mcastd.model.interface import glob_matcher, is_glob
from mcastd.model.route import TTL_MAX
from mcastd.model.write import SetInterface


class InterfaceService:
    """The handlers, by the names of their RPCs."""

    def __init__(self, daemon: DaemonPort) -> None:
        """Serve this daemon's interfaces."""
        self._daemon = daemon
        self._view = InterfaceView(daemon)

    async def list_interfaces(
        self, request: sv.ListInterfacesRequest, _context: Context, _caller: Caller
    ) -> sv.ListInterfacesResponse:
        """List the interfaces that exist, and those that somebody has set anything of."""
        engine, wanted = self._daemon.engine, request.interface
        if wanted:
            fields.check_name(wanted, "interface", glob=True)
        names = {*engine.world.by_name, *(name for name, _ in engine.desired.settings)}
        if wanted:
            match = glob_matcher(wanted).match if is_glob(wanted) else wanted.__eq__
            names = {name for name in names if match(name)}
        used = self._view.routes_by_interface()
        return sv.ListInterfacesResponse(interfaces=[self._view.present(name, used) for name in sorted(names)])

    async def set_interface(self, request: sv.SetInterfaceRequest, _context: Context, caller: Caller) -> sv.SetInterfaceResponse:
        """Pin an interface, set its TTL threshold, or turn router discovery on or off."""
        options = write_options(request.options, caller)
        check_interface(request.interface, "interface")
        threshold = request.ttl_threshold if request.HasField("ttl_threshold") else None
        if threshold is not None and not 1 <= threshold <= TTL_MAX:
            raise fields.invalid(Reason.INVALID_TTL, "ttl_threshold", threshold, f"1 to {TTL_MAX}")
        pinned = request.pinned if request.HasField("pinned") else None
        table = fields.read_table_of_both(request.table, "table")
        discovery = request.router_discovery if request.HasField("router_discovery") else None
        outcome = await self._daemon.write(SetInterface(options, request.interface, pinned, threshold, table, discovery))
        caller.entry.wrote(outcome)
        return sv.SetInterfaceResponse(interface=self._view.present(request.interface, self._view.routes_by_interface()))


class InterfaceView:
    """Interfaces as the contract has them."""

    def __init__(self, daemon: DaemonPort) -> None:
        """Look at this daemon's."""
        self._daemon = daemon

    def present(self, name: str, used: dict[str, int]) -> t.Interface:
        """An interface as it is now; `used` says how many routes use each."""
        engine = self._daemon.engine
        link, said = engine.world.by_name.get(name), engine.desired.effective_settings(name)
        message = t.Interface(
            name=name,
            ttl_threshold=said.ttl_threshold or 1,
            routes=used.get(name, 0),
            pinned=bool(said.pinned_tables),
            router_discovery=said.router_discovery,
        )
        if link is None:
            return message
        message.ifindex, message.up, message.multicast = link.ifindex, link.up, link.multicast
        for kernel in engine.tables.values():
            number = kernel.vifs.by_ifindex.get(link.ifindex)
            if number is None:
                continue
            vif = message.vifs.add(table=kernel.table, ipv6=kernel.family is Family.IPV6, index=number)
            counters = self._daemon.vif_counters(kernel.table, vif.ipv6, number)
            if counters is not None:
                vif.in_packets, vif.out_packets = counters.in_packets, counters.out_packets
                vif.in_bytes, vif.out_bytes = counters.in_bytes, counters.out_bytes
        return message

    def routes_by_interface(self) -> dict[str, int]:
        """How many routes come in or go out, or are to, by interface."""
        used: dict[str, int] = {}
        for kernel in self._daemon.engine.tables.values():
            for shape in (*kernel.shapes.values(), *kernel.templates.values(), *kernel.trees.values()):
                routes = len(shape.members) or 1  # A template has no members, but is a route.
                for name in _names(shape):
                    used[name] = used.get(name, 0) + routes
        return used


def _names(shape: Shape) -> set[str]:
    return {*shape.names, *shape.installed_oifs}
