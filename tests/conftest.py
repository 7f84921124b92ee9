"""Options of the whole suite: the hypothesis profile, and what becomes of tests that need a real kernel where there is none."""

import os

import hypothesis
import pytest

from tests.testbed.rights import become_able

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
