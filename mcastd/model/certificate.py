"""Certificates: what has to be read of one, without a library for all of it; and of the files that hold them."""

import ssl
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

Stamp = tuple[int, int, int] | None
"""What tells one state of a file from another; None = it is not there."""

SERVER_AUTH = "serverAuth"
"""The purpose that a server's certificate must have, where it names any (RFC 5280 section 4.2.1.12)."""

_EC = bytes.fromhex("2a8648ce3d0201")
_KEYS = {
    bytes.fromhex("2a864886f70d010101"): "RSA",
    bytes.fromhex("2a864886f70d01010a"): "RSA-PSS",
    bytes.fromhex("2a8648ce3d030107"): "EC P-256",
    bytes.fromhex("2b81040022"): "EC P-384",
    bytes.fromhex("2b81040023"): "EC P-521",
    bytes.fromhex("2b6570"): "Ed25519",
    bytes.fromhex("2b6571"): "Ed448",
}
"""Kinds of keys by their object identifier, those of elliptic curves by that of the curve (RFC 5480, 8017, 8410)."""

_EXTENDED_KEY_USAGE = bytes.fromhex("551d25")
_PURPOSES = {bytes.fromhex("2b06010505070301"): SERVER_AUTH, bytes.fromhex("2b06010505070302"): "clientAuth"}

_EXPLICIT_VERSION, _EXPLICIT_EXTENSIONS = 0xA0, 0xA3
_UTC_TIME = 0x17

_Element = tuple[int, int, int]
"""Tag, begin and end of the content."""


class Facts(NamedTuple):
    """What is read of a certificate."""

    begins: float
    """Seconds since the epoch."""
    ends: float
    key: str
    """Kind of its key."""
    purposes: frozenset[str] | None
    """What it may be used for; None = it does not say, so for anything."""


def stamp(path: Path) -> Stamp:
    """The state that a file is in."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def no_password() -> str:
    """For `load_cert_chain`: rather than that OpenSSL asks for one on a terminal. ValueError."""
    raise ValueError("the key is encrypted: store it without a password, readable by the server's user alone")


def certificates_of(pem: str) -> Iterator[Facts]:
    """What a PEM file says, one certificate after the other; ValueError at one that is none."""
    at = 0
    while (begin := pem.find(ssl.PEM_HEADER, at)) >= 0:
        at = pem.index(ssl.PEM_FOOTER, begin) + len(ssl.PEM_FOOTER)
        yield facts_of(ssl.PEM_cert_to_DER_cert(pem[begin:at]))


def not_after(pem: str) -> float:
    """When the first certificate of a PEM file ends, seconds since the epoch (RFC 5280 section 4.1); ValueError if it is none."""
    for one in certificates_of(pem):
        return one.ends
    raise ValueError("the file holds no certificate in PEM")


def facts_of(der: bytes) -> Facts:
    """What a certificate says (RFC 5280 section 4.1); ValueError if it is none."""
    certificate = _element(der, 0)
    fields = list(_inside(der, next(_inside(der, certificate))))  # TBSCertificate
    if fields and fields[0][0] == _EXPLICIT_VERSION:
        del fields[0]
    if len(fields) < 6:
        raise ValueError("the certificate ends too soon")
    _, _, _, validity, _, key = fields[:6]  # serial number, signature algorithm, issuer; subject
    begins, ends = (_time(der, one) for one in list(_inside(der, validity))[:2])
    extensions = next((one for one in fields[6:] if one[0] == _EXPLICIT_EXTENSIONS), None)
    return Facts(begins, ends, _key(der, key), None if extensions is None else _purposes(der, extensions))


def _time(der: bytes, element: _Element) -> float:
    kind, begin, end = element
    text = der[begin:end].decode("ascii")
    if kind == _UTC_TIME:  # years 1950 to 2049
        text = ("20" if text < "50" else "19") + text
    return datetime.fromisoformat(f"{text[:8]}T{text[8:]}").timestamp()


def _key(der: bytes, element: _Element) -> str:
    """Of SubjectPublicKeyInfo."""
    found = [der[begin:end] for _, begin, end in _inside(der, next(_inside(der, element)))]
    name = found[1] if len(found) > 1 and found[0] == _EC else found[0]
    return _KEYS.get(name, f"an unusual kind ({name.hex()[:40]})")


def _purposes(der: bytes, element: _Element) -> frozenset[str] | None:
    for extension in _inside(der, next(_inside(der, element))):
        _, begin, end = (parts := list(_inside(der, extension)))[0]
        if der[begin:end] == _EXTENDED_KEY_USAGE:
            named = [der[first:last] for _, first, last in _inside(der, next(_inside(der, parts[-1])))]
            return frozenset(_PURPOSES.get(one, one.hex()) for one in named)
    return None


def _inside(der: bytes, element: _Element) -> Iterator[_Element]:
    """The elements that an element consists of; ValueError past the end, or where there are none."""
    _, at, end = element
    if at == end:
        raise ValueError("the certificate lacks a part")
    while at < end:
        one = _element(der, at)
        yield one
        at = one[2]


def _element(der: bytes, at: int) -> _Element:
    """The element at an offset; ValueError past the end."""
    try:
        kind, length, begin = der[at], der[at + 1], at + 2
    except IndexError as exc:
        raise ValueError("the certificate ends too soon") from exc
    if length & 0x80:
        count = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + count], "big"), begin + count
    if begin + length > len(der):
        raise ValueError("the certificate ends too soon")
    return kind, begin, begin + length
