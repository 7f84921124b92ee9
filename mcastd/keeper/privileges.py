"""Giving up what the keeper does not need once its sockets are open, so that the server has nothing to inherit.

How the server comes to what it has (capabilities(7), "transformation of capabilities during execve"):
- as root: the bounding set has no more than the keeper itself, and SETPCAP; the server has that until it changes its user, after
  its imports and before it parses anything, and drops even the bounding set. It can't be less: what is neither there nor
  inheritable is lost to the keeper, too, when it re-executes itself;
- with the two capabilities alone: they are neither inheritable nor ambient any more, so it gets none;
- where the installation is closed to uid 0 (a home directory of mode 0700): DAC_READ_SEARCH is kept and inherited as well, or the
  server could not even be started. It adds little to SETUID, with which one can be the directory's owner;
- in a user namespace with one id: as root, but nothing is inheritable, since there is no user to change to.

How the keeper keeps its own when it re-executes itself: as root by the bounding set, otherwise as ambient ones, for that moment.
"""

import errno
import logging
import os
import sys

from mcastd.keeper.failure import EX_NOPERM, CannotRun
from mcastd.kernel import privileges
from mcastd.model.settings import Settings

_NEEDED = {"CAP_NET_ADMIN": privileges.CAP_NET_ADMIN, "CAP_NET_RAW": privileges.CAP_NET_RAW}
_CAP_DAC_READ_SEARCH = 1 << 2
_CHANGE_USER = privileges.CAP_SETUID | privileges.CAP_SETGID

_log = logging.getLogger(__name__)


def check() -> None:
    """CannotRun if a capability is missing that nothing works without."""
    effective = privileges.current().effective
    missing = [name for name, bit in _NEEDED.items() if not effective & bit]
    if missing:
        raise CannotRun(
            EX_NOPERM,
            f"{' and '.join(missing)} missing: start as root, with both as ambient capabilities "
            "(systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW), or for a trial in a namespace of its own: unshare -rn",
        )


def set_groups(settings: Settings) -> None:
    """Have only the groups that the server will have, so that acting as the server is acting as the server."""
    if settings.change_user:
        os.setgroups(settings.socket_gids())


def reduce(settings: Settings) -> None:
    """Keep the two capabilities, and as root those that start a server as another user and end it."""
    needed = privileges.CAP_NET_ADMIN | privileges.CAP_NET_RAW
    inheritable = 0
    if settings.change_user:
        needed |= _CHANGE_USER | privileges.CAP_KILL
        inheritable = _CHANGE_USER
    now = privileges.current()
    if not _installation_is_readable(now.permitted, needed & now.permitted):
        _log.info("the installation is closed to other users: CAP_DAC_READ_SEARCH is kept to start servers from it")
        needed |= _CAP_DAC_READ_SEARCH
        inheritable |= _CAP_DAC_READ_SEARCH & now.permitted
    # Nothing can become inheritable that is not in the bounding set (cap_capset, security/commoncap.c): so this goes first.
    privileges.set_capabilities(now.permitted, now.effective, inheritable)
    privileges.set_ambient(0)
    keep = needed & now.permitted
    dropped = privileges.drop_bounding_set(keep | privileges.CAP_SETPCAP)
    privileges.set_capabilities(keep, keep, inheritable)
    privileges.close_proc()  # from a server that has the keeper's user
    _log.debug("privileges are reduced", extra={"capabilities": f"{keep:#x}", "bounding_set_dropped": dropped})


def allow_execution() -> privileges.Privileges:
    """Have the next image of this process get what this one has; what was before, for `restore`. OSError if it can't."""
    now = privileges.current()
    inheritable = now.inheritable | now.permitted & now.bounding
    if now.permitted & ~inheritable:
        text = f"capabilities {now.permitted & ~inheritable:#x} would be lost: they are not in the bounding set"
        raise PermissionError(errno.EPERM, text)
    privileges.set_capabilities(now.permitted, now.effective, inheritable)
    privileges.set_ambient(now.permitted)
    return now


def restore(before: privileges.Privileges) -> None:
    """Undo `allow_execution`: there was none."""
    privileges.set_ambient(0)
    privileges.set_capabilities(before.permitted, before.effective, before.inheritable)


def _installation_is_readable(permitted: int, effective: int) -> bool:
    """Whether a server that has no more than `effective` can be started from here."""
    privileges.set_capabilities(permitted, effective)
    try:
        return all(map(_readable, {os.path.realpath(sys.executable), os.path.dirname(__file__), *sys.path}))
    finally:
        privileges.set_capabilities(permitted, permitted)


def _readable(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        return False
    except OSError:  # it is not there, or not to be opened by anybody
        return True
    return True
