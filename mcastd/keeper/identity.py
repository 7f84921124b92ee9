"""Who the server runs as, and acting as that user for a moment.

The keeper touches the server's directories only as the server's user: as root it would follow links that a server in
strange hands has laid there.
"""

import logging
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from mcastd.keeper.failure import EX_CONFIG, EX_NOPERM, CannotRun
from mcastd.kernel import privileges
from mcastd.model.settings import Settings

_log = logging.getLogger(__name__)

DEFAULT_USERS = ("mcastd", "nobody")


class Identity(NamedTuple):
    """User and group of the server."""

    user: str
    uid: int
    gid: int
    change: bool
    """Whether they differ from the keeper's."""


def server_identity(user: str | None) -> Identity:
    """Who the server runs as: the named user, else mcastd, else nobody, else (where users can't be changed) the keeper's own."""
    if user is not None:
        entry = _entry(user)
        if entry is None:
            raise CannotRun(EX_CONFIG, f"user {user!r} does not exist: create it (useradd --system {user}) or name another")
        if entry.pw_uid == os.geteuid():
            return _own()
        if not _may_change():
            raise CannotRun(
                EX_NOPERM, f"the server can't run as {user!r}: changing user needs CAP_SETUID and CAP_SETGID; start as root"
            )
        if not _mapped(entry):
            raise CannotRun(EX_CONFIG, f"user {user!r} (uid {entry.pw_uid}) does not exist in this user namespace")
        return Identity(user, entry.pw_uid, entry.pw_gid, change=True)
    if os.geteuid() == 0 and _may_change():
        for entry in filter(None, map(_entry, DEFAULT_USERS)):
            if _mapped(entry):
                return Identity(entry.pw_name, entry.pw_uid, entry.pw_gid, change=True)
    return _own()


@contextmanager
def acting_as_server(settings: Settings) -> Iterator[None]:
    """Have the server's user and group, so that the kernel checks rights as it will for the server.

    With them go the effective capabilities; they come back with uid 0 (capabilities(7), "effect of user ID changes").
    """
    if not settings.change_user:
        yield
        return
    uid, gid = os.geteuid(), os.getegid()
    os.setegid(settings.gid)
    os.seteuid(settings.uid)
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)


def _own() -> Identity:
    uid = os.geteuid()
    if uid == 0 and _read("/proc/self/uid_map").split() == ["0", "0", str(2**32 - 1)]:
        _log.warning("the server will be root, though without capabilities: files of root are open to it; see --user")
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Identity(name, uid, os.getegid(), change=False)


def _entry(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        return None


def _may_change() -> bool:
    return (
        not ~privileges.current().effective & (privileges.CAP_SETUID | privileges.CAP_SETGID)
        and _read("/proc/self/setgroups").strip() != "deny"
    )


def gid_exists_here(gid: int) -> bool:
    """Whether the group has a number in this user namespace."""
    return _in_map("/proc/self/gid_map", gid)


def _mapped(entry: pwd.struct_passwd) -> bool:
    return _in_map("/proc/self/uid_map", entry.pw_uid) and gid_exists_here(entry.pw_gid)


def _in_map(path: str, number: int) -> bool:
    ranges = [line.split() for line in _read(path).splitlines()]
    return any(int(first) <= number < int(first) + int(count) for first, _, count in ranges)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
