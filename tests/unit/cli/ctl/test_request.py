"""Which message each argument, flag and item of a file goes to; seen through whole command lines."""

from pathlib import Path
from typing import Any

import click
import pytest
from google.protobuf import json_format

from mcastd.cli.ctl.contract import Contract
from mcastd.cli.ctl.request import CHUNK, BadUsageError
from tests.unit.cli.ctl.conftest import parse


def requests(contract: Contract, *arguments: str) -> list[Any]:
    """The requests of a command line, as JSON."""
    return [json_format.MessageToDict(one, preserving_proto_field_name=True) for one in parse(contract, arguments)]


def test_an_item_of_flags(shipped: Contract) -> None:
    line = "route add 239.1.1.1 10.0.0.5 --iif eth0 -O eth1 --oif vlan* --join --wildcard shared-tree --idle-timeout 5m"
    assert requests(shipped, *line.split(), "-n", "--owner", "lab", "-O", "{interface: eth2, ttl_threshold: 8}") == [
        {
            "routes": [
                {
                    "group": "239.1.1.1",
                    "source": "10.0.0.5",
                    "iif": "eth0",
                    "oifs": [{"interface": "eth1"}, {"interface": "vlan*"}, {"interface": "eth2", "ttl_threshold": 8}],
                    "join": True,
                    "idle_timeout": "300s",
                    "wildcard": "WILDCARD_SHARED_TREE",
                }
            ],
            "options": {"validate_only": True, "owner": "lab"},
        }
    ]


@pytest.mark.parametrize(
    "flags",
    ["-O eth1,vlan*,!vlan7", "-O eth1 -O vlan*,!vlan7", "--oif=eth1 -Ovlan* -O !vlan7"],
)
def test_names_with_commas_are_several(shipped: Contract, flags: str) -> None:
    (made,) = requests(shipped, "route", "add", "239.1.1.1", *flags.split())
    assert [one["interface"] for one in made["routes"][0]["oifs"]] == ["eth1", "vlan*", "!vlan7"]


@pytest.mark.parametrize(
    "line,request_",
    [
        ("watch route,source", {"kinds": ["KIND_ROUTE", "KIND_SOURCE"]}),
        ("interface set eth0,eth1 --pinned", {"interface": "eth0,eth1"}),  # of one value a comma is a part
        ("route list", {}),
        ("route list 239.0.0.0/8 --state partial --state pending -c", {"selector": {"group": "239.0.0.0/8"}}),
        ("route patch 239.1.1.1 --add-oif a --del-oif b", {}),
        ("route del --all", {"all": True}),
        ("route del --match-cookie x", {"selector": {"cookie": "x"}}),
        ("route del 239.1.1.1", {"keys": [{"group": "239.1.1.1"}]}),
        ("interface set eth0 --pinned --no-router-discovery", {"interface": "eth0", "pinned": True, "router_discovery": False}),
        ("interface set eth0 --ttl-threshold 0", {"interface": "eth0", "ttl_threshold": 0}),
        ("watch route source --interval 2s", {"kinds": ["KIND_ROUTE", "KIND_SOURCE"], "sample_interval": "2s"}),
        ("route list --match-table 0", {"selector": {"table": 0}}),
        ("shutdown --keep-forwarding", {"keep_forwarding": True}),
    ],
)
def test_requests(shipped: Contract, line: str, request_: dict[str, Any]) -> None:
    (made,) = requests(shipped, *line.split())
    for name, value in request_.items():
        if isinstance(value, dict):
            assert value.items() <= made[name].items()
        else:
            assert made[name] == value


def test_items_of_a_file(shipped: Contract, tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(
        "routes:\n- {group: 239.1.1.1, oifs: [eth1, {interface: eth2}], status: {state: nonsense}}\n- group: ff3e::1\n"
    )
    (made,) = requests(shipped, "route", "add", "-f", str(path), "--cookie", "mine")
    assert made == {
        "routes": [
            {"group": "239.1.1.1", "oifs": [{"interface": "eth1"}, {"interface": "eth2"}], "cookie": "mine"},
            {"group": "ff3e::1", "cookie": "mine"},
        ]
    }


@pytest.mark.parametrize("line", ["route del", "route del -n", "route del --owner lab"])
def test_a_command_that_says_nothing_is_told_what_it_could_say(shipped: Contract, line: str) -> None:
    with pytest.raises(BadUsageError) as caught:
        requests(shipped, *line.split())
    said = str(caught.value)
    assert said.startswith("Nothing to do: say GROUP, -f FILE, --match-owner, --match-cookie, ")
    assert said.endswith(" or --all.")


@pytest.mark.parametrize("line", ["interface set eth0", "interface set eth0 -n", "interface set eth0 --table 3"])
def test_a_command_that_sets_nothing(shipped: Contract, line: str) -> None:
    with pytest.raises(BadUsageError) as caught:
        requests(shipped, *line.split())
    assert str(caught.value) == "Nothing to do: say --pinned, --ttl-threshold or --router-discovery."


@pytest.mark.parametrize(
    "line", ["route flush", "route list", "reload", "shutdown", "watch", "status", "join list", "route replace"]
)
def test_commands_that_need_no_more_than_their_words(shipped: Contract, line: str) -> None:
    assert len(requests(shipped, *line.split())) == 1


@pytest.mark.parametrize("line", ["route add", "route del", "route del --all", "route replace", "join add"])
def test_a_file_without_items(shipped: Contract, tmp_path: Path, line: str) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("# nothing\n")
    with pytest.raises(BadUsageError) as caught:
        requests(shipped, *line.split(), "-f", str(path))
    hint = " (--allow-empty if that is meant)" if line == "route replace" else ""
    assert str(caught.value) == f"{path}: no items: there is nothing to do{hint}."


def test_a_file_without_items_where_that_is_meant(shipped: Contract, tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("[]")
    assert requests(shipped, "route", "replace", "--allow-empty", "-f", str(path)) == [{"header": {"allow_empty": True}}]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '[{"group": ' + "[" * 900 + "]" * 900 + "}]"])
def test_a_file_that_is_nested_without_end(shipped: Contract, tmp_path: Path, text: str) -> None:
    path = tmp_path / "routes.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="nested"):
        requests(shipped, "route", "add", "-f", str(path))


def test_a_flag_that_is_nested_without_end(shipped: Contract) -> None:
    with pytest.raises(click.UsageError, match="nested too deep"):
        requests(shipped, "route", "add", "239.1.1.1", "-O", "[" * 100_000)


def test_a_message_in_itself_without_end(lab: Contract) -> None:
    text = '{"again": ' * 400 + "{}" + "}" * 400
    with pytest.raises(click.UsageError, match="nested too deep"):
        requests(lab, "lab-service", "do-everything", "--again", text)


def test_a_wrong_item_is_named_with_its_file(shipped: Contract, tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("- group: 239.1.1.1\n- {group: 239.1.1.2, oif: eth1}\n")
    with pytest.raises(BadUsageError) as caught:
        requests(shipped, "route", "replace", "-f", str(path))
    assert str(caught.value) == f"{path}: routes[1]: Route has no field 'oif'; did you mean oifs?"


def test_a_client_stream_begins_with_its_header(shipped: Contract, tmp_path: Path) -> None:
    path = tmp_path / "routes.ndjson"
    path.write_text("".join(f'{{"group": "232.0.{n >> 8}.{n & 255}"}}\n' for n in range(2 * CHUNK + 1)))
    header, *chunks = requests(shipped, "route", "replace", "-f", str(path), "-n", "--max-deletions", "5")
    assert header == {"header": {"options": {"validate_only": True}, "max_deletions": 5}}
    assert [len(chunk["chunk"]["routes"]) for chunk in chunks] == [CHUNK, CHUNK, 1]


def test_the_header_is_sent_even_if_it_says_nothing(shipped: Contract) -> None:
    assert requests(shipped, "route", "replace") == [{"header": {}}]
    assert requests(shipped, "route", "replace", "--group", "239.1.1.1") == [
        {"header": {}},
        {"chunk": {"routes": [{"group": "239.1.1.1"}]}},
    ]


def test_a_stream_without_a_header(lab: Contract, tmp_path: Path) -> None:
    path = tmp_path / "parts"
    path.write_text("[{name: a}, {name: b}]")
    assert requests(lab, "feed", "--sender", "me", "-f", str(path)) == [{"sender": "me", "parts": [{"name": "a"}, {"name": "b"}]}]
    assert requests(lab, "feed", "--sender", "me") == [{"sender": "me"}]
    assert requests(lab, "lab-service", "upload", "-f", str(path), "--count", "3") == [
        {"name": "a", "count": 3},
        {"name": "b", "count": 3},
    ]
    assert requests(lab, "lab-service", "upload", "--name", "x") == [{"name": "x"}]


def test_everything(lab: Contract) -> None:
    words = "--text a --truth --no-maybe --small -1 --big 0xff --half .5 --data aGk= --colour sky-blue"
    more = "--palette red --palette sky_blue --names x --numbers 1 --span 90s --moment 2026-01-01T00:00:00Z --labels a=b"
    last = "--labels c=d=e --depth 3 --width 0 --tag t --wrapped 9 --nothing --row 1 --seat 2 --spans 1s"
    nested = ["--shelves", "7={name: z}", "--again", "{text: a}"]
    (made,) = requests(lab, "lab-service", "do-everything", *f"{words} {more} {last}".split(), *nested)
    assert made == {
        "text": "a",
        "truth": True,
        "maybe": False,
        "small": -1,
        "big": "255",
        "half": 0.5,
        "data": "aGk=",
        "colour": "COLOUR_SKY_BLUE",
        "palette": ["COLOUR_RED", "COLOUR_SKY_BLUE"],
        "names": ["x"],
        "numbers": [1],
        "span": "90s",
        "moment": "2026-01-01T00:00:00Z",
        "labels": {"a": "b", "c": "d=e"},
        "shelves": {"7": {"name": "z"}},
        "inner": {"deep": {"depth": 3}, "width": 0},
        "tag": {"label": "t"},
        "wrapped": 9,
        "nothing": {},
        "by_place": {"row": 1, "seat": 2},
        "again": {"text": "a"},
        "spans": ["1s"],
    }


def test_a_oneof_takes_one(lab: Contract) -> None:
    with pytest.raises(BadUsageError, match="--by-name and --row exclude each other"):
        requests(lab, "lab-service", "do-everything", "--by-name", "x", "--row", "1")
