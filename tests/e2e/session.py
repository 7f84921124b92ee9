"""A controller's session with a real daemon: messages out, answers in, and how it ended. As a program: a controller that idles.

python -m tests.e2e.session SOCKET OWNER     opens a session, writes READY, and waits until its input ends
"""

import os
import queue
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf.duration_pb2 import Duration

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcast.v1 import types_pb2 as t

READY = b"+"

RETAIN, WITHDRAW = rs.Lease.ON_EXPIRY_RETAIN, rs.Lease.ON_EXPIRY_WITHDRAW

_Request = rs.ProgramRoutesRequest
_Response = rs.ProgramRoutesResponse

_CHUNK = 1000
_SECONDS = 120.0


class Session:
    """One ProgramRoutes stream, on a connection of its own; use it as a context."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)])
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._call = rs_grpc.RouteServiceStub(self._channel).ProgramRoutes(iter(self._requests.get, None), timeout=_SECONDS)
        self._answers: Iterator[_Response] = iter(self._call)
        self._last_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    def die(self) -> None:
        """Be gone, without a word."""
        self._requests.put(None)
        self._channel.close()

    def open(self, owner: str = "sdn", epoch: int = 0, hold: float = 0, on_expiry: Any = RETAIN) -> _Response.Opened:
        """Open it."""
        lease = rs.Lease(hold_time=Duration(seconds=int(hold), nanos=int(hold % 1 * 1e9)), on_expiry=on_expiry)
        self._requests.put(_Request(open=_Request.Open(owner=owner, epoch=epoch, lease=lease)))
        return self.hear().opened

    def hear(self) -> _Response:
        """The next answer."""
        return next(self._answers)

    def send(self, *ops: t.Route | t.RoutePatch | t.RouteKey) -> int:
        """Send operations, in batches; the last one's id."""
        for at in range(0, len(ops), _CHUNK):
            batch = _Request.Batch()
            for op in ops[at : at + _CHUNK]:
                self._last_id += 1
                match op:
                    case t.Route():
                        batch.ops.add(id=self._last_id, put=op)
                    case t.RoutePatch():
                        batch.ops.add(id=self._last_id, patch=op)
                    case t.RouteKey():
                        batch.ops.add(id=self._last_id, delete=op)
            self._requests.put(_Request(batch=batch))
        return self._last_id

    def acked(self, through: int) -> list[rs.RouteChange]:
        """Read acks up to this id; all their exceptions."""
        found: list[rs.RouteChange] = []
        while True:
            answer = self.hear()
            assert answer.HasField("ack"), answer
            found += answer.ack.exceptions
            if answer.ack.acked_through >= through:
                return found

    def program(self, ops: Iterable[t.Route | t.RoutePatch | t.RouteKey]) -> list[rs.RouteChange]:
        """Send operations, and wait until all are acknowledged; the exceptions."""
        return self.acked(self.send(*ops))

    def replay(self, routes: Sequence[t.Route], max_deletions: int = 0) -> _Response.Synced:
        """Say all that is wanted."""
        self._requests.put(_Request(sync_begin=_Request.SyncBegin()))
        exceptions = self.program(routes) if routes else []
        assert exceptions == []
        self._requests.put(_Request(sync_end=_Request.SyncEnd(max_deletions=max_deletions)))
        answer = self.hear()
        assert answer.HasField("synced"), answer
        return answer.synced

    def ended(self) -> grpc.RpcError:
        """How it ends: not well. What is still said before is passed over."""
        try:
            for _ in self._answers:
                pass
        except grpc.RpcError as exc:
            return exc
        raise AssertionError("it has ended well")

    def close(self) -> None:
        """Close this half; the stream must end well, with nothing more said."""
        self._requests.put(None)
        assert list(self._answers) == []


def main() -> None:
    """Open a session and idle."""
    with Session(Path(sys.argv[1])) as session:
        session.open(sys.argv[2])
        os.write(1, READY)
        sys.stdin.read()


if __name__ == "__main__":
    main()
