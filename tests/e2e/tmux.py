"""A real terminal: a program in a tmux of its own, typed to and read as a person would."""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_SECONDS = 20

# tmux does not always reap its child, so a shell tells the exit code; the trap keeps it alive through a Ctrl-C for the program.
_SCRIPT = 'trap : INT; "$@"; echo $? >"$0"'


class Tmux:
    """One window with one program; use it as a context."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], columns: int = 120, lines: int = 30) -> None:
        """Start it."""
        self._made = tempfile.TemporaryDirectory(prefix="mcastd-tmux-")
        self._socket = str(Path(self._made.name) / "socket")
        settings = Path(self._made.name) / "tmux.conf"
        # What the program leaves behind stays to be read.
        settings.write_text(
            "set -g remain-on-exit on\nset -g status off\nset -sg escape-time 20\nset -g default-terminal screen-256color\n"
        )
        self._environment = {**os.environ, **environment, "TMUX": ""}
        size = ["-x", str(columns), "-y", str(lines)]
        self._status = Path(self._made.name) / "status"
        told = shlex.join(["sh", "-c", _SCRIPT, str(self._status), *arguments])
        self._tmux("-f", str(settings), "new-session", "-d", *size, told)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tmux("kill-server")
        self._made.cleanup()

    def screen(self, *, colours: bool = False) -> str:
        """What is on it now."""
        return self._tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names ("C-c", "PageDown") or as themselves."""
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type text."""
        self._tmux("send-keys", "-l", text)

    def resize(self, columns: int, lines: int) -> None:
        """Make the window so large."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def ask(self, variable: str) -> str:
        """A variable of tmux's, as pane_dead_status."""
        return self._tmux("display-message", "-p", f"#{{{variable}}}").strip()

    def exit_code(self) -> int | None:
        """What the program has ended with, as a shell has it; None = it runs."""
        text = self._status.read_text() if self._status.exists() else ""
        return int(text) if text else None

    def innermost(self) -> int:
        """Pid of what runs: the child of the child of the first process, and so on."""
        pid = self.ask("pane_pid")
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = children[0]
        return int(pid)

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self._socket, *arguments]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            env=self._environment,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)}: {done.stderr.strip()}")
        return done.stdout
