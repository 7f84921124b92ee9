"""Sessions without a network: the real streams on an engine in memory, a client that reads when a test lets it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc

from mcast.v1 import route_service_pb2 as rs
from mcastd.api.ports import Context, DaemonPort, ServerInfo
from mcastd.model.errors import McastdError
from mcastd.model.write import Outcome, Write
from tests.fakerouter import Router

Request = rs.ProgramRoutesRequest
Response = rs.ProgramRoutesResponse


class FakeDaemon:
    """What sessions ask of the daemon; writes are carried out at once, unless the gate is closed."""

    def __init__(self, *names: str) -> None:
        """On a router with these interfaces."""
        self.router = Router(*names)
        self.engine = self.router.engine
        self.info = ServerInfo("1.0", "an-instance", 0.0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun: list[Write] = []
        """In the order in which they came."""
        self.ended: list[tuple[str, int]] = []
        """Owners and numbers of sessions that were told to have ended."""
        self.refusal: McastdError | None = None
        """What the next write is answered with."""

    async def write(self, write: Write) -> Outcome:
        """Carry it out, when the gate is open."""
        self.begun.append(write)
        await self.gate.wait()
        refusal, self.refusal = self.refusal, None
        if refusal is not None:
            raise refusal
        (outcome,) = self.router.write(write)
        self.router.settle()
        return outcome

    def write_coming(self) -> None:
        """Nothing waits here."""

    def session_ended(self, owner: str, session: int) -> None:
        """Remember it."""
        self.ended.append((owner, session))

    def as_port(self) -> DaemonPort:
        """As the API sees it."""
        return cast("DaemonPort", self)


class FakeContext:
    """The stream: what is written is heard by the client, who may stop reading, or be gone."""

    def __init__(self) -> None:
        """A client that reads."""
        self.said: list[Response] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.gone = False

    async def write(self, answer: Response) -> None:
        """Take an answer."""
        await self.reads.wait()
        if self.gone:
            raise grpc.aio.UsageError("the call is over")
        self.said.append(answer)

    def kinds(self) -> list[str]:
        """What was said, by kind."""
        return [answer.WhichOneof("response") or "" for answer in self.said]

    def as_context(self) -> Context:
        """As the API sees it."""
        return cast("Context", self)


class Messages:
    """What the client says, until it closes."""

    def __init__(self, *requests: Request) -> None:
        """Begin with these."""
        self._queue: asyncio.Queue[Request | None] = asyncio.Queue()
        self.say(*requests)

    def say(self, *requests: Request) -> None:
        """Say more."""
        for request in requests:
            self._queue.put_nowait(request)

    def close(self) -> None:
        """Close this half."""
        self._queue.put_nowait(None)

    def unread(self) -> int:
        """How much was said that nobody has read."""
        return self._queue.qsize()

    async def __aiter__(self) -> AsyncIterator[Request]:
        """As gRPC gives it."""
        while (request := await self._queue.get()) is not None:
            yield request


def opening(owner: str = "sdn", **fields: Any) -> Request:
    """The first message."""
    return Request(open=Request.Open(owner=owner, **fields))


def batch(*ops: Request.Op) -> Request:
    """A message of operations."""
    return Request(batch=Request.Batch(ops=ops))
