"""The command line of top, and its tables with a clock of the test."""

from collections.abc import Callable

import pytest

from mcastd.cli.ctl.contract import Contract
from mcastd.cli.ctl.failure import CallError
from mcastd.cli.ctl.screen import Screen
from mcastd.cli.ctl.top.command import Wish, write_tables
from mcastd.cli.ctl.top.flows import Flow
from mcastd.cli.ctl.top.view import Picture, View
from tests.unit.cli.ctl.conftest import Run


def flows(count: int) -> list[Flow]:
    return [Flow(0, f"232.0.0.{n}", "10.0.0.1", "up", ("down1",), True, "PROGRAMMED", "me", False) for n in range(1, count + 1)]


def answers(*given: list[Flow] | CallError) -> Callable[[], Picture]:
    """A daemon that answers so."""
    left = list(given)

    def ask() -> Picture:
        one = left.pop(0)
        if isinstance(one, CallError):
            raise one
        return Picture("unix:/x", one, time=1.0)

    return ask


def wish(tables: int, **fields: object) -> Wish:
    return Wish(**{"interval": 2.0, "tables": tables, "rows": None, "form": "", "view": View(), **fields})  # type: ignore[arg-type]


GONE = CallError(14, "UNAVAILABLE", "no daemon answers")


def test_a_table_for_each_interval(capsys: pytest.CaptureFixture[str]) -> None:
    slept: list[float] = []
    write_tables(answers([], flows(1), flows(2)), wish(2), Screen(), slept.append)
    first, second = capsys.readouterr().out.split("\n\n")
    assert (len(first.splitlines()), len(second.splitlines())) == (2, 3)
    assert slept == [2.0, 2.0]


def test_rows_filter_and_form(capsys: pytest.CaptureFixture[str]) -> None:
    write_tables(answers([], flows(9)), wish(1, rows=2, form="ndjson"), Screen(), lambda _: None)
    assert len(capsys.readouterr().out.splitlines()) == 2
    write_tables(answers([], flows(9)), wish(1, view=View(filter="0.0.7"), form="json"), Screen(), lambda _: None)
    assert capsys.readouterr().out.count('"group"') == 1


def test_it_goes_on_over_a_restart(capsys: pytest.CaptureFixture[str]) -> None:
    write_tables(answers([], GONE, GONE, flows(1)), wish(1), Screen(), lambda _: None)
    told = capsys.readouterr()
    assert told.err == "mcastctl: UNAVAILABLE: no daemon answers; trying again\nmcastctl: connected again\n"
    assert len(told.out.splitlines()) == 2


@pytest.mark.parametrize("given", [[GONE], [[], CallError(7, "PERMISSION_DENIED", "no")]])
def test_no_daemon_at_first_and_a_refusal_end_it(given: list[list[Flow] | CallError]) -> None:
    with pytest.raises(CallError):
        write_tables(answers(*given), wish(1), Screen(), lambda _: None)


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["-o", "yaml", "top"], "top writes table, json, ndjson, not yaml"),
        (["--columns", "group", "top"], "top has columns of its own"),
        (["top", "--sort", "colour"], "'colour' is not one of 'packets', 'bits'"),
        (["top", "--interval", "0"], "leaves no time"),
        (["top", "-n", "0"], "0 is not in the range"),
        (["top", "--match-table", "x"], "not a whole number"),
        (["top", "232.1.1.1", "10.0.0.1", "more"], "unexpected extra argument"),
    ],
)
def test_a_wrong_command_line(shipped: Contract, command_line: Run, arguments: list[str], said: str) -> None:
    code, _, err = command_line(shipped, *arguments)
    assert code == 2
    assert said in err


def test_no_daemon(shipped: Contract, command_line: Run) -> None:
    code, out, err = command_line(shipped, "--address", "unix:/nowhere", "top", "-n", "1")
    assert (code, out) == (64 + 14, "")
    assert err.startswith("mcastctl: UNAVAILABLE: no daemon answers at unix:/nowhere")


def test_it_is_among_the_commands_where_the_contract_has_what_it_needs(
    shipped: Contract, lab: Contract, command_line: Run
) -> None:
    assert "Views:\n  top" in command_line(shipped, "--help")[1]
    assert "Views" not in command_line(lab, "--help")[1]
    assert command_line(lab, "top")[0] == 2
