"""Builds the image without a container engine: the Dockerfile's own commands, each in a root of its stage.

What stands in for what: this machine's /usr, read-only, with its Python in /usr/local, for the base image. So the packages that
`apt-get` would install are not installed; that they are the machine's already is asserted.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from tests.deploy.dockerfile import ROOT, Instruction, Stage, context, stages

PYTHON = "/usr/bin/python3"

_DEVICES = ("null", "zero", "random", "urandom")
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = (
    *("passwd", "group", "shadow", "gshadow", "login.defs", "nsswitch.conf", "hosts", "resolv.conf", "ssl", "ca-certificates"),
    *("ld.so.cache", "alternatives", "localtime"),
)
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
_PASSED = re.compile(r"(PIP_|SSL_|REQUESTS_).*|(https?|no|all)_proxy", re.IGNORECASE)
"""How this machine reaches the package index."""


class Image:
    """The root file system of the last stage, and how it is started."""

    def __init__(self, directory: Path) -> None:
        """Build it below the directory; AssertionError with the output of the command that fails."""
        self.directory = directory
        self.roots: dict[str, Path] = {}
        for number, stage in enumerate(stages()):
            name = stage.name or str(number)
            self.roots[name] = self.root = directory / name
            self.stage = stage
            self._build(stage, self.root)

    def environment(self) -> dict[str, str]:
        """What a process of the image finds set."""
        found = {"PATH": _PATH}
        for name, value in self.stage.environment().items():
            found[name] = re.sub(r"\$\{?(\w+)\}?", lambda match: found.get(match[1], ""), value)
        return found

    def command(self) -> list[str]:
        """What is executed by default."""
        return self.stage.last("ENTRYPOINT").words() + self.stage.last("CMD").words()

    def _build(self, stage: Stage, root: Path) -> None:
        make_root(root)
        # Making pip takes longer than all else that the base image is stood in for by.
        pip = "" if any(one.name == "RUN" and " pip " in one.value for one in stage.instructions) else "--without-pip "
        self._run(root, f"{PYTHON} -m venv {pip}/usr/local", {}, "/")
        directory = "/"
        environment = {"PATH": _PATH}
        for one in stage.instructions:
            if one.name == "WORKDIR":
                directory = one.value
                (root / directory.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif one.name == "COPY":
                self._copy(one, root, directory)
            elif one.name == "RUN" and one.value.startswith("apt-get"):
                check_packages(one.value)
            elif one.name == "RUN":
                self._run(root, one.value, environment, directory)

    def _copy(self, one: Instruction, root: Path, directory: str) -> None:
        *sources, target = one.words()
        into = root / directory.lstrip("/") / target if not target.startswith("/") else root / target.lstrip("/")
        if sources[0].startswith("--from="):
            origin = self.roots[sources.pop(0).removeprefix("--from=")]
            (source,) = sources
            shutil.copytree(origin / source.lstrip("/"), into, symlinks=True)
            return
        (source,) = sources
        files = list(context())
        if source != ".":
            files = [path for path in files if path.is_relative_to(source)]
        assert files, f"{source} is not in the context"
        for path in files:
            to = into / (path if source == "." else path.relative_to(source))
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, to, follow_symlinks=False)

    def _run(self, root: Path, command: str, environment: dict[str, str], directory: str) -> None:
        words = [f"{name}={value}" for name, value in ({"PATH": _PATH, "HOME": "/root"} | environment).items()]
        words += [f"{name}={value}" for name, value in os.environ.items() if _PASSED.fullmatch(name)]
        inner = f"cd {shlex.quote(directory)} && {command}"
        chroot = shlex.join(["chroot", str(root), "/usr/bin/env", "-i", *words, "sh", "-c", inner])
        script = f"{mounts(root)}\nexec {chroot}"
        private = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script]
        done = subprocess.run(private, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout[-5000:]}{done.stderr[-5000:]}"


def make_root(root: Path) -> None:
    """A root file system in which /usr is to be mounted."""
    for name in ("usr", ".local", "etc", "dev", "proc", "root", "run", "tmp", "opt", "var/lib", "var/log"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for name in _LINKS:
        link = Path("/", name)
        if link.is_symlink():
            (root / name).symlink_to(link.readlink())
    for name in _ETC:
        source = Path("/etc", name)
        if source.is_dir():
            shutil.copytree(source, root / "etc" / name, symlinks=True)
        elif source.exists():
            shutil.copy2(source, root / "etc" / name)


def mounts(root: Path) -> str:
    """Shell commands that give a root its /usr, /dev and /proc, in a mount namespace of one's own."""
    at = shlex.quote(str(root))
    devices = [f": >{at}/dev/{name} && mount --bind /dev/{name} {at}/dev/{name}" for name in _DEVICES]
    usr = [f"mount --bind --options ro /usr {at}/usr", f"mount --bind {at}/.local {at}/usr/local"]
    return "\n".join([*usr, f"mount --type tmpfs none {at}/dev", *devices, f"mount --type proc none {at}/proc"])


def check_packages(command: str) -> None:
    """See that what a step installs by apt-get is what this machine has, since it stands in."""
    match = re.search(r"install ([^&]*)", command)
    assert match is not None, command
    packages = [word for word in match[1].split() if not word.startswith("-")]
    done = subprocess.run(["dpkg-query", "--show", *packages], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
