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
    "flags,says",
    [
        ([], "one of the arguments --epoch --epoch-file is required"),
        (["--epoch", "0"], "0 is no number above 0"),
        (["--epoch", "x"], "x is no number above 0"),
        (["--epoch", "99999999999999999999"], "is above 18446744073709551615"),
        (["--epoch", "1", "--epoch-file", "x"], "not allowed with argument"),
        (["--epoch", "1", "--metrics", "x"], "x is not HOST:PORT"),
        (["--epoch", "1", "--metrics", "127.0.0.1:99999"], "127.0.0.1:99999 is not HOST:PORT"),
        (["--epoch", "1", "--hold", "nan"], "nan is not 0 to 31536000 seconds"),
        (["--epoch", "1", "--hold", "1e300"], "1e300 is not 0 to"),
        (["--epoch", "1", "--drain", "-1"], "-1 is not 0 to"),
        (["--epoch", "1", "--start", "soon"], "soon is not 0 to"),
    ],
)
def test_a_bad_flag_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], says: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*files(tmp_path), *flags])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err
