"""mcastd.cli.metrics: where the metrics are offered, and the section [metrics]."""

from pathlib import Path

import pytest

from mcastd.cli.configuration import load_settings
from mcastd.cli.flags import Flags
from mcastd.keeper.failure import CannotRun
from mcastd.model.settings import Exposition, Settings


def load(directory: Path, text: str, metrics: str | None = None, **environment: str) -> Settings:
    path = directory / "mcastd.toml"
    path.write_text(text)
    return load_settings(Flags(config=str(path), metrics=metrics), environment)


def test_nothing_is_no_listener(tmp_path: Path) -> None:
    found = load(tmp_path, "")
    assert (found.metrics, found.exposition) == ("", Exposition())


def test_everything(tmp_path: Path) -> None:
    text = '[metrics]\naddress = ["127.0.0.1:1", "[::1]:2"]\nweb_config = "web.yml"\n'
    text += "flows_top = 7\nflows_all = true\nsilent_after = 3\n"
    found = load(tmp_path, text)
    assert found.metrics.split() == ["127.0.0.1:1", "[::1]:2"]
    assert found.exposition == Exposition(str(tmp_path / "web.yml"), 7, True, 3.0)
    assert Settings.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    "flag,environment,expected",
    [
        (None, "", "[::1]:3"),
        (None, "[::1]:2", "[::1]:2"),
        ("[::1]:1", "[::1]:2", "[::1]:1"),
        ("off", "[::1]:2", ""),
        (None, "off", ""),
    ],
)
def test_what_is_said_elsewhere_wins(tmp_path: Path, flag: str | None, environment: str, expected: str) -> None:
    text = '[daemon]\nmetrics = "[::1]:3"\n[metrics]\naddress = ["[::1]:4"]\n'
    assert load(tmp_path, text, flag, MCASTD_METRICS=environment).metrics == expected


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    assert load(tmp_path, '[metrics]\nweb_config = "/etc/x/../web.yml"\n').exposition.web_config == "/etc/web.yml"


@pytest.mark.parametrize(
    "text,says",
    [
        ("metrics = 3", ["metrics", "a table"]),
        ("[metrics]\nadress = []", ["metrics.adress", "address"]),
        ('[metrics]\naddress = "127.0.0.1:1"', ["metrics.address", "a list"]),
        ("[metrics]\naddress = [3]", ["metrics.address", "list of strings"]),
        ('[metrics]\naddress = ["9464"]', ["metrics.address", "'9464'", "HOST:PORT"]),
        ('[metrics]\naddress = ["a b:1"]', ["metrics.address", "'a b:1'"]),
        ('[metrics]\naddress = ["a:1", "a:1"]', ["metrics.address", "twice"]),
        (f"[metrics]\naddress = {[f'a:{n}' for n in range(9)]}", ["metrics.address", "9 addresses", "8"]),
        ("[metrics]\nflows_top = -1", ["metrics.flows_top", "-1", "0 to 10000"]),
        ("[metrics]\nflows_all = 1", ["metrics.flows_all", "true or false"]),
        ("[metrics]\nsilent_after = 0", ["metrics.silent_after", "1 to 86400"]),
        ('[metrics]\nweb_config = "a\\nb"', ["metrics.web_config", "path"]),
    ],
)
def test_refused(tmp_path: Path, text: str, says: list[str]) -> None:
    with pytest.raises(CannotRun) as caught:
        load(tmp_path, text)
    assert caught.value.exit_code == 78
    for word in [*says, str(tmp_path / "mcastd.toml")]:
        assert word in str(caught.value)
