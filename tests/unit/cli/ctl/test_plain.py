"""Messages as JSON and YAML: as protobuf's own module writes them."""

import json
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from mcastd.cli.ctl.contract import Contract, message_class
from mcastd.cli.ctl.plain import Plain
from mcastd.cli.ctl.yamltext import yaml_document, yaml_item
from tests.unit.cli.ctl.conftest import contract_of

LAB = contract_of("lab.proto")
EVERYTHING: Any = message_class(LAB.services()[0].methods_by_name["DoEverything"].input_type)

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
INNER = st.fixed_dictionaries(
    {}, optional={"deep": st.fixed_dictionaries({"depth": st.integers(0, 2**32 - 1)}), "width": st.just(0)}
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "text": TEXT,
        "truth": st.booleans(),
        "maybe": st.booleans(),
        "small": st.integers(-(2**31), 2**31 - 1),
        "big": st.integers(0, 2**64 - 1),
        "sfixed": st.integers(-(2**63), 2**63 - 1),
        "half": st.floats(width=32),
        "whole": st.floats(),
        "data": st.binary(max_size=8),
        "colour": st.sampled_from([0, 1, 2, 77]),
        "palette": st.lists(st.sampled_from([1, 2]), max_size=3),
        "names": st.lists(TEXT, max_size=3),
        "numbers": st.lists(st.integers(0, 9), max_size=3),
        "labels": st.dictionaries(TEXT, TEXT, max_size=2),
        "inner": INNER,
        "parts": st.lists(st.fixed_dictionaries({"name": TEXT}), max_size=2),
        "by_number": st.integers(0, 3),
        "output": TEXT,
    },
)


def made(values: dict[str, Any]) -> Any:
    """A message with everything in it, and some of each well-known type."""
    message = EVERYTHING(**values)
    message.span.FromNanoseconds(-1_500_000_000)
    message.moment.FromJsonString("2026-11-20T18:00:00.25Z")
    message.free.update({"a": [1, {"b": None}]})
    message.wrapped.value = 0
    message.nothing.SetInParent()
    message.shelves[7].name = "seven"
    return message


@given(VALUES, st.booleans())
def test_json_is_that_of_protobuf(values: dict[str, Any], full: bool) -> None:
    message = made(values)
    theirs = json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=full)
    ours = json.loads(json.dumps(Plain(full=full).message(message)))
    assert ours == theirs


@given(VALUES)
def test_yaml_reads_back(values: dict[str, Any]) -> None:
    plain = Plain(exact=True).message(made(values))
    assert yaml.safe_load(yaml_document(plain)) == plain
    assert yaml.safe_load(yaml_item(plain) + yaml_item(plain)) == [plain, plain]


@pytest.mark.parametrize(
    "value",
    [
        *(
            "239.1.1.1",
            "239.0.0.0/8",
            "ff3e::1",
            "fd00:0:0:1::1",
            "::",
            "1::",
            "12:30",
            "1:2:3:4:5:6:7:8",
            "eth0.5",
            "vlan*",
            "!eth1",
        ),
        *(
            "on",
            "No",
            "null",
            "~",
            "",
            " a",
            "a: b",
            "a #b",
            "-",
            "- a",
            "a:",
            "@a",
            "%a",
            "[a]",
            "{a}",
            "=",
            "<<",
            "y",
            "'",
            '"',
        ),
        *("0x10", "1e3", "1.5", ".inf", "2026-11-20", "12e03", "0o7", "1_000", "NaN", "a\nb", "\x07", "é"),
        *("\U0001f600", "\x85", "\ufeff"),
    ],
)
def test_text_stays_text(value: str) -> None:
    assert yaml.safe_load(yaml_document({"a": value, "b": [value]})) == {"a": value, "b": [value]}
    assert yaml.safe_load(yaml_document(value)) == value


def test_addresses_are_written_bare() -> None:
    assert yaml_document({"group": "239.1.1.1", "source": "fd00:0:0:1::1"}) == "group: 239.1.1.1\nsource: fd00:0:0:1::1\n"


def test_64_bits_are_numbers_in_yaml_and_text_in_json() -> None:
    message = EVERYTHING(big=2**64 - 1)
    assert Plain().message(message) == {"big": "18446744073709551615"}
    assert Plain(exact=True).message(message) == {"big": 2**64 - 1}


def test_fields_of_a_newer_contract_do_no_harm(shipped: Contract) -> None:
    (routes,) = (service for service in shipped.services() if service.name == "RouteService")
    newer = EVERYTHING(text="239.1.1.1", names=["x"]).SerializeToString()
    message = message_class(routes.methods_by_name["PutRoutes"].input_type.fields_by_name["routes"].message_type)  # type: ignore[arg-type]
    assert Plain().message(message.FromString(newer)) == {"group": "239.1.1.1"}
