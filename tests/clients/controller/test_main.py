"""The command line: what it refuses, and with which exit code."""

from pathlib import Path

import pytest

from mcast_controller.main import BAD_FILE, main
from tests.clients.controller.networks import fabric_text


def files(directory: Path, wishes: str = "") -> list[str]:
    (directory / "t.toml").write_text(fabric_text())
    (directory / "w.toml").write_text(wishes)
    return [str(directory / "t.toml"), str(directory / "w.toml")]


def test_a_bad_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*files(tmp_path, "[[wish]]"), "--epoch", "1"]) == BAD_FILE
    assert "wish 1.group: must be a text" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [[], ["--epoch", "0"], ["--epoch", "1", "--epoch-file", "x"], ["--epoch", "1", "--metrics", "x"]]
)
def test_a_bad_flag_is_refused(tmp_path: Path, flags: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*files(tmp_path), *flags])
    assert caught.value.code == 2
