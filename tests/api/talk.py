"""A session as a test talks it: messages out, answers in, and how it ended."""

import asyncio
from typing import Any

import grpc

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from tests.api.bench import Refusal, refusal

Request = rs.ProgramRoutesRequest
Response = rs.ProgramRoutesResponse
Op = Request.Op

_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined] # The stubs lack it.

SECONDS = 20.0
"""How long an answer may take on a busy machine."""


class Talk:
    """One ProgramRoutes stream over grpc.aio."""

    def __init__(self, stub: Any) -> None:
        """Begin the call; nothing is said yet. `stub` is a RouteService's."""
        self.call = stub.ProgramRoutes()
        self._next_id = 1

    async def say(self, **request: Any) -> None:
        """Send a message."""
        async with asyncio.timeout(SECONDS):
            await self.call.write(Request(**request))

    async def open(self, owner: str = "", epoch: int = 0, **lease: Any) -> Response.Opened:
        """Open it; `lease` are the fields of Lease, none = no lease is said."""
        await self.say(open=Request.Open(owner=owner, epoch=epoch, lease=rs.Lease(**lease) if lease else None))
        return (await self.hear()).opened

    async def hear(self) -> Response:
        """The next answer; AssertionError if the stream has ended."""
        async with asyncio.timeout(SECONDS):
            answer = await self.call.read()
        assert answer is not _EOF, "it has ended"
        return answer  # type: ignore[no-any-return]

    def ops(self, *ops: t.Route | t.RoutePatch | t.RouteKey) -> list[Op]:
        """Operations with the next ids."""
        out = []
        for op in ops:
            match op:
                case t.Route():
                    out.append(Op(id=self._next_id, put=op))
                case t.RoutePatch():
                    out.append(Op(id=self._next_id, patch=op))
                case t.RouteKey():
                    out.append(Op(id=self._next_id, delete=op))
            self._next_id += 1
        return out

    async def batch(self, *ops: t.Route | t.RoutePatch | t.RouteKey) -> None:
        """Send a batch."""
        await self.say(batch=Request.Batch(ops=self.ops(*ops)))

    async def acked(self, through: int) -> list[rs.RouteChange]:
        """Read acks up to this id; all their exceptions."""
        found: list[rs.RouteChange] = []
        while True:
            answer = await self.hear()
            assert answer.WhichOneof("response") == "ack", answer
            found += answer.ack.exceptions
            if answer.ack.acked_through >= through:
                assert answer.ack.acked_through == through
                return found

    async def program(self, *ops: t.Route | t.RoutePatch | t.RouteKey) -> list[rs.RouteChange]:
        """Send a batch, and wait for its acks; the exceptions."""
        await self.batch(*ops)
        return await self.acked(self._next_id - 1)

    async def end_sync(self, max_deletions: int = 0) -> Response.Synced:
        """End a replay."""
        await self.say(sync_end=Request.SyncEnd(max_deletions=max_deletions))
        answer = await self.hear()
        assert answer.WhichOneof("response") == "synced", answer
        return answer.synced

    async def close(self) -> None:
        """Close this half; the stream must end well, with nothing more said."""
        await self.call.done_writing()
        assert await self.rest() == []

    async def rest(self) -> list[Response]:
        """What is still said until the stream ends well."""
        out: list[Response] = []
        async with asyncio.timeout(SECONDS):
            while (answer := await self.call.read()) is not _EOF:
                out.append(answer)
            assert await self.call.code() is grpc.StatusCode.OK
        return out

    async def ended(self) -> Refusal:
        """How it ends: not well. What is still said before is passed over."""
        try:
            await self.rest()
        except grpc.aio.AioRpcError as exc:
            return refusal(exc)
        raise AssertionError("it has ended well")
