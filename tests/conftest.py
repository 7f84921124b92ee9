"""Options of the whole suite: the hypothesis profile, and what becomes of tests that need a real kernel where there is none."""

import logging
import os
from collections.abc import Iterator

import hypothesis
import pytest

from tests.testbed.rights import become_able

LONG = (
    "deploy/test_container.py",
    "deploy/test_container_upgrades.py",
    "deploy/test_keeper_sidecar.py",
    "e2e/test_learned_flood.py",
    "e2e/test_watch_scale.py",
)
"""What keeps other tests from two processors for long: `make test-full` runs these too, and others at their full size."""

collect_ignore = [] if os.environ.get("MCASTD_TEST_FULL") == "1" else [*LONG]

pytest_plugins = ["tests.testbed.plugin"]

# No deadline: on two busy cores the time of one example says nothing.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `kernel` where it cannot run; in CI that is a failure, since nobody reads skips there."""
    if item.get_closest_marker("kernel") is None:
        return
    reason = become_able()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"the real kernel cannot be tested here: {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Take back what a command line tested in this process did to logging: the level it chose would silence later tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)  # which makes loggers forget what they have found to be below the other level
