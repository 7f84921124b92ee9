"""Guards the contract: buf's rules, compatibility with the committed baseline, access levels, and comments in the image."""

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto

from mcast.cli.v1 import options_pb2
from mcast.image import descriptor_image

PROTO = Path(__file__).parents[2] / "proto"
BASELINE = PROTO / "baseline.binpb"
BUF = Path(sysconfig.get_path("scripts"), "buf")


@pytest.fixture(scope="module")
def image() -> FileDescriptorSet:
    """Return the image that the installed distribution carries."""
    return FileDescriptorSet.FromString(descriptor_image())


def buf(cache: Path, where: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run buf in a directory, with no cache shared between tests."""
    environment = os.environ | {"BUF_CACHE_DIR": str(cache)}
    return subprocess.run([BUF, *arguments], cwd=where, env=environment, capture_output=True, text=True, check=False, timeout=100)


def methods(image: FileDescriptorSet) -> Iterator[tuple[str, MethodDescriptorProto]]:
    """Yield every RPC method of the contract under its full name."""
    for file in image.file:
        for service in file.service:
            for method in service.method:
                yield f"{file.package}.{service.name}.{method.name}", method


def ours(image: FileDescriptorSet) -> list[FileDescriptorProto]:
    """Return the files of the contract, without what they import from protobuf."""
    return [file for file in image.file if file.package.startswith("mcast.")]


def changed(where: Path, file: str, old: str, new: str) -> Path:
    """Copy the contract and change one piece of text, which must be there once."""
    copy = shutil.copytree(PROTO, where / "proto")
    text = (copy / file).read_text("utf-8")
    assert text.count(old) == 1
    (copy / file).write_text(text.replace(old, new), "utf-8")
    return copy


def test_the_contract_is_lint_clean(tmp_path: Path) -> None:
    done = buf(tmp_path, PROTO, "lint")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_contract_is_compatible_with_its_baseline(tmp_path: Path) -> None:
    done = buf(tmp_path, PROTO, "breaking", "--against", BASELINE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "file,old,new,rule",
    [
        ("mcast/v1/types.proto", "// One outgoing interface.\n", "", "Oif"),
        ("mcast/v1/services.proto", "service JoinService {", "service Joins {", "Joins"),
    ],
)
def test_lint_finds_a_fault(tmp_path: Path, file: str, old: str, new: str, rule: str) -> None:
    done = buf(tmp_path / "cache", changed(tmp_path, file, old, new), "lint")
    assert done.returncode != 0
    assert f'"{rule}"' in done.stdout


@pytest.mark.parametrize(
    "old,new,field",
    [
        ("uint32 ttl_threshold = 2;", "string ttl_threshold = 2;", "ttl_threshold"),
        ("uint32 ttl_threshold = 2;", "uint32 ttl_threshold = 12;", "ttl_threshold"),
        ("uint32 ttl_threshold = 2;", "uint32 threshold = 2;", "threshold"),
    ],
    ids=["type", "number", "name"],
)
def test_a_breaking_change_is_found(tmp_path: Path, old: str, new: str, field: str) -> None:
    done = buf(tmp_path / "cache", changed(tmp_path, "mcast/v1/types.proto", old, new), "breaking", "--against", BASELINE)
    assert done.returncode != 0
    assert field in done.stdout


def test_a_compatible_change_is_accepted(tmp_path: Path) -> None:
    old = "uint32 ttl_threshold = 2;"
    copy = changed(tmp_path, "mcast/v1/types.proto", old, old + "\n  // Another field.\n  string added = 900;")
    done = buf(tmp_path / "cache", copy, "breaking", "--against", BASELINE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_method_has_an_access_level(image: FileDescriptorSet) -> None:
    access: Any = options_pb2.access  # protoc types an extension as its descriptor, not as a key
    levels = {name: method.options.Extensions[access] for name, method in methods(image)}
    assert levels
    assert [name for name, level in levels.items() if level == options_pb2.ACCESS_UNSPECIFIED] == []


def test_the_image_keeps_the_comment_of_every_method(image: FileDescriptorSet) -> None:
    for file in ours(image):
        comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for number, service in enumerate(file.service):
            silent = [method.name for at, method in enumerate(service.method) if not comments[6, number, 2, at].strip()]
            assert silent == []


def test_the_image_is_complete(image: FileDescriptorSet) -> None:
    names = {file.name for file in image.file}
    assert {str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto")} <= names
    assert {needed for file in image.file for needed in file.dependency} <= names


def test_the_installed_image_is_of_this_tree(tmp_path: Path) -> None:
    built = tmp_path / "tree.binpb"
    done = buf(tmp_path / "cache", PROTO, "build", "--exclude-source-info", "-o", built)
    assert done.returncode == 0, done.stderr
    tree = FileDescriptorSet.FromString(built.read_bytes())
    tree.DiscardUnknownFields()  # what buf adds for itself
    installed = FileDescriptorSet.FromString(descriptor_image())
    for file in installed.file:
        file.ClearField("source_code_info")
    assert {file.name: file for file in ours(installed)} == {file.name: file for file in ours(tree)}
