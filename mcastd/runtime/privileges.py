"""The server's own fall from power: from whatever the keeper gave it to its user without any capability, for good.

Called once, after every import and before the first byte of state, configuration or API is touched.
"""

import logging
import os
from pathlib import Path

from mcastd.kernel import privileges
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Settings

OOM_SCORE = Path("/proc/self/oom_score_adj")

_log = logging.getLogger(__name__)


def give_up_protection(path: Path = OOM_SCORE) -> None:
    """Have the kernel end this process before the keeper where memory is short: forwarding goes on without it.

    The keeper may be protected (OOMScoreAdjust= of the unit), which is inherited. To be called while the file is still our own.
    """
    try:
        if int(path.read_text()) < 0:
            path.write_text("0\n")
    except OSError as exc:
        _log.debug("the protection from the OOM killer stays", extra={"error": exc.strerror})


def drop(settings: Settings) -> None:
    """Change to the user of the settings, give up every capability, and see that it is so.

    Raises McastdError NOT_ALLOWED if anything is left, or if there are threads (each has capabilities of its own).
    """
    if privileges.threads() != 1:
        raise McastdError(Reason.NOT_ALLOWED, "privileges can't be dropped: there are threads already, which would keep theirs")
    try:
        # First: with the change of the user goes CAP_SETPCAP, by which a keeper that is root lets it be dropped.
        privileges.drop_bounding_set()
        if settings.change_user:
            os.setgroups(settings.socket_gids())
            os.setresgid(settings.gid, settings.gid, settings.gid)
            os.setresuid(settings.uid, settings.uid, settings.uid)
        bounding_dropped = privileges.drop_everything()
        confined = privileges.confine()
    except OSError as exc:
        raise McastdError(Reason.NOT_ALLOWED, f"privileges can't be dropped: {exc}", user=settings.user) from exc
    _verify(settings, bounding_dropped)
    _log.debug("privileges are dropped", extra={"user": settings.user, "uid": settings.uid, "confined": confined})


def _verify(settings: Settings, bounding_dropped: bool) -> None:
    left = [name for name, fine in _checks(settings, bounding_dropped) if not fine]
    if left:
        raise McastdError(Reason.NOT_ALLOWED, f"privileges were dropped, but these remain: {', '.join(left)}", user=settings.user)


def _checks(settings: Settings, bounding_dropped: bool) -> list[tuple[str, bool]]:
    """What must hold now; where CAP_SETPCAP was missing the bounding set stays, and means nothing beside no_new_privs."""
    now = privileges.current()
    return [
        ("user", os.getresuid() == (settings.uid,) * 3),
        ("group", os.getresgid() == (settings.gid,) * 3),
        ("further groups", not settings.change_user or sorted(os.getgroups()) == sorted(settings.socket_gids())),
        ("permitted capabilities", now.permitted == 0),
        ("effective capabilities", now.effective == 0),
        ("inheritable capabilities", now.inheritable == 0),
        ("ambient capabilities", now.ambient == 0),
        ("the capability bounding set", now.bounding == 0 or not bounding_dropped),
        ("no_new_privs", now.no_new_privs),
    ]
