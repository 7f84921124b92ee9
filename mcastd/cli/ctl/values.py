"""Text of scalar values, both ways: integers, durations, points in time. Knows no descriptors.

Every refusal is a ValueError that says what is accepted.
"""

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta

NANOS = 1_000_000_000

_UNITS = {"d": 86_400 * NANOS, "h": 3_600 * NANOS, "m": 60 * NANOS, "s": NANOS, "ms": 1_000_000, "us": 1_000, "ns": 1}
_DURATION = re.compile(r"(?P<sign>[+-]?)(?P<parts>(?:\d+(?:\.\d+)?(?:d|h|ms|m|us|ns|s))+|\d+(?:\.\d+)?)")
_PART = re.compile(r"(\d+)(?:\.(\d+))?(d|h|ms|m|us|ns|s)?")
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|\d+)")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")

_DURATION_MAX = 315_576_000_000 * NANOS  # duration.proto: about 10,000 years
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def parse_integer(text: str, least: int, greatest: int) -> int:
    """An integer, decimal or 0x..."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text!r} is not a whole number")
    value = int(text, 16 if "x" in text.lower() else 10)
    if not least <= value <= greatest:
        raise ValueError(f"{text} is not in the range {least} to {greatest}")
    return value


def parse_float(text: str) -> float:
    """A number, also inf and nan."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def parse_bool(text: str) -> bool:
    """True or false, as people and YAML write it."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def parse_bytes(text: str) -> bytes:
    """Base64, as JSON has bytes; the URL alphabet and missing padding are accepted."""
    try:
        return base64.b64decode(text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError(f"{text!r} is not base64") from None


def parse_duration(text: str) -> int:
    """Nanoseconds of "90s", "5m", "1h30m", "250ms"; a bare number is seconds."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a duration: write 90s, 5m, 1h30m or 250ms")
    total = 0
    for whole, fraction, unit in _PART.findall(match["parts"]):
        size = _UNITS[unit or "s"]
        total += int(whole) * size + (int(fraction) * size // 10 ** len(fraction) if fraction else 0)
    if total > _DURATION_MAX:
        raise ValueError(f"{text!r} is too long a duration")
    return -total if match["sign"] == "-" else total


def format_duration(nanos: int) -> str:
    """Nanoseconds as "1h30m", "90ms" or "1.5s"; parse_duration reads it back."""
    sign, rest = ("-", -nanos) if nanos < 0 else ("", nanos)
    if not rest:
        return "0s"
    if rest < NANOS:
        unit = next(unit for unit in ("ms", "us", "ns") if rest >= _UNITS[unit])
        return f"{sign}{_decimal(rest, _UNITS[unit])}{unit}"
    parts = []
    for unit in ("d", "h", "m"):
        count, rest = divmod(rest, _UNITS[unit])
        parts.append(f"{count}{unit}" if count else "")
    return sign + "".join(parts) + (f"{_decimal(rest, NANOS)}s" if rest else "")


def format_duration_json(nanos: int) -> str:
    """Nanoseconds as proto3 JSON has them: seconds, with 0, 3, 6 or 9 digits."""
    sign, rest = ("-", -nanos) if nanos < 0 else ("", nanos)
    return f"{sign}{_json_seconds(*divmod(rest, NANOS))}s"


def parse_timestamp(text: str, now: int) -> int:
    """Nanoseconds since 1970 of RFC 3339 text, "now", or a time before or after now ("-10m", "+1h")."""
    if text == "now":
        return now
    if text[:1] in {"-", "+"}:
        return now + parse_duration(text)
    match = _TIME.fullmatch(text)
    try:
        if match:
            date, time, fraction, zone = match.groups()
            moment = datetime.fromisoformat(f"{date}T{time}{'+00:00' if zone in {'Z', 'z'} else zone}")
            return (moment - _EPOCH) // timedelta(seconds=1) * NANOS + int((fraction or "").ljust(9, "0"))
    except ValueError:
        pass  # a date that no calendar has: refused below, with the same words
    raise ValueError(f"{text!r} is not a time: write 2026-11-20T18:00:00Z, or -10m for ten minutes ago")


def format_timestamp(nanos: int) -> str:
    """RFC 3339 text, UTC, with 0, 3, 6 or 9 digits as proto3 JSON has it."""
    seconds, rest = divmod(nanos, NANOS)
    text = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    return f"{text[:17]}{_json_seconds(seconds % 60, rest, 2)}Z"


def format_age(nanos: int) -> str:
    """A length of time in at most two units: 42s, 3m10s, 5h12m, 8d4h."""
    seconds = max(0, nanos) // NANOS
    if seconds < 60:
        return f"{seconds}s"
    sizes = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)]
    at = next(i for i, (_, size) in enumerate(sizes) if seconds >= size)
    (big, size), (small, part) = sizes[at], sizes[at + 1]
    rest = seconds % size // part
    return f"{seconds // size}{big}{rest}{small}" if rest else f"{seconds // size}{big}"


def format_si(number: float) -> str:
    """A number with a decimal suffix and three digits: 999, 1.23k, 45.6M."""
    if number != number or number in {float("inf"), float("-inf")}:  # noqa: PLR0124 - nan alone differs from itself
        return str(number)
    value, sign = abs(number), "-" if number < 0 else ""
    if value < 999.5:
        return sign + (str(round(value)) if value == int(value) or value >= 99.95 else f"{value:.3g}")
    for suffix in "kMGTPE":
        value /= 1000
        # 999.5 and more would be written with four digits.
        if value < 999.5 or suffix == "E":
            break
    return f"{sign}{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{suffix}"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0").rstrip(".")


def _json_seconds(seconds: int, nanos: int, width: int = 0) -> str:
    if not nanos:
        return f"{seconds:0{width}d}"
    digits = 3 if nanos % 1_000_000 == 0 else 6 if nanos % 1_000 == 0 else 9
    return f"{seconds:0{width}d}.{nanos // 10 ** (9 - digits):0{digits}d}"
