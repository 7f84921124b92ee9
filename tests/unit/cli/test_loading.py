"""The settings as the keeper gets them: from a child, with every fault of the file at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from mcastd.cli import flags as cli_flags
from mcastd.cli import loading
from mcastd.cli.configuration import load_settings
from mcastd.cli.flags import Flags
from mcastd.cli.loading import FaultyConfiguration, load
from mcastd.keeper.failure import CannotRun
from tests.unit.sources.broken import GOOD

ROOT = Path(__file__).parents[3]


def write(directory: Path, text: str) -> Flags:
    path = directory / "mcastd.toml"
    path.write_text(text, "utf-8")
    return Flags(config=str(path))


def test_the_settings_are_those_of_the_file(tmp_path: Path) -> None:
    flags = write(tmp_path, GOOD + '[metrics]\naddress = ["[::1]:9"]\n')
    assert load(flags, {}) == load_settings(flags, {})
    assert load(flags, {}).marks.keys() == {"metrics.address"}


def test_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_flags, "DEFAULT_CONFIG", "/nonexistent")
    assert load(Flags(), {}) == load_settings(Flags(), {})
    with pytest.raises(CannotRun, match="--log-level"):
        load(Flags(log_level="loud"), {})


def test_what_reads_is_not_loaded_by_the_keeper() -> None:
    """Some 3 MB of the 20 that it may have."""
    program = "import sys\nfrom mcastd.cli.mcastd import load\nfrom mcastd.cli.flags import Flags\nload(Flags(), {})\n"
    program += "print([name for name in sys.modules if name in {'tomllib', 'datetime', 'pathlib'} or 'mcastd.sources' in name])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


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
