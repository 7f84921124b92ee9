"""mcastd.model.certificate: what is read of certificates, compared with a library that reads all of them."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from mcastd.model.certificate import Facts, certificates_of, facts_of, stamp

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 60)])
BEGINS, ENDS = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC), dt.datetime(2060, 5, 4, 3, 2, 1, tzinfo=dt.UTC)
EC = ec.generate_private_key(ec.SECP256R1())


def made(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | rsa.RSAPrivateKey = EC,
    *purposes: x509.ObjectIdentifier,
    names: int = 0,
) -> x509.Certificate:
    """A certificate."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGINS)
        .not_valid_after(ENDS)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(f"n{n}.example") for n in range(names)]), False)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=True)
    return builder.sign(EC, hashes.SHA256())


def read(certificate: x509.Certificate) -> Facts:
    return facts_of(certificate.public_bytes(serialization.Encoding.DER))


@pytest.mark.parametrize(
    "key,kind",
    [
        (EC, "EC P-256"),
        (ec.generate_private_key(ec.SECP384R1()), "EC P-384"),
        (ec.generate_private_key(ec.SECP521R1()), "EC P-521"),
        (rsa.generate_private_key(65_537, 2048), "RSA"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
        (ed448.Ed448PrivateKey.generate(), "Ed448"),
        (ec.generate_private_key(ec.SECP256K1()), "an unusual kind (2b8104000a)"),
    ],
)
def test_kinds_of_keys(key: ec.EllipticCurvePrivateKey, kind: str) -> None:
    assert read(made(key)) == Facts(BEGINS.timestamp(), ENDS.timestamp(), kind, None)


@pytest.mark.parametrize("names", [0, 1, 500])
def test_purposes(names: int) -> None:
    """Lengths of all sizes come before them."""
    both = made(EC, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH, names=names)
    assert read(both).purposes == frozenset({"serverAuth", "clientAuth"})
    assert read(made(EC, ExtendedKeyUsageOID.CODE_SIGNING, names=names)).purposes == frozenset({"2b06010505070303"})
    assert read(made(EC, names=names)).purposes is None


def test_all_certificates_of_a_file() -> None:
    text = "".join(made(EC, names=n).public_bytes(serialization.Encoding.PEM).decode() + "a word\n" for n in range(3))
    assert len(list(certificates_of(f"before\n{text}"))) == 3
    assert list(certificates_of("none")) == []
    with pytest.raises(ValueError, match="substring"):
        list(certificates_of(text[:-60]))


WHOLE = made(EC, ExtendedKeyUsageOID.SERVER_AUTH, names=3).public_bytes(serialization.Encoding.DER)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_damaged_one_is_an_error_and_no_crash(at: int, value: int) -> None:
    for damaged in (WHOLE[:at] + bytes([value]) + WHOLE[at + 1 :], WHOLE[:at]):
        try:
            found = facts_of(damaged)
        except ValueError:
            continue
        assert isinstance(found, Facts)


def test_stamps_tell_states_apart(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert stamp(path) is None
    path.write_text("one")
    first = stamp(path)
    assert stamp(path) == first
    path.write_text("other")
    assert stamp(path) != first
