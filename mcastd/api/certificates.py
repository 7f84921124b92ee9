"""Certificate, key and CA of a listener: read, checked, and read again when they change, without a connection being dropped.

gRPC asks at each handshake, in a thread of its own: what it gets is there already. That it speaks TLS 1.3 alone the package says.
What it is given must be good, since it tells nobody but its own log that it goes on with what it had: so files are tried first,
with OpenSSL, which says what is wrong, and with gRPC, whose BoringSSL takes less.
"""

import itertools
import logging
import os
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import grpc
import grpc._server  # grpc.server() would import it when it may not be readable any more

from mcastd.model.certificate import SERVER_AUTH, Stamp, certificates_of, no_password, stamp
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Remote

KEYS = frozenset({"RSA", "EC P-256", "EC P-384"})
"""Kinds of keys that clients on gRPC's own TLS (C++, Python, mcastctl) accept (BoringSSL, kVerifySignatureAlgorithms)."""

_HOW = (
    "they are read as PEM by the server's user and his first group (others of his do not count),"
    " and the key must be the certificate's"
)

_tried = itertools.count(1)
"""Names of sockets, which gRPC closes a moment later than it says."""

_log = logging.getLogger(__name__)


class Files(NamedTuple):
    """What was read."""

    configuration: grpc.ServerCertificateConfiguration
    begins: float
    """From when to when all certificates that the server shows hold, seconds since the epoch."""
    ends: float
    ca_ends: float
    """When the last of the CA's certificates ends."""

    def problem(self, now: float) -> str:
        """Why nobody can connect at this time, or nothing."""
        if now < self.begins:
            return f"the certificate holds from {_date(self.begins)} on: look at this host's clock"
        if now >= self.ends:
            return f"the certificate, or one of its chain, has ended on {_date(self.ends)}: renew it"
        return f"the last certificate of ca has ended on {_date(self.ca_ends)}" if now >= self.ca_ends else ""


class Certificates:
    """What one listener shows, and whom it lets in."""

    def __init__(self, remote: Remote, clock: Callable[[], float] = time.time, *, patient: bool = False) -> None:
        """Read the files; McastdError INVALID_VALUE if they can't be used, unless it is to be `patient`: they may be, later.

        Those of another time can be used: this host's clock may be wrong.
        """
        self.remote = remote
        self._clock = clock
        self._stamps = self._look()
        self._files: Files | None = None
        self.problem = ""
        """Why the files, as they are now, are not in force, or of no use; empty = all is well."""
        self._suspected = False
        try:
            self._files = read_files(self.remote)
        except McastdError as exc:
            if not patient:
                raise
            self._suspected = True
            self._note(str(exc))
        else:
            self._note(self._files.problem(clock()))
        self._told = self._files.configuration if self._files is not None else None

    @property
    def usable(self) -> bool:
        """Whether there are any."""
        return self._files is not None

    @property
    def expires(self) -> float:
        """When the first of the certificates in force ends that the server shows, seconds since the epoch; 0 = there are none."""
        return 0.0 if self._files is None else self._files.ends

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC's server, once they are usable."""
        assert self._files is not None  # noqa: S101 - see above
        self._told = self._files.configuration
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._told,
            self._fetch,  # type: ignore[arg-type] # None = as before, says grpc/__init__.py
            require_client_authentication=True,
        )
        return credentials

    def refresh(self) -> None:
        """Read the files again if they have changed; what can't be used changes nothing, and is told of.

        Files are replaced one by one: that they do not fit together is told of when it is so at the second look. Good ones are
        not given up for some that are not valid yet, or any more; the first are tried again until they are.
        """
        now, stamps = self._clock(), self._look()
        if stamps == self._stamps and not self._suspected:
            self._note(self._problem(now))
            return
        self._stamps = stamps
        try:
            found = read_files(self.remote)
            problem = found.problem(now)
            if problem and self._files is not None and not self._problem(now):
                raise refused(self.remote, problem)
        except McastdError as exc:
            if self._suspected:
                self._note(str(exc))
            self._suspected = True
            return
        self._suspected, self._files = False, found
        _log.info("the certificates were read again", extra={"address": self.remote.address})
        self._note(problem)

    def _problem(self, now: float) -> str:
        return "" if self._files is None else self._files.problem(now)

    def _note(self, problem: str) -> None:
        """Tell of a problem, once."""
        if problem and problem != self.problem:
            text = "the certificates can't be used: the last good ones stay in force, where there are any"
            _log.error(text, extra={"address": self.remote.address, "error": problem})
        self.problem = problem

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at each handshake, in a thread of its own: the configuration if it is new, None if it is not."""
        configuration = self._files.configuration if self._files is not None else None
        if configuration is self._told:
            return None
        self._told = configuration
        return configuration

    def _look(self) -> list[Stamp]:
        return [stamp(path) for path in _paths(self.remote)]


def read_files(remote: Remote) -> Files:
    """What the files of a listener hold, checked; McastdError INVALID_VALUE if they can't be used, by what OSError if by one."""
    paths = _paths(remote)
    try:
        contents = [path.read_bytes() for path in paths]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(paths[0], paths[1], password=no_password)
        if [path.read_bytes() for path in paths] == contents:
            return _checked(context, *contents)
    except (OSError, ValueError) as exc:
        reason = f"{exc.filename}: {exc.strerror}" if isinstance(exc, OSError) and exc.filename else str(exc)
        raise refused(remote, f"{reason}; {_HOW}") from exc
    raise refused(remote, "they are being replaced")  # What OpenSSL has seen may be half of each.


def refused(remote: Remote, reason: str) -> McastdError:
    """That the files of a listener can't be used."""
    text = f"{remote.address}: cert {remote.cert}, key {remote.key} and ca {remote.ca} can't be used: {reason}"
    return McastdError(Reason.INVALID_VALUE, text, field="cert", value=remote.cert)


def _paths(remote: Remote) -> list[Path]:
    return [Path(remote.cert), Path(remote.key), Path(remote.ca)]


def _checked(context: ssl.SSLContext, chain: bytes, key: bytes, roots: bytes) -> Files:
    """What OpenSSL takes, if clients and gRPC do as well; OSError, ValueError."""
    # Files of certificates may have comments in any language.
    texts = [one.decode("ascii", "replace") for one in (chain, roots)]
    context.load_verify_locations(cadata=texts[1].encode("ascii", "replace").decode("ascii"))
    shown, trusted = (list(certificates_of(one)) for one in texts)
    if not trusted:
        raise ValueError("ca holds nothing between BEGIN CERTIFICATE and END CERTIFICATE")
    if shown[0].key not in KEYS:
        raise ValueError(f"the certificate's key is {shown[0].key}, which clients do not accept: use {', '.join(sorted(KEYS))}")
    if shown[0].purposes is not None and SERVER_AUTH not in shown[0].purposes:
        raise ValueError(f"the certificate is not for servers: its extendedKeyUsage lacks {SERVER_AUTH}")
    _try(key, chain, roots)
    return Files(
        grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=roots),
        max(one.begins for one in shown),
        min(one.ends for one in shown),
        max(one.ends for one in trusted),
    )


def _try(key: bytes, chain: bytes, roots: bytes) -> None:
    """Give them to gRPC, for a server that nobody will reach; ValueError if it does not take them. Takes 2 ms."""
    server = grpc.server(ThreadPoolExecutor(1))
    try:
        credentials = grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=True)
        server.add_secure_port(f"unix-abstract:mcastd-tls-{os.getpid()}-{next(_tried)}", credentials)
    except RuntimeError as exc:
        raise ValueError(
            "gRPC's BoringSSL can't read them, which takes fewer kinds of keys and certificates than OpenSSL"
        ) from exc
    finally:
        server.start()  # One that never was keeps its socket.
        server.stop(None).wait(1.0)


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
