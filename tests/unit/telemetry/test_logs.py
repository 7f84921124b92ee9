"""What a log line looks like."""

import io
import logging
import os
import re
import subprocess
import sys

import pytest

from mcastd.telemetry import logs
from mcastd.telemetry.logs import LineFormatter, Style


def line(style: Style, message: str = "it works", level: int = logging.INFO, **extra: object) -> str:
    record = logging.getLogger("mcastd.x").makeRecord("mcastd.x", level, "x.py", 1, message, (), None, extra=extra)
    record.created = 0.25
    return LineFormatter("keeper", style).format(record)


def test_logfmt() -> None:
    assert line(Style.LOGFMT, table=3, name_="down 1") == (
        'time=1970-01-01T00:00:00.250Z level=info process=keeper msg="it works" logger=mcastd.x table=3 name_="down 1"'
    )


@pytest.mark.parametrize("level,priority", [(50, 2), (40, 3), (30, 4), (20, 6), (10, 7)])
def test_journal_has_the_priority_of_syslog(level: int, priority: int) -> None:
    assert line(Style.JOURNAL, level=level, table=3) == f"<{priority}>keeper: it works table=3"


def test_terminal_is_for_people() -> None:
    assert re.fullmatch(r"\d\d:\d\d:00\.250 WARNING keeper: it works table=3", line(Style.TERMINAL, level=30, table=3))


@pytest.mark.parametrize("style", Style)
def test_line_stays_one_line(style: Style) -> None:
    assert "\n" not in line(style, "two\nlines\x1b[31m", value="two\nlines", other="\x1b[31m\u2028")
    assert "\x1b" not in line(style, "two\nlines\x1b[31m", value="\x1b")


@pytest.mark.parametrize(
    "value,text",
    [
        ("", '""'),
        ("a b", '"a b"'),
        ('say "x"', '"say \\"x\\""'),
        ("a=b", '"a=b"'),
        ("back\\slash", '"back\\\\slash"'),
        ("(10.0.0.1,232.1.1.1)", "(10.0.0.1,232.1.1.1)"),
        (None, "None"),
        ("tab\t", '"tab\\t"'),
        ("\x01", '"\\u0001"'),
        ("evil\u202elive", '"evil\\u202elive"'),
        ("al\u200bice", '"al\\u200bice"'),
        ("ålice", "ålice"),
    ],
)
def test_values_are_quoted_where_they_must_be(value: object, text: str) -> None:
    assert line(Style.JOURNAL, value=value).endswith(f" value={text}")


def fail() -> None:
    raise ValueError("no\ngood")


def test_traceback_is_a_field_but_for_people() -> None:
    with pytest.raises(ValueError) as caught:
        fail()
    record = logging.getLogger("x").makeRecord("x", 40, "x.py", 1, "failed", (), (caught.type, caught.value, caught.tb))
    for style in (Style.LOGFMT, Style.JOURNAL):
        text = LineFormatter("server", style).format(record)
        assert "\n" not in text
        assert ' exception="Traceback (most recent call last):\\n' in text
    assert "\nTraceback (most recent call last):\n" in LineFormatter("server", Style.TERMINAL).format(record)


def test_journal_is_known_by_device_and_inode(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "w", encoding="utf-8") as stream:
        found = os.fstat(writing)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert logs.style_of(stream) is Style.JOURNAL
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
        assert logs.style_of(stream) is Style.LOGFMT


def test_terminal_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    master, terminal = os.openpty()
    with os.fdopen(master, "rb", buffering=0), os.fdopen(terminal, "w", encoding="utf-8") as stream:
        assert logs.style_of(stream) is Style.TERMINAL


@pytest.fixture
def stream() -> io.StringIO:
    """Where the lines go; logging itself is put back after each test (tests/conftest.py)."""
    return io.StringIO()


def test_level_is_kept(stream: io.StringIO) -> None:
    logs.configure("server", "warning", stream)
    logging.getLogger("mcastd.y").info("quiet")
    logging.getLogger("mcastd.y").warning("loud", extra={"vif": 3})
    assert stream.getvalue().count("\n") == 1
    assert "msg=loud logger=mcastd.y vif=3\n" in stream.getvalue()


def test_configuring_again_replaces(stream: io.StringIO) -> None:
    logs.configure("server", "warning", io.StringIO())
    logs.configure("keeper", "info", stream)
    logging.getLogger("mcastd.y").info("here")
    assert stream.getvalue().count("here") == 1


def test_uncaught_errors_are_lines(stream: io.StringIO) -> None:
    logs.configure("keeper", "error", stream)
    try:
        fail()
    except ValueError as exc:
        logs.log_uncaught(type(exc), exc, exc.__traceback__)
    assert stream.getvalue().count("\n") == 1
    assert "level=critical" in stream.getvalue()


@pytest.mark.parametrize("finish, code", [("", 120), ("logs.finish()", 0)])
def test_end_without_a_reader_is_no_failure(finish: str, code: int) -> None:
    program = f"""
import logging, os, sys
from mcastd.telemetry import logs
logs.configure("keeper", "info")
sys.stdin.read()
logging.getLogger().info("nobody reads this")
{finish}
"""
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stderr=pipe, env=environment) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stderr.close()
        process.stdin.close()
        assert process.wait(20) == code


@pytest.mark.parametrize("what,told", [("all", ["done", "refused"]), ("refusals", ["refused"]), ("off", [])])
def test_the_audit_log_has_a_level_of_its_own(stream: io.StringIO, what: str, told: list[str]) -> None:
    audit = logging.getLogger("mcastd.audit")
    logs.configure("server", "error", stream)
    logs.configure_audit(what)
    try:
        audit.info("done")
        audit.warning("refused")
    finally:
        audit.setLevel(logging.NOTSET)
    assert [line.partition("msg=")[2].split()[0] for line in stream.getvalue().splitlines()] == told
