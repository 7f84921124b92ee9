"""From inside the real server, after its fall from power: what it must not be able to do is tried, and refused by the kernel."""

import json
import os
import pwd
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import mcast.v1
from tests.e2e.inside.attempts import BROKEN, DONE, WITHIN
from tests.e2e.inside.waiting import SIGNAL, VARIABLE, hook
from tests.e2e.keeper_bench import ROOT
from tests.testbed import Namespace, Testbed
from tests.testbed.daemon import McastdProcess, wait_until
from tests.testbed.rights import is_root

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(not is_root(), reason="needs root outside of user namespaces")]

THIRD = 65531
"""A user that is neither root nor the server's."""

CAPABILITIES_OF_FILE = struct.pack("<5I", 0x02000001, 1 << 1 | 1 << 2, 0, 0, 0)
"""struct vfs_cap_data (linux/capability.h): version 2, effective, all permitted."""


OWN = 65534
"""A user that starts the daemon with the two capabilities alone."""

TWO_CAPABILITIES = [
    *("setpriv", f"--reuid={OWN}", f"--regid={OWN}", "--clear-groups"),
    *("--inh-caps=-all,+net_admin,+net_raw", "--ambient-caps=-all,+net_admin,+net_raw"),
]

AS_THE_UNIT = ["setpriv", "--bounding-set=-all,+net_admin,+net_raw,+setuid,+setgid,+kill", "--no-new-privs"]


class Inside:
    """Things to reach for, and a hook that reaches for them."""

    def __init__(self, testbed: Testbed, directory: Path) -> None:
        self._out = directory / "out"
        self._out.mkdir()
        self._out.chmod(0o777)
        self.environment = hook(directory / "hook")
        self._target = Path(self.environment[VARIABLE])
        self.environment["PYTHONPATH"] += os.pathsep + str(ROOT)
        self.secret = directory / "secret"
        self.secret.write_text("of root")
        self.secret.chmod(0o600)
        self.closed = directory / "closed"
        self.closed.mkdir(mode=0o700)
        os.chown(self.closed, THIRD, THIRD)
        self.setuid, self.capable = directory / "id", directory / "cat"
        shutil.copy("/usr/bin/id", self.setuid)
        self.setuid.chmod(0o4755)
        shutil.copy("/bin/cat", self.capable)
        os.setxattr(self.capable, "security.capability", CAPABILITIES_OF_FILE)
        here = testbed.namespace("elsewhere")
        self.of_root = testbed.popen(here, ["sleep", "1000"]).pid
        self.of_another = testbed.popen(here, ["setpriv", f"--reuid={THIRD}", "--clear-groups", "sleep", "1000"]).pid

    def aim(self, keeper: int, result: Path) -> None:
        """Say what to try it on."""
        names = ("of_root", "of_another", "secret", "closed", "setuid", "capable")
        target = {name: value if isinstance(value := getattr(self, name), int) else str(value) for name in names}
        self._target.write_text(json.dumps({**target, "keeper": keeper, "result": str(result)}))
        self._target.chmod(0o644)

    def try_in_server(self, daemon: McastdProcess) -> dict[str, str]:
        """What came of it in the server."""
        result = daemon.state_dir / "inside"
        self.aim(daemon.process.pid, result)
        os.kill(daemon.server_pid(), SIGNAL)
        wait_until(result.exists, 30, daemon.log)
        answers: dict[str, str] = json.loads(result.read_text())
        assert not [(name, answer) for name, answer in answers.items() if answer.startswith(BROKEN)]
        return answers

    def try_as(self, namespace: Namespace, keeper: int, *prefix: str) -> dict[str, str]:
        """The same by a program that `prefix` runs; as root it shows that each attempt is one."""
        result = self._out / "answers"
        self.aim(keeper, result)
        with namespace.entered():
            command = [*prefix, sys.executable, "-m", "inside.waiting", str(self._target)]
            subprocess.run(command, env=os.environ | self.environment, check=True, timeout=60)
        found: dict[str, str] = json.loads(result.read_text())
        return found


@pytest.fixture
def inside(testbed: Testbed, directory: Path) -> Inside:
    return Inside(testbed, directory)


@pytest.fixture(scope="module")
def python_of_others() -> Sequence[str]:
    """The end of a command that runs the interpreter for another user: ours may be closed (one of pyenv's in /root)."""
    for python in (sys.executable, "/usr/bin/python3"):
        program = f"exec {python} -c 'import sys; print(sys.version_info[:2])'"  # by a shell: setpriv itself has its rights still
        command = ["setpriv", f"--reuid={OWN}", "--clear-groups", "sh", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.strip() == str(sys.version_info[:2]):
            return ["sh", "-c", f'shift; exec {python} "$@"', "sh"]
    pytest.skip(f"other users have no Python {sys.version_info[:2]}")


def make_directories(directory: Path) -> None:
    """Those of the server, as a service manager makes them."""
    for name in ("run", "state"):
        (directory / name).mkdir()
        os.chown(directory / name, OWN, OWN)


def done(answers: dict[str, str]) -> set[str]:
    """What could be done."""
    return {name for name, answer in answers.items() if answer == DONE}


def assert_confined(pid: int) -> None:
    """Each thread of the server has the filter and no way to more rights: the kernel keeps all of it by thread."""
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        assert (fields["Seccomp"], fields["NoNewPrivs"], int(fields["CapPrm"], 16)) == ("2", "1", 0), status


def test_started_as_root(testbed: Testbed, directory: Path, inside: Inside) -> None:
    with McastdProcess(testbed.namespace("router"), directory, environment=inside.environment) as daemon:
        answers = inside.try_in_server(daemon)
        assert done(answers) == set()
        by_root = inside.try_as(testbed.namespace("control"), daemon.process.pid)
        assert set(answers) - {WITHIN} <= set(by_root)
        assert set(by_root) - done(by_root) <= {name for name in by_root if name.startswith(WITHIN)}
        assert_confined(daemon.server_pid())
        assert daemon.serving()


def test_started_as_the_unit_does(testbed: Testbed, directory: Path, inside: Inside) -> None:
    """deploy/systemd/mcastd.service: root with five capabilities and no_new_privs, and the server's directories there already."""
    make_directories(directory)
    options: dict[str, Any] = {"prefix": AS_THE_UNIT, "environment": inside.environment}
    with McastdProcess(testbed.namespace("router"), directory, "--user", pwd.getpwuid(OWN).pw_name, **options) as daemon:
        assert done(inside.try_in_server(daemon)) == set()
        assert_confined(daemon.server_pid())
        assert daemon.serving()


def test_started_with_two_capabilities(
    testbed: Testbed, directory: Path, inside: Inside, python_of_others: Sequence[str]
) -> None:
    """Keeper and server are one user then: what the user decides, a filter of calls and a closed /proc keep."""
    make_directories(directory)
    generated = str(Path(mcast.v1.__path__[0]).parents[1])  # Where an editable install leads to: a .pth file is not read here.
    inside.environment["PYTHONPATH"] += os.pathsep.join(["", sysconfig.get_path("purelib"), generated])
    prefix = [*TWO_CAPABILITIES, *python_of_others]
    with McastdProcess(testbed.namespace("router"), directory, prefix=prefix, environment=inside.environment) as daemon:
        answers = inside.try_in_server(daemon)
        assert done(answers) == set()
        assert_confined(daemon.server_pid())
        assert daemon.serving()


def test_a_user_namespace_is_no_way_out(testbed: Testbed, directory: Path, inside: Inside) -> None:
    """Where the system has no filter of calls: all of it by a program that is as powerless as the server, but may make one."""
    with McastdProcess(testbed.namespace("router"), directory) as daemon:
        fallen = ["setpriv", f"--reuid={OWN}", f"--regid={OWN}", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]
        answers = inside.try_as(testbed.namespace("control"), daemon.process.pid, *fallen)
    assert {"make a user namespace"} <= done(answers) <= {"make a user namespace", "execute a program"}
    assert any(name.startswith(WITHIN) for name in answers)
