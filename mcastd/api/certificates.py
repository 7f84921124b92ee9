"""Certificate, key and CA of a listener: read, checked, and read again when they change, without a connection being dropped.

gRPC asks at each handshake, in a thread of its own: what it gets is there already. That it speaks TLS 1.3 alone the package says.
"""

import logging
import ssl
from pathlib import Path

import grpc

from mcastd.model.certificate import Stamp, no_password, not_after, stamp
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Remote

_log = logging.getLogger(__name__)


class Certificates:
    """What one listener shows, and whom it lets in."""

    def __init__(self, remote: Remote) -> None:
        """Read the files; McastdError INVALID_VALUE if they can't be used."""
        self.remote = remote
        self._paths = [Path(remote.cert), Path(remote.key), Path(remote.ca)]
        self._stamps = self._look()
        self._configuration, self.expires = self._read()
        self._told = self._configuration
        self.problem = ""
        """Why the files, as they are now, are not in force; empty = they are."""
        self._suspected = False

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC's server."""
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._fetch,  # type: ignore[arg-type] # None = as before, says grpc/__init__.py
            require_client_authentication=True,
        )
        return credentials

    def refresh(self) -> None:
        """Read the files again if they have changed; what can't be used changes nothing, and is told of.

        Files are replaced one by one: that they do not fit together is told of when it is so at the second look.
        """
        stamps = self._look()
        if stamps == self._stamps and not self._suspected:
            return
        self._stamps = stamps
        try:
            self._configuration, self.expires = self._read()
        except McastdError as exc:
            if self._suspected and str(exc) != self.problem:
                self.problem = str(exc)
                _log.error("the certificates can't be used: the last good ones stay in force", extra={"error": self.problem})
            self._suspected = True
            return
        self._suspected, self.problem = False, ""
        _log.info("the certificates were read again", extra={"address": self.remote.address})

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at each handshake, in a thread of its own: the configuration if it is new, None if it is not."""
        configuration = self._configuration
        if configuration is self._told:
            return None
        self._told = configuration
        return configuration

    def _look(self) -> list[Stamp]:
        return [stamp(path) for path in self._paths]

    def _read(self) -> tuple[grpc.ServerCertificateConfiguration, float]:
        """The configuration, and when the certificate ends, in seconds since the epoch."""
        cert, key, ca = self._paths
        try:
            chain, private, roots = cert.read_bytes(), key.read_bytes(), ca.read_bytes()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert, key, password=no_password)
            context.load_verify_locations(cadata=roots.decode("ascii"))
            expires = not_after(chain.decode("ascii"))
        except (OSError, ValueError) as exc:
            reason = f"{exc.filename}: {exc.strerror}" if isinstance(exc, OSError) and exc.filename else str(exc)
            text = (
                f"{self.remote.address}: cert {cert}, key {key} and ca {ca} can't be used: {reason}; they are read as PEM by the"
                " server's user, and the key must be the certificate's"
            )
            raise McastdError(Reason.INVALID_VALUE, text, field="cert", value=str(cert)) from exc
        return grpc.ssl_server_certificate_configuration([(private, chain)], root_certificates=roots), expires
