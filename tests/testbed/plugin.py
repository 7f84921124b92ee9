"""pytest fixtures of the testbed; loaded by tests/conftest.py."""

import os
from collections.abc import Iterator

import pytest

from tests.testbed.bed import Testbed
from tests.testbed.rights import become_able


def pytest_configure() -> None:
    """Enter a user namespace where that is needed and possible, before anything starts a thread or a worker."""
    become_able()


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
