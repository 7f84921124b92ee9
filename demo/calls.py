"""What the demo asks of mcastd: commands of mcastctl, which the reader sees as they are run, and what came of them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.testbed.daemon import McastdProcess

DEADLINE = 30.0
"""Seconds that a command has, on however busy a machine."""

_PROGRAM = (sys.executable, "-m", "mcastd.cli.ctl.main")

Command = tuple[str, ...]
"""The words after mcastctl."""

LIST: Command = ("route", "list", "-c", "--max-age", "0")
SHUTDOWN: Command = ("shutdown", "--yes")


class CallError(Exception):
    """mcastd did not answer, or refused."""


@dataclass(frozen=True)
class Route:
    """A route: what is asked for, and what mcastd says of it."""

    group: str
    source: str
    iif: str
    oifs: tuple[str, ...]
    state: str = ""
    """PROGRAMMED, PARTIAL, PENDING or FAILED; empty = not asked yet."""
    reason: str = ""
    """Why it is not PROGRAMMED."""
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Written:
    """What came of a write."""

    created: int
    updated: int
    exceptions: tuple[str, ...]
    """Routes that the kernel does not forward exactly as asked, each with its reason."""
    summary: str
    """The same in mcastctl's words."""


def add(route: Route) -> Command:
    """The command that creates a route."""
    oifs = (word for oif in route.oifs for word in ("-O", oif))
    return ("route", "add", route.group, route.source, "--iif", route.iif, *oifs)


def remove_oif(route: Route, oif: str) -> Command:
    """The command that takes one outgoing interface off a route, whatever the others are."""
    return ("route", "patch", route.group, route.source, "--del-oif", oif)


def shown(command: Command) -> str:
    """A command as a person types it."""
    return " ".join(("mcastctl", *command))


class Controller:
    """Whoever drives mcastd by mcastctl."""

    def __init__(self, mcastd: McastdProcess) -> None:
        self._environment = {**os.environ, "MCASTD_ADDRESS": f"unix:{mcastd.socket}"}

    def text(self, command: Command) -> str:
        """What a command prints."""
        return self._run(command).stdout

    def write(self, command: Command) -> Written:
        """Run a command that changes routes."""
        done = self._run((*command, "-o", "json"))
        result = json.loads(done.stdout).get("result", {})
        exceptions = tuple(map(_exception, result.get("changes", [])))
        return Written(result.get("created", 0), result.get("updated", 0), exceptions, done.stderr.strip())

    def routes(self) -> list[Route]:
        """All routes, with what the kernel has counted by now."""
        return [_route(one) for one in json.loads(self.text((*LIST, "-o", "json")))]

    def _run(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        # In a session of its own: Ctrl-C is for the demo, which lets a command that has begun come to its end.
        try:
            done = subprocess.run(
                [*_PROGRAM, *command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=DEADLINE,
                env=self._environment,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as exc:
            raise CallError(f"{shown(tuple(command))}: no answer in {DEADLINE:g} s") from exc
        if done.returncode:
            raise CallError(f"{shown(tuple(command))}: exit code {done.returncode}: {done.stderr.strip()}")
        return done


def _exception(change: dict[str, Any]) -> str:
    error, route = change.get("error", {}), change.get("after") or change.get("before") or {}
    return f"{route.get('group', '')}: {error.get('reason', '')} {error.get('message', '')}"


def _route(listed: dict[str, Any]) -> Route:
    status = listed.get("status", {})
    counters = status.get("counters", {})
    return Route(
        group=listed["group"],
        source=listed.get("source", ""),
        iif=listed.get("iif", ""),
        oifs=tuple(sorted(status.get("installed_oifs", []))),
        state=status.get("state", "").removeprefix("ROUTE_STATE_"),
        reason=status.get("last_error", {}).get("reason", ""),
        packets=int(counters.get("packets", 0)),
        bytes=int(counters.get("bytes", 0)),
    )
