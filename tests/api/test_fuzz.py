"""Whatever a client sends, every method answers with a clean status and the daemon stays up."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcast.v1 import route_service_pb2 as rs
from tests.api.bench import Bench, Refusal, intents, refusal
from tests.api.test_methods import ENDS_THE_DAEMON, METHODS

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("api-fuzz"), pytest.mark.timeout(300)]

WATCH = "EventService.Watch"
"""Never ends by itself."""

UNCLEAN = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS}
fuzzed = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

TEXTS = st.one_of(
    st.sampled_from(
        (
            *(
                "",
                "239.1.1.1",
                "239.1.1.2",
                "232.0.0.0/8",
                "224.0.0.1",
                "ff3e::1",
                "FF3E:0::0:2",
                "ff02::1",
                "ff3e::/32",
                "::",
                "::/0",
            ),
            *(
                "10.0.0.1",
                "10.0.0.0/24",
                "fd00::1",
                "fe80::1%up",
                "0.0.0.0",
                "255.255.255.255",
                "1.2.3.4/32",
                "1.2.3.4/" + "1" * 5000,
            ),
            *(
                "up",
                "down1",
                "down2",
                "lo",
                "d*",
                "!d*",
                "!down1",
                "[",
                "[!",
                "*?" * 30,
                "absent0",
                "i" * 16,
                "a/b",
                "\0",
                "ä" * 8,
            ),
            *("local", "alice", "kernel", "config", "A", "mcast.v1.Route", "x" * 10_000),
        )
    ),
    st.text(max_size=20),
    st.ip_addresses().map(str),
)
GROUPS = st.sampled_from(("239.1.1.1", "239.1.1.2", "239.1.1.3/32", "232.9.9.9", "ff3e::1", "FF3E:0::0:2", "ff05::1:3"))
SOURCES = st.sampled_from(("10.0.0.1", "10.0.0.2/32", "fd00::1", "FD00:0::0:2", "192.0.2.1"))
NAMES = st.sampled_from(("up", "down1", "down2", "d*", "!d*", "!down1", "absent0", "?p"))
LIKELY = {
    "group": GROUPS,
    "source": SOURCES,
    "iif": st.sampled_from(("up", "down1", "absent0")),
    "interface": NAMES,
    "owner": st.just(""),
}
"""What makes a request sound, more often than not: the rest of the daemon is to see some of them."""

SELDOM = {"join", "idle_timeout", "wildcard", "status", "epoch", "if_revision", "validate_only", "keep_forwarding"}
"""Fields that most sound requests lack."""

TABLES = st.sampled_from((0, 0, 0, 5, 253, 254, 999_999_999, 1_000_000_000, 2**32 - 1))


def value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    """Values for one field, with a leaning to what matters."""
    if field.message_type is not None:
        return message(field.message_type, depth - 1)
    if field.name == "table":
        return TABLES
    if field.name in LIKELY and field.type == FieldDescriptor.TYPE_STRING:
        return LIKELY[field.name] | LIKELY[field.name] | LIKELY[field.name] | TEXTS
    kinds: dict[int, st.SearchStrategy[Any]] = {
        FieldDescriptor.CPPTYPE_STRING: TEXTS if field.type == FieldDescriptor.TYPE_STRING else st.binary(max_size=20),
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
        FieldDescriptor.CPPTYPE_ENUM: st.integers(-1, 9) | st.integers(-(2**31), 2**31 - 1),
        FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 300) | st.integers(0, 2**32 - 1),
        FieldDescriptor.CPPTYPE_INT32: st.integers(-2, 2) | st.integers(-(2**31), 2**31 - 1),
        FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 3) | st.integers(0, 2**64 - 1),
        FieldDescriptor.CPPTYPE_INT64: st.integers(-3, 300) | st.integers(-(2**63), 2**63 - 1),
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    }
    return kinds[field.cpp_type]


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether a field holds several values."""
    newer: Any = field  # protobuf 6 and 7 differ in how they say it
    return bool(newer.is_repeated if hasattr(newer, "is_repeated") else newer.label == FieldDescriptor.LABEL_REPEATED)


@st.composite
def message(draw: st.DrawFn, kind: descriptor.Descriptor, depth: int = 5) -> Message:
    """A well-formed message of a type: any of its fields, any values."""
    made = message_factory.GetMessageClass(kind)()
    for field in kind.fields:
        if field.message_type is not None and (depth <= 0 or field.message_type.GetOptions().map_entry):
            continue
        if draw(st.integers(0, 9)) < (9 if field.name in SELDOM else 2):
            continue
        if is_repeated(field):
            target = getattr(made, field.name)
            target.extend(draw(st.lists(value(field, depth), max_size=3)))
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(draw(value(field, depth)))
        else:
            setattr(made, field.name, draw(value(field, depth)))
    return made


def up_to_now(answers: Iterator[Any]) -> Iterator[Message]:
    """The messages of Watch up to the one that says that all there is was told."""
    for answer in answers:
        yield answer
        if answer.synced:
            return


def call(bench: Bench, name: str, requests: list[bytes]) -> Refusal | None:
    """Call a method with raw requests; an answer must be one of its type."""
    method = METHODS[name]
    channel = (bench.write if name == ENDS_THE_DAEMON else bench.admin).channel
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer = message_factory.GetMessageClass(method.output_type).FromString
    streams: Any = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    stub = streams(path, request_serializer=bytes, response_deserializer=answer)
    sent: bytes | Iterator[bytes] = iter(requests) if method.client_streaming else requests[0]
    try:
        got = stub(sent, timeout=20)
        if method.server_streaming:
            list(up_to_now(got) if name == WATCH else got)
            got.cancel()
    except grpc.RpcError as exc:
        return refusal(exc)
    return None


answered: Counter[str] = Counter()
"""Calls that were no error, by method."""


def check(bench: Bench, name: str, requests: list[bytes]) -> None:
    """What must hold of every call."""
    found = call(bench, name, requests)
    if found is None:
        answered[name] += 1
    else:
        assert found.code not in UNCLEAN, found
        assert found.code is not grpc.StatusCode.DEADLINE_EXCEEDED, found
        assert found.reason, found
        assert found.message, found


@pytest.fixture(scope="module")
def sound_bench(shared_bench: Bench) -> Iterator[Bench]:
    """A bench that is as sound after all the tests of this module as before."""
    pid = shared_bench.daemon.server_pid()
    yield shared_bench
    assert shared_bench.daemon.server_pid() == pid, "the server has died and come back"
    assert "Traceback" not in shared_bench.daemon.log(), shared_bench.daemon.log()[-4000:]
    for owner in shared_bench.admin.status().owners:
        theirs = [one for one in shared_bench.admin.listed() if one.status.owner == owner.name]
        assert shared_bench.admin.put(*intents(theirs), owner=owner.name).unchanged == len(theirs)


@pytest.mark.parametrize("name", METHODS)
def test_random_bytes(sound_bench: Bench, name: str) -> None:
    least = 0 if METHODS[name].client_streaming else 1

    @fuzzed
    @given(st.lists(st.binary(max_size=60), min_size=least, max_size=3))
    def run(requests: list[bytes]) -> None:
        check(sound_bench, name, requests)

    run()


def in_turn(request: Any) -> Any:
    """A message of a session, whose operations say something and have ids that grow."""
    for at, op in enumerate(request.batch.ops if request.HasField("batch") else (), 1):
        op.id = at
        if op.WhichOneof("op") is None:
            op.delete.group = "239.1.1.1"
    return request


@pytest.mark.parametrize("name", METHODS)
def test_random_messages(sound_bench: Bench, name: str) -> None:
    method = METHODS[name]
    least, most = (0, 4) if method.client_streaming else (1, 1)

    @fuzzed
    @given(st.lists(message(method.input_type), min_size=least, max_size=most), st.booleans())
    def run(requests: list[Message], in_order: bool) -> None:
        if in_order and name == "RouteService.ReplaceRoutes":
            chunks = [one for one in requests if one.HasField("chunk")]
            requests = [rs.ReplaceRoutesRequest(header=rs.ReplaceRoutesRequest.Header(allow_empty=True)), *chunks[:1]]
        if in_order and name == "RouteService.ProgramRoutes":
            opening = rs.ProgramRoutesRequest(open=rs.ProgramRoutesRequest.Open())
            requests = [opening, *(in_turn(one) for one in requests if one.WhichOneof("request") not in {None, "open"})]
        check(sound_bench, name, [one.SerializeToString() for one in requests])

    answered[name] = 0
    run()
    if name != ENDS_THE_DAEMON:
        assert answered[name], "what is sound is among them"


@pytest.mark.parametrize("name", METHODS)
def test_messages_with_a_bit_wrong(sound_bench: Bench, name: str) -> None:
    method = METHODS[name]

    @fuzzed
    @given(message(method.input_type), st.integers(0, 10_000), st.integers(0, 7))
    def run(request: Message, at: int, bit: int) -> None:
        data = bytearray(request.SerializeToString())
        if data:
            data[at % len(data)] ^= 1 << bit
        check(sound_bench, name, [bytes(data)])

    run()
