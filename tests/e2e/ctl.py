"""mcastctl as a process: run to its end, on a terminal of a given width, or left running."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

PROGRAM = [sys.executable, "-m", "mcastd.cli.ctl.main"]

NOTHING: Mapping[str, str] = MappingProxyType({})

_SECONDS = 60


class Ctl:
    """mcastctl with the address of one daemon."""

    def __init__(self, address: str) -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MCASTD_", "_MCASTCTL", "COLUMNS"))}
        self.environment = {**inherited, "MCASTD_ADDRESS": address, "TERM": "xterm", "NO_COLOR": ""}

    def run(self, *arguments: str, code: int = 0, given: str | None = None, environment: Mapping[str, str] = NOTHING) -> str:
        """Run it to its end; what it wrote to standard output, once the exit code is the one expected."""
        done = self.call(*arguments, given=given, environment=environment)
        assert done.returncode == code, (arguments, done)
        assert "Traceback" not in done.stderr
        return done.stdout

    def call(
        self, *arguments: str, given: str | None = None, environment: Mapping[str, str] = NOTHING
    ) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        return subprocess.run(
            [*PROGRAM, *arguments],
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            env={**self.environment, **environment},
        )

    def shell(self, redirections: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run it to its end as a shell does, with these redirections."""
        return subprocess.run(
            ["/bin/sh", "-c", f'"$@" {redirections}', "sh", *PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            env=self.environment,
        )

    def popen(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """Start it."""
        return subprocess.Popen([*PROGRAM, *arguments], text=True, env=self.environment, **options)

    def terminal(self, width: int, *arguments: str, environment: Mapping[str, str] = NOTHING) -> str:
        """Run it on a terminal so wide; what the terminal got."""
        ours, theirs = pty.openpty()
        try:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
            process = subprocess.Popen(
                [*PROGRAM, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env={**self.environment, **environment}
            )
            os.close(theirs)
            got = b""
            with suppress(OSError):  # how a terminal says that its last user has gone
                while part := os.read(ours, 65536):
                    got += part
            assert process.wait(_SECONDS) == 0, got
            return got.decode().replace("\r\n", "\n")
        finally:
            os.close(ours)


def without_colours(text: str) -> str:
    """Text without escape sequences."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
