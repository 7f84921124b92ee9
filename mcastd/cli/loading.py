"""Settings and the whole configuration, read in a process of its own: the keeper keeps the settings, and none of the memory.

The child checks all that the file and what it includes say, though the server reads it again: so that the daemon refuses it
before anything is opened, with every fault at once.
"""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from mcastd.cli.flags import Flags, config_path
from mcastd.keeper.failure import EX_CONFIG, EX_OSERR, CannotRun
from mcastd.keeper.scheduling import be_ordinary
from mcastd.model.settings import Settings


class FaultyConfiguration(CannotRun):
    """The configuration can't be used, for one reason or several."""

    def __init__(self, faults: list[str]) -> None:
        """Each a sentence with its place."""
        super().__init__(
            EX_CONFIG, f"the configuration can't be used: {len(faults)} fault{'s' if len(faults) != 1 else ''}, see above"
        )
        self.faults = faults


def load(flags: Flags, environment: Mapping[str, str]) -> Settings:
    """The settings; CannotRun if they, or anything in the file, can't be used."""
    answer = _ask_child(config_path(flags.config, environment), flags, environment)
    if faults := answer.get("faults"):
        raise FaultyConfiguration(faults)
    if "failure" in answer:
        raise CannotRun(*answer["failure"])
    return Settings.from_json(answer["settings"])


def check(path: str | None, flags: Flags, environment: Mapping[str, str]) -> Settings:
    """The settings, where everything in the file is right; BadConfiguration with all that is wrong in it, or CannotRun."""
    from mcastd.cli.configuration import load_settings  # noqa: PLC0415 - the keeper has no use for it
    from mcastd.sources.config import read_configuration  # noqa: PLC0415 - nor for that

    if path is not None:
        read_configuration(path)
    return load_settings(flags, environment)


def _ask_child(path: str | None, flags: Flags, environment: Mapping[str, str]) -> dict[str, Any]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            be_ordinary()  # An image that was executed in place has the keeper's priority from its start.
            _answer(writer, path, flags, environment)
        finally:
            if sys.exc_info()[0] is not None:
                sys.excepthook(*sys.exc_info())
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:  # noqa: PTH123 - of a descriptor
        data = pipe.read()
    os.waitpid(child, 0)
    if not data:
        raise CannotRun(EX_OSERR, f"the process that reads the configuration {path or ''} has died: see its last message")
    answer: dict[str, Any] = json.loads(data)
    return answer


def _answer(writer: int, path: str | None, flags: Flags, environment: Mapping[str, str]) -> None:
    from mcastd.sources.faults import BadConfiguration  # noqa: PLC0415 - see check

    answer: dict[str, object]
    try:
        answer = {"settings": check(path, flags, environment).to_json()}
    except BadConfiguration as exc:
        answer = {"faults": [*map(str, exc.faults), *(["there are more"] if exc.more else [])]}
    except CannotRun as exc:
        answer = {"failure": (exc.exit_code, str(exc))}
    with open(writer, "wb") as pipe:
        pipe.write(json.dumps(answer).encode())
