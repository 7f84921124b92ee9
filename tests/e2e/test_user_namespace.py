"""The same without root: some of these tests again, in a user namespace as `unshare -Urn` makes it."""

import os
import subprocess
import sys

import pytest

from tests.e2e.keeper_bench import ROOT

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("user namespace")]

AGAIN = [
    "test_forwarding.py::test_packets_reach_the_receivers_that_are_routed_to",
    "test_forwarding.py::test_tables_are_opened_when_routes_name_them",
    "test_interfaces.py::test_route_heals_within_a_second_after_its_interface_comes",
    "test_vif_numbers.py::test_number_after_the_server_was_killed_between_deletion_and_rewriting",
    "test_server_privileges.py::test_server_has_no_rights",
    "test_end.py::test_orderly_end_and_the_next_start",
]


@pytest.mark.timeout(300)  # it is many tests
def test_in_a_user_namespace() -> None:
    inner = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")} | {"CI": "true"}
    options = ["-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist"]
    tests = [str(ROOT / "tests" / "e2e" / name) for name in AGAIN]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", "pytest", *options, *tests],
        cwd=ROOT,
        env=inner,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
