"""Coming to more rights than it has, tried from inside the server."""

import contextlib
import errno
import os
import socket
import struct
import tempfile
from pathlib import Path

from .attempts import CLONE_NEWUSER, Target, attempt, check, libc, syscall

# linux/sched.h, linux/prctl.h, linux/capability.h, linux/mount.h, linux/bpf.h, linux/perf_event.h
_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _PR_GET_NO_NEW_PRIVS = 47, 2, 39
_CAP_NET_RAW = 13
_CAPSET_VERSION = 0x20080522
_MS_BIND, _MNT_DETACH = 4096, 2


@attempt("become root")
def become_root(_: Target) -> None:
    os.setresuid(0, 0, 0)


@attempt("become another user")
def become_another(_: Target) -> None:
    os.setuid(os.getuid() + 1)


@attempt("be in root's group")
def root_group(_: Target) -> None:
    os.setresgid(0, 0, 0)


@attempt("change its groups")
def groups(_: Target) -> None:
    os.setgroups([0])


@attempt("get capabilities back")
def capset(_: Target) -> None:
    """All that the bounding set has, or NET_RAW where that is empty."""
    lines = Path("/proc/self/status").read_text().splitlines()
    bounding = next(int(line.split()[1], 16) for line in lines if line.startswith("CapBnd"))
    set_capabilities(bounding or 1 << _CAP_NET_RAW)


def set_capabilities(wanted: int) -> None:
    low, high = wanted & 0xFFFFFFFF, wanted >> 32
    syscall("capset", struct.pack("=Ii", _CAPSET_VERSION, 0), struct.pack("=6I", low, low, low, high, high, high))


@attempt("raise an ambient capability")
def ambient(_: Target) -> None:
    if os.geteuid() == 0:
        set_capabilities(1 << _CAP_NET_RAW)  # it must be inheritable first
    check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_NET_RAW, 0, 0))


@attempt("gain new privileges by executing")
def new_privileges(_: Target) -> None:
    if check(libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)):
        raise PermissionError(errno.EPERM, "no_new_privs is set")


def output_of(*command: str) -> bytes:
    """Run a program by hand: subprocess is not safe where there are other threads in the parent."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 1)
        with contextlib.suppress(OSError):
            os.execv(command[0], command)  # noqa: S606 - as a shell code would
        os._exit(126)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise PermissionError(errno.EPERM, "the program was not run, or failed")
    return said


@attempt("be root by a setuid program")
def setuid_program(target: Target) -> None:
    if output_of(target.setuid, "-u").strip() != b"0":
        raise PermissionError(errno.EPERM, "it did not become root")


@attempt("read a file of root by a program with capabilities")
def capable_program(target: Target) -> None:
    output_of(target.capable, target.secret)


@attempt("execute a program")
def execute(_: Target) -> None:
    output_of("/bin/true")


@attempt("mount", reaches_out=True)
def mount(_: Target) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = directory.encode()
        check(libc.mount(path, path, None, _MS_BIND, None))
        check(libc.umount2(path, _MNT_DETACH))


@attempt("make a mount namespace")
def mount_namespace(_: Target) -> None:
    check(libc.unshare(_CLONE_NEWNS))


@attempt("make a network namespace")
def network_namespace(_: Target) -> None:
    check(libc.unshare(_CLONE_NEWNET))


@attempt("make a user namespace")
def user_namespace(_: Target) -> None:
    check(libc.unshare(CLONE_NEWUSER))


@attempt("change its root")
def change_root(_: Target) -> None:
    os.chroot("/")


@attempt("load a BPF program or map", reaches_out=True)
def bpf(_: Target) -> None:
    syscall("bpf", 0, struct.pack("=IIII", 2, 4, 4, 1).ljust(128, b"\0"), 128)


@attempt("watch the kernel's performance events", reaches_out=True)
def perf(_: Target) -> None:
    syscall("perf_event_open", struct.pack("=IIQ", 1, 128, 0).ljust(128, b"\0"), -1, 0, -1, 0)


@attempt("name the host", reaches_out=True)
def host_name(_: Target) -> None:
    socket.sethostname(socket.gethostname())
