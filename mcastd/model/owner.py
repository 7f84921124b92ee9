"""Owners: whoever wrote a route, by name."""

CONFIG_OWNER = "config"
"""The configuration file."""

KERNEL_OWNER = "kernel"
"""What is found in the kernel and wanted by nobody; only read."""

OWNER_MAX = 63
"""Characters of a name."""

_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")


def owner_problem(name: str) -> str:
    """Why no caller can be this owner, or nothing."""
    if not 1 <= len(name) <= OWNER_MAX or not _CHARACTERS.issuperset(name):
        return f"an owner is 1 to {OWNER_MAX} of a-z, 0-9, '.', '_' and '-'"
    if name == CONFIG_OWNER:
        return "is reserved for the configuration file: choose another name"
    if name == KERNEL_OWNER:
        return "is reserved for what is found in the kernel: choose another name"
    return ""
