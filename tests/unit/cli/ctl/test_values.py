"""Text of scalar values, both ways."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from mcastd.cli.ctl import values
from mcastd.cli.ctl.plain import nanos_of

S = values.NANOS
NOW = 1_800_000_000 * S

DURATIONS = st.integers(-315_576_000_000 * S, 315_576_000_000 * S)


@pytest.mark.parametrize(
    "text,nanos",
    [
        ("90s", 90 * S),
        ("5m", 300 * S),
        ("1h30m", 5400 * S),
        ("250ms", S // 4),
        ("1.5s", 3 * S // 2),
        ("0.000000001s", 1),
        ("10", 10 * S),
        ("-10m", -600 * S),
        ("2d", 2 * 86400 * S),
        ("0", 0),
    ],
)
def test_durations(text: str, nanos: int) -> None:
    assert values.parse_duration(text) == nanos


@pytest.mark.parametrize("text", ["", "s", "5 m", "1h-30m", "5x", "1.s", "999999999999s", "1:30", "m5"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        values.parse_duration(text)


@given(DURATIONS)
def test_a_written_duration_reads_back(nanos: int) -> None:
    assert values.parse_duration(values.format_duration(nanos)) == nanos


@given(DURATIONS)
def test_durations_in_json_are_those_of_protobuf(nanos: int) -> None:
    message = Duration()
    message.FromNanoseconds(nanos)
    assert values.format_duration_json(nanos) == message.ToJsonString()
    assert nanos_of(message) == nanos


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)), st.integers(0, S - 1))  # noqa: DTZ001 - UTC, as said
def test_times_are_those_of_protobuf(moment: datetime, nanos: int) -> None:
    message = Timestamp()
    message.FromDatetime(moment.replace(tzinfo=UTC, microsecond=0))
    message.nanos = nanos
    text = message.ToJsonString()
    assert values.format_timestamp(nanos_of(message)) == text
    assert values.parse_timestamp(text, NOW) == nanos_of(message)


@pytest.mark.parametrize(
    "text,nanos",
    [
        ("now", NOW),
        ("-10m", NOW - 600 * S),
        ("+1h", NOW + 3600 * S),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01t00:00:01.5z", 3 * S // 2),
        ("1970-01-01 00:00:00Z", 0),
    ],
)
def test_times(text: str, nanos: int) -> None:
    assert values.parse_timestamp(text, NOW) == nanos


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "12:30"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        values.parse_timestamp(text, NOW)


@pytest.mark.parametrize("text,number", [("0", 0), ("255", 255), ("0xff", 255), ("+7", 7), ("-5", -5), ("007", 7)])
def test_integers(text: str, number: int) -> None:
    assert values.parse_integer(text, -5, 255) == number


@pytest.mark.parametrize("text", ["", "256", "-6", "1.0", "1e3", "one", "0x", "1_000", "\u0663x"])
def test_what_is_no_integer(text: str) -> None:
    with pytest.raises(ValueError, match=r"whole number|range"):
        values.parse_integer(text, -5, 255)


@pytest.mark.parametrize(
    "parse,text",
    [(values.parse_bool, "maybe"), (values.parse_float, "much"), (values.parse_bytes, "a"), (values.parse_bytes, "?")],
)
def test_other_refusals(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match="is n"):
        parse(text)


def test_bytes_are_base64_of_either_alphabet() -> None:
    assert values.parse_bytes("-_8=") == values.parse_bytes("+/8") == b"\xfb\xff"


@pytest.mark.parametrize(
    "seconds,text",
    [
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (190, "3m10s"),
        (3600, "1h"),
        (18_720, "5h12m"),
        (86_400, "1d"),
        (705_600, "8d4h"),
        (-5, "0s"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert values.format_age(int(seconds * S)) == text


@pytest.mark.parametrize(
    "number,text",
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (1234, "1.23k"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (1_500_000_000, "1.50G"),
        (2**64 - 1, "18.4E"),
        (0.25, "0.25"),
        (17.33, "17.3"),
        (99.96, "100"),
        (999.7, "1.00k"),
        (-1500, "-1.50k"),
        (float("inf"), "inf"),
    ],
)
def test_si(number: float, text: str) -> None:
    assert values.format_si(number) == text
