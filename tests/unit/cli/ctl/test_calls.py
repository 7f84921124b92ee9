"""Whole command lines against a server: answers in every format, errors, exit codes, TLS."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import yaml

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.cli.ctl.contract import Contract, message_class
from mcastd.cli.ctl.failure import CallError, from_rpc_error
from mcastd.cli.ctl.transport import parse_address
from tests.unit.cli.ctl.conftest import Run
from tests.unit.cli.ctl.fakeserver import Handler, refuse, serve


class Daemon:
    """Answers of a daemon, which tests may change, and the requests that it has seen."""

    def __init__(self, contract: Contract, address: str) -> None:
        self.contract = contract
        self.address = address
        self.seen: list[Any] = []
        self.metadata: list[Any] = []
        self.routes = [
            t.Route(group="239.1.1.1", source="10.0.0.5", iif="eth0", status=t.RouteStatus(state=1, revision=7)),  # type: ignore[arg-type]
            t.Route(group="ff3e::1", source="fd00::5", iif="eth0"),
        ]
        self.result = rs.WriteResult(created=3, updated=1, revision=412)
        self.joins: list[t.Join] = []
        self.chunks = 2
        self.removed = 2

    def handlers(self) -> dict[str, Handler]:
        """The methods."""
        return {
            "ListRoutes": self.list_routes,
            "PutRoutes": self._noted(lambda: rs.PutRoutesResponse(result=self.result)),
            "ReplaceRoutes": self._noted(lambda: rs.ReplaceRoutesResponse(result=self.result)),
            "PutJoins": self._noted(lambda: sv.PutJoinsResponse(joins=self.joins, revision=5)),
            "ListInterfaces": self._noted(lambda: sv.ListInterfacesResponse(interfaces=[t.Interface(name="eth0", up=True)])),
            "FlushLearned": self._noted(lambda: rs.FlushLearnedResponse(removed=self.removed)),
            "SetInterface": self._noted(lambda: sv.SetInterfaceResponse(interface=t.Interface(name="eth0", ifindex=3))),
            "ReloadConfiguration": self._noted(
                lambda: sv.ReloadConfigurationResponse(result=rs.WriteResult(revision=9), interfaces_changed=1)
            ),
            "Shutdown": self._noted(sv.ShutdownResponse),
            "GetStatus": lambda _, context: refuse(
                context, grpc.StatusCode.PERMISSION_DENIED, "no\nway", "NOT_ALLOWED", need="view"
            ),
        }

    def list_routes(self, request: Any, _context: grpc.ServicerContext) -> Iterator[Any]:
        """The routes, in so many chunks."""
        self.seen.append(request)
        for route in self.routes * (self.chunks - 1):
            yield rs.ListRoutesResponse(routes=[route], revision=9)

    def _noted(self, answer: Any) -> Handler:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            self.seen.append(request)
            context.set_trailing_metadata(tuple(self.metadata))
            return answer()

        return handle


@pytest.fixture
def daemon(shipped: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon where MCASTD_ADDRESS says."""
    made = Daemon(shipped, f"unix:{tmp_path}/sock")
    monkeypatch.setenv("MCASTD_ADDRESS", made.address)
    with serve(shipped, made.address, made.handlers()):
        yield made


def test_a_list_in_every_format(shipped: Contract, daemon: Daemon, command_line: Run) -> None:
    def out(*arguments: str) -> str:
        code, text, err = command_line(shipped, "route", "list", *arguments)
        assert (code, err) == (0, "")
        return text

    rows: list[dict[str, Any]] = [
        {
            "group": "239.1.1.1",
            "source": "10.0.0.5",
            "iif": "eth0",
            "status": {"state": "ROUTE_STATE_PROGRAMMED", "revision": "7"},
        },
        {"group": "ff3e::1", "source": "fd00::5", "iif": "eth0"},
    ]
    assert out().splitlines()[1].split() == ["239.1.1.1", "10.0.0.5", "eth0", "-", "PROGRAMMED"]
    assert out("-c").splitlines()[0].split() == ["GROUP", "SOURCE", "IIF", "OIFS", "STATE", "PKTS", "BYTES"]
    assert json.loads(out("-j")) == rows
    assert [json.loads(line) for line in out("-o", "ndjson").splitlines()] == rows
    rows[0]["status"] = {"state": "ROUTE_STATE_PROGRAMMED", "revision": 7}
    assert yaml.safe_load(out("-o", "yaml")) == rows
    assert out("-o", "name") == "239.1.1.1 10.0.0.5\nff3e::1 fd00::5\n"
    assert out("--columns", "iif,status.revision", "--columns", "state").splitlines() == [
        "IIF   REVISION  STATE",
        "eth0         7  PROGRAMMED",
        "eth0         -  -",
    ]
    assert "cookie" in json.loads(out("-o", "json", "--full"))[0]


def test_an_empty_list(shipped: Contract, daemon: Daemon, command_line: Run) -> None:
    daemon.chunks = 1
    assert command_line(shipped, "route", "list")[1].split()[0] == "GROUP"
    assert command_line(shipped, "route", "list", "-j")[1] == "[]\n"
    assert command_line(shipped, "route", "list", "-o", "yaml")[1] == "[]\n"
    assert command_line(shipped, "route", "list", "-o", "ndjson")[1] == ""


def test_what_is_listed_can_be_put_back(shipped: Contract, daemon: Daemon, command_line: Run, tmp_path: Path) -> None:
    for form in ("json", "yaml", "ndjson"):
        path = tmp_path / f"routes.{form}"
        path.write_text(command_line(shipped, "route", "list", "-o", form)[1])
        assert command_line(shipped, "route", "add", "-f", str(path))[0] == 0
        assert [(one.group, one.source, one.iif) for one in daemon.seen.pop().routes] == [
            ("239.1.1.1", "10.0.0.5", "eth0"),
            ("ff3e::1", "fd00::5", "eth0"),
        ]


def test_a_write_tells_what_it_did(shipped: Contract, daemon: Daemon, command_line: Run) -> None:
    assert command_line(shipped, "route", "add", "239.1.1.1") == (0, "", "created 3, updated 1, failed 0, revision 412\n")
    code, out, _ = command_line(shipped, "route", "add", "239.1.1.1", "-j")
    assert (code, json.loads(out)) == (0, {"result": {"revision": "412", "created": 3, "updated": 1}})
    assert command_line(shipped, "route", "flush") == (0, "", "removed 2\n")
    daemon.removed = 0
    assert command_line(shipped, "route", "flush") == (0, "", "removed 0\n")
    code, out, err = command_line(shipped, "interface", "set", "eth0", "--pinned")
    assert (code, out.splitlines()[1].split()[0], err) == (0, "eth0", "")


def test_items_that_fail(shipped: Contract, daemon: Daemon, command_line: Run) -> None:
    error = t.Error(code=8, reason="VIF_TABLE_FULL", message="no free VIF for eth40 (32 of 32 used)")
    daemon.result.failed = 2
    daemon.result.changes.extend([rs.RouteChange(before=t.Route(group="239.1.1.9"), error=error)] * 2)
    code, out, err = command_line(shipped, "route", "add", "239.1.1.9")
    assert (code, out.splitlines()[1].split()) == (1, ["-", "239.1.1.9", "-", "-", "VIF_TABLE_FULL"])
    assert err.splitlines() == [
        "mcastctl: VIF_TABLE_FULL: no free VIF for eth40 (32 of 32 used)",
        "created 3, updated 1, failed 2, revision 412",
    ]
    daemon.joins = [t.Join(interface="eth0", group="239.1.1.1", error=error)]
    code, out, err = command_line(shipped, "join", "add", "eth0", "239.1.1.1")
    assert (code, err.splitlines()[1]) == (1, "failed 1, revision 5")


def test_many_problems_are_not_all_told(shipped: Contract, daemon: Daemon, command_line: Run) -> None:
    for n in range(15):
        daemon.result.changes.add(error=t.Error(reason="NO_SUCH_INTERFACE", message=f"eth{n}"))
    err = command_line(shipped, "route", "add", "239.1.1.9")[2].splitlines()
    assert (len(err), err[10]) == (12, "mcastctl: and 5 more (-o json has all)")


def test_a_dry_run_is_a_plan(shipped: Contract, daemon: Daemon, command_line: Run) -> None:
    line = ("route", "replace", "--group", "239.1.1.1", "-n")
    assert command_line(shipped, *line) == (0, "", "plan: +3 ~1 -0 =0\n")
    assert command_line(shipped, *line, "--exit-code")[0] == 3
    assert daemon.seen[0][0].header.options.validate_only
    daemon.result.failed = 1
    assert command_line(shipped, *line, "--exit-code")[::2] == (1, "plan: +3 ~1 -0 =0, failed 1\n")
    daemon.result = rs.WriteResult(unchanged=4, revision=412)
    assert command_line(shipped, *line, "--exit-code")[::2] == (0, "plan: +0 ~0 -0 =4\n")
    assert command_line(shipped, "reload", "-n", "--exit-code")[::2] == (3, "plan: +0 ~0 -0 =0, interfaces changed 1\n")
    assert command_line(shipped, "reload", "--exit-code")[0] == 0


def test_changes_that_the_daemon_leaves_out(shipped: Contract, daemon: Daemon, command_line: Run) -> None:
    daemon.metadata = [("mcastd-changes-omitted", "17")]
    assert "17 changes are left out" in command_line(shipped, "route", "add", "239.1.1.1")[2]


def test_a_condition_of_the_daemon_is_told(shipped: Contract, daemon: Daemon, command_line: Run) -> None:
    daemon.metadata = [("mcastd-condition", "STORE_UNAVAILABLE: the disk is full")]
    assert "mcastctl: STORE_UNAVAILABLE: the disk is full\n" in command_line(shipped, "route", "add", "239.1.1.1")[2]


def test_errors(shipped: Contract, daemon: Daemon, command_line: Run) -> None:
    assert command_line(shipped, "status") == (71, "", "mcastctl: NOT_ALLOWED: no way\n")
    for form in ("json", "ndjson"):
        code, out, err = command_line(shipped, "status", "-o", form)
        assert (code, out) == (71, "")
        assert json.loads(err) == {"code": 7, "reason": "NOT_ALLOWED", "message": "no\nway", "metadata": {"need": "view"}}
    code, _, err = command_line(shipped, "join", "list")
    assert (code, err) == (76, "mcastctl: UNIMPLEMENTED: Method not found!\n")


def test_details_that_are_none() -> None:
    error = SimpleNamespace(
        code=lambda: grpc.StatusCode.INTERNAL,
        details=lambda: "m",
        trailing_metadata=lambda: (("grpc-status-details-bin", b"\xff"),),
    )
    from mcastd.cli.ctl.failure import from_rpc_error  # noqa: PLC0415

    assert from_rpc_error(error, "unix:x") == CallError(13, "INTERNAL", "m")


def test_an_address_as_the_daemons_configuration_writes_it() -> None:
    assert parse_address("tcp:[::1]:50051") == "[::1]:50051"
    assert parse_address("tcp:192.0.2.1:50051") == "192.0.2.1:50051"


def test_nobody_there(shipped: Contract, command_line: Run, tmp_path: Path) -> None:
    code, out, err = command_line(shipped, "status", "--address", f"unix:{tmp_path}/none")
    assert (code, out) == (78, "")
    why = "No such file or directory (is mcastd running? see --address)"
    assert err == f"mcastctl: UNAVAILABLE: no daemon answers at unix:{tmp_path}/none: {why}\n"


@pytest.mark.parametrize(
    "address,text,said",
    [
        (
            "unix:/run/s",
            "unix:/run/s: Permission denied",
            "unix:/run/s is closed to you: Permission denied (the socket's mode and",
        ),
        ("unix:/run/s", "unix:/run/s: Socket closed", "no daemon answers at unix:/run/s: Socket closed (is mcastd running?"),
        ("r1:50051", "ipv4:192.0.2.1:50051: Socket closed", "r1:50051 has closed the connection (does it trust"),
        (
            "r1:50051",
            (
                "ipv4:192.0.2.1:50051: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:"
                "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK"
            ),
            "the certificate of r1:50051 is not trusted: unable to get local issuer certificate (see --tls-ca)",
        ),
        (
            "r1:50051",
            (
                "ipv4:192.0.2.1:50051: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:100000f7:SSL routines:"
                "OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid certificate verification context: OK"
            ),
            "r1:50051 does not speak TLS",
        ),
    ],
)
def test_why_there_is_no_connection(address: str, text: str, said: str) -> None:
    details = f"failed to connect to all addresses; last error: UNKNOWN: {text}"
    error = SimpleNamespace(code=lambda: grpc.StatusCode.UNAVAILABLE, details=lambda: details, trailing_metadata=lambda: ())
    failed = from_rpc_error(error, address)
    assert failed.exit_code == 78
    assert failed.message.startswith(said)


def test_too_slow(shipped: Contract, command_line: Run, tmp_path: Path) -> None:
    def never(_request: Any, context: grpc.ServicerContext) -> Any:
        while context.is_active():
            context.add_callback(lambda: None)
        return sv.GetStatusResponse()

    with serve(shipped, f"unix:{tmp_path}/slow", {"GetStatus": never}):
        code, _, err = command_line(shipped, "status", "--address", f"{tmp_path}/slow", "--timeout", "100ms")
    assert (code, err) == (68, f"mcastctl: DEADLINE_EXCEEDED: no answer from unix:{tmp_path}/slow within 0.1 s (--timeout)\n")


@pytest.mark.parametrize("given", [True, False])
def test_a_list_that_does_not_begin(
    shipped: Contract, command_line: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, given: bool
) -> None:
    def never(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(60)
        yield from ()

    monkeypatch.setattr("mcastd.cli.ctl.transport.UNARY_SECONDS", 60 if given else 0.1)
    with serve(shipped, f"unix:{tmp_path}/slow", {"ListRoutes": never}):
        line = ("route", "list", "--address", f"{tmp_path}/slow", *(("--timeout", "100ms") if given else ()))
        code, out, err = command_line(shipped, *line)
    assert (code, out) == (68, "")
    assert err == f"mcastctl: DEADLINE_EXCEEDED: no answer from unix:{tmp_path}/slow within 0.1 s (--timeout)\n"


def test_a_list_that_has_begun_may_take_its_time(shipped: Contract, command_line: Run, tmp_path: Path) -> None:
    def slowly(_request: Any, _context: grpc.ServicerContext) -> Iterator[Any]:
        yield rs.ListRoutesResponse(routes=[t.Route(group="239.1.1.1")])
        never.wait(1.5)
        yield rs.ListRoutesResponse(routes=[t.Route(group="239.1.1.2")])

    never = threading.Event()
    with serve(shipped, f"unix:{tmp_path}/slow", {"ListRoutes": slowly}):
        line = ("route", "list", "-o", "name", "--address", f"{tmp_path}/slow", "--timeout", "1s")
        assert command_line(shipped, *line) == (0, "239.1.1.1\n239.1.1.2\n", "")


def test_a_watch_ends_when_its_time_is_over(shipped: Contract, command_line: Run, tmp_path: Path) -> None:
    def follow(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield sv.WatchResponse(synced=True)
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(60)

    with serve(shipped, f"unix:{tmp_path}/slow", {"Watch": follow}):
        code, _, err = command_line(shipped, "watch", "--address", f"{tmp_path}/slow", "--timeout", "500ms")
    assert code == 68
    assert "no end of the answer from" in err


def test_a_contract_that_is_not_told(
    command_line: Run, shipped: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a socket that takes connections and never says a word."""
    monkeypatch.setattr("mcastd.cli.ctl.reflection.UNARY_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/silent")
        silent.listen()
        code, out, err = command_line(shipped, "--from-server", "--address", f"{tmp_path}/silent", "status")
    assert (code, out) == (68, "")
    assert err == f"mcastctl: DEADLINE_EXCEEDED: no answer from unix:{tmp_path}/silent within 0.2 s (--timeout)\n"


def test_a_table_is_followed_by_the_reasons(shipped: Contract, daemon: Daemon, command_line: Run) -> None:
    def waiting(n: int, name: str) -> t.Route:
        error = t.Error(code=5, reason="NO_SUCH_INTERFACE", message=f"interface {name} does not exist")
        status = t.RouteStatus(state=t.ROUTE_STATE_PENDING, last_error=error)
        return t.Route(group=f"239.1.2.{n}", source="10.0.0.5", iif=name, oifs=[t.Oif(interface="eth1")], status=status)

    daemon.routes = [waiting(1, "eth8"), waiting(2, "eth8"), waiting(3, "eth9")]
    code, out, err = command_line(shipped, "route", "list")
    assert (code, out.splitlines()[1].split()[3:5]) == (0, ["(eth1)", "PENDING"])
    assert err.splitlines() == [
        "mcastctl: NO_SUCH_INTERFACE: interface eth8 does not exist (2 routes)",
        "mcastctl: NO_SUCH_INTERFACE: interface eth9 does not exist",
    ]
    for form in ("name", "json", "yaml", "ndjson"):
        assert command_line(shipped, "route", "list", "-o", form)[2] == ""
    daemon.routes = [waiting(n, f"eth{n}") for n in range(15)]
    err = command_line(shipped, "route", "list", "-o", "wide")[2]
    assert (len(err.splitlines()), err.splitlines()[-1]) == (11, "mcastctl: and 5 more (-o json has all)")


def test_confirmation(shipped: Contract, daemon: Daemon, command_line: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def terminal(answer: str) -> Any:
        return SimpleNamespace(isatty=lambda: True, readline=lambda: answer)

    assert command_line(shipped, "shutdown", "--yes")[0] == 0
    assert len(daemon.seen) == 1
    monkeypatch.setattr("sys.stdin", terminal("y\n"))
    code, out, err = command_line(shipped, "shutdown")
    assert (code, out, err) == (0, "", "shutdown: End the daemon in order. Go on? [y/N] ")
    assert len(daemon.seen) == 2
    monkeypatch.setattr("sys.stdin", terminal("\n"))
    with pytest.raises(SystemExit) as caught:
        command_line(shipped, "shutdown")
    assert caught.value.code == 2
    assert len(daemon.seen) == 2


def test_flags_after_the_command_win(shipped: Contract, daemon: Daemon, command_line: Run) -> None:
    assert command_line(shipped, "--address", "unix:/none", "interface", "list", "--address", daemon.address)[0] == 0
    assert command_line(shipped, "-o", "name", "interface", "list")[1] == "eth0\n"
    assert command_line(shipped, "-o", "name", "interface", "list", "-o", "table")[1].split()[0] == "NAME"
    assert json.loads(command_line(shipped, "interface", "list", "-o", "json")[1]) == [{"name": "eth0", "up": True}]


def test_a_contract_without_options_works(lab: Contract, command_line: Run, tmp_path: Path) -> None:
    (service,) = lab.services()
    done: Any = message_class(service.methods_by_name["Upload"].output_type)
    handlers: dict[str, Handler] = {
        "DoEverything": lambda request, _: request,
        "Upload": lambda requests, _: done(taken=len(requests)),
        "Talk": lambda requests, _: iter(requests),
    }
    path = tmp_path / "parts"
    path.write_text("[{name: a, count: 1}, {name: b}]")
    with serve(lab, f"unix:{tmp_path}/lab", handlers):
        where = ("--address", f"unix:{tmp_path}/lab", "lab-service")
        code, out, _ = command_line(lab, *where, "do-everything", "--text", "hi", "--parts", "{name: p}", "-j")
        assert (code, json.loads(out)) == (0, {"text": "hi", "parts": [{"name": "p"}]})
        assert command_line(lab, *where, "do-everything", "--text", "hi")[1].startswith("Text:")
        assert command_line(lab, *where, "upload", "-f", str(path))[2] == "taken 2\n"
        assert command_line(lab, *where, "talk", "-f", str(path))[1] == "Name:   a\nCount:  1\n\nName:   b\nCount:  0\n"
        assert (
            command_line(lab, *where, "talk", "-f", str(path), "-o", "ndjson")[1] == '{"name": "a", "count": 1}\n{"name": "b"}\n'
        )
        assert command_line(lab, *where, "talk", "-f", str(path), "-o", "yaml")[1] == "---\nname: a\ncount: 1\n---\nname: b\n"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for "router.lab", which signs itself."""
    where = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=router.lab", "-addext", "subjectAltName=DNS:router.lab"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", "req", *kind, *subject, "-keyout", str(where / "key"), "-out", str(where / "crt")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return where


def test_tls(shipped: Contract, command_line: Run, certificates: Path) -> None:
    key, certificate = str(certificates / "key"), str(certificates / "crt")
    pair = ((certificates / "key").read_bytes(), (certificates / "crt").read_bytes())
    credentials = grpc.ssl_server_credentials([pair], pair[1], require_client_auth=True)
    answers: dict[str, Handler] = {"ListInterfaces": lambda *_: sv.ListInterfacesResponse(interfaces=[t.Interface(name="eth0")])}
    with serve(shipped, "127.0.0.1:0", answers, credentials) as address:
        line = ("interface", "list", "-o", "name", "--address", address, "--timeout", "5s", "--tls-ca", certificate)
        own = ("--tls-cert", certificate, "--tls-key", key)
        assert command_line(shipped, *line, *own, "--tls-server-name", "router.lab") == (0, "eth0\n", "")
        assert command_line(shipped, *line, *own, "--tls-server-name", "other.lab")[0] == 78
        assert command_line(shipped, *line, "--tls-server-name", "router.lab")[0] == 78
