"""Certificates: what has to be read of one, without a library for all of it; and of the files that hold them."""

import ssl
from datetime import datetime
from pathlib import Path

Stamp = tuple[int, int, int] | None
"""What tells one state of a file from another; None = it is not there."""


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


def not_after(pem: str) -> float:
    """When the first certificate of a PEM file ends, seconds since the epoch (RFC 5280 section 4.1); ValueError if it is none."""
    begin = pem.index(ssl.PEM_HEADER)
    end = pem.index(ssl.PEM_FOOTER, begin) + len(ssl.PEM_FOOTER)
    der = ssl.PEM_cert_to_DER_cert(pem[begin:end])
    _, certificate, _ = _element(der, 0)
    _, at, _ = _element(der, certificate)  # TBSCertificate
    if der[at] == 0xA0:  # the version, where there is one
        at = _element(der, at)[2]
    for _ in range(3):  # serial number, signature algorithm, issuer
        at = _element(der, at)[2]
    _, first, _ = _element(der, at)  # Validity
    kind, begin, end = _element(der, _element(der, first)[2])
    text = der[begin:end].decode("ascii")
    if kind == 0x17:  # UTCTime: years 1950 to 2049
        text = ("20" if text < "50" else "19") + text
    return datetime.fromisoformat(f"{text[:8]}T{text[8:]}").timestamp()


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, begin and end of the content of the element at an offset; ValueError past the end."""
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
