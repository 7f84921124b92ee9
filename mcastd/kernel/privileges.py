"""Capabilities of this process and their dropping; used by the keeper and by the server.

The kernel keeps all of it by thread: call these while the process has one thread (`threads`), later threads inherit.
Sets are 64-bit masks with bit n for capability n of linux/capability.h.
"""

import errno
import os
import signal
from typing import NamedTuple

from mcastd.kernel._native import ffi, lib

CAP_KILL = 1 << 5
CAP_SETGID = 1 << 6
CAP_SETUID = 1 << 7
CAP_SETPCAP = 1 << 8
CAP_NET_ADMIN = 1 << 12
CAP_NET_RAW = 1 << 13
CAP_SYS_NICE = 1 << 23


class Privileges(NamedTuple):
    """What the calling thread may do, and may ever gain."""

    permitted: int
    effective: int
    inheritable: int
    bounding: int
    ambient: int
    no_new_privs: bool


def current() -> Privileges:
    """Read the calling thread's sets."""
    sets = ffi.new("uint64_t[5]")
    _check(lib.pv_get(sets), "capget")
    permitted, effective, inheritable, bounding, ambient = sets
    return Privileges(permitted, effective, inheritable, bounding, ambient, no_new_privs=lib.pv_get_no_new_privs() == 1)


def threads() -> int:
    """How many threads this process has."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - pathlib costs the keeper memory


def set_capabilities(permitted: int, effective: int, inheritable: int = 0) -> None:
    """Set the three sets; PermissionError if that would add to the permitted set."""
    _check(lib.pv_set(permitted, effective, inheritable), "capset")


def drop_bounding_set(keep: int = 0) -> bool:
    """Drop every capability but those of `keep` from the bounding set; False = not allowed (no CAP_SETPCAP), nothing dropped.

    With no_new_privs the bounding set decides nothing any more: False is then a pity, not a danger.
    """
    number = lib.pv_drop_bounding(keep)
    if number == errno.EPERM:
        return False
    _check(number, "PR_CAPBSET_DROP")
    return True


def set_ambient(capabilities: int) -> None:
    """Set what programs executed from here keep without being root; each must be permitted and inheritable."""
    _check(lib.pv_clear_ambient(), "PR_CAP_AMBIENT_CLEAR_ALL")
    _check(lib.pv_raise_ambient(capabilities), "PR_CAP_AMBIENT_RAISE")


def set_no_new_privs() -> None:
    """Make sure that no program executed from here ever gains a right; cannot be undone."""
    _check(lib.pv_set_no_new_privs(), "PR_SET_NO_NEW_PRIVS")


def set_parent_death_signal(number: signal.Signals) -> None:
    """Ask for a signal when the parent's thread that made this process ends.

    The parent may be gone already: compare os.getppid() after it. A change of user clears it (commit_creds, kernel/cred.c):
    call it after that.
    """
    _check(lib.pv_set_parent_death_signal(number), "PR_SET_PDEATHSIG")


def close_proc() -> None:
    """Have this process's files in /proc belong to root, though it may be of another user; an execve(2) undoes it."""
    _check(lib.pv_close_proc(), "PR_SET_DUMPABLE")


def confine() -> bool:
    """Forbid, for good, system calls that need no privilege and that a server has no use for (native/confine.c lists them).

    Namespaces, programs, and whatever reaches other processes, those of the same user too: EPERM. False = this system has no
    filters of system calls. Needs no_new_privs.
    """
    number = lib.pv_confine()
    if number in {errno.ENOSYS, errno.EINVAL}:
        return False
    _check(number, "seccomp")
    return True


def drop_everything() -> bool:
    """Give up every capability for good: ambient, bounding, inheritable, effective, permitted, and no_new_privs.

    False = the bounding set had to stay (no CAP_SETPCAP).
    """
    set_ambient(0)
    dropped = drop_bounding_set()
    set_capabilities(0, 0, 0)
    set_no_new_privs()
    return dropped


def _check(number: int, call: str) -> None:
    if number:
        raise OSError(number, f"{call}: {os.strerror(number)}")
