"""Builds all packages into a directory, and looks into them."""

import os
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "build/tools/bin/python"


@dataclass(frozen=True)
class Built:
    """What `make dist` has put into dist/, and where it was made."""

    directory: Path
    work: Path

    def one(self, pattern: str) -> Path:
        """The one file whose name fits."""
        (path,) = self.directory.glob(pattern)
        return path

    def wheel(self, distribution: str) -> zipfile.ZipFile:
        """A wheel, open."""
        return zipfile.ZipFile(self.one(f"{distribution}-*.whl"))

    def package(self) -> Path:
        """The .deb."""
        return self.one("mcastd_*.deb")

    def field(self, name: str) -> str:
        """A field of the package's control file."""
        done = subprocess.run(["dpkg-deb", "--field", self.package(), name], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def unpack(self, directory: Path) -> Path:
        """Unpack the package's files, and its control files into DEBIAN/; the directory."""
        subprocess.run(["dpkg-deb", "--raw-extract", self.package(), directory], check=True)
        return directory


def build(tools: Path, directory: Path, *arguments: str) -> Built:
    """Build from the tree as it is now, in a place of its own."""
    made = Built(directory / "dist", directory / "work")
    command: list[str | Path] = [
        tools,
        "-m",
        "tools.packaging",
        "--no-lintian",
        "--output",
        made.directory,
        "--work",
        made.work,
        *arguments,
    ]
    # Half of the time would go into making the package small.
    quick = os.environ | {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=quick)
    return made


def names_in(sdist: Path) -> set[str]:
    """Names of the files of an sdist, below its one directory."""
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}
