"""The terminal on a pty: what is written for a picture, and that all is put back."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import pytest

from mcastd.cli.ctl.top.terminal import Terminal, TerminalGoneError


class Ends(NamedTuple):
    """A terminal and who is before it."""

    outside: int
    inside: int

    def terminal(self) -> Terminal:
        return Terminal(self.inside, self.inside)


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A terminal of 40 columns and 10 lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
    os.set_blocking(ours, False)
    yield Ends(ours, theirs)
    os.close(theirs)
    os.close(ours)


def read(ends: Ends) -> str:
    """What was written; the kernel passes it on a little later, and not always all at once."""
    found, wait = b"", 5.0
    while select.select([ends.outside], [], [], wait)[0]:
        found += os.read(ends.outside, 65536)
        wait = 0.05
    return found.decode()


def test_only_what_differs_is_written(ends: Ends) -> None:
    with ends.terminal() as terminal:
        assert terminal.size() == (40, 10)
        read(ends)
        terminal.draw(["one", "two"])
        assert read(ends) == "\x1b[2J\x1b[1;1H\x1b[Kone\x1b[0m\x1b[2;1H\x1b[Ktwo\x1b[0m"
        terminal.draw(["one", "2"])
        assert read(ends) == "\x1b[2;1H\x1b[K2\x1b[0m"
        terminal.draw(["one"])
        assert read(ends) == "\x1b[2;1H\x1b[J"
        terminal.draw(["one"])
        terminal.forget()
        terminal.draw(["one"])
        assert read(ends) == "\x1b[2J\x1b[1;1H\x1b[Kone\x1b[0m"


def test_another_size_draws_all(ends: Ends) -> None:
    with ends.terminal() as terminal:
        terminal.draw(["one"])
        fcntl.ioctl(ends.outside, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 50, 0, 0))
        read(ends)
        terminal.draw(["one"])
        assert read(ends).startswith("\x1b[2J")


def test_all_is_put_back(ends: Ends) -> None:
    def settings() -> object:
        return termios.tcgetattr(ends.inside)

    before, handlers = settings(), [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGWINCH, signal.SIGTSTP)]
    with suppress(ZeroDivisionError), ends.terminal():
        assert read(ends).startswith("\x1b[?1049h")
        assert settings() != before
        raise ZeroDivisionError
    assert read(ends).endswith("\x1b[?1049l")
    assert settings() == before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGWINCH, signal.SIGTSTP)] == handlers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(ends: Ends, number: signal.Signals) -> None:
    with pytest.raises(SystemExit) as caught, ends.terminal():
        signal.raise_signal(number)
    assert caught.value.code == 128 + number
    assert "\x1b[?1049l" in read(ends)


def test_keys_and_waking(ends: Ends) -> None:
    with ends.terminal() as terminal:
        assert terminal.keys(0) == []
        terminal.wake()
        assert terminal.keys(60) == []
        os.write(ends.outside, b"ab\x1b[A")
        assert terminal.keys(60) == ["a", "b", "<up>"]


def test_nobody_is_there_any_more(ends: Ends) -> None:
    with ends.terminal() as terminal:
        os.write(ends.outside, b"\x04")  # ends input where lines are read; here it is a key without meaning
        assert terminal.keys(60) == []
        nothing, end = os.pipe()
        os.close(end)
        terminal._input, kept = nothing, terminal._input
        with pytest.raises(TerminalGoneError):
            terminal.keys(60)
        terminal._input = kept
        os.close(nothing)
