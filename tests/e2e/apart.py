"""Keeper and servers apart, as in two containers: the keeper as root, servers as a user without any capability."""

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from tests.testbed.daemon import McastdProcess, wait_until
from tests.testbed.namespace import Namespace

UID = 65532
"""Of the servers; it need not be in /etc/passwd."""

_SETPRIV = ("--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")

_OPEN_HOME = """
set -e
mount --make-rprivate /
mount --bind "$1" /mnt
mount -t tmpfs -o mode=755 tmpfs "$2"
mkdir -p "$1"
mount --bind /mnt "$1"
shift 2
exec "$@"
"""


def unprivileged() -> list[str]:
    """A command that executes another as UID, without capabilities; where this Python is in a closed home directory it is opened.

    That is seen by the command alone, in a mount namespace of its own.
    """
    base, home = Path(sys.base_prefix).resolve(), Path.home()
    opened: list[str] = []
    if base.is_relative_to(home) and not home.stat().st_mode & stat.S_IXOTH:
        opened = ["unshare", "-m", "sh", "-c", _OPEN_HOME, "sh", str(home / base.relative_to(home).parts[0]), str(home)]
    return [*opened, "setpriv", f"--reuid={UID}", f"--regid={UID}", *_SETPRIV]


class Apart:
    """One keeper, and the servers that were started."""

    def __init__(self, namespace: Namespace, directory: Path, *arguments: str) -> None:
        """Start the keeper; `arguments` are for it."""
        self.namespace = namespace
        self.directory = directory
        self.channel = directory / "channel" / "keeper.sock"
        self.log_path = directory / "keeper.log"
        self._stack = ExitStack()
        for name in ("run", "state"):
            path = directory / name
            path.mkdir(exist_ok=True)
            os.chown(path, UID, UID)
        self._log = self._stack.enter_context(self.log_path.open("ab"))
        self.keeper = self.start_keeper(*arguments)

    def start_keeper(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a keeper; the one before has ended."""
        command = [sys.executable, "-m", "mcastd.cli", "keeper", "--channel", str(self.channel), "--user", str(UID), *arguments]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MCASTD_")}
        self.keeper = self.namespace.popen(command, stderr=self._log, stdin=subprocess.DEVNULL, env=inherited, process_group=0)
        return self.keeper

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End servers and keeper."""
        self._stack.close()
        if self.keeper.poll() is None:
            self.keeper.terminate()
            self.keeper.wait(20)

    def server(self, *arguments: str, prefix: Sequence[str] | None = None, ready: bool = True, **options: Any) -> McastdProcess:
        """Start a server, on the directories that all have in common."""
        command = ("server", "--channel", str(self.channel))
        options["prefix"] = unprivileged() if prefix is None else prefix
        made = McastdProcess(self.namespace, self.directory, *arguments, command=command, ready=ready, **options)
        return self._stack.enter_context(made)

    def log(self) -> str:
        """What the keeper has said."""
        return self.log_path.read_text()

    def wait_logged(self, text: str, times: int = 1, seconds: float = 20) -> None:
        """Wait until the keeper has said this so often."""
        wait_until(lambda: self.log().count(text) >= times, seconds, self.log)


def process_of(server: McastdProcess) -> int:
    """Pid of the process that serves, below the one that was started; 0 while there is none."""
    with contextlib.suppress(OSError):
        path = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        return next(map(int, path.read_text().split()), 0)
    return 0
