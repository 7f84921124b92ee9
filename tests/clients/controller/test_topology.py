"""The topology file: what it says, and what is wrong with it."""

from pathlib import Path

import pytest

from mcast_controller.topology import FileError, Link, Port, TlsFiles, load
from tests.clients.controller.networks import fabric


def test_a_fabric_is_read(tmp_path: Path) -> None:
    topology = fabric(tmp_path)
    assert topology.owner == "fabric"
    assert sorted(topology.routers) == ["leaf1", "leaf2", "leaf3", "leaf4", "spine1", "spine2"]
    assert topology.segments["h2"] == Port("leaf2", "hosts")
    assert topology.edges == {Port(f"leaf{n}", "hosts") for n in range(1, 5)}
    link = topology.link_of[Port("spine1", "leaf2")]
    assert link == Link(Port("leaf2", "spine1"), Port("spine1", "leaf2"), 1)
    assert link.peer(Port("spine1", "leaf2")) == Port("leaf2", "spine1")


def test_tls_files_are_beside_the_file_and_may_differ(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text("""
        [tls]
        ca = "ca.pem"
        cert = "/etc/c.pem"
        key = "c.key"
        [router.a]
        address = "10.0.0.1:50051"
        [router.b]
        address = "unix:/run/b.sock"
        [router.c]
        address = "[fd00::1]:50051"
        tls = {ca = "x", cert = "y", key = "z", server_name = "router-c"}
    """)
    routers = load(path).routers
    assert routers["a"].tls == TlsFiles(f"{tmp_path}/ca.pem", "/etc/c.pem", f"{tmp_path}/c.key")
    assert routers["b"].tls is None
    assert routers["c"].tls == TlsFiles(f"{tmp_path}/x", f"{tmp_path}/y", f"{tmp_path}/z", "router-c")


A = '[router.a]\naddress = "unix:/a"\n[router.b]\naddress = "unix:/b"\n'


@pytest.mark.parametrize(
    "text,says",
    [
        ("", "there is no [router.NAME]"),
        ("routers = 1", "routers: no such key"),
        ("router = 1", "router: must be a table"),
        ("owner = 'A B'\n" + A, "owner: 'A B' is none"),
        ('[router."a b"]\naddress = "unix:/a"', "router.a b: a router's name"),
        ("[router.a]", "router.a.address: must be a text, and is not there"),
        ('[router.a]\naddress = "x:1"', "router.a.address: x:1 needs TLS"),
        ('[router.a]\naddress = "x:1"\nport = 1', "router.a.port: no such key; there are address, tls"),
        ('[router.a]\naddress = "x:1"\ntls = {ca = "a"}', "router.a.tls.cert: must be a text"),
        (A + '[link]\na = "a/x"', "link: must be an array of tables"),
        (A + '[[link]]\na = "a/x"\nb = "c/x"', "link 1.b: 'c/x' is of no router"),
        (A + '[[link]]\na = "a/x"\nb = "b"', "link 1.b: 'b' names no interface"),
        (A + '[[link]]\na = "a/x"\nb = "b/sixteen-letters-"', "names no interface"),
        (A + '[[link]]\na = "a/x"\nb = "a/y"', "a/x and a/y are of one router"),
        (A + '[[link]]\na = "a/x"\nb = "b/x"\ncost = 0', "link 1.cost: 0 is not 1 to"),
        (A + '[[link]]\na = "a/x"\nb = "b/x"\ncost = true', "link 1.cost: True is not 1 to"),
        (A + '[[link]]\na = "a/x"\nb = "b/x"\n[segment.s]\nat = "a/x"', "segment.s.at: a/x is at link 1 already"),
        (A + "[segment]\ns = 1", "segment.s: must be a table with at"),
        ("[", "Invalid initial character"),
        ('[router.a]\naddress = "a"', "router.a.address: 'a' is none: write HOST:PORT"),
        ('[router.a]\naddress = "tcp:10.0.0.1:50051"', "router.a.address: 'tcp:10.0.0.1:50051' is none"),
        ('[router.a]\naddress = "fd00::1:50051"', "router.a.address: 'fd00::1:50051' is none"),
        ('[router.a]\naddress = "a:99999"', "router.a.address: 'a:99999' is none"),
        ('[router.a]\naddress = "a:0"', "router.a.address: 'a:0' is none"),
        ('[router.a]\naddress = "unix:"', "router.a.address: 'unix:' is none"),
        (A + '[router.c]\naddress = "unix:/a"', "router.c.address: unix:/a is router a's already"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(FileError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        load(tmp_path / "none")
