"""mcastctl against a real daemon: every command that the daemon has, in both families."""

import json
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml

from mcastd.model.address import Family
from tests.e2e import templates
from tests.e2e.ctl import Ctl
from tests.e2e.router import Router, group
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until


@pytest.fixture
def ctl(router: Router) -> Ctl:
    """The program, with the address of the router's daemon."""
    return Ctl(f"unix:{router.daemon.socket}")


@pytest.fixture
def ipv4_router(testbed: Testbed) -> Iterator[Router]:
    """A router for what is the same in both families."""
    with Router(testbed, Family.IPV4, receivers=3) as made:
        yield made


def test_the_life_of_a_route(router: Router, ctl: Ctl) -> None:
    sender = router.sender()
    key = tuple(str(ip_address(one)) for one in (sender.group, sender.source))  # as the daemon writes them
    done = ctl.call("route", "add", *key, "--iif", "up", "-O", "down1", "--oif", "down2")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("created 1, failed 0, revision ")
    router.check_leaves(sender, "down1", "down2")

    columns = "group,source,iif,oifs,state,pkts"
    rows = ctl.run("route", "list", *key, "-c", "--max-age", "0", "--columns", columns).splitlines()
    assert rows[1].split() == [*key, "up", "down1,down2", "PROGRAMMED", "20"]

    ctl.run("route", "patch", *key, "--del-oif", "down1")
    router.check_leaves(sender, "down2")
    assert ctl.run("route", "list", "-o", "name") == " ".join(key) + "\n"

    done = ctl.call("route", "rm", *key)
    assert (done.returncode, done.stderr.partition(",")[0]) == (0, "deleted 1")
    router.check_leaves(sender)
    assert ctl.run("route", "ls").split()[0] == "GROUP"


def test_a_route_that_must_wait_is_shown_with_its_reason(router: Router, ctl: Ctl) -> None:
    done = ctl.call("route", "add", group(router.family), router.source, "--iif", "none", "-O", "down1")
    assert done.returncode == 0
    assert "PENDING" in done.stdout.splitlines()[1].split()
    assert "NO_SUCH_INTERFACE" not in done.stdout
    reason = "mcastctl: NO_SUCH_INTERFACE: interface none does not exist (yet)"
    assert done.stderr.startswith(reason)
    ctl.run("route", "add", group(router.family, 2), router.source, "--iif", "none", "-O", "down1")
    listed = ctl.call("route", "list")
    assert [line.split()[3:5] for line in listed.stdout.splitlines()[1:]] == [["(down1)", "PENDING"]] * 2
    assert listed.stderr == f"{reason} (2 routes)\n"
    assert ctl.call("route", "list", "-o", "name").stderr == ""


def test_the_life_of_a_template(router: Router, ctl: Ctl) -> None:
    sender = router.sender()
    key = tuple(str(ip_address(one)) for one in (sender.group, sender.source))
    groups = templates.prefix(router.family, 0, 8)
    ctl.run("route", "add", groups, "--iif", "up", "-O", "down1")
    rows = [line.split() for line in ctl.run("route", "list").splitlines()]
    assert rows[1][:5] == [groups, "-", "up", "down1", "TEMPLATE"]
    assert ctl.run("route", "list", "--learned", "-o", "name") == groups + "\n"

    sender.send(3)
    router.departures.wait(sender)
    wait_until(lambda: len(ctl.run("route", "list", "--learned", "-o", "name").splitlines()) == 2, 20)
    listed = {line.split()[0]: line.split() for line in ctl.run("route", "list", "--learned").splitlines()}
    assert listed[key[0]][:5] == [*key, "up", "down1", "PROGRAMMED"]
    assert ctl.run("route", "list", "-o", "name") == groups + "\n"

    done = ctl.call("route", "flush", "--match-group", key[0])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "removed 1\n")
    assert not router.kernel()
    assert ctl.run("route", "list", "--learned", "-o", "name") == groups + "\n"
    assert ctl.call("route", "del", groups).stderr.startswith("deleted 1, ")


def test_a_shared_tree(router: Router, ctl: Ctl) -> None:
    sender = router.sender()
    name = str(ip_address(sender.group))
    ctl.run("route", "add", name, "--iif", "up", "-O", "down1", "--oif", "down2", "--wildcard", "shared-tree")
    rows = [line.split() for line in ctl.run("route", "list").splitlines()]
    # The tree is bidirectional: the incoming interface is one of those it sends to.
    assert rows[1][:5] == [name, "-", "up", "down1,down2,up", "PROGRAMMED"]
    router.check_leaves(sender, "down1", "down2")
    assert ctl.run("route", "list", "--learned", "-o", "name") == name + "\n"
    assert ctl.call("route", "del", name).stderr.startswith("deleted 1, ")
    router.check_leaves(sender)


def test_files_of_every_kind(router: Router, ctl: Ctl, tmp_path: Path) -> None:
    routes = [
        {"group": group(router.family, n), "source": router.source, "iif": "up", "oifs": ["down1", {"interface": "down*"}]}
        for n in range(1, 4)
    ]
    (tmp_path / "routes.yaml").write_text(yaml.safe_dump({"routes": routes}))
    (tmp_path / "routes.ndjson").write_text("".join(json.dumps(one) + "\n" for one in routes))

    assert ctl.call("route", "replace", "-f", str(tmp_path / "routes.yaml"), "-n").stderr == "plan: +3 ~0 -0 =0\n"
    ctl.run("route", "replace", "-f", str(tmp_path / "routes.yaml"), "-n", "--exit-code", code=3)
    assert ctl.run("route", "list", "-j") == "[]\n"
    ctl.run("route", "replace", "-f", str(tmp_path / "routes.yaml"))
    ctl.run("route", "replace", "-f", str(tmp_path / "routes.ndjson"), "-n", "--exit-code")
    for form in ("json", "yaml", "ndjson"):
        listed = ctl.run("route", "list", "-o", form)
        assert ctl.call("route", "replace", "-f", "-", "-n", given=listed).stderr == "plan: +0 ~0 -0 =3\n"
    assert (
        ctl.call("route", "replace", "-n", "-f", str(tmp_path / "routes.yaml"), "--cookie", "new").stderr == "plan: +0 ~3 -0 =0\n"
    )
    (tmp_path / "empty").touch()
    assert "no items: there is nothing to do" in ctl.call("route", "add", "-f", str(tmp_path / "empty")).stderr
    ctl.run("route", "replace", "-f", str(tmp_path / "empty"), code=2)
    ctl.run("route", "del", code=2)
    assert len(ctl.run("route", "list", "-o", "name").splitlines()) == 3
    ctl.run("route", "replace", code=73)
    ctl.run("route", "replace", "--allow-empty")
    assert ctl.run("route", "list", "-o", "name") == ""


def test_refusals(router: Router, ctl: Ctl) -> None:
    bad = {Family.IPV4: "224.0.0.5", Family.IPV6: "ff02::5"}[router.family]
    done = ctl.call("route", "add", bad, router.source, "--iif", "up")
    assert (done.returncode, done.stdout) == (67, "")
    assert done.stderr.startswith("mcastctl: LINK_LOCAL_GROUP: ")
    assert len(done.stderr.splitlines()) == 1
    error = json.loads(ctl.call("route", "add", bad, router.source, "--iif", "up", "-o", "json").stderr)
    assert (error["code"], error["reason"], error["metadata"]["field"]) == (3, "LINK_LOCAL_GROUP", "routes[0].group")
    ctl.run("route", "patch", group(router.family), router.source, "--add-oif", "down1", code=1)


def test_interfaces_and_status(ipv4_router: Router) -> None:
    ctl = Ctl(f"unix:{ipv4_router.daemon.socket}")
    rows = [line.split() for line in ctl.run("interface", "list").splitlines()]
    assert rows[0] == ["NAME", "UP", "VIFS", "ROUTES", "IN", "OUT"]
    assert {row[0] for row in rows[1:]} == {"lo", "up", "down1", "down2", "down3"}
    assert ctl.run("interface", "ls", "down*", "-o", "name") == "down1\ndown2\ndown3\n"
    (done,) = json.loads(ctl.run("interface", "list", "up", "-j"))
    assert done["up"] is True
    shown = yaml.safe_load(ctl.run("interface", "set", "down1", "--pinned", "--ttl-threshold", "3", "-o", "yaml"))["interface"]
    assert (shown["pinned"], shown["ttl_threshold"]) == (True, 3)
    assert "pinned" not in json.loads(ctl.run("interface", "set", "down1", "--no-pinned", "-j"))["interface"]
    status = ctl.run("status")
    assert status.startswith("Version: ")
    assert "Vifs max:" in status
    assert json.loads(ctl.run("status", "-j"))["limits"]["vifs_max"] == 32


def test_commands_from_the_daemon_itself(ipv4_router: Router) -> None:
    ctl = Ctl(f"unix:{ipv4_router.daemon.socket}")
    assert ctl.run("--from-server", "--help").count("route add GROUP [SOURCE]") == 1
    assert ctl.run("--from-server", "--dump-docs", "md") == ctl.run("--dump-docs", "md")
    assert ctl.run("--from-server", "interface", "list", "-o", "name", "lo") == "lo\n"
    assert "no daemon answers" in ctl.call("--from-server", "--address", "unix:/nonexistent", "status").stderr


def test_names_are_completed(ipv4_router: Router) -> None:
    ctl = Ctl(f"unix:{ipv4_router.daemon.socket}")
    ctl.run("route", "add", "239.1.1.1", "10.0.0.5", "--iif", "up", "-O", "down1")

    def offered(line: str) -> list[str]:
        return ctl.run(environment={"_MCASTCTL_COMPLETE": "bash_complete", "_MCASTCTL_LINE": line}).splitlines()[1:]

    wait_until(lambda: offered("mcastctl interface set d") == ["down1", "down2", "down3"], 10)
    assert offered("mcastctl route add 239.1.1.1 10.0.0.5 -O up") == ["up"]
    assert offered("mcastctl route del ") == ["239.1.1.1"]
    assert offered("mcastctl route list --match-owner ") == ["local"]


def test_the_end(ipv4_router: Router) -> None:
    ctl = Ctl(f"unix:{ipv4_router.daemon.socket}")
    assert "add --yes" in ctl.call("shutdown").stderr
    ctl.run("shutdown", "--yes")
    assert ipv4_router.daemon.process.wait(20) == 0
    done = ctl.call("status")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("mcastctl: UNAVAILABLE: no daemon answers at unix:")
