"""Routes of the API and the controller's entries are the same thing; a session that has ended takes no orders."""

import asyncio
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from mcast.client import ConfigurationError, McastError, Session, Superseded
from mcast.v1 import types_pb2 as t
from mcast_controller.router import Ears, Southbound, message, parse
from mcast_controller.topology import Port, Router
from mcast_controller.trees import Entry, Flow

FLOW = Flow("ff3e::1", "fd00::1")


def test_what_is_written_is_read() -> None:
    entry = Entry("spine1", frozenset({"hosts", "eth9"}), Port("leaf1", "hosts"))
    route = message(FLOW, entry)
    assert route.cookie == "leaf1/hosts"
    assert [oif.interface for oif in route.oifs] == ["eth9", "hosts"]
    assert parse(route) == (FLOW, entry)


@pytest.mark.parametrize(
    "route",
    [
        t.Route(group="232.1.1.1", source="10.0.0.1", iif="a"),
        t.Route(group="232.1.1.1", source="10.0.0.1", iif="a", cookie="/x"),
        t.Route(group="232.1.1.1", source="10.0.0.1", iif="a", cookie="x/"),
        t.Route(group="232.1.1.1", iif="a", cookie="x/y"),
        t.Route(group="232.1.1.0/24", source="10.0.0.1", iif="a", cookie="x/y"),
    ],
)
def test_what_others_write_is_left_out(route: t.Route) -> None:
    assert parse(route) is None


class Ended:
    """A session that something has ended, which its holder has not dealt with yet."""

    connected = True
    pending = 0

    def __init__(self, error: Exception, *, at_once: bool) -> None:
        """`at_once`: it refuses orders; otherwise it takes them, and they are never answered."""
        self._error = error
        self._at_once = at_once

    async def put(self, _: object) -> None:
        """Refuse."""
        if self._at_once:
            raise self._error

    delete = put

    async def flush(self) -> None:
        """Say what has ended it."""
        raise self._error


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        Superseded(grpc.StatusCode.ABORTED, "another leads"),
        McastError(grpc.StatusCode.PERMISSION_DENIED, "the role is gone"),
        ConfigurationError("ca.pem: No such file or directory"),
    ],
    ids=lambda one: type(one).__name__,
)
async def test_a_session_that_has_ended_takes_no_orders(tmp_path: Path, error: Exception, *, at_once: bool) -> None:
    router = Southbound(Router("leaf1", f"unix:{tmp_path}/sock", None), "fabric", cast("Ears", None))
    router._session = cast("Session", Ended(error, at_once=at_once))
    entry = Entry("hosts", frozenset(), Port("leaf1", "hosts"))
    changes: Any = [(FLOW, entry), (FLOW, None)]
    assert not await asyncio.wait_for(router.tell(changes, 5.0), 10)
    await router.close()
