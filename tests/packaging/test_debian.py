"""The .deb as a file: what it holds, what it asks for, and that nothing of the machine that built it is in it."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.packaging.build import ROOT, TOOLS, Built
from tools.packaging.debian import commented, maintainer

pytestmark = [pytest.mark.xdist_group("packages"), pytest.mark.timeout(300)]

PUBLIC = {"pypi.org", "files.pythonhosted.org", "deb.debian.org", "security.debian.org", None}


@pytest.fixture(scope="module")
def files(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, unpacked."""
    return built.unpack(tmp_path_factory.mktemp("unpacked"))


def test_it_needs_a_python_of_debian_and_libraries_that_were_looked_up(built: Built) -> None:
    needs = [one.split("|")[0].strip() for one in built.field("Depends").split(",")]
    names = {one.split()[0] for one in needs}
    assert {"python3", "libc6", "libstdc++6"} <= names
    assert [one for one in names if re.fullmatch(r"python3\.\d+", one)]
    assert re.search(r"libc6 \(>= 2\.\d+\)", built.field("Depends"))


def test_its_version_is_older_than_the_release(built: Built) -> None:
    version = built.field("Version")
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert subprocess.run(["dpkg", "--compare-versions", version, "lt", version.partition("~")[0]], check=False).returncode == 0


def test_programs_pages_completions_and_units_are_where_they_belong(files: Path) -> None:
    assert (files / "usr/bin/mcastd").readlink() == Path("../lib/mcastd/bin/mcastd")
    assert (files / "usr/bin/mcastctl").readlink() == Path("../lib/mcastd/bin/mcastctl")
    for name in (
        "usr/share/man/man1/mcastctl.1.gz",
        "usr/share/man/man8/mcastd.8.gz",
        "usr/share/bash-completion/completions/mcastctl",
        "usr/share/zsh/vendor-completions/_mcastctl",
        "usr/share/fish/vendor_completions.d/mcastctl.fish",
        "usr/share/doc/mcastd/copyright",
        "usr/share/doc/mcastd/changelog.gz",
        "lib/systemd/system/mcastd.service",
        "usr/lib/sysusers.d/mcastd.conf",
        "usr/lib/tmpfiles.d/mcastd.conf",
    ):
        assert (files / name).is_file(), name


def test_the_configuration_is_a_conffile_and_serves_as_it_is(files: Path) -> None:
    conffiles = (files / "DEBIAN/conffiles").read_text().split()
    assert conffiles == ["/etc/mcastd/mcastd.toml"]
    assert tomllib.loads((files / "etc/mcastd/mcastd.toml").read_text("utf-8")) == {}
    command: list[str | Path] = [sys.executable, "-m", "mcastd.cli", "check", files / "etc/mcastd/mcastd.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # Where it is unpacked the server's user may not read it, of which it is warned.
    assert (done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]) == (0, [])


def test_every_setting_of_the_example_is_commented_out_and_nothing_else_changes() -> None:
    example = '# Prose.\n[daemon]\n# state_dir = "x"\nidle_timeout = 60  # s\n\n'
    assert commented(example) == '# Prose.\n#[daemon]\n# state_dir = "x"\n#idle_timeout = 60  # s\n\n'
    example = (ROOT / "deploy/mcastd.toml").read_text("utf-8")
    restored = re.sub(r"^#(?=[^ #\n])", "", commented(example), flags=re.MULTILINE)
    assert tomllib.loads(restored) == tomllib.loads(example)


def test_the_maintainer_is_who_builds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBFULLNAME", "Some One")
    monkeypatch.setenv("DEBEMAIL", "one@example.org")
    assert maintainer() == "Some One <one@example.org>"


def test_every_passenger_is_named_with_its_licence(files: Path) -> None:
    text = (files / "usr/share/doc/mcastd/copyright").read_text("utf-8")
    named = set(re.findall(r"^(\S+) \S+: ", text, re.MULTILINE))
    pins = set(re.findall(r"^([\w.-]+)==", (ROOT / "tools/packaging/bundled.txt").read_text("utf-8"), re.MULTILINE))
    assert {re.sub("[-_.]+", "-", one).lower() for one in named} == pins
    for path in re.findall(r"^  /(\S+)$", text, re.MULTILINE):
        assert (files / path).is_file(), path


def test_an_upgrade_does_not_stop_the_daemon_and_restarts_it_at_the_end(files: Path) -> None:
    before, after = (files / "DEBIAN/prerm").read_text(), (files / "DEBIAN/postinst").read_text()
    (stop,) = re.findall(r"if .*\n\s*deb-systemd-invoke stop 'mcastd.service'", before)
    assert '"$1" = remove' in stop
    assert "restart" in after
    assert (
        after.index("compileall")
        < after.index("systemd-sysusers")
        < after.index("deb-systemd-invoke $_dh_action 'mcastd.service'")
    )


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_sound_for_dash(files: Path, script: str) -> None:
    done = subprocess.run(["sh", "-n", files / "DEBIAN" / script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_of_this_machine_is_in_it(built: Built, files: Path) -> None:
    needles = {str(ROOT), str(built.work), str(Path.home() / ".pyenv"), "/pyenv/", "direct_url", *hosts()}
    found = {
        (needle, str(path.relative_to(files)))
        for path in files.rglob("*")
        if path.is_file() and not path.is_symlink()
        for content in [path.read_bytes()]
        for needle in needles
        if needle.encode() in content
    }
    assert not found
    assert not [path for path in files.rglob("*") if path.name in {"RECORD", "direct_url.json", "__pycache__"}]


def hosts() -> Iterator[str]:
    """Names of the hosts that this machine takes packages from, but for those that everybody does."""
    said = subprocess.run([TOOLS, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    for path in Path("/etc/apt").rglob("*.[ls]*"):
        said += path.read_text("utf-8", "replace") if path.suffix in {".list", ".sources"} else ""
    said += " ".join(value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_")))
    for address in re.findall(r"https?://[^\s'\"\]]+", said):
        host = urlsplit(address).hostname
        if host not in PUBLIC and host:
            yield host
