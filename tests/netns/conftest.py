"""A router in a testbed, wired to the kernel by the adapter under test; every test runs for both families."""

import pytest

from mcastd.model.address import Family
from tests.netns.routed import Routed
from tests.testbed import Testbed


@pytest.fixture(params=list(Family), ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> Family:
    """Both, one after the other."""
    value: Family = request.param
    return value


@pytest.fixture
def routed(testbed: Testbed, family: Family) -> Routed:
    """A router whose VIF 0 leads to the source, and VIFs 1 and 2 to a receiver each."""
    return Routed(testbed, family)
