"""Which files the server will not be able to read: whoever checks a configuration is seldom the server's user.

As root each file is opened as that user, by a process that has become it: so access control lists and whatever else the kernel
looks at count. Others can't become that user, and look at owner, group and mode of the file and of the directories above it.
"""

import json
import os
import pwd
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mcastd.keeper.identity import DEFAULT_USERS
from mcastd.model.errors import McastdError
from mcastd.model.settings import Settings
from mcastd.telemetry import webconfig

_READ, _SEARCH = 4, 1


class Reader(NamedTuple):
    """The server's user."""

    name: str
    uid: int
    gids: frozenset[int]
    become: bool
    """Whether this process may become it."""


def reader_of(settings: Settings) -> Reader | None:
    """Who will read the files; None if that is who asks.

    Without the right to change users nobody knows who starts the daemon: root, if there is the user that it takes then.
    """
    if settings.change_user:
        return Reader(settings.user, settings.uid, frozenset({settings.gid, *settings.socket_gids()}), become=True)
    with suppress(KeyError):
        entry = pwd.getpwnam(DEFAULT_USERS[0])
        if os.geteuid() not in {0, entry.pw_uid}:
            return Reader(entry.pw_name, entry.pw_uid, frozenset({entry.pw_gid, *settings.socket_gids()}), become=False)
    return None


def files_of(settings: Settings, configuration: Iterable[str]) -> list[str]:
    """All that the server reads: the configuration's own files, certificates and keys, and what the web configuration names."""
    found = [*configuration]
    for remote in settings.remotes:
        found += filter(None, (remote.cert, remote.key, remote.ca))
    if web := settings.exposition.web_config:
        found.append(web)
        with suppress(McastdError):  # What is wrong with it, which is not asked here, the start says.
            found += map(str, webconfig.read(Path(web)).files)
    return list(dict.fromkeys(map(os.path.abspath, found)))


def warnings(reader: Reader, paths: Iterable[str]) -> Iterator[str]:
    """A sentence for each file that the reader can't read."""
    refused = _tried(reader, list(paths)) if reader.become else dict(_looked_at(reader, paths))
    for path, why in refused.items():
        yield (
            f"warning: {path} can't be read by the server's user {reader.name}: {why}; give it to a group of that user"
            f" (chgrp, chmod g+r), and let it search the directories above (chmod g+x)"
        )


def _tried(reader: Reader, paths: list[str]) -> dict[str, str]:
    """Why files can't be opened, by path; found out by a child that becomes the reader."""
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        try:
            gid, *_ = reader.gids
            os.setgroups(sorted(reader.gids))
            os.setresgid(gid, gid, gid)
            os.setresuid(reader.uid, reader.uid, reader.uid)
            with open(sender, "w", encoding="utf-8") as pipe:  # noqa: PTH123 - of a descriptor
                json.dump(dict(_opened(paths)), pipe)
        finally:
            os._exit(0)
    os.close(sender)
    with open(receiver, encoding="utf-8") as pipe:  # noqa: PTH123 - of a descriptor
        told = pipe.read()
    os.waitpid(child, 0)
    refused: dict[str, str] = json.loads(told or "{}")
    return refused


def _opened(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in paths:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        except OSError as exc:
            yield path, exc.strerror or str(exc)


def _looked_at(reader: Reader, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in paths:
        real = Path(path).resolve()
        try:
            closed = [str(one) for one in reversed(real.parents) if not _permits(one, reader, _SEARCH)]
            if closed:
                yield path, f"the directory {closed[0]} is closed to it"
            elif not _permits(real, reader, _READ):
                yield path, "its owner, group and mode do not allow it"
        except OSError as exc:
            yield path, exc.strerror or str(exc)


def _permits(path: Path, reader: Reader, what: int) -> bool:
    info = path.stat()
    shift = 6 if info.st_uid == reader.uid else 3 if info.st_gid in reader.gids else 0
    return bool(info.st_mode >> shift & what)
