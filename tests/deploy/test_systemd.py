"""The units as they are shipped: checked by systemd's own tools, and run by systemd itself."""

import configparser
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcastd.kernel import mfc_dump
from mcastd.model.address import Family, exact_key, pack_address
from tests.deploy.booted import UNITS, Booted, require_systemd
from tests.e2e.router import group
from tests.testbed import Testbed
from tests.testbed.daemon import route, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("systemd"), pytest.mark.timeout(300)]

RATE = 1000
"""Packets a second."""

EXPOSURE_MAX = "20"
"""Tenths."""


@pytest.fixture(autouse=True)
def _systemd() -> None:
    require_systemd()


def tool(*command: str) -> str:
    """What a tool says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def installed(directory: Path) -> Path:
    """The units, whose programs are programs that are here."""
    for path in UNITS.glob("mcastd*.s*"):
        text = path.read_text().replace("/usr/bin/mcastd ", "/bin/true ").replace("/usr/bin/mcastctl ", "/bin/true ")
        (directory / path.name).write_text("\n".join(line for line in text.splitlines() if not line.startswith("Documentation=")))
    return directory


@pytest.mark.parametrize("name", ["mcastd.service", "mcastd-metrics.socket"])
def test_systemd_finds_nothing_wrong_with_a_unit(tmp_path: Path, name: str) -> None:
    assert tool("systemd-analyze", "verify", str(installed(tmp_path) / name)).strip() == ""


def test_systemd_finds_what_is_wrong(tmp_path: Path) -> None:
    path = installed(tmp_path) / "mcastd.service"
    path.write_text(path.read_text().replace("WatchdogSec=60", "WatchdogSek=60"))
    assert "WatchdogSek" in tool("systemd-analyze", "verify", str(path))


def test_exposure_is_low(tmp_path: Path) -> None:
    path = str(installed(tmp_path) / "mcastd.service")
    tool("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", path)


def test_user_and_directories_are_made(tmp_path: Path) -> None:
    for name in ("passwd", "group"):
        (tmp_path / "etc").mkdir(exist_ok=True)
        shutil.copy(f"/etc/{name}", tmp_path / "etc" / name)
        text = (tmp_path / "etc" / name).read_text()
        (tmp_path / "etc" / name).write_text("".join(line for line in text.splitlines(True) if not line.startswith("mcastd:")))
    for _ in range(2):
        tool("systemd-sysusers", f"--root={tmp_path}", str(UNITS / "mcastd.sysusers"))
    (line,) = [one for one in (tmp_path / "etc/passwd").read_text().splitlines() if one.startswith("mcastd:")]
    _, _, uid, gid, _, home, shell = line.split(":")
    assert (int(uid) < 1000, home, shell) == (True, "/var/lib/mcastd", "/usr/sbin/nologin")
    tool("systemd-tmpfiles", f"--root={tmp_path}", "--create", str(UNITS / "mcastd.tmpfiles"))
    state, config = (tmp_path / "var/lib/mcastd").stat(), (tmp_path / "etc/mcastd").stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o777) == (int(uid), int(gid), 0o750)
    assert (config.st_uid, config.st_mode & 0o777) == (0, 0o755)


def test_drop_in_for_later_versions_reloads_by_signal_alone() -> None:
    """Both at once would reload twice."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / "mcastd-254.conf")
    assert dict(parser["Service"]) == {
        "Type": "notify-reload",
        "ExecReload": "",
        "RestartSec": "100ms",
        "RestartSteps": "8",
        "RestartMaxDelaySec": "10s",
    }


def test_store_has_the_size_that_the_daemon_is_told() -> None:
    lines = (UNITS / "mcastd.service").read_text().splitlines()
    (size,) = [line.partition("=")[2] for line in lines if line.startswith("FileDescriptorStoreMax=")]
    assert f"Environment=MCASTD_FD_STORE={size}" in lines


def status_of(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


@pytest.fixture
def booted(testbed: Testbed) -> Iterator[Booted]:
    with Booted(testbed.namespace("router")) as made:
        yield made


def test_the_unit_runs_and_server_and_keeper_are_who_they_should_be(booted: Booted) -> None:
    assert booted.show("StatusText") == "0 of 0 routes in the kernel, 0 joins, 0 sessions, 0 watchers"
    assert booted.run("mcastctl", "status").stdout.startswith("Version:")
    uid = int(booted.run("id", "-u", "mcastd").stdout)
    keeper, server = status_of(booted.keeper()), status_of(booted.server())
    assert keeper["Uid"].split() == ["0"] * 4
    assert server["Uid"].split() == [str(uid)] * 4
    net_admin, net_raw, kill, setgid, setuid = 1 << 12, 1 << 13, 1 << 5, 1 << 6, 1 << 7
    assert int(keeper["CapPrm"], 16) == net_admin | net_raw | kill | setgid | setuid
    assert int(keeper["CapBnd"], 16) == int(keeper["CapPrm"], 16)
    assert [int(server[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [0] * 4
    for status in (keeper, server):
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert os.sched_getscheduler(booted.keeper()) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    assert os.sched_getscheduler(booted.server()) == os.SCHED_OTHER
    for path, mode in (("/run/mcastd", 0o755), ("/var/lib/mcastd", 0o750)):
        found = booted.file(path).stat()
        assert (found.st_uid, found.st_mode & 0o777) == (uid, mode)
    assert int(booted.show("NFileDescriptorStore")) >= 3


def test_a_reload_answers_and_fails_with_what_is_wrong(booted: Booted) -> None:
    config = booted.file("/etc/mcastd/mcastd.toml")
    config.write_text("")
    booted.run("systemctl", "restart", "mcastd")
    booted.wait_active()
    config.write_text('[[route]]\ngroup = "239.1.1.1"\nsource = "10.0.0.1"\niif = "up"\noifs = ["down"]\n')
    booted.run("systemctl", "reload", "mcastd")
    wait_until(lambda: booted.show("StatusText").startswith("0 of 1 route "), 10)
    config.write_text("nonsense")
    assert booted.run("systemctl", "reload", "mcastd", check=False).returncode != 0
    assert "the configuration was not reloaded" in booted.show("StatusText")
    assert booted.show("ActiveState") == "active"
    config.write_text("")
    booted.run("systemctl", "reload", "mcastd")
    wait_until(lambda: booted.show("StatusText").startswith("0 of 0 routes "), 10)
    keeper = booted.keeper()
    os.kill(keeper, signal.SIGHUP)
    wait_until(lambda: booted.log().count("the configuration is in force") >= 4, 10)
    booted.wait_active()
    assert booted.keeper() == keeper


@pytest.mark.parametrize("family", list(Family))
def test_whatever_is_restarted_no_packet_is_lost_and_a_stop_ends_forwarding(testbed: Testbed, family: Family) -> None:
    star = testbed.star(1)
    with Booted(star.router, "WatchdogSec=8\n") as booted:
        sender = star.source.sender(group(family))
        booted.put(route(sender.group, star.source.address(family), "up", "down1"))
        receiver = star.receivers[0].receiver(sender.group)
        flow = sender.start(RATE)
        receiver.wait(sender, RATE // 2)

        def passes() -> None:
            booted.put(route(sender.group, star.source.address(family), "up", "down1"))
            receiver.wait(sender, receiver.count(sender) + RATE // 2)
            assert receiver.missing(sender) == [], booted.log()

        keeper = booted.keeper()
        for stopped in (0, signal.SIGSTOP):
            server = booted.server()
            os.kill(server, stopped or signal.SIGKILL)
            wait_until(lambda old=server: booted.server() not in {0, old}, 20, booted.log)  # type: ignore[misc]
            passes()
        server = booted.server()
        os.kill(keeper, signal.SIGUSR2)  # another server takes over
        wait_until(lambda: booted.server() not in {0, server}, 20, booted.log)
        passes()

        os.kill(keeper, signal.SIGUSR1)  # the keeper becomes what is installed now
        wait_until(lambda: "the keeper is re-executed" in booted.log(), 20, booted.log)
        passes()

        assert booted.keeper() == keeper
        assert booted.show("NRestarts") == "0"
        assert booted.show("ActiveState") == "active"

        os.kill(keeper, signal.SIGKILL)
        booted.wait_restarted(1)
        passes()

        os.kill(booted.keeper(), signal.SIGSTOP)  # the watchdog of systemd is for the keeper
        booted.wait_restarted(2)
        passes()

        booted.run("systemctl", "restart", "mcastd")
        passes()

        flow.stop()
        receiver.wait(sender)
        assert receiver.missing(sender) == []
        key = exact_key(0, pack_address(sender.group), pack_address(sender.source))
        assert key in star.router.run(lambda: mfc_dump.dump(family, 0)).by_key
        booted.run("systemctl", "stop", "mcastd")
        wait_until(lambda: key not in star.router.run(lambda: mfc_dump.dump(family, 0)).by_key, 10)
