"""A client of mcastd: asynchronous (Client) and for threads (SyncClient), with watches that resume and sessions that replay.

What is named here is the interface; the modules below are not. Messages are those of mcast.v1.
"""

from mcast.client.aioclient import Client
from mcast.client.aiosession import Session
from mcast.client.aiowatch import View, Watch
from mcast.client.errors import (
    ConfigurationError,
    DeadlineExceeded,
    EmptySet,
    InvalidRequest,
    ItemsFailed,
    LimitExceeded,
    McastError,
    NotAllowed,
    NotFound,
    OwnedByOther,
    RevisionMismatch,
    StaleEpoch,
    Superseded,
    TooManyDeletions,
    Unavailable,
)
from mcast.client.events import Delete, Disconnected, Event, Object, Put, Reset, Synced, UpcallsLost, UpcallsSkipped
from mcast.client.ids import JoinId, RouteId, SourceId, join_id, route, route_id, source_id
from mcast.client.results import JoinResult, OpResult, Snapshot, SyncResult, WriteResult
from mcast.client.session import Lease
from mcast.client.syncclient import SyncClient
from mcast.client.syncsession import SyncSession
from mcast.client.syncwatch import SyncView, SyncWatch
from mcast.client.target import DEFAULT_ADDRESS, Backoff, Keepalive, Tls

__all__ = [
    "DEFAULT_ADDRESS",
    "Backoff",
    "Client",
    "ConfigurationError",
    "DeadlineExceeded",
    "Delete",
    "Disconnected",
    "EmptySet",
    "Event",
    "InvalidRequest",
    "ItemsFailed",
    "JoinId",
    "JoinResult",
    "Keepalive",
    "Lease",
    "LimitExceeded",
    "McastError",
    "NotAllowed",
    "NotFound",
    "Object",
    "OpResult",
    "OwnedByOther",
    "Put",
    "Reset",
    "RevisionMismatch",
    "RouteId",
    "Session",
    "Snapshot",
    "SourceId",
    "StaleEpoch",
    "Superseded",
    "SyncClient",
    "SyncResult",
    "SyncSession",
    "SyncView",
    "SyncWatch",
    "Synced",
    "Tls",
    "TooManyDeletions",
    "Unavailable",
    "UpcallsLost",
    "UpcallsSkipped",
    "View",
    "Watch",
    "WriteResult",
    "join_id",
    "route",
    "route_id",
    "source_id",
]
