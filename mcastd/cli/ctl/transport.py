"""The connection to a daemon: address, TLS, deadlines, and calls of any method by its descriptor.

Loads grpc only when it is used.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from mcastd.cli.ctl.contract import message_class
from mcastd.cli.ctl.failure import CallError, from_rpc_error, too_late

DEFAULT_ADDRESS = "unix:/run/mcastd/mcastd.sock"
UNARY_SECONDS = 10.0

_LOCAL = ("unix:", "unix-abstract:")

_CHANNEL_OPTIONS = (
    ("grpc.http2.bdp_probe", 0),  # gRPC's own buffers would hide megabytes of lag of a watcher
    ("grpc.max_receive_message_length", -1),  # an operator would rather have a long answer than none
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
# A peer that is gone without a word (host down, network gone) is noticed; the daemon allows a ping every 5 s.
# gRPC 1.85 goes by ping_timeout_ms (60 s if left alone), others by keepalive_timeout_ms.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
)


_DEADLINE = "Deadline Exceeded"
"""What gRPC says itself, among other words."""


class BadConnectionError(ValueError):
    """An address or TLS file that can't be used."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the daemon is and how it is spoken to."""

    address: str = DEFAULT_ADDRESS
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_server_name: str = ""
    timeout: float | None = None
    """Seconds for an answer, of a stream for its beginning; None = the default, which calls with requests in a stream lack."""

    def local(self) -> bool:
        """Whether it is a socket of this host, which needs no TLS."""
        return self.address.startswith(_LOCAL)


@dataclass(slots=True)
class Answers:
    """The answers of one call as they come; iterate once."""

    start: Callable[[], Iterator[Any]]
    notes: dict[str, str] = field(default_factory=dict)
    """Trailing metadata in text, once the answers have ended."""

    def __iter__(self) -> Iterator[Message]:
        return self.start()


class Connection:
    """A channel to one daemon; use it as a context."""

    def __init__(self, target: Target) -> None:
        """Make the channel; nothing is connected before the first call."""
        # gRPC writes to standard error in its own words otherwise; what matters reaches us as a status.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import grpc  # noqa: PLC0415 - slow to load: help and completion of names do without

        self._grpc = grpc
        self.target = target
        options = [*_CHANNEL_OPTIONS, *(() if target.local() else _KEEPALIVE)]
        if target.local():
            self._channel = grpc.insecure_channel(target.address, options=options)
            return
        credentials = grpc.ssl_channel_credentials(*(_read(path) for path in (target.tls_ca, target.tls_key, target.tls_cert)))
        if target.tls_server_name:
            options.append(("grpc.ssl_target_name_override", target.tls_server_name))
        self._channel = grpc.secure_channel(target.address, credentials, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def on_ready(self, call: Callable[[], None]) -> None:
        """Have something called, in a thread of gRPC's, whenever the connection stands."""
        ready = self._grpc.ChannelConnectivity.READY
        self._channel.subscribe(lambda state: call() if state is ready else None)

    def call(self, method: MethodDescriptor, requests: Sequence[Message], *, whole: bool = False) -> Answers:
        """Call a method with its request, or its stream of them; CallError while the answers are read.

        `whole` = the target's time is for all answers of a stream, and there is no default: a watch, or something quick.
        """
        path = f"/{method.containing_service.full_name}/{method.name}"
        kind = f"{_word(method.client_streaming)}_{_word(method.server_streaming)}"
        make = getattr(self._channel, kind)
        answer = message_class(method.output_type)
        callable_ = make(path, request_serializer=_serialize, response_deserializer=answer.FromString)
        argument = iter(requests) if method.client_streaming else requests[0]
        default = None if method.client_streaming or (method.server_streaming and whole) else UNARY_SECONDS
        timeout = self.target.timeout if self.target.timeout is not None else default
        if method.server_streaming:
            answers = Answers(lambda: self._stream(answers, callable_, argument, timeout, whole=whole))
        else:
            answers = Answers(lambda: self._one(answers, callable_, argument, timeout))
        return answers

    def _one(self, answers: Answers, callable_: Any, argument: Any, timeout: float | None) -> Iterator[Message]:
        try:
            answer, call = callable_.with_call(argument, timeout=timeout)
        except self._grpc.RpcError as exc:
            raise self._failed(exc, timeout, begun=False) from exc
        yield answer
        answers.notes = _notes(call)

    def _stream(
        self, answers: Answers, callable_: Any, argument: Any, timeout: float | None, *, whole: bool
    ) -> Iterator[Message]:
        call = callable_(argument, timeout=timeout if whole else None)
        patience = _Patience(call.cancel, None if whole else timeout)
        begun = False
        try:
            for answer in call:
                patience.end()
                begun = True
                yield answer
            answers.notes = _notes(call)
        except self._grpc.RpcError as exc:
            if patience.ended and timeout is not None:
                raise too_late(self.target.address, timeout) from exc
            raise self._failed(exc, timeout, begun=begun) from exc
        finally:
            patience.end()
            call.cancel()  # when the reader has had enough

    def _failed(self, exc: Any, timeout: float | None, *, begun: bool) -> CallError:
        failed = from_rpc_error(exc, self.target.address)
        ours = failed.status == "DEADLINE_EXCEEDED" and not failed.reason and _DEADLINE in failed.message
        return too_late(self.target.address, timeout, begun=begun) if ours and timeout is not None else failed


class _Patience:
    """Gives a call up after a time, unless that is ended before."""

    def __init__(self, give_up: Callable[[], object], seconds: float | None) -> None:
        self.ended = False
        self._give_up = give_up
        self._timer = None if seconds is None else threading.Timer(seconds, self._expire)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def end(self) -> None:
        """Give up no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self.ended = True
        self._give_up()


def parse_address(text: str) -> str:
    """An address as gRPC takes it; BadConnectionError if it is none."""
    if text.startswith("/"):
        return f"unix:{text}"
    if text.startswith(_LOCAL):
        if text.endswith(":"):
            raise BadConnectionError(f"{text!r} names no socket: write unix:/run/mcastd/mcastd.sock")
        return text
    text = text.removeprefix("tcp:")  # as the daemon's configuration writes it
    host, colon, port = text.removeprefix("dns:").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536 or (":" in host and not host.endswith("]")):
        raise BadConnectionError(f"{text!r} is no address: write unix:PATH, HOST:PORT or [IPV6]:PORT")
    return text


def _notes(call: Any) -> dict[str, str]:
    return {key: value for key, value in call.trailing_metadata() or () if isinstance(value, str)}


def _read(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise BadConnectionError(f"{path}: {exc.strerror}") from exc


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _word(streaming: bool) -> str:
    return "stream" if streaming else "unary"
