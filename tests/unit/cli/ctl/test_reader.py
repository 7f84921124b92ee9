"""Plain values into messages, with every type that protobuf has."""

from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from mcastd.cli.ctl.contract import Contract, message_class
from mcastd.cli.ctl.reader import BadValueError, fill


def made(contract: Contract, value: object, name: str = "DoEverything") -> Any:
    """A request filled with a value."""
    (service,) = contract.services()
    message: Message = message_class(service.methods_by_name[name].input_type)()
    fill(message, value)
    return message


@pytest.mark.parametrize(
    "value,json",
    [
        ({"text": "a", "truth": True}, {"text": "a", "truth": True}),
        ({"maybe": "no"}, {"maybe": False}),
        ({"small": -1, "big": "18446744073709551615"}, {"small": -1, "big": "18446744073709551615"}),
        ({"zigzag": "-5", "fixed": 3.0, "sfixed": "0x10"}, {"zigzag": "-5", "fixed": 3, "sfixed": "16"}),
        ({"half": "0.5", "whole": 2}, {"half": 0.5, "whole": 2.0}),
        ({"data": "aGk="}, {"data": "aGk="}),
        ({"colour": "sky-blue"}, {"colour": "COLOUR_SKY_BLUE"}),
        ({"colour": "COLOUR_RED"}, {"colour": "COLOUR_RED"}),
        ({"colour": 2, "palette": ["red", "RED"]}, {"colour": "COLOUR_SKY_BLUE", "palette": ["COLOUR_RED", "COLOUR_RED"]}),
        ({"colour": 9}, {"colour": 9}),
        ({"names": ["a", "b"], "numbers": [1, "2"]}, {"names": ["a", "b"], "numbers": [1, 2]}),
        ({"names": "one"}, {"names": ["one"]}),
        ({"span": "1h30m"}, {"span": "5400s"}),
        ({"span": "-1.5s", "spans": ["5", "1ms"]}, {"span": "-1.500s", "spans": ["5s", "0.001s"]}),
        ({"moment": "2026-11-20T18:00:00Z"}, {"moment": "2026-11-20T18:00:00Z"}),
        ({"labels": {"a": "b"}}, {"labels": {"a": "b"}}),
        ({"shelves": {"7": {"name": "x"}, 8: {}}}, {"shelves": {"7": {"name": "x"}, "8": {}}}),
        ({"inner": {"deep": {"depth": 4}, "width": 0}}, {"inner": {"deep": {"depth": 4}, "width": 0}}),
        ({"inner": {}}, {"inner": {}}),
        ({"parts": [{"name": "a"}, "{name: b, count: 2}"]}, {"parts": [{"name": "a"}, {"name": "b", "count": 2}]}),
        ({"tag": "bare"}, {"tag": {"label": "bare"}}),
        ({"tag": '{"label": "l", "weight": 3}'}, {"tag": {"label": "l", "weight": 3}}),
        ({"free": {"any": [1, None]}}, {"free": {"any": [1, None]}}),
        ({"wrapped": 0, "nothing": {}}, {"wrapped": 0, "nothing": {}}),
        ({"nothing": True}, {"nothing": {}}),
        ({"byNumber": 3}, {"by_number": 3}),
        ({"by_place": {"row": 1}}, {"by_place": {"row": 1}}),
        ({"text": None, "output": "kept out", "again": {"again": {"text": "deep"}}}, {"again": {"again": {"text": "deep"}}}),
    ],
)
def test_what_fits(lab: Contract, value: object, json: object) -> None:
    assert json_format.MessageToDict(made(lab, value), preserving_proto_field_name=True) == json


@pytest.mark.parametrize(
    "value,said",
    [
        ("text", "'text' is no mapping: Everything has text, truth"),
        ([1], "[1] is no mapping"),
        ({"txt": 1}, "Everything has no field 'txt'; did you mean text?"),
        ({"text": True}, "text: true is no text"),
        ({"text": ["a"]}, 'text: ["a"] is no text'),
        ({"small": "2147483648"}, "small: 2147483648 is not in the range -2147483648 to 2147483647"),
        ({"small": 1.5}, "small: '1.5' is not a whole number"),
        ({"numbers": [1, -1]}, "numbers[1]: -1 is not in the range 0 to 4294967295"),
        ({"colour": "green"}, "colour: 'green' is not one of red, sky_blue"),
        ({"inner": {"deep": {"depth": "x"}}}, "inner.deep.depth: 'x' is not a whole number"),
        ({"parts": [{}, {"count": "x"}]}, "parts[1].count: 'x' is not a whole number"),
        ({"shelves": {"x": {}}}, "shelves: 'x' is not a whole number"),
        ({"labels": ["a"]}, 'labels: ["a"] is no mapping'),
        ({"span": "soon"}, "span: 'soon' is not a duration"),
        ({"nothing": {"a": 1}}, 'nothing: {"a": 1} is not {}: Nothing has no fields'),
        ({"by_name": "a", "by_number": 1}, "by_number: by_number and by_name exclude each other"),
        ({"by_place": {}, "by_name": "a"}, "by_name: by_name and by_place exclude each other"),
        ({"inner": "{deep"}, "inner: "),
        ({"free": "{broken"}, "free: "),
        ({"inner": "bare"}, "inner: 'bare' is no mapping: Inner has deep, width"),
    ],
)
def test_what_does_not_fit(lab: Contract, value: object, said: str) -> None:
    with pytest.raises(BadValueError) as caught:
        made(lab, value)
    assert str(caught.value).startswith(said)
