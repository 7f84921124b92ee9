"""Contracts to build commands from: the one that is shipped, and two that exist for these tests."""

import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

from mcastd.cli.ctl.commands import Leaf, Session
from mcastd.cli.ctl.contract import Contract
from mcastd.cli.ctl.program import make_root, run_root
from mcastd.cli.ctl.run import prepare
from mcastd.cli.ctl.tree import Command, Tree, build_tree

ROOT = Path(__file__).parents[4]
Run = Callable[..., tuple[int, str, str]]

OPTIONS = Path("mcast/cli/v1/options.proto")


@cache
def image_of(name: str) -> bytes:
    """Compile a file beside this one, with its comments."""
    buf = Path(sysconfig.get_path("scripts"), "buf")
    with TemporaryDirectory() as directory:
        source = Path(directory)
        (source / OPTIONS).parent.mkdir(parents=True)
        shutil.copy(ROOT / "proto" / OPTIONS, source / OPTIONS)
        shutil.copy(Path(__file__).with_name(name), source / name)
        (source / "buf.yaml").write_text("version: v2\n")
        command = [str(buf), "build", directory, "-o", str(source / "image.binpb")]
        subprocess.run(command, check=True, capture_output=True, timeout=60, env={"BUF_CACHE_DIR": directory, "HOME": directory})
        return (source / "image.binpb").read_bytes()


def contract_of(name: str) -> Contract:
    """The contract in a file beside this one."""
    return Contract(descriptor_pb2.FileDescriptorSet.FromString(image_of(name)))


def find(tree: Tree, name: str) -> Command:
    """A command by its words."""
    (found,) = (command for command in tree.commands if command.name == name)
    return found


def parse(contract: Contract, arguments: Sequence[str]) -> list[Message]:
    """The requests of a command line."""
    made: list[Message] = []

    def prepared(leaf: Leaf, context: click.Context) -> int:
        made.extend(prepare(leaf.command, leaf.given(context), context.params.get("file") or ""))
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Leaf, "invoke", prepared)
        root = make_root(Session(lambda: contract))
        with root.make_context("mcastctl", list(arguments)) as context:
            root.invoke(context)
    return made


@pytest.fixture(scope="session")
def shipped() -> Contract:
    """The contract of this repository."""
    return Contract.shipped()


@pytest.fixture(scope="session")
def tree(shipped: Contract) -> Tree:
    """Its commands."""
    return build_tree(shipped)


@pytest.fixture(scope="session")
def lab() -> Contract:
    """A contract with everything that protobuf has."""
    return contract_of("lab.proto")


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line of a contract in this process: exit code, standard output and standard error."""

    def run(contract: Contract, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_root(make_root(Session(lambda: contract)), list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return run
