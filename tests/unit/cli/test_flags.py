"""Which file the command line asks for."""

from pathlib import Path

import pytest

from mcastd.cli import flags
from mcastd.cli.flags import config_path


def test_the_default_file_is_read_where_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags, "DEFAULT_CONFIG", str(tmp_path / "mcastd.toml"))
    assert config_path(None, {}) is None
    (tmp_path / "mcastd.toml").touch()
    assert config_path(None, {}) == str(tmp_path / "mcastd.toml")
    assert config_path(None, {"MCASTD_CONFIG": "/x"}) == "/x"
    assert config_path("/y", {"MCASTD_CONFIG": "/x"}) == "/y"
