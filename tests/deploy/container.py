"""Runs an image as a container engine does: as process 1 of a PID namespace, with a read-only root and few capabilities."""

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deploy.image import Image, mounts

Process = subprocess.Popen[Any]

_BITS = {"KILL": 5, "SETGID": 6, "SETUID": 7, "NET_ADMIN": 12, "NET_RAW": 13}


@dataclass(frozen=True)
class Limits:
    """What an engine is asked for by a compose file or a manifest."""

    capabilities: tuple[str, ...] = ()
    """Names without CAP_; all others are dropped."""
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    """Beside those that the image has for the user."""
    binds: Mapping[str, Path] = field(default_factory=dict)
    """Directories of this machine by their place in the container."""
    read_only: tuple[str, ...] = ()
    """Those of them that can't be written."""
    command: tuple[str, ...] = ()
    """Instead of the image's."""


class Container:
    """One container: `prefix` starts it, in place of the command that it precedes."""

    def __init__(self, image: Image, limits: Limits) -> None:
        """Nothing is started. All containers share the image's root, each in a mount namespace of its own that can't write it."""
        self._image = image
        self._limits = limits
        self._root = image.root
        for place in limits.binds:
            (self._root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def prefix(self) -> list[str]:
        """A command that is the container; what is added to it is ignored."""
        script = "\n".join(["set -eu", *self._mounts(), f"exec {shlex.join(self._confined(*self._command()))}"])
        unshare = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        return [*unshare, "sh", "-c", script, "container"]

    def execute(self, process: Process, *command: str) -> "subprocess.CompletedProcess[str]":
        """What `docker exec` does."""
        enter = ["nsenter", f"--target={init(process)}", "--mount", "--pid", "--net"]
        return subprocess.run([*enter, *self._confined(*command)], capture_output=True, text=True, check=False, timeout=30)

    def _command(self) -> tuple[str, ...]:
        return self._limits.command or tuple(self._image.command())

    def _mounts(self) -> list[str]:
        root = shlex.quote(str(self._root))
        lines = [f"mount --bind {root} {root}", mounts(self._root)]
        lines.append(f"cd {root} && mount --type tmpfs --options mode=1777 none tmp")
        lines.append("mount --bind --options ro proc/sys proc/sys")
        for place, source in self._limits.binds.items():
            options = "--options ro " if place in self._limits.read_only else ""
            lines.append(f"mount --bind {options}{shlex.quote(str(source))} {root}{place}")
        return [*lines, f"mount --options remount,bind,ro {root}"]

    def _confined(self, *command: str) -> list[str]:
        limits = self._limits
        capabilities = "".join(f",+{name.lower()}" for name in limits.capabilities)
        groups = sorted({limits.gid, *limits.groups, *self._groups_of_image()})
        return [
            *("chroot", str(self._root), "/usr/bin/env", "-i"),
            *(f"{name}={value}" for name, value in self._image.environment().items()),
            *("setpriv", f"--reuid={limits.uid}", f"--regid={limits.gid}", f"--groups={','.join(map(str, groups))}"),
            *(f"--bounding-set=-all{capabilities}", "--inh-caps=-all", "--no-new-privs"),
            *command,
        ]

    def _groups_of_image(self) -> set[int]:
        """The groups that an engine finds in the image's /etc/group for the user."""
        users = [line.split(":") for line in (self._root / "etc/passwd").read_text().splitlines()]
        names = {user[0] for user in users if user[2] == str(self._limits.uid)}
        groups = [line.split(":") for line in (self._root / "etc/group").read_text().splitlines()]
        return {int(group[2]) for group in groups if names & set(group[3].split(","))}


def init(process: Process) -> int:
    """Pid, as seen from here, of the process that is number 1 in a container; 0 while there is none."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def stop(process: Process, seconds: float = 20) -> int:
    """What `docker stop` does, without the killing; the exit code."""
    if process.poll() is None and init(process):
        os.kill(init(process), signal.SIGTERM)
    return process.wait(seconds)


def mask(capabilities: tuple[str, ...]) -> int:
    """The bits of capabilities by name, as /proc/PID/status has them."""
    return sum(1 << _BITS[name] for name in capabilities)
