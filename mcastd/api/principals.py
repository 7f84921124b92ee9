"""Who is calling: by the socket he came through, or by his certificate and what the configuration says of the name in it.

Calls that stay open are asked again when the configuration is another: a stream goes on for as long as its caller may have it.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from urllib.parse import unquote

from mcastd.api.ports import Caller, Context
from mcastd.api.quotas import Quotas
from mcastd.model.errors import McastdError, Reason
from mcastd.model.principal import ANYBODY, NO_QUOTA, Principal, Quota
from mcastd.model.settings import Access, Listen, Remote


class SocketCallers:
    """Everybody who comes through a socket, or a plain TCP address on loopback, is the same."""

    def __init__(self, listen: Listen | Remote) -> None:
        """He is what the address says."""
        self._listen = listen
        self.limited = False

    def identify(self, _context: Context) -> Caller:
        """Always the same."""
        return Caller(self._listen.access, self._listen.owner, self._listen.address)

    def request(self, _caller: Caller) -> None:
        """There is no limit."""

    async def message(self, _caller: Caller) -> None:
        """Nor here."""

    def under_way(self, _caller: Caller, _access: Access) -> AbstractContextManager[None]:
        """It stays his."""
        return nullcontext()


_SPIFFE = "spiffe://"

_log = logging.getLogger(__name__)


class Principals:
    """What the configuration says of clients with certificates, and the calls of theirs that are open."""

    def __init__(self) -> None:
        """Nobody may do anything yet."""
        self.limited = True
        self._by_name: Mapping[str, Principal] = {}
        self._open: dict[_Call, None] = {}
        self._quotas = Quotas(self._quota_of)

    def replace(self, principals: Mapping[str, Principal]) -> None:
        """Put others in force; open calls of callers who may not have them any more are ended, for others new limits hold."""
        self._by_name = dict(principals)
        for call in list(self._open):
            try:
                caller = self.caller(call.caller.principal, call.caller.peer)
            except McastdError:
                caller = None
            if caller is None or caller.access < call.needs() or caller.owner != call.caller.owner:
                call.revoke()
            elif call.caller.entry.owner == caller.owner:
                call.caller.entry.routes_max = caller.quota.routes

    def identify(self, context: Context) -> Caller:
        """The caller by his certificate, which TLS has verified."""
        return self.caller(principal_of(context.auth_context()), peer_of(context))

    def caller(self, name: str, peer: str) -> Caller:
        """What a principal may do; McastdError NOT_ALLOWED if the configuration does not know him."""
        found = self._by_name.get(name) or self._by_name.get(ANYBODY)
        if found is None:
            text = f"principal {name!r} is not in the configuration: add a [[principal]] with this name and reload it"
            raise McastdError(Reason.NOT_ALLOWED, text, principal=name)
        return Caller(found.access, found.owner, name, peer, found.quota)

    def request(self, caller: Caller) -> None:
        """He makes one more request; McastdError RATE_LIMIT."""
        self._quotas.request(caller.principal)

    async def message(self, caller: Caller) -> None:
        """One more message of a stream of his: wait until it may come."""
        await self._quotas.message(caller.principal)

    def _quota_of(self, name: str) -> Quota:
        found = self._by_name.get(name) or self._by_name.get(ANYBODY)
        return NO_QUOTA if found is None else found.quota

    @contextmanager
    def under_way(self, caller: Caller, access: Access) -> Iterator[None]:
        """A stream of this caller, which needs this access, is open.

        McastdError STREAM_LIMIT if he has too many, NOT_ALLOWED when he may not have it any more.
        """
        with self._quotas.stream(caller.principal), self._revocable(caller, access):
            yield

    @contextmanager
    def _revocable(self, caller: Caller, access: Access) -> Iterator[None]:
        call = _Call(caller, access)
        self._open[call] = None
        try:
            yield
        except asyncio.CancelledError:
            if not call.revoked:
                raise
            call.task.uncancel()
            text = f"principal {caller.principal!r} may not have this stream any more: the configuration has changed"
            raise McastdError(Reason.NOT_ALLOWED, text, principal=caller.principal) from None
        finally:
            del self._open[call]


class _Call:
    """An open stream, and the task that serves it."""

    def __init__(self, caller: Caller, access: Access) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - handlers are called in one
        self.caller, self.access, self.task = caller, access, task
        self.revoked = False

    def needs(self) -> Access:
        """The access without which it must not go on: one that writes and has yet to say for whom could say anything."""
        if self.access is Access.VIEW:
            return self.access
        needs = self.caller.entry.needs
        return self.caller.access if needs is None else max(self.access, needs)

    def revoke(self) -> None:
        """End it, once: its task may have to clean up."""
        if self.revoked:
            return
        _log.warning("a stream is ended: its caller may not have it any more", extra={"principal": self.caller.principal})
        self.revoked = True
        self.task.cancel()


def peer_of(context: Context) -> str:
    """Where a call comes from; gRPC writes the brackets and the scope of IPv6 addresses as in URLs."""
    return unquote(context.peer())


def principal_of(auth: Mapping[str, object]) -> str:
    """The name in a certificate: its SPIFFE id, else the first URI, else the first DNS name, else the common name.

    `auth` is gRPC's auth context: lists of bytes (src/core/credentials/transport/tls/ssl_utils.cc). What a CA lets its customers
    write as a DNS or common name must not pass for a URI. McastdError NOT_ALLOWED for a SPIFFE id beside other URIs, which
    nobody may take for one (X509-SVID section 2).
    """
    for key in ("peer_spiffe_id", "peer_uri", "peer_dns", "x509_common_name"):
        values = auth.get(key)
        if not isinstance(values, list | tuple) or not values or not values[0]:
            continue
        name = bytes(values[0]).decode("utf-8", "backslashreplace")
        if key == "peer_uri" and name.startswith(_SPIFFE):
            text = f"the certificate names {name!r} and other URIs, or this is no SPIFFE id: it must be one, and the only URI"
            raise McastdError(Reason.NOT_ALLOWED, text, principal=name)
        if key in {"peer_uri", "peer_spiffe_id"} or "://" not in name:
            return name
    return ""
