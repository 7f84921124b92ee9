"""Settings of the metrics listener: --metrics, MCASTD_METRICS, daemon.metrics and the section [metrics], checked."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mcastd.cli.addresses import bad
from mcastd.model.settings import Exposition, metrics_host_port

ADDRESSES_MAX = 8

FLOWS_TOP_MAX = 10_000

SILENT_AFTER_MAX = 86_400

_ADDRESS_MAX = 300
"""Characters of HOST:PORT: a host name has at most 253."""

Origin = Callable[..., object]
"""Where a key of the section [metrics] stands."""


class Found(Protocol):
    """A value and where it was written; no value = nowhere."""

    @property
    def origin(self) -> object:
        """The place."""

    @property
    def value(self) -> str:
        """The text."""


def metrics_addresses(found: Found, section: Mapping[str, Any], origin: Origin) -> str:
    """HOST:PORT of each listener, separated by spaces; what is said elsewhere wins over the section. Empty = none."""
    if found.value:
        return "" if found.value == "off" else _address(found.origin, found.value)
    addresses = section.get("address", [])
    for at, one in enumerate(addresses):
        if not isinstance(one, str):
            raise bad(origin("address", at), one, "it must be a list of strings")
        _address(origin("address", at), one)
    if len(addresses) > ADDRESSES_MAX:
        raise bad(origin("address"), f"{len(addresses)} addresses", f"there can be {ADDRESSES_MAX} at most")
    if len(set(addresses)) < len(addresses):
        raise bad(origin("address"), ", ".join(addresses), "one is there twice: leave it out")
    return " ".join(addresses)


def exposition(section: Mapping[str, Any], config: str | None, origin: Origin) -> Exposition:
    """What the section says beside the addresses; a relative path is relative to the configuration file."""
    default = Exposition()

    def number(name: str, default: int, low: int, high: int) -> int:
        value: int = section.get(name, default)
        if not low <= value <= high:
            raise bad(origin(name), value, f"choose {low} to {high}")
        return value

    web_config = section.get("web_config", "")
    if web_config and not web_config.isprintable():
        raise bad(origin("web_config"), web_config, "write the path of a file")
    base = os.path.dirname(os.path.abspath(config)) if config else ""  # noqa: PTH100, PTH120 - pathlib costs the small process memory
    return Exposition(
        web_config=os.path.normpath(os.path.join(base, web_config)) if web_config else "",  # noqa: PTH118
        flows_top=number("flows_top", default.flows_top, 0, FLOWS_TOP_MAX),
        flows_all=section.get("flows_all", default.flows_all),
        silent_after=float(number("silent_after", int(default.silent_after), 1, SILENT_AFTER_MAX)),
    )


def _address(origin: object, text: str) -> str:
    if len(text) > _ADDRESS_MAX:
        raise bad(origin, f"{text[:32]}...", f"HOST:PORT has at most {_ADDRESS_MAX} characters")
    try:
        metrics_host_port(text)
    except ValueError:
        raise bad(origin, text, "write HOST:PORT, [IPV6]:PORT or off") from None
    if " " in text:
        raise bad(origin, text, "write one address")
    return text
