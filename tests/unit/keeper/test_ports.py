"""mcastd.keeper.ports: a port is one daemon's; its servers may share it."""

import os
import socket
import time
from contextlib import closing

import pytest

from mcastd.keeper import ports
from mcastd.keeper.failure import EX_CONFIG, EX_UNAVAILABLE, CannotRun
from mcastd.keeper.ports import Look, Ports
from mcastd.model.settings import Remote

HOSTS = ("127.0.0.1", "::1", "0.0.0.0", "::")


def listening(host: str, port: int = 0, *, shared: bool = True) -> socket.socket:
    """A server's socket, as gRPC makes it."""
    any_host = host in {"0.0.0.0", "::"}
    family = socket.AF_INET6 if ":" in host or any_host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    if any_host:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::" if any_host else host, port))
    sock.listen()
    return sock


@pytest.fixture
def port() -> int:
    with listening("::") as sock:
        return int(sock.getsockname()[1])


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PATIENCE", 0.3)


@pytest.mark.parametrize("host", HOSTS)
def test_a_port_is_held_for_servers_of_ours(host: str, port: int) -> None:
    with closing(Ports([Remote(host, port)], {}, Look.ONCE)):
        with listening(host, port), listening(host, port):
            pass
        with pytest.raises(CannotRun) as caught:  # no server has it now: another daemon finds it taken all the same
            Ports([Remote(host, port)], {}, Look.PATIENTLY)
    assert caught.value.exit_code == EX_UNAVAILABLE
    assert str(caught.value).startswith(f"{Remote(host, port).address} is in use by another program")
    Ports([Remote(host, port)], {}, Look.ONCE).close()


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("shared", [True, False])
def test_a_port_that_somebody_listens_on_is_taken(host: str, port: int, shared: bool) -> None:
    with listening(host, port, shared=shared), pytest.raises(CannotRun) as caught:
        Ports([Remote(host, port)], {}, Look.ONCE)
    assert caught.value.exit_code == EX_UNAVAILABLE


def test_whoever_is_about_to_end_is_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PATIENCE", 10.0)
    sock, slept = listening("127.0.0.1", port), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            sock.close()

    monkeypatch.setattr(time, "sleep", sleep)
    Ports([Remote("127.0.0.1", port)], {}, Look.PATIENTLY).close()
    assert len(slept) == 3


def test_a_port_of_ours_is_not_looked_at(port: int) -> None:
    with listening("127.0.0.1", port), closing(Ports([Remote("127.0.0.1", port)], {}, Look.NEVER)) as found:
        assert list(found.descriptors()) == [f"tcp:127.0.0.1:{port}"]


def test_the_next_image_goes_on_with_what_is_held(port: int) -> None:
    remote = Remote("127.0.0.1", port)
    first = Ports([remote], {}, Look.ONCE)
    held = {address: os.dup(descriptor) for address, descriptor in first.descriptors().items()} | {"/path": -1}
    first.close()
    with listening("127.0.0.1", port), closing(Ports([remote], held, Look.ONCE)):
        assert held == {"/path": -1}


def test_several_addresses_of_one_port(port: int) -> None:
    Ports([Remote(host, port) for host in ("127.0.0.1", "::1")], {}, Look.ONCE).close()


def test_all_ports_or_none(port: int) -> None:
    with listening("::1", 0) as taken:
        with pytest.raises(CannotRun):
            Ports([Remote("::1", port), Remote("::1", taken.getsockname()[1])], {}, Look.ONCE)
        Ports([Remote("::1", port)], {}, Look.ONCE).close()


@pytest.mark.parametrize("host", ["192.0.2.77", "2001:db8::77"])
def test_an_address_that_is_not_there(host: str) -> None:
    with pytest.raises(CannotRun, match="no interface has this address") as caught:
        Ports([Remote(host, 50_051)], {}, Look.PATIENTLY)
    assert caught.value.exit_code == EX_CONFIG
