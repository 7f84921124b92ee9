"""Listening addresses as they are written.

unix:PATH,mode=0660,group=ops,access=view,owner=lab     tcp:HOST:PORT,cert=FILE,key=FILE,ca=FILE     tcp:127.0.0.1:PORT,plain=yes
"""

import grp
import os
import re
import socket
from collections.abc import Mapping
from typing import NamedTuple

from mcastd.keeper.failure import EX_CONFIG, EX_USAGE, CannotRun
from mcastd.keeper.identity import Identity, gid_exists_here
from mcastd.model.owner import owner_problem
from mcastd.model.settings import LISTEN_OPTIONS, SOCKET_PATH_MAX, Access, Listen, Remote, metrics_host_port

_FILES = ("cert", "key", "ca")
_OF_SOCKETS = ("mode", "group")
_OF_TCP = (*_FILES, "plain")

_SEPARATOR = re.compile(r"\s+|,(?=[\w.-]*:)")
"""Between addresses: blanks, or a comma before the next scheme; other commas start options."""

_TCP = "write tcp:ADDRESS:PORT, such as tcp:0.0.0.0:50051 or tcp:[::]:50051"
_LINK_LOCAL = (
    "a link-local address is another one on each interface: use a global or unique local one (fd00::/8), or [::] for all"
)
_MAPPED = bytes(10) + b"\xff\xff"
"""Begins IPv4 addresses in IPv6 (RFC 4291 section 2.5.5.2)."""

_MODE = re.compile(r"0?[0-7]{3}")


class Option(NamedTuple):
    """Where an option of an address was written; its text costs something, so it is made for a refusal alone."""

    origin: object
    name: str

    def __str__(self) -> str:
        """As messages write it."""
        return f"{self.origin}: {self.name}"


def split_addresses(text: str) -> list[str]:
    """The addresses of a text such as an environment variable."""
    return [one for one in _SEPARATOR.split(text.strip()) if one]


def parse_listen(origin: object, text: str, identity: Identity) -> Listen | Remote:
    """The address with its options; CannotRun if anything in it can't be."""
    address, *options = text.split(",")
    values: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name not in LISTEN_OPTIONS:
            raise bad(origin, text, f"{option!r} is not one of {', '.join(f'{name}=' for name in LISTEN_OPTIONS)}")
        if name in values:
            raise bad(origin, text, f"{name} is given twice: leave one")
        values[name] = value
    return make_listen(origin, address, values, identity)


def make_listen(origin: object, address: str, options: Mapping[str, str], identity: Identity) -> Listen | Remote:
    """A listening address of its parts."""
    remote = address.startswith("tcp:")
    for name in options:
        if name in (_OF_SOCKETS if remote else _OF_TCP):
            raise bad(Option(origin, name), options[name], f"is for {'unix' if remote else 'tcp'}: addresses: leave it out")
    access, owner = _callers(origin, options)
    if remote:
        return _remote(origin, address, options, access, owner)
    group = options.get("group")
    gid = None if group is None else _gid(Option(origin, "group"), group, identity)
    mode = _mode(Option(origin, "mode"), options["mode"]) if "mode" in options else 0o600 if gid is None else 0o660
    return Listen(_path(origin, address), mode, gid, access, owner)


def _callers(origin: object, options: Mapping[str, str]) -> tuple[Access, str]:
    """What callers may do, and the owner of what they write."""
    access, owner = options.get("access", "admin"), options.get("owner", "local")
    if access.upper() not in Access.__members__:
        raise bad(Option(origin, "access"), access, f"choose {', '.join(one.name.lower() for one in Access)}")
    if problem := owner_problem(owner):
        raise bad(Option(origin, "owner"), owner, problem)
    return Access[access.upper()], owner


def _remote(origin: object, address: str, options: Mapping[str, str], access: Access, owner: str) -> Remote:
    """A TCP address: TLS with all three files, or plain on loopback."""
    host, port, loopback = _host_port(origin, address)
    plain = options.get("plain", "no")
    if plain not in {"yes", "no"}:
        raise bad(Option(origin, "plain"), plain, "choose yes or no")
    if plain == "no":
        return Remote(host, port, *_files(origin, address, options))
    if any(name in options for name in _FILES):
        raise bad(Option(origin, "plain"), plain, f"there is no TLS then: leave out {', '.join(_FILES)}")
    if not loopback:
        raise bad(Option(origin, "plain"), plain, f"{host} is no loopback address: use TLS ({', '.join(_FILES)})")
    return Remote(host, port, access=access, owner=owner)


def _files(origin: object, address: str, options: Mapping[str, str]) -> tuple[str, str, str]:
    """Paths of certificate, key and CA; access and owner are no business of a listener with TLS."""
    for name in _FILES:
        file = options.get(name, "")
        if not file:
            remedy = "TLS needs certificate, key and the CA of clients (mcastd tls init makes all); or, on loopback, plain=yes"
            raise bad(origin, address, f"{name} is missing: {remedy}")
        if not file.startswith("/") or not file.isprintable():
            raise bad(Option(origin, name), file, "write the absolute path of a PEM file")
    for name in ("access", "owner"):
        if name in options:
            raise bad(Option(origin, name), options[name], "who comes with a certificate is a [[principal]]: say it there")
    return options["cert"], options["key"], options["ca"]


def _host_port(origin: object, address: str) -> tuple[str, int, bool]:
    """An address in its usual form, a port, and whether nobody else can reach it."""
    family, packed, port = socket.AF_INET, b"", 0
    try:
        host, port = metrics_host_port(address.removeprefix("tcp:"))
        host = "127.0.0.1" if host == "localhost" else host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        packed = socket.inet_pton(family, host)
    except (OSError, ValueError):
        packed = b""
    if not packed or not port:
        raise bad(origin, address, _LINK_LOCAL if "%" in address else _TCP)
    if len(packed) == 16 and packed[0] == 0xFE and packed[1] & 0xC0 == 0x80:
        raise bad(origin, address, _LINK_LOCAL)
    if packed.startswith(_MAPPED):
        raise bad(origin, address, f"write it as IPv4: tcp:{socket.inet_ntop(socket.AF_INET, packed[-4:])}:{port}")
    return socket.inet_ntop(family, packed), port, packed[0] == 127 if len(packed) == 4 else packed == bytes(15) + b"\1"


def bad(origin: object, value: object, remedy: str) -> CannotRun:
    """The refusal of a value, by where it was written."""
    where = str(origin)
    return CannotRun(EX_USAGE if where.startswith("--") else EX_CONFIG, f"{where}: {value!r} can't be used: {remedy}")


def _path(origin: object, address: str) -> str:
    scheme, colon, path = address.partition(":")
    if scheme != "unix" or not colon:
        if address.startswith("/"):
            raise bad(origin, address, f"write unix:{address}")
        raise bad(origin, address, "write unix:PATH or tcp:ADDRESS:PORT")
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise bad(origin, address, "write unix: and the absolute path of a socket")
    path = "/" + os.path.normpath(path).lstrip("/")  # gRPC's unix:///run/... too
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise bad(origin, address, f"the path of a socket has at most {SOCKET_PATH_MAX} bytes: choose a shorter one")
    return path


def _mode(origin: object, text: str) -> int:
    if not _MODE.fullmatch(text):
        raise bad(origin, text, "write the permissions as three octal digits, such as 0660")
    return int(text, 8)


def _gid(origin: object, group: str, identity: Identity) -> int:
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        raise bad(origin, group, f"there is no such group: create it (groupadd --system {group}) or name another") from None
    if identity.change:
        if not gid_exists_here(gid):
            raise bad(origin, group, f"its gid {gid} does not exist in this user namespace")
    elif gid not in {os.getegid(), *os.getgroups()}:
        raise bad(
            origin, group, f"user {identity.user} is not a member, so it can't give a socket to it: add it, or start as root"
        )
    return gid
