"""Builds mcastd: all but the C extension and what goes to share/ is in pyproject.toml, which has no word for them."""

from collections.abc import Sequence
from distutils.command.install_data import install_data
from pathlib import Path

from setuptools import setup

SHELL = "mcastd/cli/ctl/shell/mcastctl"
SHARE: list[tuple[str, Sequence[str]]] = [
    ("share/man/man1", ["docs/man/mcastctl.1"]),
    ("share/man/man8", ["docs/man/mcastd.8"]),
    ("share/bash-completion/completions", [f"{SHELL}.bash"]),
    ("share/zsh/site-functions", [f"{SHELL}.zsh"]),
    ("share/fish/vendor_completions.d", [f"{SHELL}.fish"]),
]
"""Where man and the shells look below a prefix (/usr/local, or a virtual environment that is on PATH)."""


class InstallData(install_data):
    """Gives the completion of zsh the name by which zsh finds it."""

    def run(self) -> None:
        """Copy the files, and rename that one."""
        super().run()
        for at, path in enumerate(self.outfiles):
            if path.endswith("/mcastctl.zsh"):
                self.outfiles[at] = path.replace("mcastctl.zsh", "_mcastctl")
                Path(path).replace(self.outfiles[at])


setup(cffi_modules=["mcastd/kernel/_native_build.py:ffibuilder"], cmdclass={"install_data": InstallData}, data_files=SHARE)
