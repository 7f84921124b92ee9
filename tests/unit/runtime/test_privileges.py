"""The server's fall from power, as far as it can be seen without falling; the rest is tested with real processes."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mcastd.kernel import privileges as kernel_privileges
from mcastd.kernel.privileges import Privileges
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Settings
from mcastd.runtime import privileges

NOTHING = Privileges(0, 0, 0, 0, 0, no_new_privs=True)


def settings(**changes: object) -> Settings:
    values: dict[str, Any] = {"uid": os.getuid(), "gid": os.getgid(), "change_user": False} | changes
    return Settings(listens=(), state_dir="/", user="me", **values)


@pytest.fixture(autouse=True)
def _one_thread_that_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_privileges, "threads", lambda: 1)
    monkeypatch.setattr(kernel_privileges, "drop_bounding_set", lambda: True)
    monkeypatch.setattr(kernel_privileges, "drop_everything", lambda: True)
    monkeypatch.setattr(kernel_privileges, "confine", lambda: True)
    monkeypatch.setattr(kernel_privileges, "current", lambda: NOTHING)


def test_nothing_left_is_fine() -> None:
    privileges.drop(settings())


@pytest.mark.parametrize(
    "left,named",
    [
        ({"permitted": 1}, "permitted"),
        ({"effective": 1}, "effective"),
        ({"inheritable": 1}, "inheritable"),
        ({"ambient": 1}, "ambient"),
        ({"bounding": 1}, "bounding"),
        ({"no_new_privs": False}, "no_new_privs"),
    ],
)
def test_whatever_is_left_is_refused_and_named(monkeypatch: pytest.MonkeyPatch, left: dict[str, Any], named: str) -> None:
    monkeypatch.setattr(kernel_privileges, "current", lambda: NOTHING._replace(**left))
    with pytest.raises(McastdError, match=named) as caught:
        privileges.drop(settings())
    assert caught.value.reason is Reason.NOT_ALLOWED


def test_bounding_set_may_stay_where_it_cannot_be_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_privileges, "drop_everything", lambda: False)
    monkeypatch.setattr(kernel_privileges, "current", lambda: NOTHING._replace(bounding=1))
    privileges.drop(settings())


@pytest.mark.parametrize("change,named", [({"uid": 4_000_000_000}, "user"), ({"gid": 4_000_000_000}, "group")])
def test_wrong_user_is_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(McastdError, match=named):
        privileges.drop(settings(**change))


def test_user_that_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setgroups", refuse)
    with pytest.raises(McastdError, match="not permitted"):
        privileges.drop(settings(change_user=True))


def test_system_without_filters_of_calls_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_privileges, "confine", lambda: False)
    privileges.drop(settings())


def test_threads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(McastdError, match="threads"):
            privileges.drop(settings())
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("score,left", [("-900\n", "0\n"), ("0\n", "0\n"), ("500\n", "500\n")])
def test_protection_from_the_oom_killer_is_given_up_and_nothing_else(tmp_path: Path, score: str, left: str) -> None:
    path = tmp_path / "oom_score_adj"
    path.write_text(score)
    privileges.give_up_protection(path)
    assert path.read_text() == left


def test_protection_that_cannot_be_given_up_stays(tmp_path: Path) -> None:
    privileges.give_up_protection(tmp_path / "missing")
    path = tmp_path / "a directory"
    path.mkdir()
    privileges.give_up_protection(path)
