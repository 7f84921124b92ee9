"""A real daemon over TLS: reached with mcastctl from another host, while servers and certificates come and go."""

import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.secured import PRINCIPALS, Secured
from tests.pki import Pki
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, wait_until

pytestmark = pytest.mark.kernel

ADD = ("route", "add", "239.1.1.1", "10.0.0.1", "--iif", "up", "--oif", "down1")


@pytest.fixture
def secured(testbed: Testbed, directory: Path) -> Iterator[Secured]:
    with Secured(testbed, directory) as made:
        yield made


@pytest.mark.parametrize("family", [4, 6])
def test_mcastctl_from_another_host(secured: Secured, family: int) -> None:
    daemon = secured.start()
    alice, eve = secured.remote("alice", family), secured.remote("eve", family)
    alice.run(*ADD)
    (route,) = daemon.list_routes()
    assert route.status.owner == "alice"
    assert "239.1.1.1" in eve.run("route", "list")
    refusals = [
        (eve, "NOT_ALLOWED"),
        (secured.remote("mallory", family), "mallory"),
        (secured.remote(None, family), ""),
        (secured.remote(Pki(secured.directory / "other").named("alice"), family), ""),
    ]
    for who, words in refusals:
        done = who.call("route", "del", "239.1.1.1", "10.0.0.1")
        assert done.returncode != 0
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert len(daemon.list_routes()) == 1
    log = daemon.log()
    assert "audit=write principal=alice peer=ipv" in log
    assert "audit=refused principal=eve" in log
    assert "audit=refused principal=mallory" in log
    reasons = ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "certificate signature failure")
    wait_until(lambda: all(reason in daemon.log() for reason in reasons), 10, daemon.log)


def test_tls_1_3_alone(secured: Secured) -> None:
    secured.start()
    assert secured.tls_version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises(OSError):
        secured.tls_version(ssl.TLSVersion.TLSv1_2)


def test_clients_come_back_to_the_next_server(secured: Secured) -> None:
    daemon = secured.start()
    alice = secured.remote("alice")
    alice.run("status")
    for end in (signal.SIGUSR2, signal.SIGKILL):
        replaced(daemon, end)
        wait_until(lambda: alice.call("status").returncode == 0, 20, daemon.log)
    daemon.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "the keeper is re-executed" in daemon.log(), 20, daemon.log)
    alice.run("status")
    for end in (signal.SIGUSR2, signal.SIGKILL):  # by the image that was executed in place
        replaced(daemon, end)
        wait_until(lambda: alice.call("status").returncode == 0, 20, daemon.log)


def replaced(daemon: McastdProcess, end: signal.Signals) -> None:
    """Have another server serve."""
    before = daemon.server_pid()
    if end is signal.SIGKILL:
        daemon.kill_server()
    else:
        daemon.process.send_signal(end)
    wait_until(lambda: daemon.server_pid() not in {0, before} and daemon.serving(), 30, daemon.log)


def refused(secured: Secured, directory: Path) -> McastdProcess:
    """A second daemon, with other sockets, that has ended."""
    other = McastdProcess(
        secured.star.router, directory, "--config", str(secured.config), "--listen", secured.listen, ready=False
    )
    try:
        other.process.wait(30)
    finally:
        other.close()
    return other


def test_a_port_is_one_daemons(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> None:
    first = secured.start()
    directory = secured.directory / "second"
    directory.mkdir()
    for _ in range(2):
        other = refused(secured, directory)
        assert other.process.returncode == 69
        assert "tcp:0.0.0.0:50051 is in use by another program" in other.log()
        first.process.send_signal(signal.SIGUSR1)  # it holds the port after that, too
        wait_until(lambda: "the keeper is re-executed" in first.log(), 20, first.log)
    secured.remote("alice").run("status")


def test_a_daemon_started_after_a_kill_has_the_port(secured: Secured) -> None:
    first = secured.start()
    first.process.kill()
    first.close()
    with secured.start() as second:
        wait_until(lambda: secured.remote("alice").call("status").returncode == 0, 20, second.log)


@pytest.mark.parametrize(
    "spoil,words",
    [
        (lambda at: at.pki.server.cert.unlink(), "server.pem: No such file"),
        (lambda at: at.pki.server.key.chmod(0o600), "server.key: Permission denied"),
        (lambda at: at.pki.server.key.write_bytes(at.pki.named("alice").key.read_bytes()), "the key must be the certificate's"),
        (lambda at: at.configure("", "listen = 3"), "listen"),
    ],
    ids=["no certificate", "a key that the server may not read", "another's key", "a broken file"],
)
def test_a_daemon_that_can_not_start_says_why(secured: Secured, spoil: object, words: str) -> None:
    assert callable(spoil)
    spoil(secured)
    daemon = secured.start(ready=False)
    assert daemon.process.wait(30) == 78
    assert words in daemon.log()
    assert "Traceback" not in daemon.log()


def test_roles_and_certificates_are_read_again(secured: Secured) -> None:
    daemon = secured.start()
    eve, bob = secured.remote("eve"), secured.remote("bob")
    eve.run("status")
    secured.configure(PRINCIPALS.replace("eve", "bob"))
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: bob.call("status").returncode == 0, 20, daemon.log)
    assert eve.call("status").returncode != 0
    good = secured.pki.server.cert.read_bytes()
    secured.pki.server.cert.write_text("nonsense")
    wait_until(lambda: "the last good ones stay in force" in daemon.log(), 30, daemon.log)
    bob.run("status")
    secured.pki.server.cert.write_bytes(good)
    wait_until(lambda: "the certificates were read again" in daemon.log(), 30, daemon.log)
    bob.run("status")


@pytest.mark.parametrize("family", [4, 6])
def test_a_new_server_serves_whom_the_last_one_did(secured: Secured, family: int) -> None:
    """Whatever has become of the files meanwhile: faulty ones change nothing, though a server dies just then."""
    daemon = secured.start()
    alice = secured.remote("alice", family)
    alice.run("status")
    secured.config.write_text("nonsense")
    replaced(daemon, signal.SIGKILL)
    wait_until(lambda: alice.call("status").returncode == 0, 20, daemon.log)
    assert secured.remote("mallory", family).call("status").returncode != 0
    secured.configure()
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.log().count("the configuration is in force") == 2, 20, daemon.log)
    good = secured.pki.server.key.read_bytes()
    secured.pki.server.key.write_text("nonsense")
    daemon.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: "the new server is not used" in daemon.log(), 30, daemon.log)
    alice.run("status")
    replaced(daemon, signal.SIGKILL)
    assert alice.call("status").returncode != 0
    secured.pki.server.key.write_bytes(good)
    wait_until(lambda: alice.call("status").returncode == 0, 30, daemon.log)
    assert "Traceback" not in daemon.log()


@pytest.mark.parametrize("audit,kinds", [("refusals", {"refused"}), ("off", set())])
def test_how_much_is_audited(secured: Secured, audit: str, kinds: set[str]) -> None:
    secured.configure(daemon=f'audit = "{audit}"')
    daemon = secured.start("--log-level", "error")
    secured.remote("alice").run(*ADD)
    secured.remote("eve").call("route", "del", "239.1.1.1", "10.0.0.1")
    found = {word.partition("=")[2] for word in daemon.log().split() if word.startswith("audit=")}
    assert found == kinds
