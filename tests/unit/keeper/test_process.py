"""What a server is given when it is started."""

import os
import site
import sys
from pathlib import Path

import pytest

import mcastd
from mcastd.keeper import process
from mcastd.keeper.process import server_environment, status_text


@pytest.fixture(autouse=True)
def _source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcastd, "__file__", "/tree/mcastd/__init__.py")


def test_environment_is_what_a_server_needs() -> None:
    given = {"PATH": "/bin", "LC_ALL": "C", "HOME": "/root", "NOTIFY_SOCKET": "x", "MCASTD_USER": "x", "GRPC_VERBOSITY": "debug"}
    assert server_environment(given) == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "GRPC_VERBOSITY": "debug",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        "PYTHONPATH": "/tree",
    }


def test_fork_support_of_grpc_is_off_whatever_was_set() -> None:
    assert server_environment({"GRPC_ENABLE_FORK_SUPPORT": "1"})["GRPC_ENABLE_FORK_SUPPORT"] == "0"


def test_source_tree_goes_before_the_path_that_was_given() -> None:
    assert server_environment({"PYTHONPATH": "/more"})["PYTHONPATH"] == f"/tree{os.pathsep}/more"


def test_installation_needs_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcastd, "__file__", str(Path(site.getsitepackages()[0], "mcastd", "__init__.py")))
    assert "PYTHONPATH" not in server_environment({})


def test_server_runs_by_the_same_interpreter_without_the_working_directory() -> None:
    assert list(process.SERVER_COMMAND) == [sys.executable, "-P", "-s", "-m", "mcastd.runtime.server"]


@pytest.mark.parametrize("status,text", [(0, "exit code 0"), (78, "exit code 78"), (-9, "signal SIGKILL"), (-35, "signal 35")])
def test_status_in_words(status: int, text: str) -> None:
    assert status_text(status) == text


def test_status_of_another_protocol_says_what_to_do() -> None:
    assert status_text(os.EX_PROTOCOL) == "exit code 76: it speaks another protocol, have the keeper re-executed (kill -USR1)"
