"""A Debian of its own, made by debootstrap from where this machine takes its packages, and kept in build/ for the next time."""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.packaging.build import ROOT

# A mount namespace of its own: nothing is left mounted, whatever happens.
_ENTER = ("unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"')
_MINE = re.compile(r"^/(proc|sys|dev|run|tmp|var/(lib/dpkg|cache|log)|etc/(passwd|group|g?shadow|subuid|subgid)-?$)")


class Chroot:
    """A directory that commands run in as if it were the root."""

    def __init__(self, root: Path) -> None:
        """Take over a directory with a system in it."""
        self.root = root

    def entering(self, *command: str) -> list[str]:
        """The command that runs another one inside."""
        return [*_ENTER, str(self.root), *command]

    def run(self, *command: str) -> str:
        """Run a command inside and return what it printed; AssertionError with its words when it fails."""
        plain = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            self.entering(*command), env=plain, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def files(self) -> set[str]:
        """Names of everything that is there, but for dpkg's own notes and the lists of users."""
        found = (f"/{path.relative_to(self.root)}" for path in self.root.rglob("*"))
        return {name for name in found if not _MINE.match(name)}


@contextmanager
def debian(directory: Path, needs: Sequence[str]) -> Iterator[Chroot]:
    """Make the Debian of this machine's release, minimal but for the packages that are needed; gone after the block."""
    root = directory / "debian"
    root.mkdir()
    subprocess.run(["tar", "--extract", "--file", _archive(needs), "--directory", root], check=True)
    try:
        yield Chroot(root)
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", root], check=True)


def mirror(codename: str) -> str:
    """Where apt of this machine takes the packages of a release from."""
    for path in sorted(Path("/etc/apt").glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text("utf-8")):
            fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
            if codename in fields.get("Suites", "").split() and "main" in fields.get("Components", "").split():
                return str(fields["URIs"].split()[0])
    for path in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt").glob("sources.list.d/*.list"))):
        lines = path.read_text("utf-8") if path.exists() else ""
        found = re.search(rf"^deb (?:\[[^\]]*\] )?(\S+) {codename} (?:.* )?main\b", lines, re.MULTILINE)
        if found:
            return found[1]
    raise AssertionError(f"no source of {codename} in /etc/apt")


def _archive(needs: Sequence[str]) -> Path:
    """A tar of the fresh system; made once."""
    codename = re.findall(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)[0]
    names = ",".join(sorted(needs))
    archive = ROOT / "build" / f"{codename}-{hashlib.sha256(names.encode()).hexdigest()[:12]}.tar"
    if not archive.exists():
        made = archive.with_suffix(f".{os.getpid()}")
        command = ["debootstrap", "--variant=minbase", f"--include={names}", codename, made, mirror(codename)]
        try:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            partial = made.with_suffix(".part")
            subprocess.run(
                ["tar", "--create", "--file", partial, "--exclude=./var/cache/apt/archives/*", "-C", made, "."], check=True
            )
            partial.rename(archive)
        finally:
            subprocess.run(["rm", "-rf", "--one-file-system", made], check=True)
    return archive
