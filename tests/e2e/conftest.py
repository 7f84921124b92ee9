"""Fixtures of tests with real processes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mcastd.model.address import Family
from tests.e2e.keeper_bench import KeeperBench, open_directory
from tests.e2e.router import Router
from tests.testbed import Testbed


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for sockets and state, open to all users."""
    with open_directory() as path:
        yield path


@pytest.fixture
def start_keeper(testbed: Testbed, directory: Path) -> Iterator[Callable[..., KeeperBench]]:
    """Start keepers with a fake server; all are ended after the test."""
    with ExitStack() as stack:

        def start(*arguments: str, **options: Any) -> KeeperBench:
            namespace = options.pop("namespace", None) or testbed.namespace("router")
            return stack.enter_context(KeeperBench(namespace, options.pop("directory", directory), *arguments, **options))

        yield start


@pytest.fixture(params=list(Family), ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> Family:
    """Both, one after the other."""
    value: Family = request.param
    return value


@pytest.fixture
def router(testbed: Testbed, family: Family) -> Iterator[Router]:
    """A router with one source and two receivers, whose daemon runs."""
    with Router(testbed, family) as made:
        yield made
