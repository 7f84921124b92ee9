"""Whether this process may make network namespaces, and how it comes to be allowed to."""

import ctypes
import os
import subprocess
from functools import cache
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones; of network namespaces, the calling thread alone."""
    if _libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def setns(fd: int) -> None:
    """Move the calling thread to the network namespace that `fd` is open on."""
    if _libc.setns(fd, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


@cache
def become_able() -> str:
    """Make this process able to make network namespaces; return why that is impossible, or nothing.

    Root (with CAP_SYS_ADMIN and CAP_NET_ADMIN) is able as it is. Anybody else moves to a user and network namespace of its own,
    where it is uid 0: for that the process must have one thread yet, so call it early. Children (pytest-xdist) inherit it.
    """
    refused = _try_network_namespace()
    if not refused:
        return ""
    if threads() > 1:
        return f"not root ({refused}), and with {threads()} threads it is too late for a user namespace: use `unshare -Urn`"
    # In a child first: a process that got halfway has no user any more.
    probe = subprocess.run(["unshare", "-Urn", "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"not root ({refused}), and user namespaces are not allowed here ({probe.stderr.strip()})"
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER | CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    return _try_network_namespace()


def is_root() -> bool:
    """Whether this process is root outside of user namespaces: it may be other users."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def threads() -> int:
    """How many threads this process has."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _try_network_namespace() -> str:
    """Why a network namespace cannot be made, or left for this one again (which may be of another user namespace), or nothing.

    A child tries it: a thread of our own that has been joined may still be there for a moment, and no process with two threads
    gets a user namespace (unshare(2), EINVAL).
    """
    command = ["nsenter", "--net=/proc/self/ns/net", "unshare", "--net", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip()
