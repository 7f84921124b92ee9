"""The keeper of a real daemon at rest: under 20 MB, one thread, and without the libraries that parse what strangers send."""

import json
import os
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e.keeper_bench import ROOT, status_of
from tests.e2e.router import group
from tests.e2e.templates import template
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, wait_until
from tests.testbed.manager import FakeManager

pytestmark = pytest.mark.kernel

LIMIT = 20 * 1024
"""kB of resident memory."""

FOREIGN = {"grpc", "google", "pyroute2", "cffi", "asyncio", "sqlite3", "click", "yaml", "prometheus_client", "hashlib", "ssl"}
"""Libraries and modules of the server alone; cffi's own Python part too, which the extension does without."""

SIGNAL = signal.SIGRTMIN + 8
_HOOK = f"""import signal, sys

def tell(*_):
    import json, os
    path = os.environ["MODULES_OF_THE_KEEPER"]
    with open(path + ".new", "w") as file:
        json.dump(sorted(sys.modules), file)
    os.rename(path + ".new", path)

if "mcastd.cli" in sys.orig_argv:
    signal.signal({int(SIGNAL)}, tell)
"""


class Small(NamedTuple):
    """A hook in the keeper that says which modules it has."""

    modules: Path
    environment: dict[str, str]

    def check(self, daemon: McastdProcess) -> int:
        """See that the keeper is small and has loaded nothing of the server's; its memory in kB."""
        status = status_of(daemon.process.pid)
        resident = int(status["VmRSS"].split()[0])
        assert resident < LIMIT, f"{resident} kB"
        assert status["Threads"] == "1"
        self.modules.unlink(missing_ok=True)
        os.kill(daemon.process.pid, SIGNAL)
        wait_until(self.modules.exists, 10, daemon.log)
        names = set(json.loads(self.modules.read_text()))
        assert "mcastd.keeper.keeper" in names
        assert {name.partition(".")[0] for name in names} & FOREIGN == set()
        assert {
            name for name in names if name.startswith(("mcastd.core", "mcastd.runtime", "mcastd.store", "mcastd.api"))
        } == set()
        return resident


@pytest.fixture
def small(directory: Path) -> Small:
    hook = directory / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(_HOOK)
    path = directory / "modules"
    environment = {"PYTHONPATH": os.pathsep.join([str(hook), str(ROOT)]), "MODULES_OF_THE_KEEPER": str(path)}
    return Small(path, environment)


def use(daemon: McastdProcess) -> None:
    """Something of each kind that the keeper keeps: 1,000 templates of both families, joins, another table."""
    templates = [template(group(family, n), "up", "down1") for family in Family for n in range(0x100, 0x100 + 500)]
    assert daemon.put(*templates).failed == 0
    assert daemon.put(template(group(Family.IPV4), "up", "down1", table=5)).failed == 0
    joins = [t.Join(interface="down1", group=group(family, n)) for family in Family for n in range(1, 51)]
    sv_grpc.JoinServiceStub(daemon.channel).PutJoins(sv.PutJoinsRequest(joins=joins), timeout=20)


def test_keeper_of_a_daemon_in_use(testbed: Testbed, directory: Path, small: Small) -> None:
    with McastdProcess(testbed.star().router, directory, environment=small.environment) as daemon:
        use(daemon)
        small.check(daemon)
        before = daemon.kill_server()
        wait_until(lambda: daemon.server_pid() not in {0, before}, 20)
        daemon.wait_ready()
        small.check(daemon)


def test_keeper_that_has_adopted_what_another_left(testbed: Testbed, directory: Path, small: Small) -> None:
    router = testbed.star().router
    with FakeManager() as manager:
        with McastdProcess(router, directory, **manager.options(environment=small.environment)) as daemon:
            use(daemon)
            manager.stop(daemon.process, signal.SIGKILL)
        with McastdProcess(router, directory, **manager.options(environment=small.environment)) as daemon:
            small.check(daemon)


def test_keeper_that_has_re_executed_itself(testbed: Testbed, directory: Path, small: Small) -> None:
    with McastdProcess(testbed.star().router, directory, environment=small.environment) as daemon:
        use(daemon)
        daemon.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "the keeper is re-executed" in daemon.log(), 20, daemon.log)
        small.check(daemon)
