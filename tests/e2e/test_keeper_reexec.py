"""The keeper re-executes itself: same process, same server, same rights; or goes on as it is where the program can't be used."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.keeper_bench import ENVIRONMENT, ROOT, KeeperBench, eventually, status_of
from tests.e2e.test_keeper_privileges import NOBODY, TWO_CAPABILITIES, capabilities, needs_root, python_of_nobody

__all__ = ["python_of_nobody"]  # a fixture

StartKeeper = Callable[..., KeeperBench]

DONE = 'msg="the keeper is re-executed"'


def reexecute(keeper: KeeperBench) -> None:
    before = keeper.log.read_text().count(DONE)
    keeper.process.send_signal(signal.SIGUSR1)
    eventually(lambda: keeper.log.read_text().count(DONE) > before, f"a re-execution:\n{keeper.log.read_text()}")


def descriptors(pid: int) -> list[str]:
    """Sorted targets of a process's descriptors."""
    return sorted(str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir())


def test_process_server_and_state_stay(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    server = keeper.server()
    server.ask("open_table", 77)
    server.ask("vif_map", 77, 6, [[31, 2**31 - 1, "gone"]])
    server.ask("ready")
    before, count = status_of(keeper.pid), len(descriptors(keeper.pid))
    for _ in range(3):
        reexecute(keeper)
        assert len(server.ask("open_table", 77)) == 2
    after = status_of(keeper.pid)
    assert {name: before[name] for name in before if name.startswith(("Cap", "Uid", "Gid", "Groups", "NoNew", "Seccomp"))} == {
        name: after[name] for name in after if name.startswith(("Cap", "Uid", "Gid", "Groups", "NoNew", "Seccomp"))
    }
    assert len(descriptors(keeper.pid)) == count
    assert (keeper.state / "lock").read_text() == f"{keeper.pid}\n"
    # The next server finds all of it, and so does an end in order.
    os.kill(server.pid, signal.SIGKILL)
    second = keeper.server()
    assert second.hello["starts"] == 2
    assert [77, 6, [[31, 2**31 - 1, "gone"]]] in second.hello["vif_maps"]
    assert second.hello["started_at"] == server.hello["started_at"]
    keeper.process.terminate()
    second.wait_for("shutdown")
    assert keeper.wait() == 0
    assert not list(keeper.state.iterdir())
    assert not list(keeper.socket.parent.iterdir())


@needs_root
def test_two_capabilities_are_kept(start_keeper: StartKeeper, directory: Path, python_of_nobody: dict[str, Any]) -> None:
    for name in ("run", "state"):
        (directory / name).mkdir()
        os.chown(directory / name, NOBODY, NOBODY)
    keeper = start_keeper(prefix=TWO_CAPABILITIES, **python_of_nobody)
    server = keeper.server()
    own = capabilities(status_of(keeper.pid))
    reexecute(keeper)
    assert capabilities(status_of(keeper.pid)) == own
    assert len(server.ask("open_table", 5)) == 2
    os.kill(server.pid, signal.SIGKILL)
    assert capabilities(status_of(keeper.server().pid))["Eff"] == 0


@needs_root
@pytest.mark.parametrize("sandbox", [[], ["--no-new-privs"]], ids=["bounded", "and no new privileges"])
def test_bounded_root_keeps_what_it_has(start_keeper: StartKeeper, directory: Path, sandbox: list[str]) -> None:
    """As the unit of systemd starts it, and a container with a user change."""
    for name in ("run", "state"):
        (directory / name).mkdir()
        (directory / name).chmod(0o777)
    bounded = "-all,+net_admin,+net_raw,+setuid,+setgid,+kill"
    keeper = start_keeper(prefix=["setpriv", f"--bounding-set={bounded}", "--inh-caps=-all", *sandbox])
    server = keeper.server()
    own = capabilities(status_of(keeper.pid))
    for _ in range(2):
        reexecute(keeper)
        assert capabilities(status_of(keeper.pid)) == own
    assert len(server.ask("open_table", 5)) == 2
    os.kill(server.pid, signal.SIGKILL)
    theirs = status_of(keeper.server().pid)
    assert capabilities(theirs)["Prm"] == capabilities(theirs)["Eff"] == capabilities(theirs)["Inh"] == 0
    assert "0" not in theirs["Uid"].split()


@needs_root
def test_root_with_two_capabilities_will_do(start_keeper: StartKeeper) -> None:
    """As in a container that drops all others: the server stays root, without any."""
    keeper = start_keeper(prefix=["setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all", "--no-new-privs"])
    server = keeper.server()
    reexecute(keeper)
    assert len(server.ask("open_table", 5)) == 2
    os.kill(server.pid, signal.SIGKILL)
    assert capabilities(status_of(keeper.server().pid))["Eff"] == 0


def test_user_namespace_with_one_id_will_do(start_keeper: StartKeeper) -> None:
    keeper = start_keeper(prefix=["unshare", "--user", "--map-root-user", "--net"])
    server = keeper.server()
    own = capabilities(status_of(keeper.pid))
    reexecute(keeper)
    assert capabilities(status_of(keeper.pid)) == own
    assert len(server.ask("open_table", 5)) == 2


@pytest.fixture
def installation(directory: Path) -> Path:
    """A copy of the program that may be broken."""
    home = directory / "program"
    home.mkdir()
    for source in (ROOT / "mcastd").rglob("*"):
        if source.suffix in {".py", ".so", ".typed"}:
            target = home / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return home


@pytest.mark.parametrize("damage", ["a syntax error", "a file that is gone", "a newer state", "a broken configuration"])
def test_program_that_cannot_go_on_is_refused(
    start_keeper: StartKeeper, directory: Path, installation: Path, damage: str
) -> None:
    config = directory / "mcastd.toml"
    config.write_text('[daemon]\nlog_level = "info"\n')
    environment = {"PYTHONPATH": f"{installation}:{ENVIRONMENT['PYTHONPATH']}"}
    keeper = start_keeper("--config", str(config), environment=environment)
    server = keeper.server()
    broken = installation / "mcastd" / "keeper" / ("statelog.py" if "state" in damage else "tables.py")
    if "configuration" in damage:
        broken = config
    mended = broken.read_bytes()
    match damage:
        case "a syntax error":
            broken.write_text("def (")
        case "a file that is gone":
            broken.unlink()
        case "a newer state":
            broken.write_text(mended.decode().replace("FORMAT = 1", "FORMAT = 2"))
        case _:
            broken.write_text("nonsense")
    keeper.process.send_signal(signal.SIGUSR1)
    eventually(lambda: keeper.logged("it goes on as it is"), "the refusal")
    assert len(server.ask("open_table", 5)) == 2
    broken.write_bytes(mended)
    reexecute(keeper)
    assert len(server.ask("open_table", 6)) == 2


def test_signals_meanwhile_are_not_lost(start_keeper: StartKeeper) -> None:
    """Those that come while Python starts wait for the new image, and do not end it."""
    keeper = start_keeper()
    server = keeper.server()
    server.ask("ready")
    for _ in range(3):
        keeper.process.send_signal(signal.SIGUSR1)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            keeper.process.send_signal(signal.SIGHUP)
            time.sleep(0.002)
        eventually(lambda: keeper.logged(DONE), "a re-execution")
    assert keeper.process.poll() is None
    keeper.process.send_signal(signal.SIGUSR1)
    keeper.process.terminate()
    server.wait_for("shutdown")
    assert keeper.wait() == 0


def test_settings_are_read_anew(start_keeper: StartKeeper, directory: Path) -> None:
    config = directory / "mcastd.toml"
    config.write_text("[daemon]\ntables = []\n")
    keeper = start_keeper("--config", str(config))
    server = keeper.server()
    config.write_text("[daemon]\ntables = [31]\n")
    reexecute(keeper)
    os.kill(server.pid, signal.SIGKILL)
    assert [table for table, _, _ in keeper.server().hello["sockets"]] == [0, 0, 31, 31]


def test_records_that_nobody_has_taken_are_kept(start_keeper: StartKeeper, testbed: Any) -> None:
    """What came while the server did not read is told to it by the new image."""
    star = testbed.star()
    keeper = start_keeper(namespace=star.router)
    server = keeper.server()
    server.ask("vif_map", 0, 4, [[0, star.uplink.ifindex, "up"]])
    server.ask("add_vif", 0, 4, 0, "up")
    senders = [star.source.sender(f"232.9.{n // 256}.{n % 256}") for n in range(40)]
    os.kill(server.pid, signal.SIGSTOP)
    for sender in senders:
        sender.send()
    reexecute(keeper)
    os.kill(server.pid, signal.SIGCONT)
    assert len({record[4] for record in server.upcalls(40)}) == 40


@needs_root
def test_what_it_starts_runs_as_usual(start_keeper: StartKeeper, directory: Path) -> None:
    """Only the keeper has real-time priority, and its image of the second life starts nothing that has it."""
    script, config = directory / "script", directory / "mcastd.toml"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    config.write_text("")
    keeper = start_keeper("--config", str(config), "--action", str(script))
    server = keeper.server()
    if os.sched_getscheduler(keeper.pid) != os.SCHED_FIFO:
        pytest.skip("real-time priority is not to be had here")
    for _ in range(2):
        reexecute(keeper)
        os.kill(server.pid, signal.SIGKILL)
        server = keeper.server()
        children = [int(pid) for pid in Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()]
        assert server.pid in children
        assert len(children) == 2
        assert {os.sched_getscheduler(pid) for pid in children} == {os.SCHED_OTHER}
        assert os.sched_getscheduler(keeper.pid) == os.SCHED_FIFO
