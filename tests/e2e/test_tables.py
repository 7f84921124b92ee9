"""Several tables: packets are looked up by the interface they come in on, as the configuration's rules say."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcast.v1 import types_pb2 as t
from mcastd.kernel.rawsock import open_mroute
from mcastd.kernel.rules import change_rule, our_rules
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.rule import Rule
from tests.e2e.router import Router
from tests.testbed import Sender, Testbed
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]

TABLES = """
[[table]]
number = 100
rules = [{ iif = "up", priority = 1000 }]

[[table]]
number = 200
rules = [{ iif = "side", priority = 1000 }]
"""

WANTED = {(100, "up", 1000), (200, "side", 1000)}


class TwoTables:
    """A router with two sources of one address, each of which has a table of its own."""

    def __init__(self, bed: Testbed, family: Family, directory: Path) -> None:
        self.file = directory / "mcastd.toml"
        self.write(TABLES)
        self.router = Router(bed, family, arguments=["--config", str(self.file)], directory=directory)
        self.namespace = self.router.namespace
        near, _ = bed.connect(bed.namespace("other source"), "eth0", self.namespace, "side")
        self.first = self.router.sender()
        self.second = near.sender(self.first.group, source=self.first.source)

    def write(self, text: str) -> None:
        """Write the configuration."""
        self.file.write_text(text)
        self.file.chmod(0o644)

    def reload(self, text: str) -> None:
        """Have another one read."""
        self.write(text)
        self.router.daemon.process.send_signal(signal.SIGHUP)

    def rules(self, family: Family | None = None) -> set[tuple[int, str, int]]:
        """The daemon's rules in the kernel."""
        with self.namespace.entered():
            return {(rule.table, rule.iif, rule.priority) for rule in our_rules(family or self.router.family)}

    def wait_rules(self, *wanted: tuple[int, str, int]) -> None:
        """Wait for just these."""
        wait_until(lambda: self.rules() == set(wanted), 20, lambda: f"the kernel has {self.rules()}")

    def put(self) -> None:
        """The same (S,G) in both tables."""
        a = self.router.route(self.first, "down1", table=100)
        b = self.router.route(self.second, "down2", iif="side", table=200)
        result = self.router.put(a, b)
        assert (result.created, list(result.changes)) == (2, []), "each is in the kernel"

    def check(self, sender: Sender, *interfaces: str) -> None:
        """Packets of a source leave these interfaces alone."""
        self.router.check_leaves(sender, *interfaces)


@pytest.fixture
def two(testbed: Testbed, family: Family, directory: Path) -> Iterator[TwoTables]:
    made = TwoTables(testbed, family, directory)
    yield made
    made.router.close()


def test_one_flow_is_two_in_two_tables(two: TwoTables) -> None:
    two.wait_rules(*WANTED)
    two.put()
    two.check(two.first, "down1")
    two.check(two.second, "down2")
    two.router.put(two.router.route(two.second, "down1", "down2", iif="side", table=200))
    two.check(two.second, "down1", "down2")
    two.check(two.first, "down1")
    assert {table: len(two.router.kernel(table)) for table in (0, 100, 200)} == {0: 0, 100: 1, 200: 1}


def test_rules_outlive_the_server_and_end_with_the_daemon(two: TwoTables) -> None:
    two.wait_rules(*WANTED)
    two.put()
    pid = two.router.daemon.kill_server()
    assert two.rules() == WANTED
    two.check(two.first, "down1")
    two.router.wait_server_after(pid)
    two.check(two.second, "down2")
    assert two.rules() == WANTED
    two.router.daemon.close()
    assert (two.rules(Family.IPV4), two.rules(Family.IPV6)) == (set(), set())


def test_a_reload_changes_the_rules_that_differ_and_no_other(two: TwoTables) -> None:
    two.wait_rules(*WANTED)
    two.put()
    family = two.router.family
    foreign = Rule(200, "up", 2000, (family,))
    two.namespace.command("ip", f"-{family.value}", "mrule", "add", "pref", "2000", "iif", "up", "lookup", "200")
    two.reload(TABLES.replace('iif = "up", priority = 1000', 'iif = "up", priority = 900'))
    two.wait_rules((100, "up", 900), (200, "side", 1000))
    two.check(two.first, "down1")
    two.reload(TABLES.replace("1000 }", "0 }"))
    wait_until(lambda: "choose 1 to" in two.router.daemon.log(), 20)
    assert two.rules() == {(100, "up", 900), (200, "side", 1000)}
    two.reload(TABLES.replace('rules = [{ iif = "up", priority = 1000 }]', ""))
    two.wait_rules((200, "side", 1000))
    assert "lookup 200" in two.namespace.command("ip", f"-{family.value}", "mrule", "list", "pref", "2000")
    with two.namespace.entered():
        assert change_rule(foreign, family, add=False) is False, "somebody else's rule is none of ours"


def test_rules_that_a_killed_daemon_left_are_taken_over(two: TwoTables, testbed: Testbed, directory: Path) -> None:
    two.wait_rules(*WANTED)
    process = two.router.daemon.process
    server = two.router.daemon.server_pid()
    process.kill()
    process.wait()
    wait_until(lambda: not Path(f"/proc/{server}").exists(), 20)
    assert two.rules() == WANTED
    two.write(TABLES.replace("priority = 1000 }]\n\n", "priority = 800 }]\n\n"))
    two.router.start(arguments=["--config", str(two.file)], directory=directory)
    two.wait_rules((100, "up", 800), (200, "side", 1000))
    two.router.daemon.close()
    assert two.rules() == set()


_HASTE = """
import sys
if "mcastd.runtime.server" in sys.orig_argv:
    import mcastd.core.unused
    mcastd.core.unused.CLOSE_SECONDS = 1.5
"""
"""A sitecustomize that has the server close tables soon."""


def is_open(router: Router, table: int) -> bool:
    """Whether a process holds a table in the router's namespace."""
    with router.namespace.entered():
        try:
            open_mroute(router.family, table).close()
        except McastdError as exc:
            if exc.reason is not Reason.MROUTE_SOCKET_BUSY:
                raise
            return True
        return False


def test_a_table_that_nothing_wants_is_closed_and_opened_again(testbed: Testbed, family: Family, directory: Path) -> None:
    (directory / "haste").mkdir(mode=0o755)
    (directory / "haste" / "sitecustomize.py").write_text(_HASTE)
    (directory / "mcastd.toml").write_text("[daemon]\ntables = [400]\n[[table]]\nnumber = 300\n")
    environment = {"PYTHONPATH": f"{directory / 'haste'}:{ROOT}"}
    config = ["--config", str(directory / "mcastd.toml")]
    with Router(testbed, family, arguments=config, directory=directory, environment=environment) as router:
        sender = router.sender()
        router.namespace.command("ip", f"-{family.value}", "mrule", "add", "pref", "1000", "iif", "up", "lookup", "100")
        assert not is_open(router, 100)
        for _ in range(2):
            put = router.put(router.route(sender, "down1", table=100), router.route(sender, "down2", table=300))
            assert (put.created, list(put.changes)) == (2, [])
            router.check_leaves(sender, "down1")
            router.daemon.delete(*(t.RouteKey(group=sender.group, source=sender.source, table=table) for table in (100, 300)))
            assert is_open(router, 100), "not at once"
            wait_until(lambda: not is_open(router, 100), 20)
            assert [is_open(router, table) for table in (300, 400)] == [True, True], "the configuration names them"
        pid = router.daemon.kill_server()
        router.wait_server_after(pid)
        router.put(router.route(sender, "down2", table=100))
        router.check_leaves(sender, "down2")
