"""mcastd.api.observed: each call is counted once, with the status that its client sees."""

from pathlib import Path

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.api.binding import services
from mcastd.api.listeners import Listeners
from mcastd.model.settings import Listen
from tests.api.bench import good
from tests.api.rig import Rig, refused, running
from tests.api.waiting import until


class Counts:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}

    def method(self, kind: str, service: str, method: str) -> "Method":
        """One for each method, whatever the socket."""
        return self.methods.setdefault(f"{service}/{method}", Method(kind))


class Method:
    """What was seen of one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.begun = 0
        self.ended: list[str] = []
        self.messages = [0, 0]

    def begin(self) -> float:
        """One more."""
        self.begun += 1
        return 42.0

    def end(self, began: float, code: str) -> None:
        """One less."""
        assert began == 42.0
        self.ended.append(code)

    def received(self) -> None:
        """A message."""
        self.messages[0] += 1

    def sent(self) -> None:
        """A message."""
        self.messages[1] += 1


async def test_calls_of_every_kind(tmp_path: Path) -> None:
    rig, counts = Rig(tmp_path), Counts()
    rig.listeners = Listeners(rig.daemon, [Listen(str(tmp_path / "rig.sock"))], counts)
    async with running(rig):
        await rig.put(good(1))
        await rig.replace([good(n) for n in range(2500)][:900])
        await refused(rig.put(t.Route(group="10.0.0.1")))
        await rig.listed()
        await refused(rig.replace([]))
    routes = "mcast.v1.RouteService/"
    put, replace, listed = (counts.methods[routes + name] for name in ("PutRoutes", "ReplaceRoutes", "ListRoutes"))
    assert (put.kind, put.begun, put.messages) == ("unary", 2, [2, 1])
    assert put.ended == ["OK", "InvalidArgument"]
    assert replace.kind == "client_stream"
    assert replace.ended[0] == "OK"
    assert replace.messages[0] >= 2
    assert (listed.kind, listed.begun, listed.ended, listed.messages[1]) == ("server_stream", 1, ["OK"], 1)


async def test_a_client_that_leaves_is_canceled(tmp_path: Path) -> None:
    rig, counts = Rig(tmp_path), Counts()
    rig.listeners = Listeners(rig.daemon, [Listen(str(tmp_path / "rig.sock"))], counts)
    async with running(rig):
        call = rig.channel.unary_stream(
            "/mcast.v1.EventService/Watch",
            request_serializer=sv.WatchRequest.SerializeToString,
            response_deserializer=sv.WatchResponse.FromString,
        )(sv.WatchRequest())
        method = counts.methods["mcast.v1.EventService/Watch"]
        await until(lambda: method.begun == 1)
        call.cancel()
        await until(lambda: bool(method.ended))
        assert method.ended == ["Canceled"]


async def test_every_method_has_its_series_from_the_start(tmp_path: Path) -> None:
    rig, counts = Rig(tmp_path), Counts()
    rig.listeners = Listeners(rig.daemon, [Listen(str(tmp_path / "rig.sock"))], counts)
    async with running(rig):
        assert {f"{service.full_name}/{method.name}" for service in services() for method in service.methods} == set(
            counts.methods
        )
