"""Fixtures of tests over gRPC."""

from collections.abc import Iterator

import pytest

from tests.api.bench import Bench, bench_context
from tests.e2e.keeper_bench import open_directory


@pytest.fixture(scope="module")
def shared_bench(_able: None) -> Iterator[Bench]:
    """One daemon for a module's tests, which leave nothing but routes in it."""
    yield from bench_context(open_directory())


@pytest.fixture
def bench(shared_bench: Bench) -> Bench:
    """The module's daemon, without routes."""
    shared_bench.clean()
    return shared_bench


@pytest.fixture
def own_bench(_able: None) -> Iterator[Bench]:
    """A daemon for one test alone."""
    yield from bench_context(open_directory())
