"""Who is let in to the metrics listener: the web configuration in force, looked at for changes; passwords, beside the loop."""

import asyncio
import base64
import binascii
import hmac
import logging
import os
import ssl
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import bcrypt

from mcastd.model.certificate import Stamp, stamp
from mcastd.model.errors import McastdError
from mcastd.telemetry.metrics import Metrics
from mcastd.telemetry.request import Request, Response
from mcastd.telemetry.webconfig import read

LOOK_SECONDS = 1.0
"""Between two looks at the files, at most."""

GOOD_MAX = 128
"""Users and passwords that are remembered as good ones: bcrypt takes 50 ms."""

CHECKS_MAX = 16
"""Passwords that wait to be checked; who comes then is told to come later."""

PASSWORD_MAX = 72
"""Bytes of a password that bcrypt looks at."""

_log = logging.getLogger(__name__)


class WebGate:
    """The gate that a web configuration file describes."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        """Read it; McastdError if it can't be used."""
        self._path = path
        self._metrics = metrics
        self._config = read(path)
        self._stamps = self._look()
        self._looked = time.monotonic()
        self._broken = ""
        """Why the file can't be used now. It is read again at each look then: what it names may be mended, or come later."""
        self._key = os.urandom(32)
        self._good: OrderedDict[bytes, None] = OrderedDict()
        """MACs of user, hash and password."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="passwords")
        self._checks = 0
        self._tokens = float(self._config.burst)
        self._filled = time.monotonic()
        self._tell()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    # --- Gate of mcastd.telemetry.http -------------------------------------------------------------------------------

    def tls(self) -> ssl.SSLContext | None:
        """The context of connections that are made now."""
        self._refresh()
        return self._config.tls

    def admits(self, peer: ssl.SSLObject | None) -> bool:
        """Whether the client's certificate has one of the names that are allowed, where any are said."""
        if not self._config.allowed_sans:
            return True
        found = (peer.getpeercert() or {}) if peer is not None else {}
        names = {str(pair[1]) for pair in found.get("subjectAltName", ())}
        return not self._config.allowed_sans.isdisjoint(names)

    async def check(self, request: Request) -> Response | None:
        """Limit the rate, then look at user and password."""
        self._refresh()
        if not self._take_token():
            return Response(429, b"too many requests\n", headers={"Retry-After": "1"})
        if not self._config.users:
            return None
        user, password = _credentials(request.headers.get("authorization", ""))
        good = await self._is_good(user, password)
        if good is None:
            return Response(503, b"too many passwords to check: try again\n", headers={"Retry-After": "1"})
        if not good:
            return Response(401, b"user and password are needed\n", headers={"WWW-Authenticate": "Basic"})
        return None

    def headers(self) -> dict[str, str]:
        """Headers that the file asks for."""
        return dict(self._config.headers)

    # --- passwords ---------------------------------------------------------------------------------------------------

    async def _is_good(self, user: str, password: bytes) -> bool | None:
        """Whether this is the user's password; None = too many wait to be checked. With no such user the work is the same."""
        known = user in self._config.users
        hashed = self._config.users.get(user, self._config.nobody)
        mac = hmac.digest(self._key, b"\0".join([user.encode(), hashed, password]), "sha256")
        if mac in self._good:
            self._good.move_to_end(mac)
            return True
        if self._checks >= CHECKS_MAX:
            return None
        self._checks += 1
        try:
            # Cut as bcrypt's other implementations do; the library refuses more.
            call = asyncio.get_running_loop().run_in_executor(self._thread, bcrypt.checkpw, password[:PASSWORD_MAX], hashed)
            good = await call and known
        finally:
            self._checks -= 1
        if good:
            self._good[mac] = None
            if len(self._good) > GOOD_MAX:
                self._good.popitem(last=False)
        return good

    def _take_token(self) -> bool:
        config = self._config
        if not config.interval:
            return True
        now = time.monotonic()
        self._tokens = min(float(config.burst), self._tokens + (now - self._filled) / config.interval)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    # --- the files ---------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Read the file again where it, or a file that it names, has changed; what is broken changes nothing."""
        now = time.monotonic()
        if now < self._looked + LOOK_SECONDS:
            return
        self._looked = now
        stamps = self._look()
        if stamps == self._stamps and not self._broken:
            return
        self._stamps = stamps
        try:
            self._config = read(self._path)
        except McastdError as exc:
            self._metrics.web_config_good.set(0)
            if str(exc) != self._broken:
                self._broken = str(exc)
                _log.error("the web configuration is broken: the last good one stays in force", extra={"error": self._broken})
            return
        self._broken = ""
        self._stamps = self._look()
        self._good.clear()
        self._tokens = float(self._config.burst)
        self._tell()
        _log.info("the web configuration was read again", extra={"file": str(self._path)})

    def _tell(self) -> None:
        self._metrics.web_config_good.set(1)
        if self._config.expires:
            self._metrics.certificate_expiry.labels("metrics").set(self._config.expires)
        else:
            with suppress(KeyError):  # there was none before
                self._metrics.certificate_expiry.remove("metrics")

    def _look(self) -> dict[Path, Stamp]:
        return {path: stamp(path) for path in self._config.files}


def _credentials(header: str) -> tuple[str, bytes]:
    """User and password of an Authorization header (RFC 7617); empty ones where it says something else."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", b""
    try:
        user, _, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return user.decode(), password
    except (binascii.Error, UnicodeDecodeError):
        return "", b""
