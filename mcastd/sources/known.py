"""The principals that were in force last, in a file beside the state: for a server that finds a configuration it can't read.

What owner "config" wants is in the store, rules are in the kernel, and clients with certificates must not be locked out either
when a server is replaced while somebody has a faulty file there. It is no configuration: a daemon that starts does not read it.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from mcastd.model.principal import Principal, Quota
from mcastd.model.settings import Access

NAME = "principals.json"
"""In the state directory."""

_log = logging.getLogger(__name__)


class KnownPrincipals:
    """The file of one daemon; written and read by its server."""

    def __init__(self, directory: Path) -> None:
        """Nothing is read or written yet."""
        self._path = directory / NAME
        self._kept: bytes | None = None

    def keep(self, principals: Mapping[str, Principal]) -> None:
        """Have them in the file, where they are others than it has; that it can't be written is told of, and no more."""
        values = [
            [one.name, one.access, one.owner, one.quota.streams, one.quota.requests, one.quota.routes]
            for one in principals.values()
        ]
        data = json.dumps(values).encode()
        if data == self._kept or (not values and self._kept is None and not self._path.exists()):
            return
        making = self._path.with_suffix(".new")
        try:
            making.write_bytes(data)
            making.rename(self._path)
        except OSError as exc:
            text = "the principals could not be kept: while the configuration is faulty, a new server would let nobody in"
            _log.warning(text, extra={"path": str(self._path), "error": exc.strerror})
            return
        self._kept = data

    def read(self) -> dict[str, Principal]:
        """Those in the file; none where there is no such file, or none of use."""
        try:
            values = json.loads(self._path.read_bytes())
            return {
                name: Principal(str(name), Access(access), str(owner), Quota(int(streams), int(requests), int(routes)))
                for name, access, owner, streams, requests, routes in values
            }
        except (OSError, ValueError, TypeError) as exc:
            _log.warning("the principals of before can't be read", extra={"path": str(self._path), "error": str(exc)})
            return {}
