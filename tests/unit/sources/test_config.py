"""The configuration as a whole: what a sound one comes to, and where a broken one is broken."""

import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.join import JoinKey
from mcastd.model.limits import Limits
from mcastd.model.record import InterfaceSettings, Pin
from mcastd.model.route import Oif, Paths, Template
from mcastd.model.rule import Rule
from mcastd.sources.config import Configuration, read_configuration
from mcastd.sources.faults import FAULTS_MAX, BadConfiguration, Fault
from mcastd.sources.includes import FILES_MAX
from tests.unit.sources.broken import BROKEN, EXACT, GOOD


def read(directory: Path, text: str, **others: str) -> Configuration:
    path = directory / "mcastd.toml"
    path.write_text(text, "utf-8")
    for name, content in others.items():
        (directory / f"{name}.toml").write_text(content, "utf-8")
    return read_configuration(str(path))


def faults(directory: Path, text: str, **others: str) -> tuple[Fault, ...]:
    with pytest.raises(BadConfiguration) as caught:
        read(directory, text, **others)
    return caught.value.faults


def test_a_sound_one(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    (route,) = found.routes.values()
    assert route.key == exact_key(0, pack_address("239.1.1.1"), pack_address("10.0.0.1"))
    assert route.paths == Paths("eth0", (Oif("eth1", 0), Oif("eth2", 3)))
    assert (route.owner, route.join, route.monitored) == ("config", False, False)
    assert list(found.joins) == [JoinKey("config", "eth0", pack_address("232.1.1.1"), 32, b"", 0)]
    assert found.settings == {"eth0": InterfaceSettings("eth0", "config", pins=(Pin(0, True, 0),))}
    assert found.rules == [Rule(100, "eth2", 7, tuple(Family))]
    assert found.limits == Limits(idle_timeout=30.0)
    assert (found.tables, found.files) == (frozenset({100}), [str(tmp_path / "mcastd.toml")])
    assert found.place(route.key) == f"{tmp_path}/mcastd.toml:12"


def test_an_empty_one_asks_for_nothing(tmp_path: Path) -> None:
    found = read(tmp_path, "")
    assert (found.routes, found.joins, found.settings, found.rules, found.limits) == ({}, {}, {}, [], Limits())


@pytest.mark.parametrize(
    "written,seconds", [('"90s"', 90.0), ('"1h30m"', 5400.0), ('"1.5s"', 1.5), ("7", 7.0), ("2.5", 2.5), ('"5m"', 300.0)]
)
def test_templates(tmp_path: Path, written: str, seconds: float) -> None:
    text = f'[[route]]\ngroup = "239.2.0.0/16"\niif = "eth*"\njoin = false\ncookie = "c"\nidle_timeout = {written}\n'
    (route,) = read(tmp_path, text).routes.values()
    assert isinstance(route, Template)
    assert (route.idle_timeout, route.shared_tree, route.paths.iif, route.cookie) == (seconds, False, "eth*", "c")


def test_everything_that_a_route_can_say(tmp_path: Path) -> None:
    more = 'table = 254\ncookie = "c"\nmonitored = true\njoin = true\nwildcard = "template"\n'
    (route,) = read(tmp_path, EXACT.replace("239.1.1.2", "ff3e::2").replace("10.0.0.1", "fd00::1") + more).routes.values()
    assert route.key == exact_key(0, pack_address("ff3e::2"), pack_address("fd00::1"))
    assert (route.cookie, route.monitored, route.join) == ("c", True, True)
    tree = '[[route]]\ngroup = "239.1.1.1"\niif = "eth0"\nwildcard = "shared-tree"\n'
    (route,) = read(tmp_path, tree).routes.values()
    assert isinstance(route, Template)
    assert route.shared_tree


def test_everything_that_an_interface_can_say(tmp_path: Path) -> None:
    text = '[interface."eth0.1"]\nttl_threshold = 254\nrouter_discovery = true\npinned = [100, 0, 253, 100]\n'
    assert read(tmp_path, text).settings == {
        "eth0.1": InterfaceSettings("eth0.1", "config", 254, 0, (Pin(0, True, 0), Pin(100, True, 0)), router_discovery=True)
    }


def test_tables_say_where_they_differ(tmp_path: Path) -> None:
    text = '[daemon]\nunrouted = "ignore"\n[[table]]\nnumber = 1\nunrouted = "ignore"\n[[table]]\nnumber = 2\nunrouted = "stop"\n'
    found = read(tmp_path, text)
    assert [found.limits.stops(table) for table in (0, 1, 2, 3)] == [False, False, True, False]
    assert found.tables == {1, 2}


def test_routes_that_are_alike_share_their_paths(tmp_path: Path) -> None:
    found = read(tmp_path, EXACT + EXACT.replace("239.1.1.2", "239.1.1.3"))
    assert len({id(route.paths) for route in found.routes.values()}) == 1


def test_there_are_fifty_broken_files() -> None:
    assert len(BROKEN) >= 50


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_line_and_key(tmp_path: Path, name: str) -> None:
    text, line, key, words = BROKEN[name]
    fault = faults(tmp_path, text)[0]
    assert fault.file == str(tmp_path / ("gone.toml" if "gone" in text else "mcastd.toml"))
    assert (fault.line, fault.key) == (line, key)
    assert words in str(fault)
    assert key in str(fault)


def test_the_error_has_all_faults_and_the_place_of_the_first(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration) as caught:
        read(tmp_path, "\n" + EXACT.replace("10.0", "127.0") + EXACT.replace('"eth0"', "7"))
    metadata = caught.value.problem.metadata
    assert metadata == {"file": f"{tmp_path}/mcastd.toml", "line": "4", "key": "route 1.source", "faults": "2"}
    assert "route 2.iif" in str(caught.value)


def test_so_many_faults_are_enough(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration) as caught:
        read(tmp_path, "[[route]]\ngroup = 3\n" * 10_000)
    assert len(caught.value.faults) == FAULTS_MAX
    assert caught.value.more
    assert "more" in str(caught.value)
    assert len(str(caught.value)) < 4000


VALUES = [3, -1, True, 1.5, "", "x" * 100, [], {}, ["x"], {"x": 1}, "10.0.0.1", "239.1.1.9", "eth*"]


def toml(value: object) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


@given(st.integers(0, GOOD.count("\n") - 1), st.sampled_from(VALUES))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_wrong_value_is_found_where_it_stands(tmp_path: Path, number: int, value: Any) -> None:
    """Any value anywhere: it can be used, or the first fault is on its line or names it as a duplicate of none."""
    lines = GOOD.splitlines()
    if " = " not in lines[number]:
        return
    name = lines[number].partition(" = ")[0]
    lines[number] = f"{name} = {toml(value)}"
    try:
        read(tmp_path, "\n".join(lines))
    except BadConfiguration as exc:
        first = exc.faults[0]
        assert name in first.key or first.key == "include 1" or "gone" in first.message or first.line == 0
        assert first.line in {number + 1, 0}


@given(st.integers(0, len(GOOD)), st.text(alphabet="[]{}=.,\"'#\n x1", max_size=4), st.integers(0, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_slip_of_the_pen_is_found_or_harmless(tmp_path: Path, at: int, more: str, less: int) -> None:
    text = GOOD[:at] + more + GOOD[at + less :]
    try:
        found = read(tmp_path, text)
    except BadConfiguration as exc:
        for fault in exc.faults:
            assert fault.file
            assert 0 <= fault.line <= text.count("\n") + 1
            assert "Traceback" not in fault.message
        if not exc.faults[0].line:
            assert "include" in text[: at + 12]
    else:
        tomllib.loads(text)
        assert len(found.routes) <= 1


def test_included_files_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    for name in ("b", "a"):
        text = EXACT.replace("239.1.1.2", f"239.1.1.{ord(name)}")
        (tmp_path / "conf.d" / f"{name}.toml").write_text(text, "utf-8")
    found = read(tmp_path, 'include = ["conf.d/*.toml", "more.toml"]\n' + EXACT, more='include = ["empty/*.toml"]\n')
    names = ["mcastd.toml", "conf.d/a.toml", "conf.d/b.toml", "more.toml"]
    assert found.files == [str(tmp_path / name) for name in names]
    assert [key[7] for key in found.routes] == [2, ord("a"), ord("b")]
    assert found.place(list(found.routes)[2]) == f"{tmp_path}/conf.d/b.toml:1"


def test_what_two_files_say_is_refused_with_both_places(tmp_path: Path) -> None:
    include = 'include = ["other.toml"]\n'
    text = include + EXACT + "[interface.eth0]\n[[table]]\nnumber = 5\n"
    found = faults(tmp_path, text, other=EXACT + "[interface.eth0]\n[[table]]\nnumber = 5\n")
    assert [fault.key for fault in found] == ["table 1.number", "route 1", "interface.eth0"]
    assert all(str(fault).startswith(f"{tmp_path}/other.toml:") for fault in found)
    assert f"{tmp_path}/mcastd.toml:2" in found[1].message


@pytest.mark.parametrize("text", ["[daemon]\n", "[metrics]\n", '[[listen]]\naddress = "unix:/x"\n'])
def test_what_the_first_file_alone_may_say(tmp_path: Path, text: str) -> None:
    (fault,) = faults(tmp_path, 'include = ["other.toml"]\n', other=text)
    assert fault.file == f"{tmp_path}/other.toml"
    assert "the one that mcastd is started with" in fault.message


def test_files_that_include_each_other_end(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, 'include = ["other.toml"]\n', other='include = ["mcastd.toml"]\n')
    assert fault.place == f"{tmp_path}/other.toml:1"


def test_as_many_files_as_may_be_may_each_include_the_next(tmp_path: Path) -> None:
    for number in range(FILES_MAX):
        (tmp_path / f"{number}.toml").write_text(f'include = ["{number + 1}.toml"]\n', "utf-8")
    with pytest.raises(BadConfiguration, match="at most 1000 files") as caught:
        read_configuration(str(tmp_path / "0.toml"))
    assert caught.value.faults[0].place == f"{tmp_path}/{FILES_MAX - 1}.toml:1"
    (tmp_path / f"{FILES_MAX - 1}.toml").write_text(EXACT, "utf-8")
    assert len(read_configuration(str(tmp_path / "0.toml")).files) == FILES_MAX


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "mcastd.toml").write_bytes(b"\xef\xbb\xbf" + EXACT.replace("\n", "\r\n").encode())
    assert len(read_configuration(str(tmp_path / "mcastd.toml")).routes) == 1


def test_names_without_end_do_not_make_errors_without_end(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration) as caught:
        read(tmp_path, f'"{"x" * 100_000}" = 1\n')
    assert len(str(caught.value)) < 400
    assert len(caught.value.problem.metadata["key"]) < 100


def test_an_error_in_any_script_fits_into_a_trailer(tmp_path: Path) -> None:
    long = "\u4e2d" * 100
    with pytest.raises(BadConfiguration, match=r"and 1[0-9] more") as caught:
        read(tmp_path, f'[[route]]\ngroup = "{long}"\n' * FAULTS_MAX)
    assert len(quote(str(caught.value), safe=" ")) < 6000
    with pytest.raises(BadConfiguration) as caught:
        read(tmp_path, f'include = ["{long * 40}"]\n')
    assert len(quote(str(caught.value), safe=" ")) < 6000


def test_a_broken_include_does_not_hide_the_others(tmp_path: Path) -> None:
    found = faults(tmp_path, 'include = ["one.toml", "two.toml"]\n[demon]\n', one="x =\n", two="y = 1\n")
    assert [Path(fault.file).name for fault in found] == ["mcastd.toml", "one.toml", "two.toml"]


def test_a_pipe_or_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="is a directory"):
        read_configuration(str(tmp_path))
    with pytest.raises(BadConfiguration, match="no regular file"):
        read_configuration("/dev/null")


@pytest.mark.parametrize(
    "reader,remedy",
    [
        ("", "let the server's user read it (chgrp mcastd /c/mcastd.toml; chmod 640 /c/mcastd.toml)"),
        ("mcastd", "let user mcastd read it (chgrp mcastd /c/mcastd.toml; chmod 640 /c/mcastd.toml)"),
        # Whose group is called so is not for us to say: it is nogroup in Debian.
        ("nobody", "let user nobody read it (chgrp to a group of that user's; chmod 640 /c/mcastd.toml)"),
    ],
)
def test_who_may_not_read_the_file_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, reader: str, remedy: str) -> None:
    def closed(_path: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mcastd.sources.document._bytes", closed)
    with pytest.raises(BadConfiguration) as caught:
        read_configuration("/c/mcastd.toml", reader)
    assert remedy in str(caught.value)
