"""Wheels and sdists: complete, for the stable ABI, with what man and the shells look for."""

import io
import os
import re
import tarfile
from pathlib import Path

import pytest

from tests.packaging.build import ROOT, Built, names_in
from tools.packaging.wheels import plain_sdist

pytestmark = [pytest.mark.xdist_group("packages"), pytest.mark.timeout(300)]


def sources(built: Built, *suffixes: str) -> set[str]:
    """What there was of the daemon's sources when it was built."""
    tree = built.work / "tree"
    return {str(path.relative_to(tree)) for path in (tree / "mcastd").rglob("*") if path.suffix in suffixes}


def test_the_wheel_of_the_daemon_is_complete(built: Built) -> None:
    names = set(built.wheel("mcastd").namelist())
    assert sources(built, ".py", ".pyi", ".sql", ".bash", ".zsh", ".fish") <= names
    assert "mcastd/kernel/_native.abi3.so" in names


def test_its_extension_is_for_every_python_and_an_old_glibc(built: Built) -> None:
    assert re.fullmatch(
        r"mcastd-[\d.]+-cp311-abi3-(manylinux2014_\w+\.)?manylinux_2_\d+_\w+(\.manylinux\w+)?\.whl",
        built.one("mcastd-*.whl").name,
    )
    wheel = built.wheel("mcastd")
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/WHEEL"))
    tags = re.findall(r"^Tag: (\S+)$", wheel.read(metadata).decode(), re.MULTILINE)
    assert tags
    assert all(tag.startswith("cp311-abi3-manylinux") for tag in tags)


def test_it_brings_manual_pages_and_completions(built: Built) -> None:
    wheel = built.wheel("mcastd")
    shared = {re.sub(r".*\.data/data/", "", name): wheel.read(name) for name in wheel.namelist() if "/data/share/" in name}
    assert {name: content for name, content in shared.items() if not name.endswith("/")} == {
        "share/man/man1/mcastctl.1": (ROOT / "docs/man/mcastctl.1").read_bytes(),
        "share/man/man8/mcastd.8": (ROOT / "docs/man/mcastd.8").read_bytes(),
        "share/bash-completion/completions/mcastctl.bash": (ROOT / "mcastd/cli/ctl/shell/mcastctl.bash").read_bytes(),
        "share/zsh/site-functions/_mcastctl": (ROOT / "mcastd/cli/ctl/shell/mcastctl.zsh").read_bytes(),
        "share/fish/vendor_completions.d/mcastctl.fish": (ROOT / "mcastd/cli/ctl/shell/mcastctl.fish").read_bytes(),
    }


def test_the_wheel_of_the_client_is_pure_and_complete(built: Built) -> None:
    assert built.one("mcast_client-*.whl").name.endswith("-py3-none-any.whl")
    names = set(built.wheel("mcast_client").namelist())
    for proto in (ROOT / "proto").rglob("*.proto"):
        stem = str(proto.relative_to(ROOT / "proto").with_suffix(""))
        assert {f"{stem}_pb2.py", f"{stem}_pb2.pyi", f"{stem}_pb2_grpc.py", f"{stem}_pb2_grpc.pyi"} <= names
    assert {"mcast/descriptors.binpb", "mcast/py.typed", "mcast/v1/__init__.py"} <= names


def test_sdists_hold_all_that_a_wheel_is_made_from(built: Built) -> None:
    daemon = names_in(built.one("mcastd-*.tar.gz"))
    assert sources(built, ".py", ".pyi", ".sql", ".c", ".h", ".bash", ".zsh", ".fish") <= daemon
    assert {"LICENSE", "CHANGELOG.md", "docs/man/mcastd.8"} <= daemon
    assert not {name for name in daemon if name.endswith((".so", ".pyc", "_native.c"))}
    client = names_in(built.one("mcast_client-*.tar.gz"))
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "proto").rglob("*.proto")} <= client


def test_an_sdist_is_packed_without_what_differs(tmp_path: Path) -> None:
    packed = []
    for order, mode, time in ((("b", "a"), 0o664, 5), (("a", "b"), 0o644, 7)):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name in order:
                path = tmp_path / name
                path.write_text(name)
                path.chmod(mode)
                os.utime(path, (time, time))
                archive.add(path, name)
        packed.append(plain_sdist(out.getvalue(), 1234567890))
    assert packed[0] == packed[1]
    with tarfile.open(fileobj=io.BytesIO(packed[0])) as archive:
        assert [(one.name, one.mtime, one.uid, one.uname, one.mode) for one in archive] == [
            ("a", 1234567890, 0, "", 0o644),
            ("b", 1234567890, 0, "", 0o644),
        ]
