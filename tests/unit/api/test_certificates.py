"""mcastd.api.certificates: files that are read, checked, and read again when they change."""

import logging
import os
import shutil
import time
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from mcastd.api import certificates
from mcastd.api.certificates import Certificates
from mcastd.model.certificate import certificates_of, not_after
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Remote
from tests.pki import DAY, Key, Pki, pem_of


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def problem(pki: Pki) -> str:
    """Why the files can't be used."""
    with pytest.raises(McastdError) as caught:
        Certificates(pki.remote(50_051))
    assert caught.value.reason is Reason.INVALID_VALUE
    assert "tcp:127.0.0.1:50051" in str(caught.value)
    return str(caught.value)


def test_good_ones(pki: Pki) -> None:
    found = Certificates(pki.remote(50_051))
    assert found.expires == not_after(pki.server.cert.read_text())
    assert found.problem == ""
    assert found._fetch() is None
    found.credentials()


def encrypt(pki: Pki) -> None:
    key = serialization.load_pem_private_key(pki.server.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    pki.server.key.write_bytes(pem_of(key, b"secret"))


@pytest.mark.parametrize(
    "spoil,words",
    [
        (lambda pki: pki.server.cert.unlink(), "No such file"),
        (lambda pki: pki.server.key.unlink(), "No such file"),
        (lambda pki: pki.ca.unlink(), "ca.pem: No such file"),
        (lambda pki: pki.server.cert.write_text("nonsense"), "PEM"),
        (lambda pki: pki.server.key.write_text("nonsense"), "PEM"),
        (lambda pki: pki.ca.write_text(""), "ca"),
        (lambda pki: pki.ca.write_text("nonsense"), "ca"),
        (lambda pki: pki.ca.write_bytes(b"\xff"), "ca"),
        (encrypt, "the key is encrypted: store it without a password"),
        (lambda pki: pki.server.key.write_bytes(pki.named("alice").key.read_bytes()), "the key must be the certificate's"),
        (lambda pki: pki.server.cert.write_bytes(pki.server.key.read_bytes()), "cert"),
        (lambda pki: pki.put_server(ec.generate_private_key(ec.SECP521R1())), "EC P-521, which clients do not accept: use EC P"),
        (lambda pki: pki.put_server(ed25519.Ed25519PrivateKey.generate()), "Ed25519, which clients do not accept"),
        (lambda pki: pki.put_server(ec.generate_private_key(ec.SECP256K1())), "which clients do not accept"),
        (lambda pki: pki.put_server(use=ExtendedKeyUsageOID.CLIENT_AUTH), "lacks serverAuth"),
        (lambda pki: pki.ca.write_bytes(pki.ca.read_bytes() + pki.ca.read_bytes()[:200]), "ca"),
    ],
    ids=[
        "no certificate",
        "no key",
        "no CA",
        "bad certificate",
        "bad key",
        "empty CA",
        "bad CA",
        "binary CA",
        "encrypted key",
        "another's key",
        "the key as certificate",
        "P-521",
        "Ed25519",
        "secp256k1",
        "a client's",
        "half a CA",
    ],
)
def test_files_of_no_use(pki: Pki, spoil: object, words: str) -> None:
    assert callable(spoil)
    spoil(pki)
    assert words in problem(pki)


def test_what_openssl_alone_takes_is_told_of(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to itself gRPC would go on with what it had, without a word to us."""
    pki.put_server(ec.generate_private_key(ec.SECP256K1()))
    monkeypatch.setattr(certificates, "KEYS", [one.key for one in certificates_of(pki.server.cert.read_text())])
    assert "BoringSSL" in problem(pki)


def test_a_ca_in_another_form(pki: Pki) -> None:
    pki.ca.write_text(pki.ca.read_text().replace("CERTIFICATE", "X509 CERTIFICATE"))
    assert "ca holds nothing between" in problem(pki)


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65_537, 2048)])
def test_kinds_of_keys(pki: Pki, key: Key) -> None:
    pki.put_server(key)
    Certificates(pki.remote(50_051)).credentials()


def test_comments_may_be_in_any_language(pki: Pki) -> None:
    for path in (pki.ca, pki.server.cert):
        path.write_text(f"# Türkçe\n{path.read_text()}")
    Certificates(pki.remote(50_051)).credentials()


def test_files_that_are_replaced_while_they_are_read(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked must be what is put in force: the old certificate with the new key would be neither."""
    found, before = Certificates(pki.remote(50_051)), pki.server.cert.read_bytes()
    pki.init("nobody", renew=True)
    reads = iter([before])
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: next(reads, whole(path)) if path == pki.server.cert else whole(path))
    found.refresh()
    assert (found.problem, found._fetch()) == ("", None)
    found.refresh()
    assert found._fetch() is not None


NOW = time.time()
DAYS = 86_400.0


class Clock:
    """Days from now."""

    days = 0.0

    def __call__(self) -> float:
        return NOW + self.days * DAYS


@pytest.mark.parametrize("begins,ends,words", [(-9, -1, "has ended on"), (1, 9, "holds from")])
def test_certificates_of_another_time_replace_none_that_is_good(
    pki: Pki, caplog: pytest.LogCaptureFixture, begins: int, ends: int, words: str
) -> None:
    clock = Clock()
    found = Certificates(pki.remote(50_051), clock)
    good = found.expires
    pki.put_server(begins=DAY * begins, ends=DAY * ends)
    for _ in range(3):
        found.refresh()
    assert words in found.problem
    assert (found.expires, found._fetch()) == (good, None)
    assert len([one for one in caplog.records if one.levelno == logging.ERROR]) == 1
    clock.days = 2
    found.refresh()
    assert (found._fetch() is not None) is (begins == 1), "it is its time"
    assert (found.problem == "") is (begins == 1)


def test_certificates_of_another_time_are_better_than_none(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    """At the start: the clock may not have been set yet, and forwarding must not wait for that."""
    clock = Clock()
    clock.days = -30
    found = Certificates(pki.remote(50_051), clock)
    assert "look at this host's clock" in found.problem
    assert caplog.records[0].levelno == logging.ERROR
    clock.days = 0
    found.refresh()
    assert found.problem == ""


def test_the_end_of_what_is_in_force_is_told_of(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    found = Certificates(pki.remote(50_051), clock)
    clock.days = 11
    for _ in range(3):
        found.refresh()
    assert "has ended" in found.problem
    assert len(caplog.records) == 1


def test_a_chain_ends_with_the_first_of_its_certificates(pki: Pki) -> None:
    """Clients refuse it then."""
    whole = pki.server.cert.read_bytes()
    pki.put_server(ends=DAY * 3)
    first = Certificates(pki.remote(50_051)).expires
    short = pki.server.cert.read_bytes()
    pki.put_server()
    assert Certificates(pki.remote(50_051)).expires > first
    pki.server.cert.write_bytes(pki.server.cert.read_bytes() + short + whole)
    assert Certificates(pki.remote(50_051)).expires == first


def test_a_ca_whose_last_certificate_has_ended(pki: Pki) -> None:
    clock = Clock()
    pki.put_server(ends=DAY * 9_000)
    found = Certificates(pki.remote(50_051), clock)
    assert found.problem == ""
    clock.days = 3_651
    found.refresh()
    assert "last certificate of ca" in found.problem


def test_links_that_are_swapped(pki: Pki, tmp_path: Path) -> None:
    """As Kubernetes does it: ..data is a link to a directory, and replaced by another one."""
    for name in ("one", "two"):
        (tmp_path / "mount" / name).mkdir(parents=True)
        for path in (pki.server.cert, pki.server.key, pki.ca):
            shutil.copy(path, tmp_path / "mount" / name)
        pki.init("nobody", renew=True)
    (tmp_path / "mount/..data").symlink_to("one")
    for name in ("server.pem", "server.key", "ca.pem"):
        (tmp_path / "mount" / name).symlink_to(f"..data/{name}")
    mount = str(tmp_path / "mount")
    found = Certificates(Remote("::1", 50_051, f"{mount}/server.pem", f"{mount}/server.key", f"{mount}/ca.pem"))
    found.refresh()
    assert found._fetch() is None
    (tmp_path / "mount/..data_tmp").symlink_to("two")
    (tmp_path / "mount/..data_tmp").rename(tmp_path / "mount/..data")
    found.refresh()
    assert (found._fetch() is not None, found.problem) == (True, "")


def test_nothing_is_read_while_nothing_changes(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Certificates(pki.remote(50_051))
    monkeypatch.setattr(certificates, "read_files", None)
    found.refresh()


def test_new_ones_are_told_once(pki: Pki) -> None:
    found = Certificates(pki.remote(50_051))
    pki.init("nobody", renew=True)
    found.refresh()
    told = found._fetch()
    assert found._files is not None
    assert told is found._files.configuration
    assert found._fetch() is None


def test_files_are_replaced_one_by_one(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    """The new certificate is there before its key: nothing is wrong with that, for a moment."""
    found, before = Certificates(pki.remote(50_051)), pki.server.key.read_bytes()
    pki.init("nobody", renew=True)
    after = pki.server.key.read_bytes()
    pki.server.key.write_bytes(before)
    found.refresh()
    assert (found.problem, found._fetch()) == ("", None)
    pki.server.key.write_bytes(after)
    found.refresh()
    assert found._fetch() is not None
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_bad_ones_are_told_of_once_and_again_when_they_differ(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    found, good = Certificates(pki.remote(50_051)), pki.server.key.read_bytes()
    pki.server.key.write_text("nonsense")
    for _ in range(3):
        found.refresh()
    assert "key" in found.problem
    assert len([one for one in caplog.records if one.levelno == logging.ERROR]) == 1
    pki.server.key.unlink()
    for _ in range(3):
        found.refresh()
    assert len([one for one in caplog.records if one.levelno == logging.ERROR]) == 2
    pki.server.key.write_bytes(good)
    found.refresh()
    assert found.problem == ""


def test_files_that_change_within_one_tick_are_seen(pki: Pki) -> None:
    """By inode or size, where the time of the change is the same."""
    found, stamp = Certificates(pki.remote(50_051)), pki.server.cert.stat()
    pki.init("nobody", renew=True)
    os.utime(pki.server.cert, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    found.refresh()
    assert found._fetch() is not None


async def test_trying_files_leaves_nothing_behind(pki: Pki) -> None:
    """In a process whose own servers are asyncio's."""
    serving = grpc.aio.server()
    serving.add_secure_port("127.0.0.1:0", Certificates(pki.remote(50_051)).credentials())
    await serving.start()
    Certificates(pki.remote(50_051))
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a number is all
    for _ in range(20):
        Certificates(pki.remote(50_051))
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2  # noqa: PTH208 - see above
    await serving.stop(None)


def test_who_is_patient_gets_them_later(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    good = pki.server.key.read_bytes()
    pki.server.key.unlink()
    found = Certificates(pki.remote(50_051), patient=True)
    assert (found.usable, found.expires, "server.key" in found.problem) == (False, 0.0, True)
    found.refresh()
    assert [one.levelno for one in caplog.records] == [logging.ERROR]
    pki.server.key.write_bytes(good)
    found.refresh()
    assert (found.usable, found.problem) == (True, "")
    found.credentials()
    assert found._fetch() is None
