"""Owns what a session wants the daemon to have: its routes, serialized, by what identifies them.

Serialized, since 100,000 of them take 10 MB that way, cannot be changed by who has put them, and go out as they are.
"""

from mcast.client.ids import RouteId, is_template, route_id
from mcast.v1 import types_pb2 as t


def encode(route: t.Route) -> bytes:
    """Serialize a route, without what is output only."""
    if route.HasField("status"):
        bare = t.Route()
        bare.CopyFrom(route)
        bare.ClearField("status")
        return bare.SerializeToString()
    return route.SerializeToString()


def patched(data: bytes, patch: t.RoutePatch) -> bytes:
    """Return a serialized route after a patch, as the daemon carries it out."""
    route = t.Route.FromString(data)
    oifs = {oif.interface: oif for oif in route.oifs}
    oifs.update({oif.interface: oif for oif in patch.add_oifs})
    left = [t.Oif.FromString(oif.SerializeToString()) for name, oif in oifs.items() if name not in set(patch.remove_oifs)]
    del route.oifs[:]
    route.oifs.extend(left)
    return route.SerializeToString()


class Wanted:
    """The routes that a session has put and not deleted."""

    def __init__(self) -> None:
        self.routes: dict[RouteId, bytes] = {}
        self._templates: dict[RouteId, set[RouteId]] = {}
        """Templates that differ in iif alone, by their id without it."""

    def replace(self, routes: dict[RouteId, bytes]) -> None:
        """Want these, and nothing else."""
        self.routes = routes
        self._templates = {}
        for key in routes:
            if is_template(key):
                self._templates.setdefault(key._replace(iif=""), set()).add(key)

    def put(self, key: RouteId, data: bytes) -> bytes | None:
        """Want a route; what was wanted before."""
        before = self.routes.get(key)
        self.routes[key] = data
        if before is None and (not key[2] or "/" in key[1] or "/" in key[2]):  # is_template(key), without the call
            self._templates.setdefault(key._replace(iif=""), set()).add(key)
        return before

    def set(self, key: RouteId, data: bytes | None) -> None:
        """Want a route, or None no more."""
        if data is not None:
            self.put(key, data)
        elif self.routes.pop(key, None) is not None and is_template(key):
            alike = self._templates[key._replace(iif="")]
            alike.discard(key)
            if not alike:
                del self._templates[key._replace(iif="")]

    def meant(self, of: t.RouteKey) -> RouteId:
        """Return which route a key means: without an iif the only template of its group and source."""
        key = route_id(of)
        if key in self.routes or key.iif or not is_template(key):
            return key
        alike = self._templates.get(key, ())
        return next(iter(alike)) if len(alike) == 1 else key
