"""mcastctl follows a real daemon: events as they come, over the end of a server and of the daemon, and what nobody routes."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from tests.e2e import templates
from tests.e2e.ctl import Ctl
from tests.e2e.router import Router, bulk
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def ctl(router: Router) -> Ctl:
    """The program, with the address of the router's daemon."""
    return Ctl(f"unix:{router.daemon.socket}")


class Following:
    """mcastctl that runs, and what it has written so far."""

    def __init__(self, ctl: Ctl, *arguments: str) -> None:
        self.process = ctl.popen(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.lines: list[str] = []
        self.errors: list[str] = []
        streams = ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        self._threads = [threading.Thread(target=self._read, args=both, daemon=True) for both in streams]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(stream: "Iterator[str]", lines: list[str]) -> None:
        for line in stream:
            lines.append(line.rstrip("\n"))  # noqa: PERF401 - each is to be seen as it comes

    def until(self, *words: str, seconds: float = 20) -> list[str]:
        """Wait for a line with all these words in this order; its words."""

        def found() -> list[str]:
            for line in self.lines:
                have = iter(line.split())
                if all(word in have for word in words):
                    return line.split()
            return []

        wait_until(lambda: bool(found()), seconds, lambda: f"no {words} in {self.lines} {self.errors}")
        return found()

    def interrupt(self) -> int:
        """Press Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self._wait()

    def _wait(self) -> int:
        code = self.process.wait(20)
        for thread in self._threads:
            thread.join(10)
        return code

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self._wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@contextmanager
def following(ctl: Ctl, *arguments: str) -> Iterator[Following]:
    """Run it for a while."""
    made = Following(ctl, *arguments)
    try:
        yield made
    finally:
        made.close()


def name(address: str) -> str:
    """An address as the daemon writes it."""
    return str(ip_address(address))


def pin(router: Router) -> None:
    """Have the kernel call for what comes in at "up"."""
    templates.pin(router.daemon, "up")
    wait_until(lambda: "up" in router.vifs())


def test_watch_routes(router: Router, ctl: Ctl) -> None:
    router.put(router.route(1, "down1"))
    with following(ctl, "watch", "route") as watch:
        first = watch.until("+", "route", "up", "down1", "PROGRAMMED")
        router.put(router.route(1, "down1", "down2"))
        watch.until("~", "route", "up", "down1,down2")
        router.namespace.ip("link set dev down2 down")
        watch.until("~", "route", "PARTIAL")
        router.daemon.replace([], allow_empty=True)
        gone = watch.until("-", "route")
        assert gone[3] == first[3] == name(router.route(1).group)
        assert not any(line.split()[2] != "route" for line in watch.lines)
        assert watch.interrupt() == 0
        assert watch.errors == []


def test_watch_sources_and_list_them(router: Router, ctl: Ctl) -> None:
    pin(router)
    sender = router.sender()
    key = [name(sender.group), name(sender.source)]
    assert ctl.run("source", "list").split()[:2] == ["GROUP", "SOURCE"]
    with following(ctl, "watch", "source") as watch:
        wait_until(lambda: bool(router.daemon.status().subscribers))
        sender.send()
        assert watch.until("+", "source", *key)[5:7] == ["up", "NO_ROUTE"]
        listed = [line.split() for line in ctl.run("source", "ls").splitlines()]
        assert listed[1][:4] == [*key, "up", "NO_ROUTE"]
        (one,) = json.loads(ctl.run("source", "list", "-o", "json"))
        assert (one["group"], one["interface"], one["cause"], one["upcalls"]) == (key[0], "up", "CAUSE_NO_ROUTE", "1")
        assert json.loads(ctl.run("source", "list", "-o", "ndjson")) == one
        assert ctl.run("source", "list", "--interface", "down*", "-o", "json") == "[]\n"
        ctl.run("route", "add", *key, "--iif", "up", "-O", "down1")
        watch.until("-", "source", *key)
    assert ctl.run("source", "list", "-o", "json") == "[]\n"


def test_watch_goes_on_after_the_server_was_killed(router: Router, ctl: Ctl) -> None:
    router.put(*bulk(router.family, 20, router.source, "down1"))
    with following(ctl, "watch", "route") as watch:
        wait_until(lambda: sum(line.startswith("+") for line in watch.lines) == 20, 20)
        pid = router.daemon.kill_server()
        router.wait_server_after(pid)
        wait_until(lambda: bool(watch.errors) and "connected again" in watch.errors[-1], 20, lambda: f"{watch.errors}")
        assert watch.errors[0].endswith("connecting again")
        wait_until(lambda: len(watch.lines) == 40, 20)
        assert all(line.startswith("+") for line in watch.lines), "another life: everything anew"
        router.put(router.route(1, "down2"))
        watch.until("+", "route", name(router.route(1).group), "down2")
        assert watch.process.poll() is None


def test_watch_says_why_the_daemon_has_ended(router: Router, ctl: Ctl) -> None:
    with following(ctl, "watch", "route") as watch:
        wait_until(lambda: bool(router.daemon.status().subscribers), 20)
        router.daemon.process.terminate()
        wait_until(lambda: bool(watch.errors), 20)
        assert watch.errors[0].startswith("mcastctl: SHUTTING_DOWN: the daemon is ending")
        assert watch.interrupt() == 0


@pytest.mark.parametrize("form", ["ndjson", "json"])
def test_watch_for_programs(router: Router, ctl: Ctl, form: str) -> None:
    """Whole messages, so that a program has the token and knows when it knows all; an interrupted array is whole as well."""
    router.put(router.route(1, "down1"))
    # In an array a message's line ends when the next one comes: signs of life see to that.
    with following(ctl, "watch", "route", "interface", "--heartbeat-interval", "1s", "-o", form) as watch:
        wait_until(lambda: any('"synced"' in line for line in watch.lines), 20)
        router.put(router.route(2, "down2"))
        group = name(router.route(2).group)
        wait_until(lambda: any(f'"{group}"' in line for line in watch.lines), 20)
        assert watch.interrupt() == 0
        text = "\n".join(watch.lines)
    messages = json.loads(text) if form == "json" else [json.loads(line) for line in text.splitlines()]
    assert messages[0]["reset"] is True
    routes = [event["route"]["group"] for one in messages for event in one.get("events", []) if "route" in event]
    assert routes[0] == name(router.route(1).group)
    assert routes[-1] == group
    assert all("resume_token" in one for one in messages[-1:])


def test_watch_goes_on_from_a_token(router: Router, ctl: Ctl) -> None:
    router.put(router.route(1, "down1"))
    with following(ctl, "watch", "route", "-o", "ndjson") as watch:
        wait_until(lambda: any('"synced"' in line for line in watch.lines), 20)
        token = json.loads(watch.lines[-1])["resume_token"]
    router.put(router.route(2, "down2"))
    with following(ctl, "watch", "route", "--resume-token", token) as watch:
        watch.until("+", "route", name(router.route(2).group))
        assert len(watch.lines) == 1


def test_watch_counters_and_upcalls(router: Router, ctl: Ctl) -> None:
    pin(router)
    sender = router.sender()
    with following(ctl, "watch", "upcall", "counters", "--interval", "1s") as watch:
        wait_until(lambda: bool(router.daemon.status().subscribers), 20)
        sender.send()
        watch.until("+", "upcall", "NO_ROUTE", name(sender.group), name(sender.source), "up")
        router.put(router.route(sender, "down1"))
        sender.send(7)
        watch.until("+", "counters", name(sender.group))


def test_what_can_not_be_watched(router: Router, ctl: Ctl) -> None:
    refused = ctl.call("watch", "route", "--heartbeat-interval", "1ms")
    assert refused.returncode == 64 + 3
    assert "heartbeat_interval" in refused.stderr
    assert ctl.call("watch", "nonsense").returncode == 2
    refused = ctl.call("watch", "counters", "--interval", "10ms", "-o", "json")
    assert json.loads(refused.stderr)["reason"] == "INVALID_VALUE"
