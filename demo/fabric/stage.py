"""What the play is about: a leaf-spine fabric in namespaces with mcastd in each router, hosts, and controllers outside of it."""

import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from demo.fabric.streams import Ears, Spray, Stream
from demo.interrupts import Interrupts
from mcast_controller import topology
from mcast_controller.topology import Topology
from tests.testbed import Namespace, Port, Testbed
from tests.testbed.bed import stop
from tests.testbed.daemon import McastdProcess

OWNER = "fabric"
API_PORT = 50_051
METRICS_PORT = 9_464
ROOT = Path(__file__).resolve().parents[2]

_ROUTER = """\
# A reactive controller's router: first packets wait in the kernel until their route comes, and are told of where hosts are.
[daemon]
unrouted = "ignore"

[[principal]]
name = "controller"
access = "write"
owner = "{owner}"
"""

_PINNED = """
[interface.{name}]
pinned = true
"""


class Replica:
    """A controller's process, in the namespace of the management network."""

    def __init__(self, fabric: "Fabric", name: str, *term: str) -> None:
        """`term`: the flags that say with which epoch it leads."""
        self.log_path = fabric.directory / f"{name}.log"
        self._fabric = fabric
        self._port = METRICS_PORT + len(fabric.replicas)
        self._log = self.log_path.open("ab")
        files = [str(fabric.directory / file) for file in ("topology.toml", "wishes.toml")]
        flags = [*term, "--metrics", f"127.0.0.1:{self._port}", "--hold", "60", "--start", "10", "--answer", "5"]
        paths = [str(ROOT / "clients/examples/controller"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        self.process = fabric.management.popen(
            [sys.executable, "-m", "mcast_controller", *files, *flags],
            stdin=subprocess.DEVNULL,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            process_group=0,
        )
        fabric.replicas.append(self)

    def metrics(self) -> dict[str, float]:
        """Its metrics now, those with labels added up; empty while it does not answer."""
        found: dict[str, float] = {}
        try:
            text = self._fabric.management.run(self._scrape)
        except (urllib.error.URLError, OSError):
            return {}
        for metric in text_string_to_metric_families(text):
            for sample in metric.samples:
                if not sample.name.endswith("_created"):
                    name = sample.name.removeprefix("mcast_controller_")
                    found[name] = found.get(name, 0) + sample.value
        return found

    def leads(self, flows: int | None = None) -> bool:
        """Whether it leads all routers, with nothing left to do, and so many flows."""
        now = self.metrics()
        return (
            now.get("epoch", 0) > 0
            and now.get("router_attached") == len(self._fabric.topology.routers)
            and now.get("router_connected") == len(self._fabric.topology.routers)
            and not now.get("pending", 1)
            and (flows is None or now.get("flows") == flows)
        )

    def log(self) -> str:
        """What it has logged."""
        return self.log_path.read_text()

    def kill(self) -> None:
        """`kill -9` it."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it."""
        stop(self.process)
        self._log.close()

    def _scrape(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
            return str(answer.read(), "utf-8")


@dataclass
class Fabric:
    """All there is to act with."""

    bed: Testbed
    directory: Path
    spines: Sequence[str]
    leaves: Sequence[str]
    management: Namespace
    interrupts: Interrupts
    hosts: dict[str, Port] = field(default_factory=dict)
    """The hosts' ends of their links to the leaves."""
    routers: dict[str, Namespace] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    """Of the routers' APIs."""
    daemons: dict[str, McastdProcess] = field(default_factory=dict)
    replicas: list[Replica] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    topology: Topology = field(init=False)
    ears: Ears = field(init=False)

    def replica(self, name: str, *term: str) -> Replica:
        """Start a controller."""
        replica = Replica(self, name, *term)
        self.stack.callback(replica.close)
        return replica

    def stream(self, host: str, group: str, number: int) -> Stream:
        """Make a source at a host, with an address of its own."""
        port = self.hosts[host]
        high, low = number >> 8, number & 255
        source = f"fd10::{int(host[1:]):x}:{number:x}" if ":" in group else f"10.{100 + int(host[1:])}.{high}.{low}"
        stream = Stream(host, port, group, source)
        self.streams.append(stream)
        return stream

    def spray(self, streams: Sequence[Stream], rate: float) -> Spray:
        """Send streams."""
        spray = Spray(streams, rate)
        self.stack.callback(spray.stop)
        return spray


@contextmanager
def build(interrupts: Interrupts, spines: int = 2, leaves: int = 4) -> Iterator[Fabric]:
    """Build everything and start the routers' daemons, without waiting for them; all is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="mcastd-fabric-") as name, Testbed() as bed, ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        fabric = Fabric(
            bed,
            directory,
            [f"spine{n}" for n in range(1, spines + 1)],
            [f"leaf{n}" for n in range(1, leaves + 1)],
            bed.namespace("management"),
            interrupts,
            stack=stack,
        )
        _wire(fabric)
        _certificates(fabric)
        _files(fabric)
        fabric.ears = Ears(fabric.hosts)
        stack.callback(fabric.ears.close)
        for router in fabric.routers:
            interrupts.check()
            fabric.daemons[router] = _daemon(fabric, router)
        yield fabric


def _wire(fabric: Fabric) -> None:
    for name in (*fabric.spines, *fabric.leaves):
        fabric.routers[name] = fabric.bed.namespace(name)
        _, inside = fabric.bed.connect(fabric.management, name, fabric.routers[name], "mgmt")
        fabric.addresses[name] = inside.ipv4
    for leaf in fabric.leaves:
        for spine in fabric.spines:
            fabric.interrupts.check()
            fabric.bed.connect(fabric.routers[leaf], spine, fabric.routers[spine], leaf)
        host = leaf.replace("leaf", "h")
        _, fabric.hosts[host] = fabric.bed.connect(fabric.routers[leaf], "hosts", fabric.bed.namespace(host), "eth0")


def _certificates(fabric: Fabric) -> None:
    """One certificate for all routers: it is a lab."""
    command = [sys.executable, "-m", "mcastd.cli", "tls", "init", str(fabric.directory / "tls"), "--client", "controller"]
    for address in fabric.addresses.values():
        command += ["--host", address]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, process_group=0)
    (fabric.directory / "tls" / "server.key").chmod(0o644)  # the servers are another user's


def _files(fabric: Fabric) -> None:
    lines = [f'owner = "{OWNER}"', "[tls]", 'ca = "tls/ca.pem"', 'cert = "tls/client-controller.pem"']
    lines += ['key = "tls/client-controller.key"']
    for name, address in fabric.addresses.items():
        lines += [f"[router.{name}]", f'address = "{address}:{API_PORT}"']
    for leaf in fabric.leaves:
        lines += [f"[segment.{leaf.replace('leaf', 'h')}]", f'at = "{leaf}/hosts"']
        for spine in fabric.spines:
            lines += ["[[link]]", f'a = "{leaf}/{spine}"', f'b = "{spine}/{leaf}"']
    path = fabric.directory / "topology.toml"
    path.write_text("\n".join(lines))
    fabric.topology = topology.load(path)
    segments = list(fabric.hosts)
    wishes = [f'[[wish]]\ngroup = "{group}"\nsegments = {segments}' for group in ("232.0.0.0/8", "ff3e::/16")]
    (fabric.directory / "wishes.toml").write_text("\n".join(wishes).replace("'", '"'))


def _daemon(fabric: Fabric, router: str) -> McastdProcess:
    directory = fabric.directory / router
    directory.mkdir()
    config = directory / "mcastd.toml"
    config.write_text(_ROUTER.format(owner=OWNER) + (_PINNED.format(name="hosts") if router in fabric.leaves else ""))
    tls = fabric.directory / "tls"
    listen = f"tcp:{fabric.addresses[router]}:{API_PORT},cert={tls}/server.pem,key={tls}/server.key,ca={tls}/ca.pem"
    daemon = McastdProcess(fabric.routers[router], directory, "--config", str(config), "--listen", listen, ready=False)
    return fabric.stack.enter_context(daemon)
