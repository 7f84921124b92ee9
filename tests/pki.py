"""Certificates of every kind for tests: good ones, expired ones, of another CA, with names wherever one can have them."""

import argparse
import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mcastd.cli import lab
from mcastd.model.settings import Remote

HOSTS = ("localhost", "127.0.0.1", "::1")

DAY = dt.timedelta(days=1)

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Credentials:
    """Paths of a certificate and its key."""

    cert: Path
    key: Path


class Pki:
    """A CA in a directory of its own, as `mcastd tls init` makes it, with a server's certificate."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.init()
        self.ca = directory / "ca.pem"
        self.server = Credentials(directory / "server.pem", directory / "server.key")

    def init(self, *clients: str, renew: bool = False, hosts: tuple[str, ...] = HOSTS) -> int:
        """`mcastd tls init`; its exit code."""
        given = argparse.Namespace(
            directory=str(self.directory), host=list(hosts), client=list(clients), group="nobody", days=10, renew=renew
        )
        return lab.run(given)

    def remote(self, port: int, host: str = "127.0.0.1") -> Remote:
        """The address of a server with this certificate."""
        return Remote(host, port, str(self.server.cert), str(self.server.key), str(self.ca))

    def client(
        self,
        common_name: str = "",
        *,
        uris: tuple[str, ...] = (),
        dns: tuple[str, ...] = (),
        begins: dt.timedelta = -DAY,
        ends: dt.timedelta = DAY,
    ) -> Credentials:
        """A client's certificate with these names, valid from and to so long from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        signed = self._signed(key, common_name, names, ExtendedKeyUsageOID.CLIENT_AUTH, begins, ends)
        made = Credentials(self.directory / f"{signed.serial_number:x}.pem", self.directory / f"{signed.serial_number:x}.key")
        made.cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        made.key.write_bytes(pem_of(key))
        return made

    def put_server(
        self,
        key: Key | None = None,
        use: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        begins: dt.timedelta = -DAY,
        ends: dt.timedelta = DAY * 10,
    ) -> None:
        """Another certificate of the server."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(one)) for one in HOSTS[1:]]
        signed = self._signed(key, "server", names, use, begins, ends)
        self.server.cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        self.server.key.write_bytes(pem_of(key))

    def _signed(
        self,
        key: Key,
        common_name: str,
        names: list[x509.GeneralName],
        use: x509.ObjectIdentifier,
        begins: dt.timedelta,
        ends: dt.timedelta,
    ) -> x509.Certificate:
        authority = x509.load_pem_x509_certificate(self.ca.read_bytes())
        private = serialization.load_pem_private_key((self.directory / "ca.key").read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        now = dt.datetime.now(dt.UTC)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(private, hashes.SHA256())

    def named(self, name: str) -> Credentials:
        """A good client with this DNS name."""
        return self.client(name, dns=(name,))

    def credentials(self, client: Credentials | None = None, ca: Path | None = None) -> grpc.ChannelCredentials:
        """For a channel; `ca`: whom it trusts, this CA if nothing else is said."""
        roots = (ca or self.ca).read_bytes()
        if client is None:
            return grpc.ssl_channel_credentials(roots)
        return grpc.ssl_channel_credentials(roots, client.key.read_bytes(), client.cert.read_bytes())


def pem_of(key: Key, password: bytes = b"") -> bytes:
    """The key as a file has it."""
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
