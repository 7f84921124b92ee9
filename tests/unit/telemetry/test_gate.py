"""mcastd.telemetry.gate: users, certificates and rates over real connections, and a file that changes."""

import asyncio
import base64
import os
import ssl
import time
from pathlib import Path
from typing import Self

import bcrypt
import pytest

from mcastd.model.errors import McastdError
from mcastd.telemetry import gate
from mcastd.telemetry.gate import WebGate
from mcastd.telemetry.http import HttpServer
from mcastd.telemetry.metrics import Metrics
from mcastd.telemetry.request import Request, Response
from tests.unit.telemetry.certificates import make_ca, make_certificate
from tests.unit.telemetry.test_http import Answer, ended, read_answer

pytestmark = pytest.mark.usefixtures("loopback")

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
USERS = f"basic_auth_users:\n  alice: {HASH}\n"
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
CLIENTS = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates")
    make_ca(path)
    make_certificate(path, "server")
    make_certificate(path, "second", days=20)
    make_certificate(path, "prometheus", san="DNS:prometheus,URI:spiffe://x/p")
    return path


class Bench:
    """A gate, and a server behind it."""

    def __init__(self, directory: Path, text: str) -> None:
        self.directory = directory
        self.path = directory / "web.yml"
        self.path.write_text(text)
        self.metrics = Metrics()
        self.gate = WebGate(self.path, self.metrics)
        self.server = HttpServer(self.answer, self.gate)
        self.port = 0

    async def __aenter__(self) -> Self:
        self.port = await self.server.start("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()
        self.gate.close()

    async def answer(self, _request: Request) -> Response:
        """Well done."""
        return Response(200, b"in\n")

    def client(self, name: str = "") -> ssl.SSLContext:
        """What a client that trusts the CA needs; with a certificate of its own if it has a name."""
        context = ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
        if name:
            context.load_cert_chain(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        return context

    async def get(self, *headers: str, context: ssl.SSLContext | None = None) -> Answer:
        """A request on a connection of its own."""
        name = "localhost" if context is not None else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name)
        writer.write("\r\n".join(["GET / HTTP/1.1", "Connection: close", *headers, "", ""]).encode())
        try:
            async with asyncio.timeout(60):
                return await read_answer(reader)
        finally:
            writer.transport.abort()

    def age(self) -> None:
        """Have the next request look at the files, whose time differs."""
        self.gate._looked = -1e9
        os.utime(self.path, ns=(time.time_ns(), time.time_ns()))

    def value(self, name: str, **labels: str) -> float | None:
        """Of a metric."""
        return self.metrics.registry.get_sample_value(name, labels)


def basic(user: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


async def test_users_are_let_in_and_nobody_else(tmp_path: Path) -> None:
    async with Bench(tmp_path, USERS) as bench:
        assert (await bench.get(basic("alice", "secret"))).body == b"in\n"
        bad = [
            (),
            (basic("alice", "Secret"),),
            (basic("bob", "secret"),),
            (basic("", ""),),
            ("Authorization: Bearer x",),
            ("Authorization: Basic ###",),
            ("Authorization: Basic /w==",),
        ]
        for headers in bad:
            answer = await bench.get(*headers)
            assert (answer.code, answer.headers["www-authenticate"]) == (401, "Basic")
        assert (await bench.get(basic("alice", "secret"))).code == 200


async def test_a_good_password_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []

    def check(password: bytes, _hashed: bytes) -> bool:
        calls.append(password)
        return True

    monkeypatch.setattr(bcrypt, "checkpw", check)
    async with Bench(tmp_path, USERS) as bench:
        for _ in range(3):
            assert (await bench.get(basic("alice", "secret"))).code == 200
        assert len(calls) == 1
        await bench.get(basic("bob", "secret"))
        await bench.get(basic("bob", "secret"))
        assert len(calls) == 3  # Where there is no user the work is done all the same, each time.


async def test_passwords_longer_than_bcrypt_looks_at(tmp_path: Path) -> None:
    long = "x" * 100
    hashed = bcrypt.hashpw(long[:72].encode(), bcrypt.gensalt(4)).decode()
    async with Bench(tmp_path, f"basic_auth_users: {{alice: {hashed}}}") as bench:
        assert (await bench.get(basic("alice", long))).code == 200
        assert (await bench.get(basic("alice", long[:71]))).code == 401


async def test_guesses_hold_nobody_up(tmp_path: Path) -> None:
    """Bcrypt of cost 10 takes 50 ms: the loop goes on, and who comes when many wait is told to come again."""
    before = time.monotonic()
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(10)).decode()
    once = time.monotonic() - before
    async with Bench(tmp_path, f"basic_auth_users: {{alice: {hashed}}}") as bench:
        guesses = asyncio.gather(*(bench.get(basic("alice", f"guess {n}")) for n in range(gate.CHECKS_MAX + 4)))
        worst = 0.0
        while not guesses.done():
            before = time.monotonic()
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - before)
        codes = [answer.code for answer in await guesses]
        assert codes.count(503) == 4
        assert codes.count(401) == gate.CHECKS_MAX
        assert worst < once * gate.CHECKS_MAX / 2


async def test_a_change_of_the_file_counts_at_once(tmp_path: Path) -> None:
    async with Bench(tmp_path, "") as bench:
        assert (await bench.get()).code == 200
        bench.path.write_text(USERS)
        bench.age()
        assert (await bench.get()).code == 401
        assert (await bench.get(basic("alice", "secret"))).code == 200


async def test_a_broken_file_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with Bench(tmp_path, USERS) as bench:
        assert bench.value("mcastd_web_config_last_reload_successful") == 1
        for text in ("basic_auth_users: {alice: x}", "unknown: 1"):
            bench.path.write_text(text)
            for _ in range(3):
                bench.gate._looked = -1e9
                assert (await bench.get()).code == 401
                assert (await bench.get(basic("alice", "secret"))).code == 200
        assert bench.value("mcastd_web_config_last_reload_successful") == 0
        assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 2  # one for each change
        bench.path.unlink()
        bench.gate._looked = -1e9
        assert (await bench.get()).code == 401
        bench.path.write_text("")
        bench.age()
        assert (await bench.get()).code == 200
        assert bench.value("mcastd_web_config_last_reload_successful") == 1


def test_a_broken_file_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(McastdError, match="unknown"):
        Bench(tmp_path, "unknown: 1")


async def test_headers_are_added(tmp_path: Path) -> None:
    async with Bench(tmp_path, "http_server_config: {headers: {X-Frame-Options: deny}}") as bench:
        assert (await bench.get()).headers["x-frame-options"] == "deny"


async def test_the_rate_is_limited(tmp_path: Path) -> None:
    async with Bench(tmp_path, "rate_limit: {interval: 1h, burst: 3}") as bench:
        assert [(await bench.get()).code for _ in range(5)] == [200, 200, 200, 429, 429]


@pytest.fixture
def tls_directory(certificates: Path, tmp_path: Path) -> Path:
    for path in certificates.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


async def test_tls(tls_directory: Path) -> None:
    async with Bench(tls_directory, TLS) as bench:
        assert (await bench.get(context=bench.client())).body == b"in\n"
        expiry = bench.value("mcastd_tls_certificate_expiry_timestamp_seconds", listener="metrics")
        assert expiry == pytest.approx(time.time() + 10 * 86_400, abs=600)


async def test_plain_text_to_tls_disturbs_nobody(tls_directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with Bench(tls_directory, TLS) as bench:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(10):
            assert not (await ended(reader.read)).startswith(b"HTTP")
        writer.close()
        assert (await bench.get(context=bench.client())).code == 200
        assert not [one for one in caplog.records if one.levelname not in {"DEBUG", "INFO"}]


async def test_a_new_certificate_is_used_at_once(tls_directory: Path) -> None:
    async with Bench(tls_directory, TLS) as bench:
        await bench.get(context=bench.client())
        for end in ("crt", "key"):
            (tls_directory / f"second.{end}").replace(tls_directory / f"server.{end}")
        bench.gate._looked = -1e9
        await bench.get(context=bench.client())
        expiry = bench.value("mcastd_tls_certificate_expiry_timestamp_seconds", listener="metrics")
        assert expiry == pytest.approx(time.time() + 20 * 86_400, abs=600)


async def test_tls_can_be_turned_on_and_off(tls_directory: Path) -> None:
    async with Bench(tls_directory, "") as bench:
        assert (await bench.get()).code == 200
        bench.path.write_text(TLS)
        bench.age()
        assert (await bench.get(context=bench.client())).code == 200


async def test_clients_show_a_certificate(tls_directory: Path) -> None:
    async with Bench(tls_directory, TLS + CLIENTS) as bench:
        assert (await bench.get(context=bench.client("prometheus"))).code == 200
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await bench.get(context=bench.client())


@pytest.mark.parametrize("name,let_in", [("prometheus", True), ("second", False)])
async def test_clients_have_a_name_that_is_allowed(tls_directory: Path, name: str, let_in: bool) -> None:
    text = f"{TLS}{CLIENTS}  client_allowed_sans: ['spiffe://x/p', other]\n"
    async with Bench(tls_directory, text) as bench:
        if let_in:
            assert (await bench.get(context=bench.client(name))).code == 200
        else:
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await bench.get(context=bench.client(name))


async def test_old_tls_is_refused(tls_directory: Path) -> None:
    async with Bench(tls_directory, f"{TLS}  min_version: TLS13\n") as bench:
        old = bench.client()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError):
            await bench.get(context=old)
        assert (await bench.get(context=bench.client())).code == 200


async def test_what_a_file_names_may_come_later(tls_directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file is written before its new certificate is there: it counts as soon as that is."""
    async with Bench(tls_directory, "") as bench:
        bench.path.write_text(TLS.replace("server.", "later."))
        for _ in range(3):
            bench.gate._looked = -1e9
            assert (await bench.get()).code == 200
        assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 1
        for end in ("crt", "key"):
            (tls_directory / f"later.{end}").write_bytes((tls_directory / f"server.{end}").read_bytes())
        bench.gate._looked = -1e9
        assert (await bench.get(context=bench.client())).code == 200
        assert bench.value("mcastd_web_config_last_reload_successful") == 1


async def test_a_certificate_that_is_no_longer_used_is_not_told_of(tls_directory: Path) -> None:
    """Else an alert would fire for it one day."""
    async with Bench(tls_directory, TLS) as bench:
        assert bench.value("mcastd_tls_certificate_expiry_timestamp_seconds", listener="metrics")
        bench.path.write_text("")
        bench.age()
        assert (await bench.get()).code == 200
        assert bench.value("mcastd_tls_certificate_expiry_timestamp_seconds", listener="metrics") is None


async def test_who_does_not_exist_costs_as_much_as_who_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dear = HASH.replace("$04$", "$06$")
    used: list[bytes] = []

    def check(_password: bytes, hashed: bytes) -> bool:
        used.append(hashed)
        return True

    monkeypatch.setattr(bcrypt, "checkpw", check)
    async with Bench(tmp_path, f"{USERS}  bob: {dear}\n") as bench:
        assert (await bench.get(basic("nobody", "secret"))).code == 401
        assert used == [dear.encode()]
