"""A stream that goes on where it was broken off: called again with the last token, after a pause that grows.

It never ends by itself.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator

from google.protobuf.message import Message

from mcastd.cli.ctl.failure import CallError
from mcastd.cli.ctl.transport import Connection
from mcastd.cli.ctl.tree import Command

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0

# A daemon that restarts, and one that has thrown out a slow reader: both want to be asked again.
_PASSING = {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}

Tell = Callable[[str], None]


def watch(
    connection: Connection, command: Command, request: Message, tell: Tell, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Message]:
    """The messages of all calls, one after the other; CallError if the daemon refuses, or was never reached."""
    reached = threading.Event()
    connection.on_ready(reached.set)
    pause, silent = FIRST_PAUSE, False
    while True:
        try:
            for answer in connection.call(command.method, [request], whole=True):
                if silent:
                    tell("mcastctl: connected again")
                pause, silent = FIRST_PAUSE, False
                if answer.resume_token:  # type: ignore[attr-defined] # is_watch() has seen it
                    request.resume_token = answer.resume_token  # type: ignore[attr-defined] # see above
                yield answer
            failed = None
        except CallError as exc:
            # A word of its own means that the daemon has spoken, even if it only says that it is going.
            if exc.status not in _PASSING or not (exc.reason or reached.is_set()):
                raise
            failed = exc
        if not silent:
            tell((failed.line() if failed else "mcastctl: the daemon has ended the stream") + "; connecting again")
        silent = True
        sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads many watchers over time, guards nothing
        pause = min(pause * 2, LONGEST_PAUSE)
