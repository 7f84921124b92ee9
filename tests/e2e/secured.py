"""A router whose daemon is offered over TLS, its certificates, and mcastctl on a host in the network."""

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.e2e.ctl import Ctl
from tests.pki import Credentials, Pki
from tests.testbed import Namespace, Testbed
from tests.testbed.daemon import McastdProcess

PORT = 50_051

PRINCIPALS = """
[[principal]]
name = "alice"
access = "write"

[[principal]]
name = "eve"

[[principal]]
name = "root"
access = "admin"
"""


class Remote:
    """mcastctl on a host, with the certificate of somebody."""

    def __init__(self, host: Namespace, address: str, ca: Path, who: Credentials | None) -> None:
        self._host = host
        self._ctl = Ctl(address)
        self._flags = ["--tls-ca", str(ca)]
        if who is not None:
            self._flags += ["--tls-cert", str(who.cert), "--tls-key", str(who.key)]

    def call(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        with self._host.entered():
            return self._ctl.call(*self._flags, *arguments)

    def run(self, *arguments: str) -> str:
        """Run it; what it wrote, once it has ended well."""
        done = self.call(*arguments)
        assert done.returncode == 0, done
        return done.stdout


class Secured:
    """A star whose router is reached over TLS from the source's host; use it as a context."""

    def __init__(self, bed: Testbed, directory: Path) -> None:
        self.star = bed.star(1)
        self.directory = directory
        self.pki = Pki(directory / "tls")
        self.pki.init(renew=True, hosts=(self.star.uplink.ipv4, self.star.uplink.ipv6, "127.0.0.1", "::1"))
        self.pki.server.key.chmod(0o644)  # the server is another user
        self.host = self.star.source.namespace
        self.config = directory / "mcastd.toml"
        self.configure()
        self.daemon: McastdProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.daemon is not None:
            self.daemon.close()

    def configure(self, principals: str = PRINCIPALS, daemon: str = "") -> None:
        """Write the file."""
        self.config.write_text(f"[daemon]\n{daemon}\n{principals}")
        self.config.chmod(0o644)

    @property
    def listen(self) -> str:
        """The TCP address, as flags have it; any address of one family is any of both."""
        return f"tcp:0.0.0.0:{PORT},cert={self.pki.server.cert},key={self.pki.server.key},ca={self.pki.ca}"

    def start(self, *arguments: str, directory: Path | None = None, **options: Any) -> McastdProcess:
        """Start a daemon here."""
        given = ["--config", str(self.config), "--listen", self.listen, *arguments]
        self.daemon = McastdProcess(self.star.router, directory or self.directory, *given, **options)
        return self.daemon

    def remote(self, who: str | Credentials | None, family: int = 4) -> Remote:
        """The program mcastctl on the source's host."""
        credentials = self.pki.named(who) if isinstance(who, str) else who
        address = self.star.uplink.ipv4 if family == 4 else f"[{self.star.uplink.ipv6}]"
        return Remote(self.host, f"{address}:{PORT}", self.pki.ca, credentials)

    def tls_version(self, version: ssl.TLSVersion) -> str:
        """What a good client that speaks this version alone gets; OSError if nothing."""
        client = self.pki.named("alice")
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        context.load_cert_chain(client.cert, client.key)
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        with connected(self.host, self.star.uplink.ipv4) as sock, context.wrap_socket(sock, server_hostname="127.0.0.1") as tls:
            return tls.version() or ""


@contextmanager
def connected(host: Namespace, address: str, port: int = PORT) -> Iterator[Any]:
    """A TCP connection from a host."""
    with host.entered():
        sock = socket.create_connection((address, port), 10)
    with sock:
        yield sock


def descriptors(pid: int) -> int:
    """How many a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a number is all


def resident(pid: int) -> int:
    """Memory of a process in bytes."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
