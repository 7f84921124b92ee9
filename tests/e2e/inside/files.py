"""Files of root and of others, and settings of the kernel, tried from inside the server."""

import os
import tempfile
from pathlib import Path

from .attempts import Target, attempt


@attempt("read a file of root", reaches_out=True)
def read_secret(target: Target) -> None:
    Path(target.secret).read_bytes()


@attempt("read /etc/shadow", reaches_out=True)
def read_shadow(_: Target) -> None:
    Path("/etc/shadow").read_bytes()


@attempt("make a file in /etc", reaches_out=True)
def write_etc(_: Target) -> None:
    fd, path = tempfile.mkstemp(dir="/etc", prefix="mcastd-test-")
    os.close(fd)
    Path(path).unlink()


@attempt("open /etc/passwd for writing", reaches_out=True)
def write_passwd(_: Target) -> None:
    os.open("/etc/passwd", os.O_WRONLY | os.O_APPEND)


@attempt("look into another user's directory", reaches_out=True)
def list_closed(target: Target) -> None:
    os.listdir(target.closed)  # noqa: PTH208 - the call itself


@attempt("give a file away")
def chown(_: Target) -> None:
    with tempfile.NamedTemporaryFile() as file:
        os.chown(file.name, 0, 0)
        os.chown(file.name, os.geteuid() + 1, 0)


@attempt("make a device node", reaches_out=True)
def make_device(_: Target) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.mknod(f"{directory}/null", 0o600 | 0o020000, os.makedev(1, 3))


def rewrite_sysctl(name: str) -> None:
    with Path("/proc/sys", name).open("r+") as file:
        value = file.read()
        file.seek(0)
        file.write(value)


@attempt("write a sysctl of IPv4", reaches_out=True)
def write_sysctl4(_: Target) -> None:
    rewrite_sysctl("net/ipv4/ip_forward")


@attempt("write a sysctl of IPv6", reaches_out=True)
def write_sysctl6(_: Target) -> None:
    rewrite_sysctl("net/ipv6/conf/all/forwarding")


@attempt("write a sysctl of the kernel", reaches_out=True)
def write_sysctl(_: Target) -> None:
    rewrite_sysctl("kernel/panic")
