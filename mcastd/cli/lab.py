"""What `mcastd tls init` makes: a CA, a server's and clients' certificates for a lab, and what to write where.

For a lab: the CA's key lies beside what it has signed. What a site has already (cert-manager, step-ca, SPIRE, Vault) is as good.
"""

import argparse
import datetime as dt
import grp
import ipaddress
import os
import pwd
import re
import socket
import sys
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidKey, InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mcastd.cli.tls import CA_DAYS
from mcastd.keeper.failure import EX_CONFIG, EX_OSERR, EX_USAGE
from mcastd.model.owner import owner_problem

_CLOCKS = dt.timedelta(hours=1)
"""Certificates begin before now: clocks differ."""

_Key = ec.EllipticCurvePrivateKey


class _Signer(NamedTuple):
    """Who signs."""

    certificate: x509.Certificate
    key: _Key


class _Refused(Exception):  # noqa: N818 - the name says what was done
    """What can't be done, with the remedy."""

    def __init__(self, text: str, exit_code: int = EX_CONFIG) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def run(given: argparse.Namespace) -> int:
    """Carry it out; the exit code."""
    try:
        print(_init(given))
    except _Refused as exc:
        print(f"mcastd tls init: {exc}", file=sys.stderr)
        return exc.exit_code
    except OSError as exc:
        print(f"mcastd tls init: {exc.filename}: {exc.strerror}", file=sys.stderr)
        return EX_OSERR
    return 0


def _init(given: argparse.Namespace) -> str:
    if not 1 <= given.days <= CA_DAYS:
        raise _Refused(f"--days {given.days} can't be used: choose 1 to {CA_DAYS}", EX_USAGE)
    hosts = given.host or [socket.gethostname(), "localhost", "127.0.0.1", "::1"]
    clients = given.client or ["controller"]
    server_names, client_names = [_host(one) for one in hosts], {name: _client(name) for name in clients}
    _check_files(clients)
    directory = Path(given.directory).absolute()
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    signer = _ca(directory)
    lines = []
    wanted = [("server", hosts[0], server_names, ExtendedKeyUsageOID.SERVER_AUTH)]
    wanted += [(_file_name(name), name, [found], ExtendedKeyUsageOID.CLIENT_AUTH) for name, found in client_names.items()]
    for file, name, names, use in wanted:
        certificate = directory / f"{file}.pem"
        if not given.renew and certificate.exists() and certificate.with_suffix(".key").exists():
            lines.append(f"# {certificate} is there already{_faults(certificate, signer, names)} (--renew makes it anew)")
            continue
        key = ec.generate_private_key(ec.SECP256R1())
        _write(certificate.with_suffix(".key"), _pem_key(key), 0o640 if file == "server" else 0o600)
        _write(certificate, _sign(signer, key, name, names, use, given.days).public_bytes(serialization.Encoding.PEM), 0o644)
        lines.append(f"# {certificate} is made")
    lines += _give(directory / "server.key", given.group)
    return "\n".join([*lines, "", _hint(directory, hosts[0], client_names)])


def _ca(directory: Path) -> _Signer:
    """The CA that is there, or a new one."""
    certificate, key = directory / "ca.pem", directory / "ca.key"
    if certificate.exists() or key.exists():
        try:
            found = x509.load_pem_x509_certificate(certificate.read_bytes())
            private = serialization.load_pem_private_key(key.read_bytes(), None)
        except (OSError, ValueError, TypeError, InvalidKey) as exc:
            raise _Refused(f"the CA {certificate} with {key} can't be used: {exc}; move both away to make a new one") from exc
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != found.public_key():
            raise _Refused(f"{key} is not the key of {certificate}: move both away to make a new one")
        if found.not_valid_after_utc <= dt.datetime.now(dt.UTC):
            text = f"the CA {certificate} has ended on {_date(found)}"
            raise _Refused(f"{text}: move it and {key} away to make a new one, and give --renew")
        return _Signer(found, private)
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"mcastd lab CA {socket.gethostname()}"[:64])])
    made = (
        _builder(name, name, private.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign=True), critical=True)
        .sign(private, hashes.SHA256())
    )
    _write(key, _pem_key(private), 0o600)
    _write(certificate, made.public_bytes(serialization.Encoding.PEM), 0o644)
    return _Signer(made, private)


def _check_files(clients: list[str]) -> None:
    """Refuse two names of one file: one would have the other's certificate."""
    by_file: dict[str, str] = {}
    for name in clients:
        other = by_file.setdefault(_file_name(name), name)
        if other != name:
            text = f"--client {name!r} can't be used beside {other!r}: both are written to {_file_name(name)}.pem"
            raise _Refused(f"{text}; make one in another directory, with this CA", EX_USAGE)


def _faults(path: Path, signer: _Signer, names: list[x509.GeneralName]) -> str:
    """Why a certificate that is there may not be what is wanted, or nothing."""
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found.verify_directly_issued_by(signer.certificate)
    except (ValueError, x509.ExtensionNotFound):
        return ", but it is of no use"
    except (InvalidSignature, TypeError):
        return ", but of another CA"
    if found.not_valid_after_utc <= dt.datetime.now(dt.UTC):
        return f", but has ended on {_date(found)}"
    lacking = ", ".join(str(one.value) for one in names if one not in list(alternatives))
    return f", but does not name {lacking}" if lacking else ""


def _date(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_after_utc:%Y-%m-%d}"


def _sign(
    signer: _Signer, key: _Key, name: str, names: list[x509.GeneralName], use: x509.ObjectIdentifier, days: int
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name if len(name) <= 64 else _file_name(name)[:64])])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    return (
        _builder(subject, signer.certificate.subject, key.public_key(), days, signer.certificate.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(authority, critical=False)
        .sign(signer.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int, end: dt.datetime | None = None
) -> x509.CertificateBuilder:
    """What all certificates have; they end in so many days, and not after the CA's `end`."""
    now = dt.datetime.now(dt.UTC)
    until = now + dt.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS)
        .not_valid_after(until if end is None else min(until, end))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, sign: bool) -> x509.KeyUsage:
    """Of a CA, which signs; or of who uses TLS."""
    return x509.KeyUsage(
        digital_signature=not sign,
        key_cert_sign=sign,
        crl_sign=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_key(key: _Key) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(path: Path, data: bytes, mode: int) -> None:
    """Under another name first, so that nobody reads half of it; never readable by more than `mode` says."""
    making = path.with_name(f".{path.name}.making")
    making.unlink(missing_ok=True)
    descriptor = os.open(making, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode & 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
    making.rename(path)


def _give(key: Path, group: str) -> list[str]:
    """Let the server's group read the key; what to do where that can't be."""
    try:
        os.chown(key, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        who = f"there is no group {group}; without a user mcastd the server is nobody: chgrp {_group_of_nobody()} {key}"
        return [f"# {key}: let the server's user read it ({who})"]
    except PermissionError:
        return [f"# {key}: let the server's user read it (chgrp {group} {key})"]
    return []


def _group_of_nobody() -> str:
    """The group of the user that the server becomes where there is none of its own; distributions call it differently."""
    return grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return _dns("--host", text)


def _client(text: str) -> x509.GeneralName:
    if "://" in text:
        if not text.isascii() or not text.isprintable() or " " in text:
            raise _Refused(f"--client {text!r} can't be used: write a URI such as spiffe://lab/controller", EX_USAGE)
        return x509.UniformResourceIdentifier(text)
    if "*" in text:
        raise _Refused(
            f"--client {text!r} can't be used: name one client; who may be anybody is said in the configuration", EX_USAGE
        )
    return _dns("--client", text)


def _dns(flag: str, text: str) -> x509.DNSName:
    if not re.fullmatch(r"[A-Za-z0-9*]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", text):
        raise _Refused(f"{flag} {text!r} can't be used: write a DNS name, in ASCII", EX_USAGE)
    return x509.DNSName(text)


def _file_name(name: str) -> str:
    return "client-" + (re.sub(r"[^A-Za-z0-9._-]+", "-", name.removeprefix("spiffe://")).strip("-.") or "unnamed")[:100]


def _hint(directory: Path, host: str, clients: dict[str, x509.GeneralName]) -> str:
    """What to write into the configuration, and how to try it."""
    principals = []
    for name in clients:
        owner = "" if not owner_problem(name) else 'owner = "sdn"\n'
        principals.append(f'[[principal]]\nname = "{name}"\naccess = "write"\n{owner}')
    client = directory / _file_name(next(iter(clients)))
    return f"""\
# For the configuration file:
[[listen]]
address = "tcp:0.0.0.0:50051"
cert = "{directory}/server.pem"
key = "{directory}/server.key"
ca = "{directory}/ca.pem"

{chr(10).join(principals)}
# To try it:
# mcastctl --address {host}:50051 --tls-ca {directory}/ca.pem --tls-cert {client}.pem --tls-key {client}.key status"""
