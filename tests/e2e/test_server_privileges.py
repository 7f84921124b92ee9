"""The real server has no rights, from its imports to its end, and works: nothing is imported or opened late."""

import base64
import contextlib
import json
import os
import re
import shutil
import ssl
from collections.abc import Callable, Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import bcrypt
import grpc
import pytest
from google.protobuf import descriptor, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import mcast
from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e.keeper_bench import ROOT, status_of
from tests.e2e.router import Router, bulk
from tests.e2e.view import Watching
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, wait_until
from tests.testbed.rights import is_root
from tests.unit.telemetry.certificates import make_ca, make_certificate

pytestmark = pytest.mark.kernel

needs_root = pytest.mark.skipif(not is_root(), reason="needs root outside of user namespaces")

STRANGER = 65533
METRICS = "localhost:9105"
USER, PASSWORD = "prometheus", "secret"


def assert_powerless(pid: int) -> None:
    status = status_of(pid)
    sets = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert sets == dict.fromkeys(sets, 0)
    assert status["NoNewPrivs"] == "1"
    if is_root():
        assert "0" not in status["Uid"].split()
        assert "0" not in status["Gid"].split() + status["Groups"].split()


@pytest.fixture
def closed_home(directory: Path) -> Iterator[Path]:
    """An installation that nobody but its owner (and a keeper that is root) may look into."""
    home = directory / "home"
    for source in (ROOT / "mcastd", *map(Path, mcast.__path__)):
        shutil.copytree(source, home / source.name, ignore=shutil.ignore_patterns("*.c", "*.o", "__pycache__"))
    home.chmod(0o700)
    os.chown(home, STRANGER, STRANGER)
    yield home
    shutil.rmtree(home)


def test_server_has_no_rights(router: Router) -> None:
    assert_powerless(router.daemon.server_pid())
    router.put(router.route(1, "down1"))
    killed = router.daemon.kill_server()
    router.wait_server_after(killed)
    assert_powerless(router.daemon.server_pid())


@needs_root
def test_nothing_is_imported_late(testbed: Testbed, directory: Path, closed_home: Path) -> None:
    leave_garbage(directory / "state")
    options: dict[str, Any] = {"directory": directory, "cwd": closed_home, "environment": {"PYTHONPATH": str(closed_home)}}
    arguments = ("--log-level", "debug", "--metrics", METRICS, "--config", str(configuration(directory)))
    with Router(testbed, Family.IPV4, arguments=arguments, **options) as router:
        assert_powerless(router.daemon.server_pid())
        assert f"{closed_home}/mcastd" in Path(f"/proc/{router.daemon.server_pid()}/maps").read_text()
        use_routes(router)
        use_interfaces(router)
        use_metrics(router, directory)
        use_the_rest(router)
        call_everything(router.daemon)
        assert router.daemon.process.wait(20) == 0
        log = router.daemon.log()
        found = re.search(r'msg="modules imported without privileges" .*modules=(.*)$', log, re.MULTILINE)
        assert found is not None, log
        assert found[1] == '""'


def leave_garbage(state: Path) -> None:
    """A database that is to be set aside."""
    state.mkdir()
    (state / "state.db").write_bytes(os.urandom(5000))
    for path in (state, state / "state.db"):
        os.chown(path, 65534, 65534)


def configuration(directory: Path) -> Path:
    """A file with something of each kind, and a web configuration with TLS and a user, for the server to read."""
    own = directory / "etc"
    own.mkdir()
    make_ca(own)
    make_certificate(own, "server")
    tls = {"cert_file": "server.crt", "key_file": "server.key", "client_ca_file": "ca.crt", "min_version": "TLS12"}
    tls["client_auth_type"] = "VerifyClientCertIfGiven"
    users = {USER: bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}
    (own / "web.yml").write_text(json.dumps({"tls_server_config": tls, "basic_auth_users": users}))
    (own / "more.toml").write_text('[[join]]\ninterface = "down*"\ngroup = "239.7.0.0/30"\nsource = "10.9.9.9"\n')
    (own / "mcastd.toml").write_text(
        'include = ["m*e.toml"]\n[metrics]\nweb_config = "web.yml"\nflows_all = true\n'
        '[[table]]\nnumber = 5\nrules = [{ iif = "elsewhere", priority = 700 }]\n[interface.down2]\npinned = true\n'
        '[[route]]\ngroup = "239.7.1.0/24"\niif = "u*"\noifs = ["down*", "!down2"]\nidle_timeout = "1h2m3.5s"\njoin = false\n'
        '[[route]]\ngroup = "ff3e::7"\nsource = "fd99::9"\niif = "up"\noifs = ["down1"]\njoin = true\nmonitored = true\n'
    )
    for path in own.iterdir():
        path.chmod(0o644)
    return own / "mcastd.toml"


def use_routes(router: Router) -> None:
    """Every way to write and list routes, well and badly, with packets that have no route and packets on the wrong side."""
    daemon = router.daemon
    sender = router.sender()
    router.put(router.route(sender, "down1", "down*", "nowhere"), router.route(sender, "down2", table=100))
    daemon.replace(bulk(router.family, 3000, router.source, "down1"), options={"owner": "bulk"}, return_changes=True)
    patch = t.RoutePatch(key=t.RouteKey(group=sender.group, source=sender.source), remove_oifs=["nowhere"])
    daemon.routes.PatchRoutes(rs.PatchRoutesRequest(patches=[patch]), timeout=5)
    router.check_leaves(sender, "down1", "down2")
    router.star.receivers[0].sender(sender.group, source=sender.source).send(3)
    router.sender(2).send(5)
    daemon.list_routes(counters=True, learned=True, selector=t.Selector(interface="down*", group="232.0.0.0/8"))
    daemon.delete(t.RouteKey(group=sender.group, source=sender.source))
    for bad in (t.Route(), router.route(3, iif="a b"), t.Route(group="x", source="10.0.0.1", iif="up")):
        with pytest.raises(grpc.RpcError):
            daemon.put(bad)


def use_interfaces(router: Router) -> None:
    """Interfaces of several kinds, and the settings of one."""
    router.namespace.ip("link add name bridge type bridge", "link add link up name mac type macvlan", "link set bridge up")
    router.namespace.ip("link set down2 master bridge", "link set down2 nomaster", "link del mac")
    settings = sv.SetInterfaceRequest(interface="down1", ttl_threshold=3, pinned=True, router_discovery=True)
    router.daemon.interfaces.SetInterface(settings, timeout=5)

    def has_bridge() -> bool:
        listed = router.daemon.interfaces.ListInterfaces(sv.ListInterfacesRequest(), timeout=5).interfaces
        return "bridge" in {one.name for one in listed}

    wait_until(has_bridge)


def use_metrics(router: Router, directory: Path) -> None:
    """Every page, in each form, let in and not."""
    context = ssl.create_default_context(cafile=str(directory / "etc" / "ca.crt"))

    def get(path: str, **headers: str) -> bytes:
        user = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        with contextlib.closing(HTTPSConnection(METRICS, timeout=5, context=context)) as connection:
            connection.request("GET", path, headers={"Authorization": f"Basic {user}", **headers})
            return connection.getresponse().read()

    def scrape() -> bytes:
        openmetrics = "application/openmetrics-text; version=1.0.0"
        for path in ("/", "/healthz", "/readyz", "/nothing", "/metrics/flows?shard=0/1", "/metrics?name[]=mcastd_up"):
            for headers in ({}, {"Accept": openmetrics, "Accept-Encoding": "gzip"}, {"Authorization": "Basic eDp5"}):
                get(path, **headers)
        return get("/metrics")

    assert b"mcastd_" in router.namespace.run(scrape)


def use_the_rest(router: Router) -> None:
    """Watch, joins, a reload of what is broken, reflection."""
    daemon = router.daemon
    service = sv_grpc.JoinServiceStub(daemon.channel)
    kinds = [kind for kind in sv.Kind.values() if kind]
    with Watching(daemon, kinds=kinds) as watching:
        watching.until(lambda view: view.synced)
        joins = [t.Join(interface="down*", group="239.8.0.0/31"), t.Join(interface="down1", group="ff3e::8", source="fd99::9")]
        service.PutJoins(sv.PutJoinsRequest(joins=joins), timeout=5)
        service.DeleteJoins(sv.DeleteJoinsRequest(joins=joins[:1]), timeout=5)
    daemon.daemon.ReloadConfiguration(sv.ReloadConfigurationRequest(), timeout=5)
    (daemon.directory / "etc" / "more.toml").write_text("[[join]]\ninterface = 5\nx =")
    with pytest.raises(grpc.RpcError):
        daemon.daemon.ReloadConfiguration(sv.ReloadConfigurationRequest(), timeout=5)
    stub = reflection_pb2_grpc.ServerReflectionStub(router.daemon.channel)
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="mcast.v1.RouteService")
    assert len(list(stub.ServerReflectionInfo(iter([request]), timeout=5))) == 1


def call_everything(daemon: McastdProcess) -> None:
    """Every method of the contract with an empty request, whatever it answers; Shutdown comes last."""
    services = [one for file in (rs.DESCRIPTOR, sv.DESCRIPTOR) for one in file.services_by_name.values()]
    methods = sorted((method for one in services for method in one.methods), key=lambda method: method.name == "Shutdown")
    assert methods[-1].name == "Shutdown"
    for method in methods:
        with contextlib.suppress(grpc.RpcError):
            call(daemon.channel, method)()


def call(channel: grpc.Channel, method: descriptor.MethodDescriptor) -> Callable[[], Any]:
    request = message_factory.GetMessageClass(method.input_type)
    path = f"/{method.containing_service.full_name}/{method.name}"
    codec: dict[str, Any] = {
        "request_serializer": request.SerializeToString,
        "response_deserializer": message_factory.GetMessageClass(method.output_type).FromString,
    }
    match method.client_streaming, method.server_streaming:
        case False, False:
            return lambda: channel.unary_unary(path, **codec)(request(), timeout=5)
        case False, True:
            return lambda: list(channel.unary_stream(path, **codec)(request(), timeout=5))
        case True, False:
            return lambda: channel.stream_unary(path, **codec)(iter([request()]), timeout=5)
        case _:
            return lambda: list(channel.stream_stream(path, **codec)(iter([request()]), timeout=5))
