"""Listening addresses as they are written: `unix:PATH,mode=0660,group=ops,access=view,owner=lab`."""

import grp
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from mcastd.keeper.failure import EX_CONFIG, EX_USAGE, CannotRun
from mcastd.keeper.identity import Identity, gid_exists_here
from mcastd.model.owner import owner_problem
from mcastd.model.settings import SOCKET_PATH_MAX, Access, Listen
from mcastd.sources.daemon import LISTEN_OPTIONS

_SEPARATOR = re.compile(r"\s+|,(?=[\w.-]*:)")
"""Between addresses: blanks, or a comma before the next scheme; other commas start options."""

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


def parse_listen(origin: object, text: str, identity: Identity) -> Listen:
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


def make_listen(origin: object, address: str, options: Mapping[str, str], identity: Identity) -> Listen:
    """A listening address of its parts."""
    group, access, owner = options.get("group"), options.get("access", "admin"), options.get("owner", "local")
    gid = None if group is None else _gid(Option(origin, "group"), group, identity)
    if access.upper() not in Access.__members__:
        raise bad(Option(origin, "access"), access, f"choose {', '.join(one.name.lower() for one in Access)}")
    if problem := owner_problem(owner):
        raise bad(Option(origin, "owner"), owner, problem)
    mode = _mode(Option(origin, "mode"), options["mode"]) if "mode" in options else 0o600 if gid is None else 0o660
    return Listen(_path(origin, address), mode, gid, Access[access.upper()], owner)


def bad(origin: object, value: object, remedy: str) -> CannotRun:
    """The refusal of a value, by where it was written."""
    where = str(origin)
    return CannotRun(EX_USAGE if where.startswith("--") else EX_CONFIG, f"{where}: {value!r} can't be used: {remedy}")


def _path(origin: object, address: str) -> str:
    scheme, colon, path = address.partition(":")
    if scheme != "unix" or not colon:
        if address.startswith("/"):
            raise bad(origin, address, f"write unix:{address}")
        raise bad(origin, address, "only unix:PATH in this version; remote access needs TLS, which a later version brings")
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
