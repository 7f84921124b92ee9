"""Whether this process may make network namespaces, and how it comes to be allowed to."""

import ctypes
import os
import subprocess
import threading
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


def threads() -> int:
    """How many threads this process has."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _try_network_namespace() -> str:
    """Why a network namespace cannot be made, or nothing; a thread tries it and ends."""
    refused: list[str] = []

    def attempt() -> None:
        try:
            unshare(CLONE_NEWNET)
        except OSError as exc:
            refused.append(str(exc))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return refused[0] if refused else ""
