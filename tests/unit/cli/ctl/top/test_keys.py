"""Keys: characters and sequences, whatever pieces they come in."""

import pytest

from mcastd.cli.ctl.top import keys


@pytest.mark.parametrize(
    "data,found",
    [
        (b"q", ["q"]),
        (b"pb", ["p", "b"]),
        (b"\x1b[A\x1b[B", [keys.UP, keys.DOWN]),
        (b"\x1bOA", [keys.UP]),
        (b"\x1b[5~\x1b[6~", [keys.PAGE_UP, keys.PAGE_DOWN]),
        (b"\x1b[1~\x1b[F", [keys.HOME, keys.END]),
        (b"\x1b", [keys.ESCAPE]),
        (b"\r\x7f\x15\x0c", [keys.ENTER, keys.ERASE, keys.ERASE_ALL, keys.REDRAW]),
        (b"\x1b[24~x", ["x"]),  # a function key that means nothing
        (b"\x1b[200~a\x1b[201~", ["a"]),  # a paste
        (b"\x01\x02", []),
        ("ü€".encode(), ["ü", "€"]),
        (b"\xff", ["\ufffd"]),
    ],
)
def test_keys(data: bytes, found: list[str]) -> None:
    assert keys.Keys().feed(data) == found


def test_a_character_in_two_pieces() -> None:
    made = keys.Keys()
    assert [made.feed(b"\xe2\x82"), made.feed(b"\xac")] == [[], ["€"]]
