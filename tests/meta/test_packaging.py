"""Keeps the two distributions honest: what is imported is declared, what must agree agrees."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from mcast.v1 import types_pb2

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients/python"


@cache
def declared(project: Path) -> dict[str, Any]:
    """Read a pyproject.toml."""
    return tomllib.loads((project / "pyproject.toml").read_text("utf-8"))


def normal(name: str) -> str:
    """Return the normal form of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(project: Path) -> dict[str, str]:
    """Return the run-time dependencies of a project: name -> bounds."""
    found = (re.fullmatch(r"([\w.-]+)(.*)", line) for line in declared(project)["project"]["dependencies"])
    return {normal(match[1]): match[2] for match in found if match}


def test_what_is_imported_is_declared() -> None:
    tops: set[str] = set()
    for path in (ROOT / "mcastd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                tops.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                # google is shared by several distributions; its second word tells them apart.
                tops.add("protobuf" if node.module.startswith("google.protobuf") else node.module.split(".")[0])
    known = {"protobuf": ["protobuf"], "google": ["googleapis-common-protos"], "mcast": ["mcast-client"]}
    owners = dict(packages_distributions()) | known
    foreign = {normal(owners[top][0]) for top in tops - sys.stdlib_module_names - {"mcastd"}}
    assert foreign
    assert foreign <= requirements(ROOT).keys()


def test_both_distributions_ask_for_the_same_protobuf_and_grpc() -> None:
    ours, theirs = requirements(ROOT), requirements(CLIENT)
    assert {name: ours[name] for name in theirs} == theirs


def test_the_generator_is_as_old_as_the_oldest_supported_grpc() -> None:
    (pin,) = (line for line in declared(CLIENT)["build-system"]["requires"] if line.startswith("grpcio-tools=="))
    assert requirements(CLIENT)["grpcio"].startswith(">=" + pin.partition("==")[2] + ",")


def test_generated_code_refuses_older_protobuf_than_declared() -> None:
    found = re.search(r"Protobuf Python Version: ([\d.]+)", Path(types_pb2.__file__).read_text("utf-8"))
    assert found
    assert requirements(CLIENT)["protobuf"].startswith(f">={found[1]},")


def test_both_distributions_carry_the_licence() -> None:
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_client_of_this_tree_is_accepted() -> None:
    major, minor, _ = declared(CLIENT)["project"]["version"].split(".")
    assert requirements(ROOT)["mcast-client"] == f">={major}.{minor}.0,<{major}.{int(minor) + 1}"


def test_libraries_load_without_a_warning() -> None:
    libraries = [
        "google.rpc.error_details_pb2",
        "grpc_health.v1.health",
        "grpc_reflection.v1alpha.reflection",
        "mcast.v1.services_pb2_grpc",
        "prometheus_client",
        "pyroute2",
        "yaml",
    ]
    command = [sys.executable, "-W", "error", "-c", f"import {', '.join(libraries)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
