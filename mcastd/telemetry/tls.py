"""TLS of the metrics listener: the section tls_server_config of the web configuration made into a context."""

import ssl
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mcastd.model.certificate import no_password, not_after
from mcastd.model.errors import McastdError

KEYS = (
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "client_ca",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
)

_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}

_CLIENTS = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}

_SUITES = {
    f"TLS_ECDHE_{key}_WITH_{name}": f"ECDHE-{key}-{openssl}"
    for key in ("RSA", "ECDSA")
    for name, openssl in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
    )
}
"""Go's names (crypto/tls CipherSuites) and OpenSSL's, of TLS 1.2; those of TLS 1.3 can't be chosen there either."""

_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1"}


class Section(Protocol):
    """The mapping, as the web configuration reads it."""

    content: dict[str, Any]

    def bad(self, key: str, problem: str) -> McastdError:
        """The error about one key."""

    def known(self, *keys: str) -> None:
        """Refuse every other key."""

    def get(self, key: str, kind: type, default: Any) -> Any:
        """A value of this type."""


class TlsFiles(NamedTuple):
    """What was made, and of what."""

    context: ssl.SSLContext
    files: tuple[Path, ...]
    expires: float
    """When the certificate ends, seconds since the epoch."""
    allowed_sans: frozenset[str]


def make_context(section: Section, directory: Path) -> TlsFiles:
    """The context that the section asks for; raises McastdError that names the key."""
    for key in ("cert", "key"):
        if key in section.content:
            raise section.bad(key, f"can't be given inline here: write it to a file, and its name to {key}_file")
    section.known(*KEYS)
    cert, private = _file(section, "cert_file", directory), _file(section, "key_file", directory)
    if cert is None or private is None:
        raise section.bad("cert_file" if cert is None else "key_file", "is missing: TLS needs a certificate and its key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _versions(section, context)
    _ciphers(section, context)
    try:
        context.load_cert_chain(cert, private, password=no_password)
        # Neither read_text() nor strptime(): they import modules, which may not be readable any more.
        expires = not_after(cert.read_bytes().decode("ascii"))
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise section.bad("cert_file", f"({cert}) and key_file ({private}) can't be used: {reason}") from exc
    client_ca = _client(section, context, directory)
    sans = frozenset(section.get("client_allowed_sans", list, []))
    if sans and context.verify_mode is not ssl.CERT_REQUIRED:
        raise section.bad("client_allowed_sans", "needs client_auth_type RequireAndVerifyClientCert")
    return TlsFiles(context, tuple(one for one in (cert, private, client_ca) if one is not None), expires, sans)


def _file(section: Section, key: str, directory: Path) -> Path | None:
    name = section.get(key, str, "")
    return directory / name if name else None


def _versions(section: Section, context: ssl.SSLContext) -> None:
    low, high = section.get("min_version", str, "TLS12"), section.get("max_version", str, "TLS13")
    for key, value in (("min_version", low), ("max_version", high)):
        if value not in _VERSIONS:
            raise section.bad(key, f"is {value!r}: choose {', '.join(_VERSIONS)}")
    if _VERSIONS[low] > _VERSIONS[high]:
        raise section.bad("max_version", f"is {high}, less than min_version {low}")
    context.minimum_version, context.maximum_version = _VERSIONS[low], _VERSIONS[high]


def _ciphers(section: Section, context: ssl.SSLContext) -> None:
    suites = section.get("cipher_suites", list, [])
    for name in suites:
        if name not in _SUITES:
            raise section.bad("cipher_suites", f"names {name!r}: choose {', '.join(_SUITES)}")
    if suites:
        context.set_ciphers(":".join(_SUITES[name] for name in suites))
    if section.get("prefer_server_cipher_suites", bool, True):
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    curves = section.get("curve_preferences", list, [])
    if len(curves) > 1 or not set(curves) <= set(_CURVES):
        raise section.bad(
            "curve_preferences", f"can name one curve here, of {', '.join(_CURVES)}: leave it out for OpenSSL's own"
        )
    if curves:
        context.set_ecdh_curve(_CURVES[curves[0]])


def _client(section: Section, context: ssl.SSLContext, directory: Path) -> Path | None:
    """Which certificates of clients are wanted; the file of those who may have signed them."""
    kind = section.get("client_auth_type", str, "")
    if kind not in _CLIENTS:
        raise section.bad("client_auth_type", f"is {kind!r}: choose {', '.join(filter(None, _CLIENTS))}")
    path, inline = _file(section, "client_ca_file", directory), section.get("client_ca", str, "")
    if path is not None and inline:
        raise section.bad("client_ca", "and client_ca_file say the same: leave one")
    wanted = _CLIENTS[kind]
    if wanted is ssl.CERT_NONE:
        if path is not None or inline:
            raise section.bad("client_ca_file", "is of no use without client_auth_type RequireAndVerifyClientCert")
        return None
    if path is None and not inline:
        raise section.bad("client_ca_file", f"is missing: {kind} needs it")
    try:
        context.load_verify_locations(cafile=path, cadata=inline or None)
    except (OSError, ValueError) as exc:
        raise section.bad("client_ca_file", f"({path or 'client_ca'}) can't be used: {exc}") from exc
    context.verify_mode = wanted
    return path
