"""`mcastd tls init`: what it makes is good for TLS and closed to others; what is there stays."""

import datetime as dt
import grp
import os
import pwd
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509

from mcastd.cli import lab
from mcastd.cli.mcastd import main
from mcastd.model.owner import owner_problem
from mcastd.sources.config import read_configuration
from tests.pki import DAY, Pki


def init(directory: Path, *arguments: str) -> int:
    return main(["tls", "init", str(directory), *arguments])


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(path: Path) -> list[str]:
    alternatives = certificate(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(one.value) for one in alternatives]


def test_what_it_makes(tmp_path: Path) -> None:
    assert init(tmp_path / "a/tls", "--host", "router.lab", "--host", "192.0.2.1", "--host", "2001:db8::1") == 0
    found = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "a/tls").iterdir()}
    assert found == {
        "ca.key": "0o600",
        "ca.pem": "0o644",
        "server.key": "0o640",
        "server.pem": "0o644",
        "client-controller.key": "0o600",
        "client-controller.pem": "0o644",
    }
    assert names(tmp_path / "a/tls/server.pem") == ["router.lab", "192.0.2.1", "2001:db8::1"]
    assert names(tmp_path / "a/tls/client-controller.pem") == ["controller"]


def test_others_agree_that_they_are_good(tmp_path: Path) -> None:
    """With OpenSSL, in memory, both sides checking."""
    pki = Pki(tmp_path)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(pki.ca))
    server.load_cert_chain(pki.server.cert, pki.server.key)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(pki.ca)
    controller = tmp_path / "client-controller.pem"
    client.load_cert_chain(controller, controller.with_suffix(".key"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert sides[1].getpeercert()


def test_what_is_there_stays(tmp_path: Path) -> None:
    init(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert init(tmp_path, "--client", "controller", "--client", "second.example") == 0
    assert {path: path.read_bytes() for path in before} == before
    assert names(tmp_path / "client-second.example.pem") == ["second.example"]


def test_a_key_that_is_gone_is_made_with_its_certificate(tmp_path: Path) -> None:
    init(tmp_path)
    (tmp_path / "client-controller.key").unlink()
    before = (tmp_path / "client-controller.pem").read_bytes()
    assert init(tmp_path) == 0
    assert (tmp_path / "client-controller.pem").read_bytes() != before
    ssl.create_default_context().load_cert_chain(tmp_path / "client-controller.pem", tmp_path / "client-controller.key")


def test_what_is_there_and_of_no_use_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path, "--host", "router1.lab")
    capsys.readouterr()
    init(tmp_path, "--host", "router1.lab")
    assert "server.pem is there already (--renew makes it anew)" in capsys.readouterr().out
    init(tmp_path, "--host", "router1.lab", "--host", "192.0.2.1")
    assert "server.pem is there already, but does not name 192.0.2.1 (--renew" in capsys.readouterr().out
    for name in ("ca.pem", "ca.key"):
        (tmp_path / name).unlink()
    init(tmp_path, "--host", "router1.lab")
    told = capsys.readouterr().out
    assert "server.pem is there already, but of another CA" in told
    assert "client-controller.pem is there already, but of another CA" in told
    (tmp_path / "server.pem").write_text("nonsense")
    init(tmp_path)
    assert "server.pem is there already, but it is of no use" in capsys.readouterr().out


def test_what_has_ended_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pki = Pki(tmp_path)
    pki.put_server(begins=-DAY * 9, ends=-DAY)
    capsys.readouterr()
    init(tmp_path, "--host", "127.0.0.1")
    assert "server.pem is there already, but has ended on 20" in capsys.readouterr().out


def test_no_certificate_outlives_its_ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "CA_DAYS", 30)
    assert init(tmp_path, "--days", "30") == 0
    monkeypatch.setattr(lab, "CA_DAYS", 3650)
    assert init(tmp_path, "--renew") == 0
    assert certificate(tmp_path / "server.pem").not_valid_after_utc == certificate(tmp_path / "ca.pem").not_valid_after_utc


def test_a_ca_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Later(dt.datetime):
        """In eleven years."""

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> "Later":
            """The time then."""
            return super().now(tz) + dt.timedelta(days=4015)

    init(tmp_path)
    monkeypatch.setattr(lab, "dt", SimpleNamespace(datetime=Later, timedelta=dt.timedelta, UTC=dt.UTC))
    assert init(tmp_path) == 78
    assert "has ended on" in capsys.readouterr().err


def test_renewal(tmp_path: Path) -> None:
    init(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert init(tmp_path, "--renew") == 0
    changed = {path.name for path in tmp_path.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {"server.pem", "server.key", "client-controller.pem", "client-controller.key"}


def test_spiffe_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path, "--client", "spiffe://lab/ns/default/sa/sdn") == 0
    assert names(tmp_path / "client-lab-ns-default-sa-sdn.pem") == ["spiffe://lab/ns/default/sa/sdn"]
    assert 'owner = "sdn"' in capsys.readouterr().out


def test_what_it_says_to_write_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path, "--client", "controller", "--client", "spiffe://lab/sdn")
    path = tmp_path / "mcastd.toml"
    path.write_text(capsys.readouterr().out)
    assert set(read_configuration(str(path)).principals) == {"controller", "spiffe://lab/sdn"}
    assert owner_problem("controller") == ""


def test_the_group_may_read_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    init(tmp_path, "--group", group)
    assert (tmp_path / "server.key").stat().st_gid == os.getegid()
    assert "let the server's user read it" not in capsys.readouterr().out
    init(tmp_path, "--group", "nobody-knows")
    told = capsys.readouterr().out
    assert "there is no group nobody-knows" in told
    assert f"chgrp {grp.getgrgid(pwd.getpwnam('nobody').pw_gid).gr_name} " in told


@pytest.mark.parametrize(
    "arguments,code,words",
    [
        (["--days", "0"], 64, "--days 0"),
        (["--days", "4000"], 64, "--days 4000"),
        (["--host", "not a host"], 64, "DNS name"),
        (["--client", "spiffe://lab/ä"], 64, "URI"),
        (["--client", "with space"], 64, "DNS name"),
        (["--client", "*"], 64, "name one client"),
        (["--client", "*.example"], 64, "name one client"),
        (["--client", "lab-a", "--client", "spiffe://lab/a"], 64, "both are written to client-lab-a.pem"),
    ],
)
def test_what_can_not_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str) -> None:
    assert init(tmp_path, *arguments) == code
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spoilt", ["ca.pem", "ca.key"])
def test_a_ca_of_no_use(tmp_path: Path, capsys: pytest.CaptureFixture[str], spoilt: str) -> None:
    init(tmp_path)
    for content in ("nonsense", None):
        if content is None:
            (tmp_path / spoilt).unlink()
        else:
            (tmp_path / spoilt).write_text(content)
        assert init(tmp_path, "--renew") == 78
        assert "move both away" in capsys.readouterr().err


def test_the_key_of_another_ca(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path / "a")
    init(tmp_path / "b")
    (tmp_path / "b/ca.key").rename(tmp_path / "a/ca.key")
    assert init(tmp_path / "a", "--renew") == 78
    assert "is not the key of" in capsys.readouterr().err


def test_a_directory_that_can_not_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert init(tmp_path / "file") == 71
    assert "file" in capsys.readouterr().err
