"""What is tried from inside the server: the register, and how each attempt is made.

Each is made in a forked copy of the process, so what succeeds does no harm to it, and the kernel's answer is written down: DONE,
or the name of the error. This package is copied to where the server's interpreter finds it, so it imports the standard library
alone, all of it at once.
"""

import ctypes
import errno
import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

DONE = "DONE"
BROKEN = "BROKEN"
"""Begins the answer of an attempt that failed for another reason than the kernel's refusal."""

WITHIN = "in a user namespace of its own: "
"""Before the names of attempts that are made with all capabilities of one."""

CLONE_NEWUSER = 0x10000000
_PR_SET_DUMPABLE = 4

_NUMBERS = {
    "x86_64": {"bpf": 321, "kcmp": 312, "perf_event_open": 298, "capset": 126, "pidfd_getfd": 438},
    "aarch64": {"bpf": 280, "kcmp": 272, "perf_event_open": 241, "capset": 91, "pidfd_getfd": 438},
}.get(platform.machine(), {})

libc = ctypes.CDLL(None, use_errno=True)


class Target(NamedTuple):
    """On what to try it."""

    keeper: int
    of_root: int
    """Pid of a process of root, not the keeper."""
    of_another: int
    """Pid of a process of a third user."""
    secret: str
    """A file that only root may read."""
    closed: str
    """A directory of a third user, mode 0700."""
    setuid: str
    """A copy of id(1) that is setuid root."""
    capable: str
    """A copy of cat(1) with every file capability."""
    result: str
    """Where to write what came of it."""


class Attempt(NamedTuple):
    """One thing to try: returns if it could be done, raises OSError if the kernel refused."""

    call: Callable[[Target], None]
    reaches_out: bool
    """Whether it is worth trying with all capabilities in a user namespace of its own, too."""


ATTEMPTS: dict[str, Attempt] = {}


def attempt(name: str, *, reaches_out: bool = False) -> Callable[[Callable[[Target], None]], Callable[[Target], None]]:
    """Register a function under a sentence."""

    def register(call: Callable[[Target], None]) -> Callable[[Target], None]:
        ATTEMPTS[name] = Attempt(call, reaches_out)
        return call

    return register


def check(result: int) -> int:
    """Raise the OSError of a libc call that returned -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(name: str, *arguments: object) -> int:
    """Make a system call that libc has no function for."""
    return check(int(libc.syscall(_NUMBERS[name], *arguments)))


def in_a_child(call: Callable[[], str | None]) -> str:
    """Call in a forked copy; DONE, the name of the errno, or what is broken."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        answer = f"{BROKEN}: it ended"
        try:
            answer = call() or DONE
        except OSError as exc:
            answer = errno.errorcode.get(exc.errno or 0, str(exc))
        except BaseException as exc:  # noqa: BLE001 - it is told to whoever reads the result
            answer = f"{BROKEN}: {type(exc).__name__}: {exc}"
        finally:
            os.write(writer, answer.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said.decode() or f"{BROKEN}: it was killed"


def try_everything(target: Target) -> dict[str, str]:
    """What came of each attempt."""
    found = {name: in_a_child(lambda one=one: one.call(target)) for name, one in ATTEMPTS.items()}  # type: ignore[misc]
    within = in_a_child(lambda: json.dumps(dict(try_in_user_namespace(target))))
    return found | (json.loads(within) if within.startswith("{") else {WITHIN: within})


def try_in_user_namespace(target: Target) -> Iterator[tuple[str, str]]:
    """The same with all capabilities of a user namespace, if one can be had; called in a child."""
    uid, gid = os.geteuid(), os.getegid()
    check(libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))  # or /proc/self would be root's, since the user was changed
    check(libc.unshare(CLONE_NEWUSER))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        Path("/proc/self", name).write_text(text)
    for name, one in ATTEMPTS.items():
        if one.reaches_out:
            yield WITHIN + name, in_a_child(lambda one=one: one.call(target))  # type: ignore[misc]
