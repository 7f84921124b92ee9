"""DaemonService: what the daemon is, and its end."""

from mcast.v1 import services_pb2 as sv
from mcastd.api.ports import Caller, Context, DaemonPort
from mcastd.api.present import owner_message, timestamp, write_result
from mcastd.api.routes import OMITTED
from mcastd.api.watchers import Hub
from mcastd.model.interface import VIFS_MAX
from mcastd.model.owner import CONFIG_OWNER

FEATURES = (
    "all-or-nothing",
    "configuration",
    "counters",
    "globs",
    "ipv6",
    "joins",
    "keep-forwarding",
    "owners",
    "replace",
    "router-discovery",
    "sessions",
    "shared-trees",
    "tables",
    "templates",
    "ttl-thresholds",
    "watch",
)
"""What this version has, in the contract's words: clients ask here before they use a new field."""

CONDITION = "mcastd-condition"
"""Trailer of GetStatus, whose message has no room for it: code and text of what is not as it should be."""


class DaemonService:
    """The handlers, by the names of their RPCs."""

    def __init__(self, daemon: DaemonPort, hub: Hub) -> None:
        """Serve this daemon; the hub knows who watches."""
        self._daemon = daemon
        self._hub = hub

    async def get_status(self, _request: sv.GetStatusRequest, context: Context, _caller: Caller) -> sv.GetStatusResponse:
        """Version, limits, owners, who watches; in a trailer why writes are refused, if they are."""
        if (refusal := self._daemon.store_refusal()) is not None:
            context.set_trailing_metadata(((CONDITION, _trailer(f"{refusal.reason}: {refusal}")),))
        daemon, engine = self._daemon, self._daemon.engine
        desired = engine.desired
        limits = sv.Limits(
            vifs_used=max((kernel.vifs.used for kernel in engine.tables.values()), default=0),
            vifs_max=VIFS_MAX,
            routes=len(desired.routes),
            routes_max=engine.routes_max,
            kernel_upcalls_lost=daemon.upcalls_lost(),
        )
        owners = [
            owner_message(owner, desired.entries.get(owner.name, 0), desired.stale_entries(owner.name))
            for owner in sorted(desired.owners.values(), key=lambda owner: owner.name)
        ]
        return sv.GetStatusResponse(
            version=daemon.info.version,
            instance_id=daemon.info.instance_id,
            revision=engine.visible_revision,
            start_time=timestamp(daemon.info.start_time),
            limits=limits,
            owners=owners,
            subscribers=self._hub.subscribers(),
            features=FEATURES,
        )

    async def reload_configuration(
        self, request: sv.ReloadConfigurationRequest, context: Context, caller: Caller
    ) -> sv.ReloadConfigurationResponse:
        """Read the configuration again."""
        caller.entry.owner, caller.entry.dry_run = CONFIG_OWNER, request.validate_only
        outcome = await self._daemon.reload(validate_only=request.validate_only)
        caller.entry.wrote(outcome)
        join_error = self._daemon.engine.joins.error_of_route
        result, omitted = await write_result(outcome, every=True, tried=not request.validate_only, join_error=join_error)
        if omitted:
            context.set_trailing_metadata(((OMITTED, str(omitted)),))
        return sv.ReloadConfigurationResponse(
            result=result,
            joins_changed=sum(change.before is not change.after for change in outcome.joins),
            interfaces_changed=outcome.interfaces,
        )

    async def shutdown(self, request: sv.ShutdownRequest, _context: Context, _caller: Caller) -> sv.ShutdownResponse:
        """End the daemon in order."""
        self._daemon.request_shutdown(keep_forwarding=request.keep_forwarding)
        return sv.ShutdownResponse()


def _trailer(text: str) -> str:
    """A text as metadata of gRPC may be: ASCII, and printable."""
    return "".join(one if one.isprintable() else " " for one in text).encode("ascii", "backslashreplace").decode()
