"""Reaching for the keeper and other processes, tried from inside the server."""

import ctypes
import errno
import os
import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path

from .attempts import Target, attempt, check, libc, syscall

_PTRACE_SEIZE = 0x4206  # linux/ptrace.h
_CLONE_NEWNS = 0x20000
_KCMP_VM = 1


def ask_to_signal(pid: int) -> None:
    """Ask whether a signal may be sent, in both ways; none is."""
    os.kill(pid, 0)
    fd = os.pidfd_open(pid)
    signal.pidfd_send_signal(fd, 0)
    os.close(fd)


@attempt("send the keeper a signal", reaches_out=True)
def kill_keeper(target: Target) -> None:
    ask_to_signal(target.keeper)


@attempt("send a process of root a signal", reaches_out=True)
def kill_root(target: Target) -> None:
    ask_to_signal(target.of_root)


@attempt("send pid 1 a signal", reaches_out=True)
def kill_init(_: Target) -> None:
    os.kill(1, 0)


@attempt("send another user's process a signal", reaches_out=True)
def kill_another(target: Target) -> None:
    ask_to_signal(target.of_another)


@attempt("trace the keeper", reaches_out=True)
def trace(target: Target) -> None:
    check(libc.ptrace(_PTRACE_SEIZE, target.keeper, None, None))


def one_byte(call: Callable[..., int], pid: int) -> None:
    """Move a byte from or to an address where there is none: EFAULT says that it was let in."""
    byte = ctypes.create_string_buffer(1)
    here, there = struct.pack("@PN", ctypes.addressof(byte), 1), struct.pack("@PN", 8, 1)
    try:
        check(call(pid, here, 1, there, 1, 0))
    except OSError as exc:
        if exc.errno != errno.EFAULT:
            raise


@attempt("read the keeper's memory", reaches_out=True)
def vm_read(target: Target) -> None:
    one_byte(libc.process_vm_readv, target.keeper)


@attempt("write the keeper's memory", reaches_out=True)
def vm_write(target: Target) -> None:
    one_byte(libc.process_vm_writev, target.keeper)


@attempt("open the keeper's memory as a file", reaches_out=True)
def proc_mem(target: Target) -> None:
    os.open(f"/proc/{target.keeper}/mem", os.O_RDWR)


@attempt("read the keeper's environment", reaches_out=True)
def proc_environ(target: Target) -> None:
    Path(f"/proc/{target.keeper}/environ").read_bytes()


@attempt("look at the keeper's descriptors", reaches_out=True)
def proc_fd(target: Target) -> None:
    os.listdir(f"/proc/{target.keeper}/fd")  # noqa: PTH208 - the call itself


@attempt("write the keeper's oom_score_adj", reaches_out=True)
def proc_oom(target: Target) -> None:
    os.open(f"/proc/{target.keeper}/oom_score_adj", os.O_WRONLY)


@attempt("take a descriptor from the keeper", reaches_out=True)
def take_fd(target: Target) -> None:
    syscall("pidfd_getfd", os.pidfd_open(target.keeper), 2, 0)


@attempt("compare itself with the keeper", reaches_out=True)
def kcmp(target: Target) -> None:
    syscall("kcmp", os.getpid(), target.keeper, _KCMP_VM, 0, 0)


@attempt("change the keeper's limits", reaches_out=True)
def limits(target: Target) -> None:
    resource.prlimit(target.keeper, resource.RLIMIT_CPU)


@attempt("change on which processors the keeper runs", reaches_out=True)
def affinity(target: Target) -> None:
    os.sched_setaffinity(target.keeper, os.sched_getaffinity(target.keeper))


@attempt("change the keeper's priority", reaches_out=True)
def priority(target: Target) -> None:
    policy = os.sched_getscheduler(target.keeper)
    os.sched_setscheduler(target.keeper, policy, os.sched_getparam(target.keeper))


@attempt("enter the keeper's namespaces", reaches_out=True)
def enter(target: Target) -> None:
    fd = os.open(f"/proc/{target.keeper}/ns/mnt", os.O_RDONLY)
    check(libc.setns(fd, _CLONE_NEWNS))
