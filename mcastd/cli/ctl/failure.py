"""Failed calls: what the daemon says of them, as one line or as JSON."""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcastd.cli.ctl import codes

DETAILS_KEY = "grpc-status-details-bin"

_CONNECT = "last error: "

_CAUSES = (
    (
        os.strerror(errno.EACCES),
        "{address} is closed to you: {cause} (the socket's mode and group say who may connect, root always may)",
    ),
    ("WRONG_VERSION_NUMBER", "{address} does not speak TLS, and mcastctl nothing else over TCP: use a Unix socket of its host"),
    ("CERTIFICATE_VERIFY_FAILED", "the certificate of {address} is not trusted: {cause} (see --tls-ca)"),
    ("Hostname Verification Check failed", "the certificate of {address} is for other names (see --tls-server-name)"),
    (
        "Failed to create security handshaker",
        "certificate and key do not go together, or are of no use (see --tls-cert, --tls-key)",
    ),
    ("Socket closed", "{address} has closed the connection (does it trust the caller's certificate? see --tls-cert)"),
)
"""What gRPC says of a connection that failed, and what we say."""


@dataclass
class CallError(Exception):
    """An RPC that ended with another status than OK."""

    code: int
    status: str
    """Name of the status, as UNAVAILABLE."""
    message: str
    reason: str = ""
    """The daemon's word; empty if it gave none."""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """What the program ends with."""
        return codes.RPC + self.code

    def line(self) -> str:
        """One line for people."""
        return f"mcastctl: {self.reason or self.status}: {one_line(self.message)}"

    def json(self) -> str:
        """The contract's Error message as JSON."""
        error: dict[str, Any] = {"code": self.code, "reason": self.reason or self.status, "message": self.message}
        return json.dumps(error | ({"metadata": dict(self.metadata)} if self.metadata else {}))


def from_rpc_error(error: Any, address: str) -> CallError:
    """What a grpc.RpcError says; `address` is where the daemon was looked for."""
    number, _ = error.code().value
    failed = CallError(int(number), error.code().name, error.details() or "")
    metadata = dict(error.trailing_metadata() or ())
    if DETAILS_KEY in metadata:
        _add_details(failed, metadata[DETAILS_KEY])
    elif failed.status == "UNAVAILABLE" and _CONNECT in failed.message:
        failed.message = _not_reached(failed.message.rpartition(_CONNECT)[2], address)
    return failed


def too_late(address: str, seconds: float, *, begun: bool = False) -> CallError:
    """No answer in the time that there was; `begun` = a part of it."""
    what = "no end of the answer" if begun else "no answer"
    return CallError(4, "DEADLINE_EXCEEDED", f"{what} from {address} within {seconds:g} s (--timeout)")


def one_line(text: str) -> str:
    """Text without line ends or anything else that a terminal acts on."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _not_reached(text: str, address: str) -> str:
    """Why there is no connection, by gRPC's last error."""
    cause = text.removesuffix(": OK").rpartition(": ")[2]
    for word, said in _CAUSES:
        if word in text and (word != "Socket closed" or not address.startswith("unix")):
            return said.format(address=address, cause=cause)
    return f"no daemon answers at {address}: {cause} (is mcastd running? see --address)"


def _add_details(failed: CallError, details: bytes) -> None:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - only failures need it
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415 - see above

    try:
        status = status_pb2.Status.FromString(details)
        infos = [one for one in status.details if one.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
        for info in infos[:1]:
            found = error_details_pb2.ErrorInfo.FromString(info.value)
            failed.reason, failed.metadata = found.reason, dict(found.metadata)
    except DecodeError:
        return  # details are an extra: the status itself has been told
