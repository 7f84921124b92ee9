"""The command line of `mcastd serve` as it was given, and which file it asks for: all that the keeper itself knows of it."""

import os
from collections.abc import Mapping
from typing import NamedTuple

DEFAULT_CONFIG = "/etc/mcastd/mcastd.toml"
"""Read where it exists and no other file is named."""


class Flags(NamedTuple):
    """The command line of `mcastd serve`; None = not given."""

    config: str | None = None
    listen: list[str] | None = None
    state_dir: str | None = None
    metrics: str | None = None
    user: str | None = None
    log_level: str | None = None
    action: str | None = None


def config_path(flag: str | None, environment: Mapping[str, str]) -> str | None:
    """The file that is to be read: the one named, or the default one if that exists."""
    named = flag if flag is not None else environment.get("MCASTD_CONFIG") or None
    if named is None and os.path.exists(DEFAULT_CONFIG):  # noqa: PTH110 - see keeper: pathlib costs the small process memory
        return DEFAULT_CONFIG
    return named
