"""The settings as the keeper gets them: from a child, with every fault of the file at once."""

import os
from pathlib import Path

import pytest

from mcastd.cli import configuration, loading
from mcastd.cli.configuration import Flags, config_path, load_settings
from mcastd.cli.loading import FaultyConfiguration, load
from mcastd.keeper.failure import CannotRun
from tests.unit.sources.broken import GOOD


def write(directory: Path, text: str) -> Flags:
    path = directory / "mcastd.toml"
    path.write_text(text, "utf-8")
    return Flags(config=str(path))


def test_the_settings_are_those_of_the_file(tmp_path: Path) -> None:
    flags = write(tmp_path, GOOD + '[metrics]\naddress = ["[::1]:9"]\n')
    assert load(flags, {}) == load_settings(flags, {})
    assert load(flags, {}).marks.keys() == {"metrics.address"}


def test_without_a_file_there_is_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "DEFAULT_CONFIG", "/nonexistent")
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    assert load(Flags(), {}) == load_settings(Flags(), {})


def test_the_default_file_is_read_where_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "DEFAULT_CONFIG", str(tmp_path / "mcastd.toml"))
    assert config_path(None, {}) is None
    write(tmp_path, "")
    assert config_path(None, {}) == str(tmp_path / "mcastd.toml")
    assert config_path(None, {"MCASTD_CONFIG": "/x"}) == "/x"
    assert config_path("/y", {"MCASTD_CONFIG": "/x"}) == "/y"


def test_every_fault_is_told(tmp_path: Path) -> None:
    with pytest.raises(FaultyConfiguration) as caught:
        load(write(tmp_path, "[[route]]\ngroup = 3\n[[join]]\nx = 1\n"), {})
    assert caught.value.exit_code == 78
    assert [fault.partition(":")[2].partition(":")[0] for fault in caught.value.faults] == ["2", "4"]


def test_a_setting_that_can_not_be(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"daemon\.state_dir") as caught:
        load(write(tmp_path, '[daemon]\nstate_dir = "x"\n'), {})
    assert caught.value.exit_code == 78


def test_a_child_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(loading, "check", fail)
    with pytest.raises(CannotRun, match="has died") as caught:
        load(write(tmp_path, ""), {})
    assert caught.value.exit_code == 71
    assert "no room" in capfd.readouterr().err
