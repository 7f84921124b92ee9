"""The .deb: the tree of files that it holds, the directory debian/ around it, and what lintian says of the outcome.

Everything of Python is below /usr/lib/mcastd, a virtual environment of the system's Python with pinned dependencies: nothing in
it meets what else is installed. The maintainer is DEBFULLNAME with DEBEMAIL, as Debian's own tools take it.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from email.parser import HeaderParser
from pathlib import Path

from tools.packaging.changelog import debian_changelog, package_version
from tools.packaging.command import BuildError, run
from tools.packaging.snapshot import set_times

PREFIX = "usr/lib/mcastd"
BUNDLED = Path("tools/packaging/bundled.txt")
_PROGRAMS = {"mcastd": "mcastd.cli.mcastd:main", "mcastctl": "mcastd.cli.ctl.main:run"}
_SHARE = {
    "docs/man/mcastctl.1": "man/man1/mcastctl.1",
    "docs/man/mcastd.8": "man/man8/mcastd.8",
    "mcastd/cli/ctl/shell/mcastctl.bash": "bash-completion/completions/mcastctl",
    "mcastd/cli/ctl/shell/mcastctl.zsh": "zsh/vendor-completions/_mcastctl",
    "mcastd/cli/ctl/shell/mcastctl.fish": "fish/vendor_completions.d/mcastctl.fish",
}
_FOR_DEBHELPER = {".service", ".socket", ".sysusers", ".tmpfiles"}
# What pip writes about itself: paths of this machine, and files that are left out here.
_OF_PIP = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def build(tree: Path, work: Path, epoch: int, built: Sequence[Path]) -> Path:
    """Build the package from the sources and the wheels; its path, below `work`."""
    place = work / "deb" / "mcastd"
    root = place / "root"
    python = system_python()
    site = root / PREFIX / "lib" / python.name / "site-packages"
    _virtual_environment(root / PREFIX, python)
    _install(site, tree / BUNDLED, [path for path in built if path.suffix == ".whl"], work)
    _share(tree, root)
    _configuration(tree, root)
    _debian(tree, place, python, epoch, site)
    set_times(place, epoch)
    run(["debian/rules", "binary"], cwd=place, environment=_environment(epoch))
    (package,) = place.parent.glob("*.deb")
    return package


def check(package: Path) -> None:
    """Have lintian look; BuildError for errors and warnings that deploy/debian/mcastd.lintian-overrides gives no reason for."""
    allow = ["--allow-root"] if os.geteuid() == 0 else []
    run(["lintian", "--fail-on", "error,warning", "--tag-display-limit", "0", *allow, package], cwd=package.parent)


def system_python() -> Path:
    """The Python of the system that this one is made from: /usr/bin/python3.11."""
    path = Path("/usr/bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    if not path.exists():
        raise BuildError(f"{path} is missing: the .deb is for a Python of Debian's, run this with that (make dist does)")
    return path


def maintainer() -> str:
    """Who builds the package, as its control file names him."""
    return f"{os.environ.get('DEBFULLNAME', 'The mcastd authors')} <{os.environ.get('DEBEMAIL', 'mcastd@localhost')}>"


def commented(example: str) -> str:
    """The example of a configuration with every setting commented out: a conffile that serves as it is."""
    return "".join(line if not line.strip() or line.startswith("#") else f"#{line}" for line in example.splitlines(keepends=True))


def _virtual_environment(prefix: Path, python: Path) -> None:
    """Make one by hand: venv would write down where it was made, and put pip into it."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python3").symlink_to(python)
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n", "utf-8")
    programs = prefix.parents[1] / "bin"
    programs.mkdir()
    for name, entry in _PROGRAMS.items():
        script = prefix / "bin" / name
        # -P and -s: neither the working directory nor a home directory is a place for modules.
        module, _, function = entry.partition(":")
        text = f"#!/{PREFIX}/bin/python3 -Ps\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
        script.write_text(text, "utf-8")
        script.chmod(0o755)
        (programs / name).symlink_to(f"../lib/mcastd/bin/{name}")


def _install(site: Path, pins: Path, wheels: Sequence[Path], work: Path) -> None:
    """Install the pinned dependencies and our wheels, leaving out what belongs to this machine."""
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        "--target",
        site,
    ]
    run([*pip, "--only-binary", ":all:", "--require-hashes", "--requirement", pins], cwd=work)
    run([*pip, "--no-deps", "--no-index", *wheels], cwd=work)
    for directory in ("bin", "share"):  # others' programs; manual pages and completions, which go to /usr/share
        shutil.rmtree(site / directory, ignore_errors=True)
    for information in site.glob("*.dist-info"):
        for name in _OF_PIP:
            (information / name).unlink(missing_ok=True)
    for path in site.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # no program is among them, whatever mode their authors gave them


def _share(tree: Path, root: Path) -> None:
    share = root / "usr" / "share"
    documents = share / "doc" / "mcastd"
    for name, target in _SHARE.items():
        _copy(tree / name, share / target)
    for path in (tree / "README.md", tree / "ARCHITECTURE.md", *(tree / "docs").rglob("*.md")):
        _copy(path, documents / path.relative_to(tree))
    examples = [tree / "deploy/mcastd.toml", *(tree / "deploy/systemd").glob("*.conf")]
    for path in (*examples, *(tree / "deploy/prometheus").rglob("*.yml"), *(tree / "grafana").rglob("*.json")):
        _copy(path, documents / "examples" / path.relative_to(tree))


def _configuration(tree: Path, root: Path) -> None:
    target = root / "etc" / "mcastd" / "mcastd.toml"
    target.parent.mkdir(parents=True)
    target.write_text(commented((tree / "deploy/mcastd.toml").read_text("utf-8")), "utf-8")


def _debian(tree: Path, place: Path, python: Path, epoch: int, site: Path) -> None:
    directory = place / "debian"
    shutil.copytree(tree / "deploy/debian", directory)
    for path in (tree / "deploy/systemd").iterdir():
        if path.suffix in _FOR_DEBHELPER:
            _copy(path, directory / _debhelper_name(path.name))
    who = maintainer()
    control = directory / "control"
    text = control.read_text("utf-8").replace("@MAINTAINER@", who).replace("@PYTHON@", python.name)
    control.write_text(text, "utf-8")
    changelog = (tree / "CHANGELOG.md").read_text("utf-8")
    version = package_version(_version(tree), changelog, epoch)
    (directory / "changelog").write_text(debian_changelog(changelog, version, who, epoch), "utf-8")
    (directory / "copyright").write_text(_copyright(tree, site), "utf-8")


def _debhelper_name(name: str) -> str:
    """mcastd-metrics.socket -> mcastd.mcastd-metrics.socket, as debhelper wants a unit that is not named for its package."""
    return name if name.startswith("mcastd.") else f"mcastd.{name}"


def _version(tree: Path) -> str:
    found = re.search(r'^__version__ = "(.+)"$', (tree / "mcastd/__init__.py").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise BuildError("mcastd/__init__.py has no __version__")
    return found[1]


def _copyright(tree: Path, site: Path) -> str:
    """Our licence, and whose software the package carries, with where its licence is."""
    lines = ["mcastd and mcast-client:", "", (tree / "LICENSE").read_text("utf-8")]
    lines += ["The package carries these distributions as their authors published them; the licence of each is beside it:", ""]
    for metadata in sorted(site.glob("*.dist-info/METADATA"), key=lambda path: path.parent.name.lower()):
        about = HeaderParser().parsestr(metadata.read_text("utf-8"))
        if about["Name"] in {"mcastd", "mcast-client"}:
            continue
        texts = sorted(path for path in metadata.parent.rglob("*") if re.match("LICEN[CS]E(?!S)|COPYING|NOTICE", path.name))
        if not texts:
            raise BuildError(f"{metadata.parent.name} brings no text of its licence, so it can't be passed on")
        lines.append(f"{about['Name']} {about['Version']}: {about['License-Expression'] or about['License']}")
        lines += [f"  /{path.relative_to(site.parents[5])}" for path in texts]
    lines += ["", "On Debian systems the Apache License 2.0 is also in /usr/share/common-licenses/Apache-2.0."]
    return "\n".join(lines) + "\n"


def _environment(epoch: int) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DEB_", "DH_", "MAKE", "MFLAGS"))}
    return kept | {"SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
