"""Who keeper and server are, and what they may do, in the three ways of starting."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.keeper_bench import ENVIRONMENT, ROOT, KeeperBench, run_to_end, serve, status_of
from tests.testbed import Testbed

DAC_READ_SEARCH, KILL, SETGID, SETUID, SETPCAP, NET_ADMIN, NET_RAW = (1 << bit for bit in (2, 5, 6, 7, 8, 12, 13))

StartKeeper = Callable[..., KeeperBench]

NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
TWO_CAPABILITIES = [*AS_NOBODY, "--inh-caps=-all,+net_admin,+net_raw", "--ambient-caps=-all,+net_admin,+net_raw"]


def is_root() -> bool:
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


needs_root = pytest.mark.skipif(not is_root(), reason="needs root outside of user namespaces")


def capabilities(status: dict[str, str]) -> dict[str, int]:
    return {name.removeprefix("Cap"): int(value, 16) for name, value in status.items() if name.startswith("Cap")}


def assert_powerless(status: dict[str, str], *, bounding: bool) -> None:
    sets = capabilities(status)
    assert {name: sets[name] for name in ("Inh", "Prm", "Eff", "Amb")} == {"Inh": 0, "Prm": 0, "Eff": 0, "Amb": 0}
    assert (sets["Bnd"] != 0) is bounding
    assert status["NoNewPrivs"] == "1"


def uids(status: dict[str, str]) -> set[str]:
    return set(status["Uid"].split())


@pytest.fixture(scope="module")
def python_of_nobody() -> dict[str, Any]:
    """Options of a keeper that runs without root: an interpreter, and where it finds the installation.

    The interpreter of the tests may be closed to others (one of pyenv's in /root); the system's of the same version will do then.
    """
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([ENVIRONMENT["PYTHONPATH"], sysconfig.get_path("purelib")])}
    refusals = []
    for python in (sys.executable, "/usr/bin/python3"):
        # By a shell, since setpriv itself has not lost its rights yet when it executes the program.
        command = [*AS_NOBODY, "sh", "-c", 'exec "$0" -c "import mcastd.cli.mcastd"', python]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return {"python": python, "environment": {"PYTHONPATH": environment["PYTHONPATH"]}}
        refusals += done.stderr.splitlines()[-1:]
    pytest.skip(f"other users can't use this installation: {refusals}")


@needs_root
def test_root_keeps_what_it_needs_and_the_server_nothing(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    server = keeper.server()
    own = status_of(keeper.pid)
    assert capabilities(own) == {
        "Inh": SETUID | SETGID,
        "Prm": NET_ADMIN | NET_RAW | SETUID | SETGID | KILL,
        "Eff": NET_ADMIN | NET_RAW | SETUID | SETGID | KILL,
        "Bnd": NET_ADMIN | NET_RAW | SETUID | SETGID | KILL | SETPCAP,  # what it needs to re-execute itself
        "Amb": 0,
    }
    theirs = status_of(server.pid)
    assert_powerless(theirs, bounding=False)
    assert uids(theirs) & {"0"} == set()
    assert len(uids(theirs)) == 1
    assert set(theirs["Gid"].split()) & {"0"} == set()
    assert theirs["Groups"] == ""


@needs_root
def test_directories_belong_to_the_server_and_are_closed(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    server = keeper.server()
    uid = int(status_of(server.pid)["Uid"].split()[0])
    run, state = keeper.socket.parent.stat(), keeper.state.stat()
    assert (run.st_uid, stat.S_IMODE(run.st_mode)) == (uid, 0o755)
    assert (state.st_uid, stat.S_IMODE(state.st_mode)) == (uid, 0o750)


@needs_root
def test_directory_that_the_server_cannot_write_is_refused(testbed: Testbed, directory: Path) -> None:
    """Root could make the lock there, but the server no socket: better said at once. State it can do without."""
    (directory / "run").mkdir(mode=0o755)
    done = run_to_end(testbed.namespace(), *serve(directory))
    assert done.returncode == 78
    assert f"{directory}/run" in done.stderr
    assert "can't be written by the server's user" in done.stderr
    assert list((directory / "run").iterdir()) == []


@needs_root
def test_socket_group_is_the_servers_too(start_keeper: StartKeeper, directory: Path) -> None:
    keeper = start_keeper("--listen", f"unix:{directory}/run/m.sock,group=adm")
    server = keeper.server()
    (listen,) = server.hello["settings"]["listens"]
    assert status_of(server.pid)["Groups"].split() == [str(listen["gid"])]
    assert listen["mode"] == 0o660


@needs_root
def test_two_capabilities_are_enough(start_keeper: StartKeeper, directory: Path, python_of_nobody: dict[str, Any]) -> None:
    for name in ("run", "state"):
        (directory / name).mkdir()
        os.chown(directory / name, NOBODY, NOBODY)
    keeper = start_keeper(prefix=TWO_CAPABILITIES, **python_of_nobody)
    server = keeper.server()
    own = capabilities(status_of(keeper.pid))
    assert (own["Prm"], own["Eff"], own["Inh"], own["Amb"]) == (NET_ADMIN | NET_RAW, NET_ADMIN | NET_RAW, 0, 0)
    theirs = status_of(server.pid)
    assert_powerless(theirs, bounding=True)  # CAP_SETPCAP would be needed to empty it
    assert uids(theirs) == {str(NOBODY)}
    assert len(server.ask("open_table", 5)) == 2
    keeper.process.terminate()
    assert keeper.wait() == 0


@needs_root
def test_another_user_cannot_be_had_without_root(testbed: Testbed, python_of_nobody: dict[str, Any]) -> None:
    done = run_to_end(testbed.namespace(), "serve", "--user", "daemon", prefix=TWO_CAPABILITIES, **python_of_nobody)
    assert done.returncode == 77
    assert "CAP_SETUID" in done.stderr


@needs_root
@pytest.mark.parametrize("held,missing", [("net_raw", "CAP_NET_ADMIN"), ("net_admin", "CAP_NET_RAW")])
def test_a_missing_capability_is_named(testbed: Testbed, python_of_nobody: dict[str, Any], held: str, missing: str) -> None:
    prefix = [*AS_NOBODY, f"--inh-caps=-all,+{held}", f"--ambient-caps=-all,+{held}"]
    done = run_to_end(testbed.namespace(), "serve", prefix=prefix, **python_of_nobody)
    assert done.returncode == 77
    assert f'msg="{missing} missing' in done.stderr


def test_user_namespace_with_one_id_will_do(start_keeper: StartKeeper, directory: Path) -> None:
    uid = directory.stat().st_uid
    keeper = start_keeper(prefix=["unshare", "--user", "--map-root-user", "--net"])
    server = keeper.server()
    theirs = status_of(server.pid)
    assert_powerless(theirs, bounding=False)
    assert uids(theirs) == {str(uid)}
    own = capabilities(status_of(keeper.pid))
    two = NET_ADMIN | NET_RAW
    assert own == {"Inh": 0, "Prm": two, "Eff": two, "Bnd": two | SETPCAP, "Amb": 0}
    assert len(server.ask("open_table", 5)) == 2
    keeper.process.terminate()
    assert keeper.wait() == 0
    assert list(keeper.socket.parent.iterdir()) == []


@needs_root
def test_installation_in_a_closed_home_will_do(start_keeper: StartKeeper, directory: Path) -> None:
    home = directory / "home"
    home.mkdir()
    shutil.copytree(ROOT / "mcastd", home / "mcastd", ignore=shutil.ignore_patterns("*.c", "*.o", "__pycache__"))
    home.chmod(0o700)
    os.chown(home, NOBODY - 1, NOBODY - 1)
    keeper = start_keeper(environment={"PYTHONPATH": str(home)})
    server = keeper.server()
    assert_powerless(status_of(server.pid), bounding=False)
    assert capabilities(status_of(keeper.pid))["Prm"] == NET_ADMIN | NET_RAW | SETUID | SETGID | KILL | DAC_READ_SEARCH
    os.kill(server.pid, signal.SIGKILL)
    assert keeper.server().hello["starts"] == 2


@needs_root
def test_root_as_the_server_is_warned_of(start_keeper: StartKeeper) -> None:
    keeper = start_keeper("--user", "root")
    assert_powerless(status_of(keeper.server().pid), bounding=False)
    assert keeper.logged("the server will be root")


def test_server_inherits_the_channel_and_a_clean_environment_alone(start_keeper: StartKeeper) -> None:
    reading, writing = os.pipe()
    try:
        keeper = start_keeper(environment={"SECRET": "x", "LANG": "C.UTF-8"}, pass_fds=[writing])
        hello = keeper.server().hello
        pipe = str(Path(f"/proc/self/fd/{writing}").readlink())
    finally:
        os.close(reading)
        os.close(writing)
    assert Path(f"/proc/{keeper.pid}/fd/{writing}").is_symlink()  # the keeper did get it
    assert pipe not in hello["fds"].values()
    assert hello["fds"]["0"] == "/dev/null"
    assert hello["environment"]["GRPC_ENABLE_FORK_SUPPORT"] == "0"
    assert hello["environment"]["LANG"] == "C.UTF-8"
    assert "SECRET" not in hello["environment"]
