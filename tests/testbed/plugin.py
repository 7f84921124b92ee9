"""Fixtures of the testbed, and what a session of tests begins with; loaded by tests/conftest.py."""

import gc
import os
import signal
from collections.abc import Generator, Iterator

import pytest

from tests.testbed.bed import Testbed
from tests.testbed.bytecode import compile_all
from tests.testbed.rights import become_able

NAME_MAX = 120
"""Characters of a parameter that are still part of its test's name."""


def pytest_configure(config: pytest.Config) -> None:
    """Enter a user namespace where that is needed and possible, before anything starts a thread or a worker; compile, once."""
    become_able()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell: programs under test would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        compile_all()


def pytest_make_parametrize_id(val: object) -> str | None:
    """Shorten what is long: a test's name is put into the environment, and where that holds more than 128 KiB nothing starts."""
    if isinstance(val, str | bytes) and len(val) > NAME_MAX:
        return f"{val[: NAME_MAX // 2]!r} and {len(val) - NAME_MAX // 2} more"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among what is collected, then or later: it stays, and each look at it takes a quarter of a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def _able() -> None:
    """Fail where the real kernel cannot be tested although it must be (CI=true), skip elsewhere."""
    reason = become_able()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"the real kernel cannot be tested here: {reason}")
    if reason:
        pytest.skip(reason)


@pytest.fixture
def testbed(_able: None) -> Iterator[Testbed]:
    """An empty network, gone after the test."""
    with Testbed() as bed:
        yield bed
