"""mcastd.api.certificates: files that are read, checked, and read again when they change."""

import logging
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mcastd.api.certificates import Certificates
from mcastd.model.certificate import not_after
from mcastd.model.errors import McastdError, Reason
from tests.pki import Pki, pem_of


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
    ],
)
def test_files_of_no_use(pki: Pki, spoil: object, words: str) -> None:
    assert callable(spoil)
    spoil(pki)
    assert words in problem(pki)


def test_nothing_is_read_while_nothing_changes(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Certificates(pki.remote(50_051))
    monkeypatch.setattr(Certificates, "_read", None)
    found.refresh()


def test_new_ones_are_told_once(pki: Pki) -> None:
    found = Certificates(pki.remote(50_051))
    pki.init("nobody", renew=True)
    found.refresh()
    told = found._fetch()
    assert told is found._configuration
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
