"""The web configuration file: TLS and basic authentication, as Prometheus' exporter-toolkit has it (its web-configuration.md).

Read whole and checked whole: an unknown key, or a value that can't be honoured here, is refused by name. Paths are relative to
the file.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mcastd.model.errors import McastdError, Reason
from mcastd.telemetry.tls import make_context

COST_MAX = 16
"""Of a bcrypt hash: 2^16 rounds take some 4 s."""

_HASH = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
"""Salt and digest; the salt's last character bears two bits, and any other makes bcrypt fail at each request."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_ALLOWED = {"X-Frame-Options": ("deny", "sameorigin"), "X-Content-Type-Options": ("nosniff",)}
_HEADERS = (
    "Content-Security-Policy",
    "X-Frame-Options",
    "X-Content-Type-Options",
    "X-XSS-Protection",
    "Strict-Transport-Security",
)


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file says."""

    tls: ssl.SSLContext | None = None
    files: tuple[Path, ...] = ()
    """What was read: they are to be looked at for changes."""
    expires: float = 0.0
    """When the certificate ends, seconds since the epoch; 0 = there is none."""
    allowed_sans: frozenset[str] = frozenset()
    users: Mapping[str, bytes] = field(default_factory=dict)
    """Hashes by user."""
    headers: Mapping[str, str] = field(default_factory=dict)
    interval: float = 0.0
    """Seconds between two requests, beyond the burst; 0 = no limit."""
    burst: int = 0

    @property
    def nobody(self) -> bytes:
        """The hash to compare with where there is no such user: the dearest one, so that the time taken tells nothing."""
        return max(self.users.values(), key=lambda one: one[4:6], default=b"")


def read(path: Path) -> WebConfig:
    """Read and check the file, and what it names; raises McastdError INVALID_VALUE."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as exc:
        text = f"the web configuration {path} can't be read: {exc.strerror}: the server's user must be able to (chgrp, chmod g+r)"
        raise McastdError(Reason.INVALID_VALUE, text, field="metrics.web_config", value=str(path)) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise _bad(path, "", f"is no YAML: {' '.join(str(exc).split())}") from exc
    top = _Section(path, "", content if content is not None else {})
    top.known("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
    files: tuple[Path, ...] = (path,)
    tls, expires, sans = None, 0.0, frozenset[str]()
    if (section := top.section("tls_server_config")) is not None:
        made = make_context(section, path.parent)
        tls, expires, sans = made.context, made.expires, made.allowed_sans
        files = (path, *made.files)
    interval, burst = _rate(top.section("rate_limit"))
    return WebConfig(
        tls,
        files,
        expires,
        sans,
        _users(top.section("basic_auth_users")),
        _headers(top.section("http_server_config")),
        interval,
        burst,
    )


class _Section:
    """A mapping of the file, and where it is; the TLS part is read by mcastd.telemetry.tls."""

    def __init__(self, path: Path, name: str, content: Any) -> None:
        self._path = path
        self._name = name
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise _bad(path, name, "must be a mapping")
        self.content: dict[str, Any] = content

    def bad(self, key: str, problem: str) -> McastdError:
        """The error about one key."""
        return _bad(self._path, f"{self._name}.{key}" if self._name else key, problem)

    def known(self, *keys: str) -> None:
        """Refuse every other key."""
        for key in self.content:
            if key not in keys:
                raise self.bad(key, f"is unknown: the keys here are {', '.join(keys)}")

    def section(self, key: str) -> "_Section | None":
        """A mapping below, where there is one."""
        content = self.content.get(key)
        return None if content is None else _Section(self._path, key, content)

    def get(self, key: str, kind: type, default: Any) -> Any:
        """A value of this type; an empty one (null) is the default."""
        value = self.content.get(key)
        if value is None:
            return default
        if type(value) is not kind:
            names = {str: "a string", bool: "true or false", int: "a number", list: "a list of strings", dict: "a mapping"}
            raise self.bad(key, f"must be {names[kind]}")
        if isinstance(value, list) and not all(isinstance(one, str) for one in value):
            raise self.bad(key, "must be a list of strings")
        return value


def _users(section: _Section | None) -> dict[str, bytes]:
    users: dict[str, bytes] = {}
    if section is None:
        return users
    for name in section.content:
        found = _HASH.fullmatch(section.get(name, str, ""))
        if found is None or ":" in name:
            raise section.bad(name, "must be a bcrypt hash, as `htpasswd -nBC 10 ''` makes it")
        if not 4 <= int(found[1]) <= COST_MAX:
            raise section.bad(name, f"has cost {found[1]}: choose 4 to {COST_MAX}, 10 is usual")
        users[name] = found[0].encode()
    return users


def _headers(section: _Section | None) -> dict[str, str]:
    if section is None:
        return {}
    section.known("http2", "headers")
    section.get("http2", bool, True)  # HTTP/2 is allowed by it, not promised.
    below = section.get("headers", dict, {})
    headers = {}
    for name, value in below.items():
        if name not in _HEADERS:
            raise section.bad(f"headers.{name}", f"is unknown: the headers here are {', '.join(_HEADERS)}")
        if not isinstance(value, str) or not value.isprintable() or not value.isascii():
            raise section.bad(f"headers.{name}", "must be a string on one line")
        if value and name in _ALLOWED and value not in _ALLOWED[name]:
            raise section.bad(f"headers.{name}", f"must be {' or '.join(_ALLOWED[name])}")
        if value:
            headers[name] = value
    return headers


def _rate(section: _Section | None) -> tuple[float, int]:
    if section is None:
        return 0.0, 0
    section.known("interval", "burst")
    value = section.content.get("interval", 0)
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if value not in {0, "0"} and found is None:
        raise section.bad("interval", "must be a duration, such as 1s or 100ms")
    burst = section.get("burst", int, 1)
    if burst < 1:
        raise section.bad("burst", "must be 1 or more")
    return (float(found[1]) * _SECONDS[found[2]] if found is not None else 0.0), burst


def _bad(path: Path, key: str, problem: str) -> McastdError:
    what = f"{path}: {key} {problem}" if key else f"{path} {problem}"
    return McastdError(Reason.INVALID_VALUE, what, field=f"metrics.web_config: {key}" if key else "metrics.web_config", value=key)
