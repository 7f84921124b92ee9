"""One network namespace, and what is done inside it."""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.testbed.rights import CLONE_NEWNET, setns, unshare

T = TypeVar("T")

_SIOCGIFFLAGS = 0x8913  # linux/sockios.h
_IFF_RUNNING = 0x40  # linux/if.h; set when the carrier has been dealt with (operstate)
_HERE = "/proc/thread-self/ns/net"

_SYSCTLS = {
    "net/ipv4/conf/all/rp_filter": "0",  # sources need no route back
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/igmp_max_memberships": "4096",
    "net/ipv6/conf/all/disable_ipv6": "0",  # some hosts switch it off, and new namespaces take that over
    "net/ipv6/conf/default/disable_ipv6": "0",
    "net/ipv6/conf/default/accept_dad": "0",  # an address is usable at once
    "net/ipv6/conf/default/accept_ra": "0",
}


class Namespace:
    """A network namespace that lives as long as this object (and whatever runs or has sockets in it)."""

    def __init__(self, label: str = "namespace") -> None:
        """Make it, with the loopback up; `label` is for messages."""
        self.label = label
        self.fd = _in_thread(_make)
        self.ip("link set lo up")
        for name, value in _SYSCTLS.items():
            self.sysctl(name, value)

    def __repr__(self) -> str:
        return f"Namespace({self.label!r}, nsenter --net=/proc/{os.getpid()}/fd/{self.fd})"

    def close(self) -> None:
        """Let go of it; may be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread into it: what the block makes (sockets) and starts belongs to it. Do not await inside."""
        before = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(self.fd)
            try:
                yield
            finally:
                setns(before)
        finally:
            os.close(before)

    def run(self, call: Callable[[], T]) -> T:
        """Call something in a thread of its own inside the namespace, an event loop for instance, and return its result."""

        def inside() -> T:
            setns(self.fd)
            return call()

        return _in_thread(inside)

    def ip(self, *commands: str, pass_fds: Sequence[int] = ()) -> None:
        """Run `ip` with some commands ("link set lo up"), by one process; RuntimeError with its words when one fails."""
        with self.entered():
            done = subprocess.run(
                ["ip", "-batch", "-"],
                input="\n".join(commands),
                capture_output=True,
                text=True,
                check=False,
                pass_fds=pass_fds,
                process_group=0,  # Ctrl-C is for this process, which knows what to clean up, not for its helpers
            )
        if done.returncode:
            first = commands if len(commands) < 10 else (*commands[:9], f"... {len(commands)} in all")
            raise RuntimeError(f"ip in {self.label}: {first}: {done.stderr.strip()}")

    def command(self, *arguments: str, timeout: float = 30) -> str:
        """Run a command to its end and return what it wrote; RuntimeError with its words when it fails."""
        with self.entered():
            done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=timeout, process_group=0)
        if done.returncode:
            raise RuntimeError(f"{arguments} in {self.label}: {done.stderr.strip()}")
        return done.stdout

    def popen(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process inside; it is killed when this process dies, and its pid is the program's own.

        Where that is impossible (called from another thread than the main one, with which it would die already) it is left out.
        """
        tie = shutil.which("setpriv") if threading.current_thread() is threading.main_thread() else None
        tied = [tie, "--pdeathsig", "KILL", "--"] if tie else []
        with self.entered():
            return subprocess.Popen([*tied, *arguments], **options)

    def sysctl(self, name: str, value: str) -> None:
        """Set net/... of this namespace."""
        with self.entered():
            Path("/proc/sys", name).write_text(value)

    def ifindex(self, name: str) -> int:
        """Index of an interface by name; OSError if there is none."""
        with self.entered():
            return socket.if_nametoindex(name)

    def wait_running(self, name: str, timeout: float = 10) -> None:
        """Wait until an interface sends: up, with carrier, and its queue in place; TimeoutError when it does not get there."""
        until = time.monotonic() + timeout
        request = struct.pack("16sH14x", name.encode(), 0)
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            while not struct.unpack("16xH14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[0] & _IFF_RUNNING:
                if time.monotonic() > until:
                    raise TimeoutError(f"{name} in {self.label} has no carrier")
                time.sleep(0.001)  # nothing to wait on costs less than this

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Make a socket that belongs to the namespace."""
        with self.entered():
            return socket.socket(family, kind, protocol)


def _make() -> int:
    unshare(CLONE_NEWNET)
    return os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)


def _in_thread(call: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(call())
        except BaseException as exc:  # noqa: BLE001 - handed to the caller
            errors.append(exc)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
