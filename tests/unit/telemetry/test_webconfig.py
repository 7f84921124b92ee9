"""mcastd.telemetry.webconfig: what the file may say, and that everything else is refused by name."""

import ssl
import time
from pathlib import Path

import bcrypt
import pytest

from mcastd.model.errors import McastdError, Reason
from mcastd.telemetry.webconfig import WebConfig, read
from tests.unit.telemetry.certificates import make_ca, make_certificate

# Always the same salt: the hash is in names of tests, on which pytest-xdist's workers must agree.
HASH = bcrypt.hashpw(b"secret", b"$2b$04$" + b"." * 22).decode()
OTHERS = HASH.replace("$2b$", "$2y$")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("web")
    make_ca(path)
    make_certificate(path, "server")
    (path / "broken.crt").write_text("nothing")
    return path


def load(directory: Path, text: str) -> WebConfig:
    path = directory / "web.yml"
    path.write_text(text)
    return read(path)


def tls(*lines: str) -> str:
    return "\n  ".join(["tls_server_config:", "cert_file: server.crt", "key_file: server.key", *lines])


@pytest.mark.parametrize("text", ["", "{}", "# nothing\n", "basic_auth_users:\n", "tls_server_config:\n"])
def test_nothing_is_no_limit(directory: Path, text: str) -> None:
    assert load(directory, text) == WebConfig(files=(directory / "web.yml",))


def test_paths_are_relative_to_the_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    found = load(directory, tls("client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.crt"))
    assert found.files == tuple(directory / name for name in ("web.yml", "server.crt", "server.key", "ca.crt"))
    assert found.tls is not None
    assert found.tls.verify_mode is ssl.CERT_REQUIRED


def test_defaults_of_tls(directory: Path) -> None:
    context = load(directory, tls()).tls
    assert context is not None
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    assert context.verify_mode is ssl.CERT_NONE


def test_when_the_certificate_ends(directory: Path) -> None:
    assert load(directory, tls()).expires == pytest.approx(time.time() + 10 * 86_400, abs=600)


def test_everything_at_once(directory: Path) -> None:
    found = load(
        directory,
        tls(
            "client_auth_type: RequireAndVerifyClientCert",
            "client_ca_file: ca.crt",
            "client_allowed_sans: [prometheus, 10.0.0.1]",
            "min_version: TLS12",
            "max_version: TLS12",
            "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]",
            "prefer_server_cipher_suites: false",
            "curve_preferences: [CurveP256]",
        )
        + f"\nhttp_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n    X-XSS-Protection: ''\n"
        f"basic_auth_users:\n  alice: {HASH}\n  bob: {OTHERS}\nrate_limit:\n  interval: 100ms\n  burst: 5\n",
    )
    assert found.tls is not None
    assert "ECDHE-ECDSA-AES128-GCM-SHA256" in {cipher["name"] for cipher in found.tls.get_ciphers()}
    assert found.allowed_sans == {"prometheus", "10.0.0.1"}
    assert found.users == {"alice": HASH.encode(), "bob": OTHERS.encode()}
    assert found.headers == {"X-Frame-Options": "deny"}
    assert (found.interval, found.burst) == (0.1, 5)


@pytest.mark.parametrize(
    "text,says",
    [
        ("a: [", ["YAML"]),
        ("- a", ["mapping"]),
        ("tls_server_confg: {}", ["tls_server_confg", "tls_server_config"]),
        ("tls_server_config: 3", ["tls_server_config", "mapping"]),
        ("tls_server_config: {cert_file: server.crt}", ["tls_server_config.key_file", "missing"]),
        ("tls_server_config: {key_file: server.key}", ["tls_server_config.cert_file", "missing"]),
        ("tls_server_config: {cert_file: no.crt, key_file: server.key}", ["no.crt", "No such file"]),
        ("tls_server_config: {cert_file: broken.crt, key_file: server.key}", ["broken.crt"]),
        ("tls_server_config: {cert_file: server.crt, key_file: ca.key}", ["ca.key", "MISMATCH"]),
        ("tls_server_config: {cert: x, key: y}", ["tls_server_config.cert", "cert_file"]),
        (tls("certfile: x"), ["tls_server_config.certfile", "cert_file"]),
        (tls("min_version: TLS14"), ["min_version", "TLS14", "TLS13"]),
        (tls("min_version: TLS13", "max_version: TLS12"), ["max_version"]),
        (tls("min_version: 1.2"), ["min_version", "string"]),
        (tls("cipher_suites: [RC4]"), ["cipher_suites", "RC4"]),
        (tls("cipher_suites: RC4"), ["cipher_suites", "list"]),
        (tls("curve_preferences: [CurveP256, X25519]"), ["curve_preferences"]),
        (tls("prefer_server_cipher_suites: 1"), ["prefer_server_cipher_suites", "true or false"]),
        (tls("client_auth_type: RequireAnyClientCert"), ["client_auth_type", "RequireAndVerifyClientCert"]),
        (tls("client_auth_type: RequireAndVerifyClientCert"), ["client_ca_file", "missing"]),
        (tls("client_ca_file: ca.crt"), ["client_ca_file", "client_auth_type"]),
        (tls("client_auth_type: VerifyClientCertIfGiven", "client_ca_file: broken.crt"), ["broken.crt"]),
        (tls("client_allowed_sans: [a]"), ["client_allowed_sans", "RequireAndVerifyClientCert"]),
        ("http_server_config: {http3: true}", ["http_server_config.http3"]),
        ("http_server_config: {headers: {X-Other: a}}", ["headers.X-Other"]),
        ("http_server_config: {headers: {X-Frame-Options: no}}", ["headers.X-Frame-Options"]),
        ('http_server_config: {headers: {Content-Security-Policy: "a\\nb"}}', ["Content-Security-Policy", "one line"]),
        ("basic_auth_users: {alice: secret}", ["basic_auth_users.alice", "bcrypt"]),
        (f"basic_auth_users: {{'a:b': {HASH}}}", ["a:b"]),
        (f"basic_auth_users: {{alice: {HASH.replace('$04$', '$31$')}}}", ["alice", "cost 31"]),
        (f"basic_auth_users: {{alice: {HASH[:28]}x{HASH[29:]}}}", ["basic_auth_users.alice", "bcrypt"]),
        ("basic_auth_users: [alice]", ["basic_auth_users", "mapping"]),
        ("rate_limit: {interval: 5}", ["rate_limit.interval", "1s"]),
        ("rate_limit: {interval: 1s, burst: 0}", ["rate_limit.burst"]),
    ],
)
def test_refused_by_name(directory: Path, text: str, says: list[str]) -> None:
    with pytest.raises(McastdError) as caught:
        load(directory, text)
    assert caught.value.reason is Reason.INVALID_VALUE
    for word in [*says, str(directory / "web.yml")]:
        assert word in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(McastdError, match="No such file"):
        read(tmp_path / "web.yml")


def test_a_file_that_is_no_text(directory: Path) -> None:
    (directory / "web.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(McastdError, match="YAML"):
        read(directory / "web.yml")
