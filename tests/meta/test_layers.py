"""Enforces the layers of ARCHITECTURE.md: who imports whom, who may touch which library, and calls that only one place may make.

The rules are the tables at the top; every check has an example that it must catch.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Package -> what its modules may import of mcastd. A name stands for itself and all below it.
MAY_IMPORT = {
    "mcastd.model": ["mcastd.model"],
    "mcastd.core": ["mcastd.model", "mcastd.core"],
    "mcastd.kernel": ["mcastd.model", "mcastd.core", "mcastd.kernel"],
    "mcastd.store": ["mcastd.model", "mcastd.core", "mcastd.store"],
    "mcastd.sources": ["mcastd.model", "mcastd.core", "mcastd.sources"],
    "mcastd.api": ["mcastd.model", "mcastd.core", "mcastd.api"],
    "mcastd.telemetry": ["mcastd.model", "mcastd.core", "mcastd.telemetry"],
    # The process with capabilities: of the kernel package only the part without pyroute2.
    "mcastd.keeper": [
        "mcastd.model",
        "mcastd.keeper",
        "mcastd.kernel.rawsock",
        "mcastd.kernel.upcall",
        "mcastd.kernel.privileges",
        "mcastd.kernel.rules",
        "mcastd.kernel._native",
    ],
    "mcastd.runtime": [
        "mcastd.model",
        "mcastd.core",
        "mcastd.kernel",
        "mcastd.store",
        "mcastd.sources",
        "mcastd.api",
        "mcastd.telemetry",
        "mcastd.runtime",
        "mcastd.keeper.channel",  # the wire codec that both processes speak
        "mcastd.keeper.templates",
        "mcastd.keeper.activation",  # how a server finds sockets that listen already
    ],
    "mcastd.cli": ["mcastd"],
}

# Package -> the only libraries outside mcastd that it may import; a package that is not here may import any.
ONLY_LIBRARIES = {
    "mcastd.model": sys.stdlib_module_names,
    # Sans-IO: no clock, no sockets, no threads, no event loop.
    "mcastd.core": sys.stdlib_module_names
    - {"asyncio", "concurrent", "multiprocessing", "select", "selectors", "socket", "sqlite3", "subprocess", "threading", "time"},
    "mcastd.keeper": sys.stdlib_module_names,
}

# Library -> the only packages that may import it.
ONLY_USERS = {
    "bcrypt": ["mcastd.telemetry"],
    "cryptography": ["mcastd.cli.lab"],
    "cffi": ["mcastd.kernel"],
    "click": ["mcastd.cli"],
    "google": ["mcastd.api", "mcastd.cli.ctl"],  # protobuf
    "grpc": ["mcastd.api", "mcastd.cli.ctl"],
    "grpc_health": ["mcastd.api"],
    "grpc_reflection": ["mcastd.api", "mcastd.cli.ctl"],
    "mcast": ["mcastd.api", "mcastd.cli.ctl"],  # the generated contract: messages never meet the model elsewhere
    "prometheus_client": ["mcastd.telemetry"],
    "pyroute2": ["mcastd.kernel"],
    "sqlite3": ["mcastd.store"],
    "yaml": ["mcastd.sources", "mcastd.cli.ctl", "mcastd.telemetry"],  # telemetry: the web configuration file
}

# Whatever is not a pure function of its arguments, as model and core are.
NOT_PURE = sorted(MAY_IMPORT.keys() - {"mcastd.model", "mcastd.core"})

# Call -> the only modules that may make it.
ONLY_CALLERS = {
    "asyncio.create_task": ["mcastd.runtime.tasks"],  # the loop holds tasks weakly: one helper keeps them and reads their errors
    "asyncio.ensure_future": ["mcastd.runtime.tasks"],
    "print": ["mcastd.cli"],
    "time.monotonic": NOT_PURE,
    "time.time": NOT_PURE,
    "datetime.datetime.now": NOT_PURE,
}

# Process entry -> what it must not load, not even through others: the keeper stays small and parses no API input.
MUST_NOT_LOAD = {
    "mcastd.keeper.keeper": ["google", "grpc", "mcast", "mcastd.api", "mcastd.core", "mcastd.runtime", "pyroute2", "sqlite3"],
    # The program that becomes the keeper, beside which mcastctl lives.
    "mcastd.cli.mcastd": ["click", "google", "grpc", "mcast", "mcastd.cli.ctl", "pyroute2", "sqlite3", "yaml"],
    # What help and completion wait for.
    "mcastd.cli.ctl.program": ["google.protobuf.json_format", "grpc", "mcastd.kernel", "mcastd.runtime", "pyroute2", "yaml"],
}


@dataclass(frozen=True)
class Module:
    """One module of mcastd: its dotted name, whether it is a package, and its source."""

    name: str
    package: bool
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree, made when it is asked for: every process that collects tests has all the modules."""
        return ast.parse(self.source, self.name)


def module_of(path: Path) -> Module:
    """Read a file below the repository's root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = parts[-1] == "__init__"
    return Module(".".join(parts[:-1] if package else parts), package, path.read_text("utf-8"))


def example(name: str, source: str) -> Module:
    """Make a module that does not exist."""
    return Module(name, package=False, source=source)


MODULES = {module.name: module for module in map(module_of, sorted((ROOT / "mcastd").rglob("*.py")))}
every_module = pytest.mark.parametrize("module", [pytest.param(module, id=name) for name, module in MODULES.items()])


def below(name: str, prefixes: list[str]) -> bool:
    """Whether a dotted name is one of the prefixes or below one."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def package_of(name: str) -> str:
    """Return the layer of a module: its first two words."""
    return ".".join(name.split(".")[:2])


def imports(module: Module) -> Iterator[str]:
    """Yield what a module imports, anywhere in it, as absolute dotted names; `from a import b` is a.b, module or not."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.name.split(".")[: None if module.package and node.level == 1 else module.package - node.level]
                base = ".".join([*above, *filter(None, [base])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def layer_breaches(module: Module) -> list[str]:
    """Name imports of mcastd that the module's layer does not allow; the top package itself (its version) is open to all."""
    allowed = [*MAY_IMPORT.get(package_of(module.name), []), "mcastd.__version__"]
    own = [name for name in imports(module) if below(name, ["mcastd"]) and name != "mcastd"]
    return [f"{module.name} imports {name}" for name in own if not below(name, allowed)]


def library_breaches(module: Module) -> list[str]:
    """Name libraries that the module's layer, or the library's own rule, does not allow."""
    tops = {name.split(".")[0] for name in imports(module)} - {"mcastd"}
    only = ONLY_LIBRARIES.get(package_of(module.name), tops)
    users = {top: ONLY_USERS.get(top, ["mcastd"]) for top in tops}
    return [f"{module.name} imports {top}" for top in sorted(tops) if top not in only or not below(module.name, users[top])]


def calls(module: Module) -> Iterator[tuple[str, int]]:
    """Yield the dotted name and line of every call, with names that an import has bound replaced by what they stand for."""
    bound = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom):
            bound.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
        elif isinstance(node, ast.Import):
            bound.update({alias.asname: alias.name for alias in node.names if alias.asname})
    for node in ast.walk(module.tree):
        # A reference is enough: a function that is passed on will be called.
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            first, _, rest = ast.unparse(node).partition(".")
            name = bound.get(first, first) + ("." + rest if rest else "")
            if name.endswith(("loop.create_task", "loop().create_task")):
                name = "asyncio.create_task"
            yield name, node.lineno


def call_breaches(module: Module) -> list[str]:
    """Name calls that only others may make."""
    anywhere = ["mcastd"]
    return [
        f"{module.name}:{line} uses {name}"
        for name, line in calls(module)
        if not below(module.name, ONLY_CALLERS.get(name, anywhere))
    ]


@every_module
def test_module_stays_in_its_layer(module: Module) -> None:
    assert layer_breaches(module) == []


@every_module
def test_module_uses_its_libraries_only(module: Module) -> None:
    assert library_breaches(module) == []


@every_module
def test_module_makes_no_call_that_others_own(module: Module) -> None:
    assert call_breaches(module) == []


@every_module
def test_module_says_what_it_owns(module: Module) -> None:
    assert ast.get_docstring(module.tree)


def test_every_package_has_a_rule() -> None:
    packages = {package_of(name) for name in MODULES} - {"mcastd"}
    assert packages <= set(MAY_IMPORT)


@pytest.mark.parametrize("entry", MUST_NOT_LOAD)
def test_process_loads_nothing_that_it_must_not(entry: str) -> None:
    script = f"import sys, {entry}; print(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    loaded = done.stdout.split()
    assert entry in loaded
    assert [name for name in loaded if below(name, MUST_NOT_LOAD[entry])] == []


@pytest.mark.parametrize(
    "name,source",
    [
        ("mcastd.model.x", "from mcastd.core import plan"),
        ("mcastd.model.x", "import mcastd.core.plan"),
        ("mcastd.core.x", "from mcastd.kernel.upcall import decode"),
        ("mcastd.core.x", "def f():\n    from mcastd.api import convert"),
        ("mcastd.core.x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mcastd.store import x"),
        ("mcastd.core.x", "from ..kernel import upcall"),
        ("mcastd.store.x", "from mcastd.kernel import links"),
        ("mcastd.keeper.x", "from mcastd.kernel import links"),
        ("mcastd.keeper.x", "from mcastd.core import plan"),
        ("mcastd.runtime.x", "from mcastd.keeper import keeper"),
        ("mcastd.runtime.x", "from mcastd.cli import mcastd"),
        ("mcastd.x", "from mcastd.model import route"),
    ],
)
def test_a_breach_of_layers_is_found(name: str, source: str) -> None:
    assert len(layer_breaches(example(name, source))) == 1


@pytest.mark.parametrize(
    "name,source",
    [
        ("mcastd.core.x", "from mcastd.model.route import Route\nfrom . import plan\nfrom .vifs import Vifs"),
        ("mcastd.keeper.x", "from mcastd.kernel import rawsock, upcall\nfrom mcastd.kernel._native import ffi, lib"),
        ("mcastd.runtime.x", "from mcastd.keeper.channel import encode\nimport mcastd\nfrom mcastd import __version__"),
        ("mcastd.cli.x", "from mcastd.keeper import keeper\nfrom mcastd.runtime import server"),
    ],
)
def test_what_layers_allow_is_no_breach(name: str, source: str) -> None:
    assert layer_breaches(example(name, source)) == []


@pytest.mark.parametrize(
    "name,source",
    [
        ("mcastd.model.x", "import yaml"),
        ("mcastd.core.x", "import asyncio"),
        ("mcastd.core.x", "from time import monotonic"),
        ("mcastd.store.x", "import pyroute2.netlink"),
        ("mcastd.runtime.x", "from grpc import aio"),
        ("mcastd.runtime.x", "from mcast.v1 import types_pb2"),
        ("mcastd.telemetry.x", "from google.protobuf import message"),
        ("mcastd.keeper.x", "import cffi"),
        ("mcastd.keeper.x", "import prometheus_client"),
    ],
)
def test_a_breach_of_libraries_is_found(name: str, source: str) -> None:
    assert len(library_breaches(example(name, source))) == 1


@pytest.mark.parametrize(
    "name,source",
    [
        ("mcastd.core.x", "import time\ntime.time()"),
        ("mcastd.core.x", "import time as t\nt.monotonic()"),
        ("mcastd.core.x", "from time import monotonic as clock\nclock()"),
        ("mcastd.core.x", "from datetime import datetime\ndatetime.now()"),
        ("mcastd.core.x", "from dataclasses import field\nimport time\nfield(default_factory=time.monotonic)"),
        ("mcastd.api.x", "import asyncio\nasyncio.create_task(f())"),
        ("mcastd.api.x", "import asyncio\nasyncio.get_running_loop().create_task(f())"),
        ("mcastd.runtime.x", "self.loop.create_task(f())"),
        ("mcastd.runtime.x", "print('here')"),
    ],
)
def test_a_breach_of_calls_is_found(name: str, source: str) -> None:
    assert len(call_breaches(example(name, source))) == 1


@pytest.mark.parametrize(
    "name,source",
    [
        ("mcastd.api.x", "async with asyncio.TaskGroup() as group:\n    group.create_task(f())"),
        ("mcastd.runtime.tasks", "import asyncio\nasyncio.create_task(f())"),
        ("mcastd.keeper.x", "import time\ntime.monotonic()"),
        ("mcastd.cli.x", "print('here')"),
    ],
)
def test_a_call_by_its_owner_is_no_breach(name: str, source: str) -> None:
    source = "\n".join(["async def main():", *("    " + line for line in source.splitlines())])
    assert call_breaches(example(name, source)) == []
