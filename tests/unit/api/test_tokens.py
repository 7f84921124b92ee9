"""mcastd.api.tokens: what a token says is read back whole, and any other text is nothing rather than an error."""

import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.api.tokens import Position, everything, read_token, write_token
from mcastd.core.feed import Feed, Kind, UpcallNote
from mcastd.model.event import UpcallKind

INSTANCE = str(uuid.UUID(int=7))
OTHER = str(uuid.UUID(int=8))

positions = st.builds(
    Position,
    st.dictionaries(st.sampled_from(Kind), st.integers(0, 2**64 - 2)),
    st.none() | st.integers(0, 2**64 - 2),
)


@given(positions)
def test_what_is_written_is_read(position: Position) -> None:
    token = write_token(INSTANCE, position)
    assert read_token(token, INSTANCE) == position
    assert read_token(token, OTHER) is None


def test_a_token_is_short_and_has_no_character_that_a_shell_or_url_minds() -> None:
    token = write_token(INSTANCE, Position({Kind.ROUTE: 2**63}, 2**63))
    assert len(token) == 76
    assert token.replace("-", "").replace("_", "").isalnum()


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_any_other_text_is_nothing(text: str) -> None:
    assert read_token(text, INSTANCE) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "é",
        "\ud800",
        "A" * 4_000_000,
        write_token(INSTANCE, Position({}, None))[:-1],
        write_token(INSTANCE, Position({}, None)) + "A",
        "C" + write_token(INSTANCE, Position({}, None))[1:],
        write_token(INSTANCE, Position({}, None)) + "\n",
        "+" * 76,
    ],
    ids=range(10),
)
def test_what_is_almost_a_token_is_nothing(text: str) -> None:
    assert read_token(text, INSTANCE) is None


def test_everything_is_where_the_feed_is_now() -> None:
    feed = Feed()
    feed.routes([b"a", b"b"])
    feed.sources([(b"a", "eth0")])
    feed.upcall(UpcallNote(0.0, UpcallKind.NOCACHE, b"a", "eth0", b""))
    assert everything(feed) == Position({Kind.ROUTE: 2, Kind.INTERFACE: 0, Kind.JOIN: 0, Kind.SOURCE: 1}, 1)
