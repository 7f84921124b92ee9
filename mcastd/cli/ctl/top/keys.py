"""Keys: what a terminal sends, taken apart into characters and the names of special keys. Pure."""

import codecs
import re
from collections.abc import Iterator

UP, DOWN, PAGE_UP, PAGE_DOWN, HOME, END = "<up>", "<down>", "<page-up>", "<page-down>", "<home>", "<end>"
ENTER, ERASE, ERASE_ALL, ESCAPE, REDRAW = "<enter>", "<erase>", "<erase-all>", "<escape>", "<redraw>"

# ECMA-48 control sequences, as xterm and its kin send them; SS3 is that of keypad mode.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~])")
_NAMES = {
    **dict.fromkeys(("[A", "OA"), UP),
    **dict.fromkeys(("[B", "OB"), DOWN),
    **dict.fromkeys(("[H", "OH", "[1~", "[7~"), HOME),
    **dict.fromkeys(("[F", "OF", "[4~", "[8~"), END),
    "[5~": PAGE_UP,
    "[6~": PAGE_DOWN,
}
_CONTROLS = {"\r": ENTER, "\n": ENTER, "\x7f": ERASE, "\x08": ERASE, "\x15": ERASE_ALL, "\x0c": REDRAW, "\x1b": ESCAPE}


class Keys:
    """Puts keys together from whatever pieces the terminal's bytes come in."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> list[str]:
        """The keys of some bytes. A sequence comes in one piece: an escape that ends a piece is the key itself."""
        return list(_split(self._decoder.decode(data)))


def _split(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        found = _SEQUENCE.match(text, at)
        if found:
            at = found.end()
            if name := _NAMES.get(found[0][1:]):
                yield name
            continue
        char = text[at]
        at += 1
        if char in _CONTROLS:
            yield _CONTROLS[char]
        elif char.isprintable():
            yield char
