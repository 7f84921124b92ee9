"""CHANGELOG.md as Debian's changelog, and the version of the package."""

import re
import textwrap
from datetime import UTC, datetime
from email.utils import formatdate

_SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^(?:### (?P<part>.+)|- (?P<item>.+(?:\n {2}.+)*))$", re.MULTILINE)
UNRELEASED = "Unreleased"


def package_version(version: str, changelog: str, epoch: int) -> str:
    """The version of the package: that of mcastd, with the time of the commit while the changelog says that it is not released.

    `~` sorts before everything: the release is newer than all that was built on the way to it.
    """
    newest = _SECTION.search(changelog)
    if newest is None:
        raise ValueError("CHANGELOG.md has no section")
    if newest[1] != UNRELEASED:
        return version
    return f"{version}~{datetime.fromtimestamp(epoch, UTC):%Y%m%d.%H%M}"


def debian_changelog(changelog: str, version: str, maintainer: str, epoch: int) -> str:
    """The whole of it, newest first; `version` is that of the package, `maintainer` a name with an address."""
    entries: list[str] = []
    for title, body in _SECTION.findall(changelog):
        # A heading of a released version is "1.2.0 (2027-01-01)" or the like.
        number = version if title == UNRELEASED or not entries else title.split()[0].strip("[]")
        entries.append(f"mcastd ({number}) unstable; urgency=medium\n\n{_items(body)}\n -- {maintainer}  {formatdate(epoch)}\n")
    return "\n".join(entries)


def _items(body: str) -> str:
    lines = []
    for found in _BLOCK.finditer(body):
        if found["part"]:
            lines.append(f"  [ {found['part']} ]\n")
        else:
            text = " ".join(found["item"].replace("`", "").split())
            lines.append(textwrap.fill(text, 78, initial_indent="  * ", subsequent_indent="    ", break_long_words=False) + "\n")
    return "".join(lines) or "  * See CHANGELOG.md.\n"
