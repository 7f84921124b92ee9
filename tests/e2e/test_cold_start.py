"""A cold start with 100,000 stored routes: from exec of the daemon to the last kernel entry."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcastd.model.address import Family
from tests.e2e.router import Router, bulk
from tests.e2e.test_crash import seconds_of_imports
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("heavy")]

COUNT = 100_000
BUDGET = 2.0
"""Seconds; on a machine that is busy with other things a start takes as long as several times the imports."""

_log = logging.getLogger(__name__)


@pytest.fixture
def router(testbed: Testbed, family: Family, directory: Path) -> Iterator[Router]:
    """One whose state outlives the daemon."""
    with Router(testbed, family, directory=directory) as made:
        yield made


def test_hundred_thousand_stored_routes_are_soon_in_the_kernel(router: Router) -> None:
    first = router.daemon
    first.replace(bulk(router.family, COUNT, router.source, "down1", "down2"), options={"owner": "bulk"})
    first.process.terminate()
    assert first.process.wait(20) == 0
    assert len(router.dump()) == 0

    imports = seconds_of_imports()
    began = time.monotonic()
    router.start(directory=first.directory, ready=False)
    # A dump of all takes as long as a tenth of the start: so it is not looked at too often.
    wait_until(router.daemon.serving, 30)
    seconds = time.monotonic() - began
    assert len(router.dump()) == COUNT
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": COUNT}
    _log.info("%d routes were in the kernel after %.2f s; imports alone take %.2f s", COUNT, seconds, imports)
    assert seconds < max(BUDGET, 5 * imports)
