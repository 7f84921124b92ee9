"""Runs the tests of clients/node: its linters, its unit tests, and those against a real daemon on a router with real streams."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcastd.model.address import Family
from tests.e2e.keeper_bench import open_directory
from tests.testbed import Testbed
from tests.testbed.bed import Star
from tests.testbed.daemon import McastdProcess, wait_until

PACKAGE = Path(__file__).parents[2] / "clients" / "node"
COMPILED = PACKAGE / "dist" / "test"
NODE_MIN = (20, 19)
"""What the linters need; the package itself runs on 20.9."""

SECONDS = 200


def node_version() -> tuple[int, ...]:
    """Version of node on this machine; empty without it."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return ()
    said = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True, timeout=30).stdout
    return tuple(int(part) for part in said.strip().removeprefix("v").split("."))


HAVE = node_version()
MISSING = f"node {'.'.join(map(str, NODE_MIN))} or later, with npm, is not installed"

# One worker builds, and nobody else reads while it does. Where CI is set nobody reads skips: there it runs or fails.
pytestmark = [
    pytest.mark.xdist_group("node"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(HAVE < NODE_MIN and os.environ.get("CI") != "true", reason=MISSING),
]

PRINCIPAL = """\
[[principal]]
name = "node"
access = "write"
owner = "node"
"""


def run(*arguments: str | Path, **environment: str) -> None:
    """Run a program in the package; its output is the failure."""
    done = subprocess.run(
        arguments,
        cwd=PACKAGE,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built() -> None:
    """The package, compiled from the contract as it is now."""
    assert HAVE >= NODE_MIN, MISSING
    modules = PACKAGE / "node_modules"
    assert modules.is_dir(), f"{modules} is missing: run `make venv-test`, or `npm ci` in {PACKAGE}"
    run("npm", "run", "build", BUF=str(Path(sysconfig.get_path("scripts"), "buf")))


def unit_tests() -> list[str]:
    """Names of the files with unit tests."""
    return sorted(path.name.removesuffix(".test.ts") for path in (PACKAGE / "test" / "unit").glob("*.test.ts"))


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("linter", [["eslint", "--max-warnings", "0", "."], ["prettier", "--check", "."]], ids=lambda one: one[0])
def test_the_sources_are_clean(linter: list[str]) -> None:
    run(PACKAGE / "node_modules" / ".bin" / linter[0], *linter[1:])


@pytest.mark.usefixtures("built")
def test_the_examples_of_the_readme_compile() -> None:
    place = PACKAGE / "dist" / "readme"  # inside the package, whose own name it can import
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    blocks = re.findall(r"^```ts\n(.*?)^```$", (PACKAGE / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    for number, block in enumerate(blocks):
        (place / f"example{number}.ts").write_text(block, "utf-8")
    options = ["--noEmit", "--strict", "--target", "ES2023", "--module", "NodeNext", "--types", "node", "--ignoreConfig"]
    run(PACKAGE / "node_modules" / ".bin" / "tsc", *options, *sorted(place.glob("*.ts")))


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((PACKAGE / "package-lock.json").read_text("utf-8"))
    packages = [name for name in lock["packages"] if name]
    assert len(packages) > 50
    assert [name for name in packages if "resolved" in lock["packages"][name]] == []
    assert [name for name in packages if "integrity" not in lock["packages"][name]] == []


def test_the_version_is_that_of_the_python_client() -> None:
    version = json.loads((PACKAGE / "package.json").read_text("utf-8"))["version"]
    assert f'version = "{version}"' in (PACKAGE.parent / "python" / "pyproject.toml").read_text("utf-8")


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("name", unit_tests())
def test_unit(name: str) -> None:
    run("node", COMPILED / "unit" / f"{name}.test.js")


def lab(directory: Path, *names: str) -> dict[str, dict[str, str]]:
    """Make a CA with certificates for a server and for clients; the clients' files by their names."""
    clients = [word for name in names for word in ("--client", name)]
    done = subprocess.run(
        [sys.executable, "-m", "mcastd.cli", "tls", "init", "--host", "127.0.0.1", *clients, str(directory)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return {
        name: {
            "ca": str(directory / "ca.pem"),
            "certificate": str(directory / f"client-{name}.pem"),
            "key": str(directory / f"client-{name}.key"),
        }
        for name in names
    }


class NodeBench:
    """A router with a daemon that listens on a Unix socket and with TLS, and tests of the package that run beside it."""

    def __init__(self, bed: Testbed, directory: Path) -> None:
        """Build and start."""
        self.star: Star = bed.star(2)
        files = lab(directory / "tls", "node", "nobody")
        strange = lab(directory / "strange", "node")
        for path in directory.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # the server is another user
        tls = directory / "tls"
        listen = f"tcp:127.0.0.1:50051,cert={tls}/server.pem,key={tls}/server.key,ca={tls}/ca.pem"
        config = directory / "mcastd.toml"
        config.write_text(PRINCIPAL)
        self.streams = [self.star.source.sender(group) for group in ("232.8.8.8", "ff3e::808")]
        self.daemon = McastdProcess(self.star.router, directory, "--config", str(config), "--listen", listen)
        self._setting: dict[str, Any] = {
            "address": f"unix:{self.daemon.socket}",
            "pid": self.daemon.process.pid,
            "streams": [{"source": one.source, "group": one.group} for one in self.streams],
            "tls": {
                "address": "127.0.0.1:50051",
                "known": files["node"],
                "unknown": files["nobody"],
                "strange": strange["node"],
            },
        }

    def close(self) -> None:
        """End the daemon."""
        self.daemon.close()

    def start(self, name: str) -> "subprocess.Popen[str]":
        """Start the tests of a file, in the router's namespace."""
        environment = os.environ | {"MCASTD_TEST": json.dumps(self._setting)}
        return self.star.router.popen(
            ["node", str(COMPILED / "e2e" / f"{name}.test.js")],
            cwd=PACKAGE,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, process: "subprocess.Popen[str]", said: str = "") -> None:
        """Wait for the end of tests, which must have passed."""
        try:
            output, _ = process.communicate(said, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            pytest.fail(f"no end after {SECONDS} s:\n{output}\n{self.daemon.log()}", pytrace=False)
        assert process.returncode == 0, f"{output}\n{self.daemon.log()}"


@pytest.fixture
def bench(testbed: Testbed) -> Iterator[NodeBench]:
    """A router whose daemon runs."""
    with open_directory() as directory:
        made = NodeBench(testbed, directory)
        try:
            yield made
        finally:
            made.close()


@pytest.mark.kernel
@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("name", ["client", "watch", "session", "tls"])
def test_with_a_daemon(bench: NodeBench, name: str) -> None:
    bench.finish(bench.start(name))


@pytest.mark.kernel
@pytest.mark.usefixtures("built")
def test_the_example_routes_real_streams(bench: NodeBench) -> None:
    receivers = [[port.receiver(one.group) for port in bench.star.receivers] for one in bench.streams]
    for sender in bench.streams:
        sender.start(200)
    tests = bench.start("react-to-sources")

    def arrived() -> bool:
        return tests.poll() is not None or all(
            receiver.count(sender) >= 100 for sender, ports in zip(bench.streams, receivers, strict=True) for receiver in ports
        )

    wait_until(arrived, 30, bench.daemon.log)
    bench.finish(tests, "arrived\n")
    for sender, ports in zip(bench.streams, receivers, strict=True):
        for receiver in ports:
            assert receiver.duplicates(sender) == 0
            assert receiver.count(sender) >= 100


def test_both_families_are_tested() -> None:
    text = (PACKAGE / "test" / "e2e" / "router.ts").read_text("utf-8")
    assert all(f'"IPv{family.value}"' in text for family in Family)
