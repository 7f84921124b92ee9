"""CHANGELOG.md as Debian's changelog: dpkg reads it, and versions sort as they should."""

import subprocess
from pathlib import Path

import pytest

from tests.packaging.build import ROOT
from tools.packaging.changelog import debian_changelog, package_version

pytestmark = [pytest.mark.xdist_group("packages"), pytest.mark.usefixtures("tools")]  # they bring dpkg-parsechangelog

RELEASED = (
    "# Changelog\n\n## 0.2.0 (2027-03-01)\n\n### Added\n\n- `one` thing\n  more of it (*,G)\n\n## 0.1.0 (2027-01-01)\n\nFirst.\n"
)
EPOCH = 1795238717  # 2026-11-21 05:25:17


def test_a_version_that_is_not_released_sorts_before_the_release_and_by_time() -> None:
    unreleased = RELEASED.replace("## 0.2.0 (2027-03-01)", "## Unreleased")
    assert package_version("0.2.0", RELEASED, EPOCH) == "0.2.0"
    early, late = (package_version("0.2.0", unreleased, epoch) for epoch in (EPOCH, EPOCH + 60))
    assert early == "0.2.0~20261121.0525"
    for older, newer in ((early, late), (late, "0.2.0"), ("0.1.9", early)):
        subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=True)


def test_a_changelog_without_a_section_is_refused() -> None:
    with pytest.raises(ValueError) as caught:
        package_version("0.1.0", "# Changelog\n", EPOCH)
    assert str(caught.value) == "CHANGELOG.md has no section"


def test_dpkg_reads_all_sections(tmp_path: Path) -> None:
    text = debian_changelog(RELEASED, "0.2.0", "Some One <one@example.org>", EPOCH)
    (tmp_path / "changelog").write_text(text)
    command: list[str | Path] = ["dpkg-parsechangelog", "--all", "--file", tmp_path / "changelog", "--show-field"]
    versions = subprocess.run([*command, "Version"], capture_output=True, text=True, check=True)
    assert (versions.stdout.split(), versions.stderr) == (["0.2.0"], "")
    assert "  * one thing more of it (*,G)\n" in text
    assert "mcastd (0.1.0) unstable" in text


def test_ours_is_read_without_a_warning(tmp_path: Path) -> None:
    text = debian_changelog((ROOT / "CHANGELOG.md").read_text("utf-8"), "0.1.0~1", "Some One <one@example.org>", EPOCH)
    (tmp_path / "changelog").write_text(text)
    done = subprocess.run(["dpkg-parsechangelog", "--file", tmp_path / "changelog"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert text.count("\n  * ") >= 10
    assert max(map(len, text.splitlines())) <= 80
