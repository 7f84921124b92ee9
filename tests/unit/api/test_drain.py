"""Calls that run out."""

import asyncio
from typing import Any

import grpc
import pytest

from mcastd.api import drain
from mcastd.api.drain import Drain


class Context:
    """Of a call that may be refused."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self.metadata: Any = ()

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.metadata = metadata

    async def abort(self, code: grpc.StatusCode, _details: str) -> None:
        self.code = code
        raise grpc.aio.AbortError


async def _coroutine(call: Any) -> None:
    await call(None, None)


async def test_calls_are_answered_until_it_is_closed() -> None:
    tested = Drain()
    context: Any = Context()

    async def answer(request: Any, _context: Any) -> Any:
        return request + 1

    call = tested.counted(answer)
    assert await call(1, context) == 2
    tested.close()
    with pytest.raises(grpc.aio.AbortError):
        await call(1, context)
    assert context.code is grpc.StatusCode.UNAVAILABLE
    assert b"SHUTTING_DOWN" in context.metadata[0][1]
    assert await tested.drained(1)


async def test_calls_under_way_are_waited_for() -> None:
    tested, going_on = Drain(), asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        await going_on.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(_coroutine(tested.counted(wait)))
        await asyncio.sleep(0)
        tested.close()
        assert not await tested.drained(0.01)
        going_on.set()
        assert await tested.drained(5)


async def test_call_that_fails_is_over_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "FLUSH_SECONDS", 0)
    tested = Drain()

    async def fail(_request: Any, _context: Any) -> None:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError):
        await _coroutine(tested.counted(fail))
    tested.close()
    assert await tested.drained(1)
