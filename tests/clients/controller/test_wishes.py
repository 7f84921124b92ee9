"""The wishes file: who wants what, and what is wrong with it."""

from pathlib import Path

import pytest

from mcast_controller.topology import FileError, Port
from mcast_controller.trees import Flow
from mcast_controller.wishes import Wishes, load
from tests.clients.controller.networks import fabric

TEXT = """
[[wish]]
group = "232.1.0.0/16"
segments = ["h1", "h2"]
[[wish]]
group = "232.1.0.5"
source = "10.0.0.0/8"
segments = ["h3"]
[[wish]]
group = "ff3e::/16"
segments = ["h4"]
"""


def wishes(directory: Path, text: str = TEXT) -> Wishes:
    path = directory / "wishes.toml"
    path.write_text(text)
    return load(path, fabric(directory))


@pytest.mark.parametrize(
    "group,source,segments",
    [
        ("232.1.0.4", "10.0.0.1", ["h1", "h2"]),
        ("232.1.0.5", "10.0.0.1", ["h1", "h2", "h3"]),
        ("232.1.0.5", "11.0.0.1", ["h1", "h2"]),
        ("232.2.0.5", "10.0.0.1", []),
        ("ff3e::9", "fd00::1", ["h4"]),
        ("ff38::9", "fd00::1", []),
    ],
)
def test_who_wants_what(tmp_path: Path, group: str, source: str, segments: list[str]) -> None:
    topology = fabric(tmp_path)
    found = wishes(tmp_path).receivers(Flow(group, source), topology)
    assert found == {Port(segment.replace("h", "leaf"), "hosts") for segment in segments}


def test_the_same_file_says_the_same(tmp_path: Path) -> None:
    assert wishes(tmp_path) == wishes(tmp_path)
    assert wishes(tmp_path) != Wishes()


@pytest.mark.parametrize(
    "text,says",
    [
        ("wishes = 1", "no such key; there are wish"),
        ("[[wish]]", "wish 1.group: must be a text"),
        ('[[wish]]\ngroup = "10.0.0.1"', "wish 1.group: 10.0.0.1/32 is no multicast group"),
        ('[[wish]]\ngroup = "232.1.0.1/16"', "wish 1.group: 232.1.0.1/16 has host bits set"),
        ('[[wish]]\ngroup = "232.0.0.1"\nsource = "fd00::1"', "are of two address families"),
        ('[[wish]]\ngroup = "232.0.0.1"\nsource = "x"', "wish 1.source: "),
        ('[[wish]]\ngroup = "232.0.0.1"', "wish 1.segments: must be a list"),
        ('[[wish]]\ngroup = "232.0.0.1"\nsegments = ["h9"]', "'h9' is no segment of the topology"),
        ('[[wish]]\ngroup = "232.0.0.1"\nsegments = [["h1"]]', "['h1'] is no segment of the topology"),
        ('[[wish]]\ngroup = "232.0.0.1"\nsegments = [{a = 1}]', "{'a': 1} is no segment of the topology"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(FileError) as caught:
        wishes(tmp_path, text)
    assert says in str(caught.value)
