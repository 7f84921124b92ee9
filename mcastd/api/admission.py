"""Admission: who calls, whether he may, whether it is too much, and that the audit log is told what came of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from google.protobuf import descriptor

from mcastd.api import auth
from mcastd.api.audit import Audit
from mcastd.api.ports import Caller, Callers, Context
from mcastd.api.principals import peer_of
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Access

FOR_WHO_CALLS = frozenset({Reason.NOT_ALLOWED, Reason.RATE_LIMIT, Reason.STREAM_LIMIT})
"""Reasons for which the refusal of calls that read alone is told of, too."""

_T = TypeVar("_T")

_ANSWERED, _FAILED, _LEFT = "", "INTERNAL", "CANCELLED"
"""How a call may end that is not refused."""


class Admission:
    """The way into one method, for the callers of one listener."""

    def __init__(self, method: descriptor.MethodDescriptor, callers: Callers, audit: Audit) -> None:
        """What the method needs, its contract says."""
        self._name = method.name
        self._access = auth.needed(method)
        self._writes = self._access > Access.VIEW
        self._stream = method.client_streaming or method.server_streaming
        self._session = method.client_streaming and method.server_streaming
        self._callers = callers
        self._audit = audit

    @contextmanager
    def call(self, context: Context) -> Iterator[Caller]:
        """The caller, while the call is under way; McastdError if he is refused, or is not to have the call any more."""
        began, caller, end = self._audit.clock(), None, _FAILED
        try:
            caller = self._callers.identify(context)
            self._callers.request(caller)
            auth.check(caller, self._access, self._name)
            with (
                self._callers.under_way(caller, self._access) if self._stream else nullcontext(),
                self._audit.follow(caller, self._name, began) if self._session else nullcontext(),
            ):
                yield caller
            end = _ANSWERED
        except McastdError as exc:
            end = exc.reason.value
            if self._writes or exc.reason in FOR_WHO_CALLS:
                self._audit.refused(caller or _stranger(context, exc), self._name, began, exc)
            raise
        except asyncio.CancelledError:
            end = _LEFT
            raise
        finally:
            if self._writes and caller is not None:
                if end == _ANSWERED:
                    self._audit.done(caller, self._name, began)
                elif end in {_FAILED, _LEFT}:
                    self._audit.unfinished(caller, self._name, began, end)

    def messages(self, requests: AsyncIterator[_T], caller: Caller) -> AsyncIterator[_T]:
        """The messages of a stream, each no sooner than the caller's quota allows."""
        return self._paced(requests, caller) if self._callers.limited else requests

    async def _paced(self, requests: AsyncIterator[_T], caller: Caller) -> AsyncIterator[_T]:
        async for request in requests:
            await self._callers.message(caller)
            yield request


def _stranger(context: Context, error: McastdError) -> Caller:
    """Whom the configuration does not know, for the audit log."""
    return Caller(Access.VIEW, "", error.problem.metadata.get("principal", ""), peer_of(context))
