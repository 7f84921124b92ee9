"""The command lines of keeper and server apart."""

import os
import pwd
from pathlib import Path

import pytest

from mcastd.cli import apart, mcastd
from mcastd.keeper import privileges
from mcastd.keeper.channel import EX_HANDED_OVER
from mcastd.keeper.door import DoorAddress
from mcastd.keeper.failure import EX_CONFIG, EX_UNAVAILABLE, EX_USAGE, CannotRun
from mcastd.keeper.keeper import Keeper
from mcastd.model.settings import Listen, Settings

ROOT = pwd.getpwuid(0)


@pytest.fixture
def keepers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, DoorAddress]]:
    """Keepers that would have been run."""
    made: list[tuple[Settings, DoorAddress]] = []
    monkeypatch.setattr(privileges, "check", lambda: None)
    monkeypatch.setattr(Keeper, "run", lambda self: made.append((self._settings, self._door_address)))
    return made


def run(*arguments: str, **environment: str) -> int:
    """What the command line does."""
    given = mcastd.parser().parse_args(arguments)
    return apart.COMMANDS[given.command](given, environment)


def test_keeper_of_the_command_line(keepers: list[tuple[Settings, DoorAddress]]) -> None:
    assert run("keeper", "--channel", "/run/x/k.sock,mode=0666", "--user", "65532", "--log-level", "debug") == 0
    ((settings, door),) = keepers
    assert (settings.uid, settings.gid, settings.change_user, settings.log_level) == (65532, 65532, False, "debug")
    assert (settings.listens, settings.state_dir) == ((), "")
    assert door == DoorAddress("/run/x/k.sock", 0o666)


def test_keeper_of_the_environment(keepers: list[tuple[Settings, DoorAddress]]) -> None:
    assert run("keeper", MCASTD_CHANNEL="/c", MCASTD_USER=ROOT.pw_name, MCASTD_LOG_LEVEL="error") == 0
    ((settings, door),) = keepers
    assert (settings.uid, settings.log_level, door) == (0, "error", DoorAddress("/c"))


@pytest.mark.parametrize(
    "arguments,words",
    [
        (("--channel", "relative"), "absolute path"),
        (("--channel", "/c,access=view"), "is not mode= or group="),
        (("--channel", "/c,mode=9"), "octal digits"),
        (("--user", "nobody-at-all"), "write its number"),
        (("--log-level", "loud"), "choose debug"),
        (("--action", "/there/is/none"), "can't be looked at"),
    ],
)
def test_bad_value_of_the_keeper_is_named(arguments: tuple[str, ...], words: str) -> None:
    given = ("keeper", "--user", "0", *arguments) if "--user" not in arguments else ("keeper", *arguments)
    with pytest.raises(CannotRun, match=words) as caught:
        run(*given)
    assert caught.value.exit_code == EX_USAGE


def test_server_needs_an_absolute_path() -> None:
    with pytest.raises(CannotRun, match="--channel: 'x' can't be used"):
        run("server", "--channel", "x")


@pytest.mark.parametrize("code", [0, 1, 75, 76, 78])
def test_server_ends_as_its_process_does(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(apart, "_serve", lambda *_, **__: code)
    assert run("server", "--channel", "/c") == code


def test_server_stands_by_when_another_has_taken_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    def serve(*_: object, stand_by: bool) -> int:
        times = len(seen.read_text()) if seen.exists() else 0
        seen.write_text("x" * (times + 1))
        # It takes over, is relieved, loses its keeper while it stands by, and ends in its turn.
        codes = [EX_HANDED_OVER, os.EX_TEMPFAIL, 3]
        return codes[times] if stand_by == (times > 0) else 99

    monkeypatch.setattr(apart, "_serve", serve)
    assert run("server", "--channel", "/c") == 3
    assert seen.read_text() == "xxx"


def test_server_that_is_killed_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_serve", lambda *_, **__: os.kill(os.getpid(), 9))
    assert run("server", "--channel", "/c") == 128 + 9


def test_refusal_of_the_server_is_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(*_: object, **__: object) -> int:
        raise CannotRun(EX_CONFIG, "no")

    monkeypatch.setattr(apart, "_serve", serve)
    assert run("server", "--channel", "/c") == EX_CONFIG


def test_places_are_had_while_it_serves_and_left_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "PLACES_PATIENCE", 0.05)
    socket = tmp_path / "run" / "a.sock"
    settings = Settings((Listen(str(socket)),), str(tmp_path / "state"), "me", os.geteuid(), os.getegid(), change_user=False)
    with apart._places(settings):
        assert Path(f"{socket}.lock").exists()
        with pytest.raises(CannotRun, match="another mcastd") as caught, apart._places(settings):
            pass
        assert caught.value.exit_code == EX_UNAVAILABLE
    with apart._places(settings):
        pass
    assert not Path(f"{socket}.lock").exists()
